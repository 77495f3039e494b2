"""The end of deleted files: rows first, then the disk waits for them, then bytes.

Owns what is still to be removed. Must not know names, or who has a file open: the caller says when nobody has.
Invariant: a cache file goes only when the end of its rows is on the disk. Before that a power cut may bring the rows
back, and with them the name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from layrfs.crashpoints import reached
from layrfs.ids import InodeNumber
from layrfs.vfs.shelf import Shelf

BLOCKS_TOGETHER = 1024
"""Blocks of a deleted file whose rows go in one step."""


class Removals:
    """Plain code but for ``finish``."""

    def __init__(
        self,
        shelf: Shelf,
        sync_rows: Callable[[], Awaitable[None]],
        in_thread: Callable[[Callable[[], None]], Awaitable[None]],
    ) -> None:
        self._shelf = shelf
        self._sync_rows = sync_rows
        self._in_thread = in_thread
        self._removing: dict[InodeNumber, int] = {}
        self._unlinking: list[InodeNumber] = []

    def remove(self, inode: InodeNumber, block_bytes: int) -> None:
        """The file was deleted and is not open: its rows go now, or in steps if there are many, its bytes later."""
        if self._shelf.remove(inode, block_bytes, BLOCKS_TOGETHER):
            self._unlinking.append(inode)
        else:
            self._removing[inode] = block_bytes

    def remove_bytes(self, inode: InodeNumber) -> None:
        """The rows are gone already."""
        self._unlinking.append(inode)

    async def finish(self) -> None:
        """What was removed up to now goes altogether. Raises ``LocalError``."""
        for inode, block_bytes in list(self._removing.items()):
            while not self._shelf.remove(inode, block_bytes, BLOCKS_TOGETHER):
                await trio.lowlevel.checkpoint()
            del self._removing[inode]
            self._unlinking.append(inode)
        if self._unlinking:
            gone, self._unlinking = self._unlinking, []
            try:
                await self._sync_rows()
                reached("removal synced")
                await self._in_thread(lambda: self.unlink(gone))
            except BaseException:
                self._unlinking += gone  # for another time
                raise
            reached("removed")
            self._shelf.ledger.moved()

    def finish_rows(self) -> Sequence[InodeNumber]:
        """At the end: all rows go; the files that ``unlink`` may delete once that is on the disk."""
        for inode, block_bytes in self._removing.items():
            while not self._shelf.remove(inode, block_bytes, BLOCKS_TOGETHER):
                pass
            self._unlinking.append(inode)
        self._removing.clear()
        gone, self._unlinking = self._unlinking, []
        return gone

    def unlink(self, inodes: Sequence[InodeNumber]) -> None:
        """Delete cache files; blocks for as long as the disk does."""
        for inode in inodes:
            self._shelf.files.remove(inode)
