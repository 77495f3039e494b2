"""What the drive answers to ``layrfs pin`` and ``unpin``.

Translates between paths and inodes, and nothing else; what a pin means is ``layrfs.vfs.pins``'s business.
"""

from __future__ import annotations

from layrfs.control import commands
from layrfs.control.commands import Progress
from layrfs.model.status import PinReport, ProgressReport
from layrfs.vfs.contents import Contents
from layrfs.vfs.filesystem import Filesystem


class Pinning:
    """The handlers."""

    def __init__(self, contents: Contents, filesystem: Filesystem) -> None:
        self._contents = contents
        self._filesystem = filesystem

    def table(self) -> list[commands.Bound]:
        """For the control socket's table."""
        return [
            commands.PIN.bind(self.pin),
            commands.UNPIN.bind(self.unpin),
            commands.PINS.bind(self.pins),
            commands.PINS_WAIT.bind(self.wait),
        ]

    async def pin(self, request: commands.AtPath, _progress: Progress) -> PinReport:
        self._contents.pins.pin(self._filesystem.resolve(request.path).number)
        await self._contents.pins.count()
        return await self._report()

    async def unpin(self, request: commands.AtPath, _progress: Progress) -> PinReport:
        self._contents.pins.unpin(self._filesystem.resolve(request.path).number)
        await self._contents.pins.count()
        return await self._report()

    async def pins(self, _request: commands.Nothing, _progress: Progress) -> PinReport:
        return await self._report()

    async def wait(self, _request: commands.Nothing, progress: Progress) -> PinReport:
        def report(here_bytes: int, missing_bytes: int) -> None:
            problem = self._contents.pins.stats().problem or ""
            progress(ProgressReport(here_bytes, here_bytes + missing_bytes, problem))

        await self._contents.pins.wait(report)
        return await self._report()

    async def _report(self) -> PinReport:
        paths = [self._filesystem.path_of(number) for number in await self._contents.pins.topmost()]
        stats = self._contents.pins.stats()
        return PinReport(
            tuple(path for path in paths if path is not None),
            stats.here_bytes,
            stats.missing_bytes,
            self._contents.stats().limit_bytes,
            stats.problem or "",
        )
