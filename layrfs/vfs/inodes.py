"""The attributes of inodes in memory: a bounded cache over the table.

Owns every attribute between two commits. Must not know names or bytes.

The invariants: there is at most one ``Inode`` object per number, and a changed one stays in memory until its row is
written, in the same transaction as the names that led to the change. Nobody keeps an ``Inode`` across an ``await``:
ask again, it is a dictionary look-up.
"""

from __future__ import annotations

import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet

from layrfs.errors import NotFound
from layrfs.ids import ROOT_INODE, InodeNumber
from layrfs.storage.tree import InodeRow, Tree

CAPACITY = 20_000
"""Inodes kept in memory, about 600 bytes each."""

FLUSH_AT = 512
"""So many changed inodes are written at once rather than at the next commit: short pauses instead of a long one."""

EVICTED_TOGETHER = 64
DEFAULT_BLOCK_BYTES = 4 * 1024 * 1024
CLOCK_REALTIME_COARSE = 5
"""From linux/time.h; the time module has no name for it."""


def coarse_now_ns() -> int:
    """The kernel's own coarse clock: times it sets itself under the writeback cache must not run behind ours."""
    return time.clock_gettime_ns(CLOCK_REALTIME_COARSE)


class Inode:
    """What ``stat`` tells, and a little that spares us the database. Change a field, then call ``Inodes.changed``."""

    __slots__ = (
        "atime_ns",
        "block_bytes",
        "ctime_ns",
        "gid",
        "has_attributes",
        "listed",
        "mode",
        "mtime_ns",
        "nlink",
        "number",
        "rdev",
        "shown",
        "size",
        "stored_bytes",
        "target",
        "uid",
    )

    def __init__(self, row: InodeRow) -> None:
        (
            number,
            self.mode,
            self.uid,
            self.gid,
            self.nlink,
            self.size,
            self.block_bytes,
            self.rdev,
            self.atime_ns,
            self.mtime_ns,
            self.ctime_ns,
            self.target,
        ) = row
        self.number = InodeNumber(number)
        self.has_attributes: bool | None = None
        """Whether there are extended attributes; None when nobody asked the table yet."""
        self.stored_bytes: int | None = None
        """What the file occupies, holes left out; None when it may have changed since the last count."""
        self.shown: object = None
        self.listed: object = None
        """What a front end made of the attributes, exactly and for listings; gone after every change."""

    def row(self) -> InodeRow:
        """The row to save."""
        return (
            self.number,
            self.mode,
            self.uid,
            self.gid,
            self.nlink,
            self.size,
            self.block_bytes,
            self.rdev,
            self.atime_ns,
            self.mtime_ns,
            self.ctime_ns,
            self.target,
        )

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)


class Inodes:
    """All inodes of the volume, the recently used ones in memory."""

    def __init__(self, tree: Tree, *, capacity: int = CAPACITY, now_ns: Callable[[], int] = coarse_now_ns) -> None:
        """Call ``flush`` before every commit: ``database.before_commit(inodes.flush)``."""
        self._tree = tree
        self._capacity = capacity
        self._cached: OrderedDict[int, Inode] = OrderedDict()
        self._changed: dict[int, Inode] = {}
        self._removed: dict[InodeNumber, Inode] = {}
        """Without a row, though somebody needs them: above all, removed by another machine while they are open here."""
        self.now_ns = now_ns

    def get(self, number: InodeNumber) -> Inode:
        """The inode; raises ``NotFound`` when there is none."""
        inode = self._cached.get(number)
        if inode is not None:
            self._cached.move_to_end(number)
            return inode
        row = self._tree.load(number)
        if row is None and number in self._removed:
            return self._removed[number]
        if row is None:
            raise NotFound(f"There is no inode {number}.")
        return self._keep(Inode(row))

    def has(self, number: InodeNumber) -> bool:
        """Whether the inode is in memory."""
        return number in self._cached

    def keep(self, rows: Iterable[InodeRow]) -> None:
        """Have the inodes of rows just read in memory; one that is there already stays what it is."""
        for row in rows:
            if row[0] not in self._cached:
                self._keep(Inode(row))

    def keep_removed(self, number: InodeNumber) -> None:
        """The inode's row is about to go, and somebody still needs the inode: until ``drop_removed``."""
        self._removed[number] = self.get(number)

    def is_removed(self, number: InodeNumber) -> bool:
        """Whether the inode is one of those."""
        return number in self._removed

    def drop_removed(self, number: InodeNumber) -> bool:
        """Nobody needs the inode any more; whether it was one of those."""
        return self._removed.pop(number, None) is not None

    def refresh(self, numbers: AbstractSet[InodeNumber]) -> list[InodeNumber]:
        """The rows of some inodes are those of another version now; those that had been removed and are back.

        None may have been ``changed`` here.
        """
        for number in numbers:
            self._cached.pop(number, None)
        back = [number for number in self._removed.keys() & numbers if self._tree.load(number) is not None]
        for number in back:
            del self._removed[number]
        return back

    def new(self, *, mode: int, uid: int, gid: int, rdev: int = 0, target: bytes | None = None) -> Inode:
        """A new inode without a name yet: link count 0, and not ``changed`` yet."""
        return self._new(self._tree.new_number(), mode, uid, gid, rdev, target)

    def make_root(self, *, mode: int, uid: int, gid: int, is_recorded: bool = True) -> Inode:
        """The root directory of an empty volume, its own parent; not ``recorded``: until another machine makes one."""
        root = self._new(ROOT_INODE, mode, uid, gid, 0, None)
        root.nlink = 2
        if is_recorded:
            self._tree.count_root()
            self.changed(root)
        else:
            self._removed[ROOT_INODE] = root
        return root

    def changed(self, inode: Inode) -> None:
        """The inode's row must be written before the next commit."""
        inode.shown = inode.listed = None
        self._changed[inode.number] = inode
        if len(self._changed) >= FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Write every changed inode into the open transaction."""
        if self._changed:
            self._tree.save([inode.row() for inode in self._changed.values()])
            self._changed.clear()
        self._tree.save_count()

    def delete(self, inode: Inode) -> None:
        """Forget the inode for good."""
        self._changed.pop(inode.number, None)
        self._cached.pop(inode.number, None)
        self._tree.delete(inode.number)

    def size_of(self, number: InodeNumber) -> int:
        """The file's size in bytes; raises ``NotFound``."""
        return self.get(number).size

    def block_bytes_of(self, number: InodeNumber) -> int:
        """The length of the file's blocks; raises ``NotFound``."""
        return self.get(number).block_bytes

    def set_block_bytes(self, number: InodeNumber, block_bytes: int) -> None:
        """Divide the file differently; the caller sees to it that no block is recorded under the old division."""
        inode = self.get(number)
        if inode.block_bytes != block_bytes:
            inode.block_bytes = block_bytes
            self.changed(inode)

    def _new(self, number: InodeNumber, mode: int, uid: int, gid: int, rdev: int, target: bytes | None) -> Inode:
        now = self.now_ns()
        size = 0 if target is None else len(target)
        inode = Inode((number, mode, uid, gid, 0, size, DEFAULT_BLOCK_BYTES, rdev, now, now, now, target))
        inode.has_attributes = False
        return self._keep(inode)

    def _keep(self, inode: Inode) -> Inode:
        self._cached[inode.number] = inode
        if len(self._cached) > self._capacity + EVICTED_TOGETHER:
            self._evict()
        return inode

    def _evict(self) -> None:
        self.flush()
        while len(self._cached) > self._capacity:
            self._cached.popitem(last=False)
