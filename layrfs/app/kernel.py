"""What the drive tells the kernel of its own accord, when something is mounted: what it must not remember any more.

Imports ``layrfs.fuse`` only then, so that a drive without a mount needs no FUSE. Only to be used while mounted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio

from layrfs.ids import InodeNumber


class Kernel:
    """Of one drive; without a mountpoint every method does nothing."""

    def __init__(self, mountpoint: str | None) -> None:
        self._mountpoint = mountpoint

    def forget_name(self, directory: InodeNumber, name: bytes) -> None:
        """A name stands for something else now. Returns at once."""
        if self._mountpoint:
            from layrfs.fuse.mounting import forget_name

            forget_name(directory, name)

    async def forget_bytes(self, inodes: Sequence[InodeNumber]) -> None:
        """Files have other bytes now. Waits for reads that are under way."""
        if self._mountpoint and inodes:
            from layrfs.fuse.mounting import forget_bytes

            await trio.to_thread.run_sync(partial(forget_bytes, inodes))

    async def write_back(self) -> None:
        """What was written to files comes to us now."""
        if self._mountpoint:
            from layrfs.fuse.mounting import write_back

            await write_back(self._mountpoint)
