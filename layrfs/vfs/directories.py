"""Names: looking them up, making, moving and dropping them.

Owns link counts, the times that names change, and the rules of rename. Must not know bytes, handles or callers.

The invariant: an inode's link count is the number of its names (a directory's is two more than the directories in
it), and it is zero exactly when the inode has no name. Checks come before the first change: an operation that raises
has changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from layrfs.errors import (
    AlreadyExists,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    TooManyLinks,
)
from layrfs.ids import ROOT_INODE, InodeNumber
from layrfs.storage.tree import Tree
from layrfs.vfs.inodes import Inode, Inodes

MAX_NAME_BYTES = 255
MAX_LINKS = 2**31 - 1

LISTED_TOGETHER = 32
"""Names looked up at once: about what the kernel asks for in one request."""

DOT_COOKIE = 1
DOT_DOT_COOKIE = 2
"""Positions in a listing: a name's is its cookie plus this."""


class Listing(NamedTuple):
    """One line of a directory's listing; ``position`` is where the next one starts."""

    name: bytes
    inode: Inode
    position: int


class Directories:
    """The tree of names."""

    def __init__(self, tree: Tree, inodes: Inodes) -> None:
        self._tree = tree
        self._inodes = inodes

    def find(self, parent: InodeNumber, name: bytes) -> Inode | None:
        """The inode a name stands for, or None. Raises ``NameTooLong``, ``NotADirectory``, ``NotFound`` (no parent)."""
        number = self._tree.find(parent, name)
        if number is not None:
            return self._inodes.get(number)
        if name in {b".", b".."}:
            return self._inodes.get(parent if name == b"." else self.parent_of(parent))
        _check_name(name)
        self._directory(parent)
        return None

    def parent_of(self, directory: InodeNumber) -> InodeNumber:
        """The directory that holds a directory; the root's is the root."""
        return self._tree.parent_of(directory) or ROOT_INODE

    def check_new(self, parent: InodeNumber, name: bytes) -> Inode:
        """The parent directory, once it is sure that ``name`` can be made in it."""
        _check_name(name)
        directory = self._directory(parent)
        if not directory.nlink:
            raise NotFound("The directory has been removed.")
        if self._tree.find(parent, name) is not None:
            raise AlreadyExists("The name is taken.")
        return directory

    def add(self, parent: Inode, name: bytes, inode: Inode) -> None:
        """Give an inode a name that ``check_new`` found free."""
        self._tree.add(parent.number, name, inode.number)
        inode.nlink += 2 if inode.is_directory else 1
        inode.ctime_ns = self._inodes.now_ns()
        self._inodes.changed(inode)
        self._touch(parent, subdirectories=1 if inode.is_directory else 0)

    def link(self, number: InodeNumber, parent: InodeNumber, name: bytes) -> Inode:
        """Another name for an inode."""
        inode = self._inodes.get(number)
        if inode.is_directory:
            raise NotPermitted("Directories have one name only.")
        if not inode.nlink:
            raise NotFound("The file has been removed.")
        if inode.nlink >= MAX_LINKS:
            raise TooManyLinks("The file has too many names already.")
        self.add(self.check_new(parent, name), name, inode)
        return inode

    def unlink(self, parent: InodeNumber, name: bytes) -> Inode:
        """Drop a name of anything but a directory; the inode, which may have no name left."""
        directory, inode = self._existing(parent, name)
        if inode.is_directory:
            raise IsADirectory("It is a directory.")
        self._tree.remove(parent, name)
        self._lost_name(inode)
        self._touch(directory)
        return inode

    def rmdir(self, parent: InodeNumber, name: bytes) -> Inode:
        """Remove an empty directory; its inode, without a name now."""
        directory, inode = self._existing(parent, name)
        if not inode.is_directory:
            raise NotADirectory("It is not a directory.")
        if not self._tree.is_empty(inode.number):
            raise NotEmpty("The directory is not empty.")
        self._tree.remove(parent, name)
        self._lost_name(inode)
        self._touch(directory, subdirectories=-1)
        return inode

    def rename(
        self,
        parent: InodeNumber,
        name: bytes,
        new_parent: InodeNumber,
        new_name: bytes,
        *,
        replace: bool = True,
    ) -> Inode | None:
        """Move a name; the inode that lost this name because the moved one took it, if any."""
        directory, inode = self._existing(parent, name)
        new_directory = self._directory(new_parent)
        _check_name(new_name)
        if not new_directory.nlink:
            raise NotFound("The directory has been removed.")
        target = self.find(new_parent, new_name)
        if target is not None and not replace:
            raise AlreadyExists("The name is taken.")
        if target is inode:
            return None
        self._check_not_inside(inode, new_parent, parent)
        if target is not None:
            self._check_replaceable(inode, target)
        self._move(directory, name, new_directory, new_name, inode, target)
        return target

    def exchange(self, parent: InodeNumber, name: bytes, new_parent: InodeNumber, new_name: bytes) -> None:
        """Swap what two names stand for."""
        directory, inode = self._existing(parent, name)
        new_directory, other = self._existing(new_parent, new_name)
        self._check_not_inside(inode, new_parent, parent)
        self._check_not_inside(other, parent, new_parent)
        if inode is other:
            return
        self._tree.repoint(parent, name, other.number)
        self._tree.repoint(new_parent, new_name, inode.number)
        moved = int(inode.is_directory) - int(other.is_directory)
        for exchanged in (inode, other):
            exchanged.ctime_ns = self._inodes.now_ns()
            self._inodes.changed(exchanged)
        self._touch_both(directory, new_directory, moved)

    def listing(self, number: InodeNumber, position: int) -> Iterator[Listing]:
        """The names from ``position`` (0: the start) on, ``.`` and ``..`` first, read as they are asked for.

        Positions stay good whatever is made or removed meanwhile. Do not await while iterating.
        """
        if position < DOT_COOKIE:
            yield Listing(b".", self._inodes.get(number), DOT_COOKIE)
        if position < DOT_DOT_COOKIE:
            yield Listing(b"..", self._inodes.get(self.parent_of(number)), DOT_DOT_COOKIE)
        after = max(0, position - DOT_DOT_COOKIE)
        while lines := self._tree.listing(number, after, LISTED_TOGETHER):
            if not all(self._inodes.has(line.inode) for line in lines):
                self._inodes.keep(self._tree.load_listed(number, after, lines[-1].cookie))
            for after, name, inode in lines:
                yield Listing(name, self._inodes.get(inode), after + DOT_DOT_COOKIE)

    def _directory(self, number: InodeNumber) -> Inode:
        inode = self._inodes.get(number)
        if not inode.is_directory:
            raise NotADirectory("It is not a directory.")
        return inode

    def _existing(self, parent: InodeNumber, name: bytes) -> tuple[Inode, Inode]:
        directory = self._directory(parent)
        _check_name(name)
        inode = self.find(parent, name)
        if inode is None:
            raise NotFound("No such name.")
        return directory, inode

    def _check_not_inside(self, inode: Inode, new_parent: InodeNumber, parent: InodeNumber) -> None:
        if not inode.is_directory or new_parent == parent:
            return
        above = new_parent
        while above != ROOT_INODE:
            if above == inode.number:
                raise InvalidArgument("A directory cannot be moved into itself.")
            above = self.parent_of(above)

    def _check_replaceable(self, inode: Inode, target: Inode) -> None:
        if target.is_directory and not inode.is_directory:
            raise IsADirectory("A directory is in the way.")
        if inode.is_directory and not target.is_directory:
            raise NotADirectory("A file is in the way of a directory.")
        if target.is_directory and not self._tree.is_empty(target.number):
            raise NotEmpty("A directory that is not empty is in the way.")

    def _move(
        self, directory: Inode, name: bytes, new_directory: Inode, new_name: bytes, inode: Inode, target: Inode | None
    ) -> None:
        moved = 1 if inode.is_directory else 0
        if target is None:
            self._tree.move(directory.number, name, new_directory.number, new_name)
        else:  # the name that stays keeps its place, so that no listing misses it
            self._tree.remove(directory.number, name)
            self._tree.repoint(new_directory.number, new_name, inode.number)
            self._lost_name(target)
            new_directory.nlink -= moved
        inode.ctime_ns = self._inodes.now_ns()
        self._inodes.changed(inode)
        self._touch_both(directory, new_directory, moved)

    def _lost_name(self, inode: Inode) -> None:
        inode.nlink = 0 if inode.is_directory else inode.nlink - 1
        inode.ctime_ns = self._inodes.now_ns()
        self._inodes.changed(inode)

    def _touch_both(self, directory: Inode, new_directory: Inode, moved_directories: int) -> None:
        self._touch(directory, subdirectories=-moved_directories)
        self._touch(new_directory, subdirectories=moved_directories)

    def _touch(self, directory: Inode, *, subdirectories: int = 0) -> None:
        directory.nlink += subdirectories
        directory.mtime_ns = directory.ctime_ns = self._inodes.now_ns()
        self._inodes.changed(directory)


def _check_name(name: bytes) -> None:
    if len(name) > MAX_NAME_BYTES:
        raise NameTooLong(f"A name has at most {MAX_NAME_BYTES} bytes.")
    if name in {b"", b".", b".."} or b"/" in name or b"\0" in name:
        raise InvalidArgument("That cannot be a name.")
