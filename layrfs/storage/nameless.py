"""Files that nobody can find get names in ``/lost+found``.

Owns that directory and the search for what cannot be reached from the root. Must not know why it cannot. Invariant:
an inode keeps its number, and so its blocks and its cache file; nothing is ever removed here but names in a circle.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from typing import NamedTuple

from layrfs.ids import ROOT_INODE, InodeNumber
from layrfs.model.sharding import BLOCK_STEP_BYTES, MAX_BLOCK_BYTES, MIN_BLOCK_BYTES
from layrfs.storage.database import Database
from layrfs.storage.tree import Tree

NAME = b"lost+found"
_UNREACHABLE = (
    "WITH RECURSIVE reached(number) AS (VALUES(1)"
    " UNION SELECT e.inode FROM reached CROSS JOIN entry e INDEXED BY entry_parent ON e.parent = reached.number)"
    " SELECT number FROM inode WHERE number NOT IN (SELECT number FROM reached)"
    " AND (?1 = 0 OR nlink > 0 OR EXISTS (SELECT 1 FROM entry e WHERE e.inode = inode.number)) ORDER BY number"
)
_MISSING = "SELECT inode FROM block UNION SELECT inode FROM local EXCEPT SELECT number FROM inode"
_BLOCKS = "SELECT max(number), max(length) FROM block WHERE inode = ?"


class Owner(NamedTuple):
    """Whom new files belong to, and when they are made."""

    uid: int
    gid: int
    now_ns: int


class Nameless:
    """Plain code, in the open transaction. Counters of the volume must be right: it gives out numbers."""

    def __init__(self, database: Database, owner: Owner) -> None:
        self._database = database
        self._owner = owner

    def unreachable(self, *, unclean: bool) -> list[InodeNumber]:
        """Inodes that no path leads to. After a crash those without a name were deleted while they were open."""
        return [row[0] for row in self._database.rows(_UNREACHABLE, (unclean,))]

    def missing(self, *, unclean: bool) -> list[InodeNumber]:
        """Inodes that have blocks or bytes in the cache, and no row. After a crash, of those the ones with a name."""
        found = [row[0] for row in self._database.rows(_MISSING)]
        return [inode for inode in found if self._has_name(inode)] if unclean else found

    def attach(self, *, unclean: bool) -> int:
        """Give names to what cannot be reached; how many got one."""
        attached = 0
        while found := self.unreachable(unclean=unclean):
            heads = [inode for inode in found if not self._has_name(inode)]
            if not heads:  # directories in a circle: one of them is taken out of it
                heads = found[:1]
                self._database.write("DELETE FROM entry WHERE inode = ?", (heads[0],))
            self._name(heads)
            attached += len(heads)
        return attached

    def revive(self, inode: InodeNumber, size: int = 0) -> None:
        """Make the row of a file of which nothing but blocks, or ``size`` bytes in the cache, are left."""
        last, longest = self._database.row(_BLOCKS, (inode,)) or (None, None)
        block_bytes = _block_bytes(last or 0, longest or 0)
        size = max(size, 0 if last is None else last * block_bytes + longest)
        self._save(inode, stat.S_IFREG | 0o600, size, block_bytes)

    def make_root(self) -> None:
        """A root directory where there is none."""
        self._save(ROOT_INODE, stat.S_IFDIR | 0o755, 0, MAX_BLOCK_BYTES)

    def _has_name(self, inode: InodeNumber) -> bool:
        return self._database.value("SELECT 1 FROM entry WHERE inode = ? LIMIT 1", (inode,)) is not None

    def _name(self, inodes: Sequence[InodeNumber]) -> None:
        tree = Tree(self._database)
        directory = self._directory(tree)
        for inode in inodes:
            name, again = b"#%d" % inode, 1
            while tree.find(directory, name) is not None:
                again += 1
                name = b"#%d-%d" % (inode, again)
            tree.add(directory, name, inode)

    def _directory(self, tree: Tree) -> InodeNumber:
        name, again = NAME, 1
        while (found := tree.find(ROOT_INODE, name)) is not None:
            row = tree.load(found)
            if row is not None and stat.S_ISDIR(row[1]):
                return found
            again += 1
            name = b"%s-%d" % (NAME, again)
        number = tree.new_number()
        self._save(number, stat.S_IFDIR | 0o700, 0, MAX_BLOCK_BYTES)
        tree.add(ROOT_INODE, name, number)
        return number

    def _save(self, inode: InodeNumber, mode: int, size: int, block_bytes: int) -> None:
        uid, gid, now = self._owner
        links = 2 if stat.S_ISDIR(mode) else 1
        row = (inode, mode, uid, gid, links, size, block_bytes, 0, now, now, now, None)
        Tree(self._database).save([row])


def _block_bytes(last: int, longest: int) -> int:
    """Of a file in several blocks the longest tells; of one block nothing can be told, and need not."""
    if last == 0:
        return MAX_BLOCK_BYTES
    return min(MAX_BLOCK_BYTES, max(MIN_BLOCK_BYTES, -(-longest // BLOCK_STEP_BYTES) * BLOCK_STEP_BYTES))
