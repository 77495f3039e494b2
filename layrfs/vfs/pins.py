"""Pins: files and directories whose contents stay on this machine.

Owns how a pin spreads. Must not know rows, hosts or the kernel. A pin is a fact of this machine, not of the volume.
It is a mark that an inode keeps until it is unpinned or deleted: what is made in a pinned directory, linked or moved
into it, is pinned with all that is below; what is moved out stays pinned, for a pin never ends unasked; what takes the
name of a pinned file (a program that saves by renaming) is pinned in its place.

While nothing is pinned, none of this costs a look at the database.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import trio

from layrfs.ids import InodeNumber
from layrfs.storage.pins import PinTable
from layrfs.vfs.keeping import Keeper

LISTED = 256
"""Paths looked for between two looks at what else there is to do."""


class PinStats(msgspec.Struct, frozen=True):
    """All pins at one moment; ``missing_bytes`` are on hosts only, as of the last look."""

    here_bytes: int
    missing_bytes: int
    problem: str | None


class Pins:
    """One volume's. Plain code but for ``run``, ``wait`` and ``topmost``."""

    def __init__(self, table: PinTable, keeper: Keeper) -> None:
        self._table = table
        self._keeper = keeper
        self.any = table.has_any()
        """Whether anything is pinned at all."""

    def is_pinned(self, number: InodeNumber) -> bool:
        """Whether an inode is to stay here."""
        return self.any and self._table.is_pinned(number)

    def pin(self, number: InodeNumber) -> None:
        """Keep a file, or all that is below a directory, and fetch what is missing in the background."""
        self._table.pin(number)
        self.any = True
        self._keeper.look_again()

    def unpin(self, number: InodeNumber) -> None:
        """A file, or all that is below a directory, may leave the cache again."""
        self._table.unpin(number)
        self.any = self._table.has_any()
        self._keeper.look_again()

    # ---- what happens to names

    def named(self, number: InodeNumber, directory: InodeNumber) -> None:
        """An inode has got a name in a directory."""
        if self.any and self._table.is_pinned(directory) and not self._table.is_pinned(number):
            self.pin(number)

    def moved(self, number: InodeNumber, directory: InodeNumber, replaced: InodeNumber | None = None) -> None:
        """An inode was moved to a directory, there to take the name of ``replaced``."""
        self.named(number, directory)
        if replaced is not None:
            self.named(number, replaced)  # a pin of what had the name is as good as the directory's

    def gone(self, number: InodeNumber) -> None:
        """Anything but a file was removed."""
        if self.any:
            self._table.forget(number)

    # ---- keeping them

    def look_again(self) -> None:
        """Something may have changed: hosts have come, or somebody else wrote to the volume."""
        self._keeper.look_again()

    async def run(self) -> None:
        """Fetch what is pinned and not here; until cancelled."""
        await self._keeper.run()

    async def wait(self, progress: Callable[[int, int], None]) -> None:
        """Return when all that is pinned is here. Tries for ever; ``progress`` is told bytes here and bytes missing."""
        await self._keeper.wait(progress)

    async def count(self) -> None:
        """Have ``stats`` say what is missing at this moment."""
        await self._keeper.count()

    async def topmost(self) -> list[InodeNumber]:
        """What is pinned but for what is in a pinned directory."""
        found: list[InodeNumber] = []
        while self.any and (some := self._table.topmost(found[-1] if found else InodeNumber(0), LISTED)):
            found += some
            await trio.lowlevel.checkpoint()
        return found

    def stats(self) -> PinStats:
        """For ``layrfs status``."""
        if not self.any:
            return PinStats(0, 0, None)
        return PinStats(self._table.bytes_here(), self._keeper.missing_bytes, self._keeper.problem)
