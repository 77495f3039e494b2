"""Cutting files and extending them.

Owns the order of a cut. Must not know handles. Invariant: a smaller size goes into the same commit as the end of the
blocks beyond it.
"""

from __future__ import annotations

from layrfs.errors import InvalidArgument, IsADirectory, LayrError
from layrfs.ids import InodeNumber
from layrfs.vfs import permissions
from layrfs.vfs.contents import Contents
from layrfs.vfs.inodes import Inodes


class Resizing:
    """The sizes of one volume's files."""

    def __init__(self, inodes: Inodes, contents: Contents) -> None:
        self._inodes = inodes
        self._contents = contents

    async def resize(self, number: InodeNumber, size: int) -> None:
        """A regular file has ``size`` bytes from now on. Raises ``IsADirectory``, ``InvalidArgument``."""
        inode = self._inodes.get(number)
        if inode.is_directory:
            raise IsADirectory("It is a directory.")
        if not inode.is_file:
            raise InvalidArgument("Only regular files have a length.")
        old_size = inode.size
        if size != old_size:
            await self._cut(number, old_size, size)
        inode = self._inodes.get(number)
        inode.size = size
        inode.stored_bytes = None
        inode.mtime_ns = inode.ctime_ns = self._inodes.now_ns()
        inode.mode = permissions.without_privileges(inode.mode)
        self._inodes.changed(inode)

    async def _cut(self, number: InodeNumber, old_size: int, size: int) -> None:
        content = self._contents.open(number)
        try:
            self._set_size(number, min(old_size, size))
            await content.truncate(old_size, size)
        except LayrError:
            self._set_size(number, old_size)
            raise
        finally:
            self._contents.release(content)

    def _set_size(self, number: InodeNumber, size: int) -> None:
        inode = self._inodes.get(number)
        inode.size = size
        self._inodes.changed(inode)
