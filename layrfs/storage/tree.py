"""Inodes, names and extended attributes as rows.

Owns the SQL of the tables ``inode``, ``entry`` and ``attribute``, and the two counters that give out inode numbers and
cookies. Must not know what the rows mean: link counts, times and permissions are ``layrfs.vfs``'s business.

The invariant: an inode number is never given out twice in the life of a volume. Numbers are reserved in the database
a thousand at a time, so a crash skips some and repeats none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from layrfs.ids import ROOT_INODE, InodeNumber
from layrfs.storage.database import Database

NUMBERS_RESERVED = 1024

_COLUMNS = "number, mode, uid, gid, nlink, size, block_bytes, rdev, atime_ns, mtime_ns, ctime_ns, target"
_SAVE = f"INSERT OR REPLACE INTO inode({_COLUMNS}) VALUES(?,?,?,?,?,?,?,?,?,?,?,?)"
_LOAD = f"SELECT {_COLUMNS} FROM inode WHERE number = ?"  # noqa: S608
_NAMES = "SELECT cookie, name, inode FROM entry WHERE parent = ? AND cookie > ? ORDER BY cookie LIMIT ?"
_ROWS = (
    "SELECT inode.* FROM entry CROSS JOIN inode ON inode.number = entry.inode "
    "WHERE entry.parent = ? AND entry.cookie > ? AND entry.cookie <= ?"
)
_STORED_BLOCKS = (
    "SELECT count(*) FROM (SELECT number FROM block WHERE inode = ?1 UNION SELECT block FROM local WHERE inode = ?1"
    " UNION SELECT block FROM unsent WHERE inode = ?1)"
)

InodeRow = tuple[int, int, int, int, int, int, int, int, int, int, int, bytes | None]
"""number, mode, uid, gid, nlink, size, block_bytes, rdev, atime_ns, mtime_ns, ctime_ns, target."""


class Listed(NamedTuple):
    """One name of a directory."""

    cookie: int
    name: bytes
    inode: InodeNumber


class Tree:
    """The volume's names. Plain code; the caller decides when to commit."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._next_number = self._numbers_end = self._next_cookie = self._count = 0
        self._saved_count: int | None = None
        self.refresh()

    def refresh(self) -> None:
        """Read the counters again: the rows are those of another version now."""
        value = self._database.value
        self._next_number = self._numbers_end = (
            value("SELECT value FROM volume WHERE name = 'next_inode'") or ROOT_INODE + 1
        )
        self._next_cookie = (value("SELECT max(cookie) FROM entry") or 0) + 1
        self._saved_count = value("SELECT value FROM volume WHERE name = 'inodes'")
        self._count = value("SELECT count(*) FROM inode") if self._saved_count is None else self._saved_count

    @property
    def inode_count(self) -> int:
        """How many inodes the volume has, the unsaved ones included."""
        return self._count

    def new_number(self) -> InodeNumber:
        """An inode number never used before."""
        if self._next_number >= self._numbers_end:
            self._numbers_end = self._next_number + NUMBERS_RESERVED
            self._remember("next_inode", self._numbers_end)
        number = self._next_number
        self._next_number += 1
        self._count += 1
        return InodeNumber(number)

    def count_root(self) -> None:
        """The root directory's number is not given out by ``new_number``, but it counts."""
        self._count += 1

    def load(self, inode: InodeNumber) -> InodeRow | None:
        """The saved attributes of an inode."""
        return self._database.row(_LOAD, (inode,))

    def save(self, rows: Iterable[InodeRow]) -> None:
        """Insert or update inodes."""
        self._database.write_many(_SAVE, rows)

    def save_count(self) -> None:
        """Save how many inodes there are, when that changed."""
        if self._saved_count != self._count:
            self._remember("inodes", self._count)
            self._saved_count = self._count

    def delete(self, inode: InodeNumber) -> None:
        """Drop an inode and its attributes. Its entries are gone already."""
        self._database.write("DELETE FROM inode WHERE number = ?", (inode,))
        self._database.write("DELETE FROM attribute WHERE inode = ?", (inode,))
        self._count -= 1

    def orphans(self) -> list[InodeNumber]:
        """Inodes without a name: unlinked while open when the last mount ended."""
        return [row[0] for row in self._database.rows("SELECT number FROM inode WHERE nlink = 0")]

    def find(self, parent: InodeNumber, name: bytes) -> InodeNumber | None:
        """The inode a name stands for."""
        found = self._database.row("SELECT inode FROM entry WHERE parent = ? AND name = ?", (parent, name))
        return None if found is None else found[0]

    def add(self, parent: InodeNumber, name: bytes, inode: InodeNumber) -> None:
        """A new name; the name must be free."""
        self._database.write("INSERT INTO entry VALUES(?,?,?,?)", (self._next_cookie, parent, name, inode))
        self._next_cookie += 1

    def remove(self, parent: InodeNumber, name: bytes) -> None:
        """Drop a name."""
        self._database.write("DELETE FROM entry WHERE parent = ? AND name = ?", (parent, name))

    def repoint(self, parent: InodeNumber, name: bytes, inode: InodeNumber) -> None:
        """Let an existing name stand for another inode; its place in the directory's order stays."""
        self._database.write("UPDATE entry SET inode = ? WHERE parent = ? AND name = ?", (inode, parent, name))

    def move(self, parent: InodeNumber, name: bytes, new_parent: InodeNumber, new_name: bytes) -> None:
        """Rename an entry; the new name must be free."""
        self._database.write(
            "UPDATE entry SET parent = ?, name = ? WHERE parent = ? AND name = ?", (new_parent, new_name, parent, name)
        )

    def is_empty(self, directory: InodeNumber) -> bool:
        """Whether a directory has no names."""
        return self._database.row("SELECT 1 FROM entry WHERE parent = ? LIMIT 1", (directory,)) is None

    def parent_of(self, directory: InodeNumber) -> InodeNumber | None:
        """The directory that a directory is in; None for the root and for a removed one."""
        found = self._database.row("SELECT parent FROM entry WHERE inode = ? LIMIT 1", (directory,))
        return None if found is None else found[0]

    def path_of(self, inode: InodeNumber) -> bytes | None:
        """One path of an inode from the root (``/a/b``); None when it has no name any more."""
        parts: list[bytes] = []
        while inode != ROOT_INODE:
            found = self._database.row("SELECT parent, name FROM entry WHERE inode = ? LIMIT 1", (inode,))
            if found is None:
                return None
            inode = found[0]
            parts.append(found[1])
        return b"/" + b"/".join(reversed(parts))

    def listing(self, directory: InodeNumber, after: int, limit: int) -> list[Listed]:
        """At most ``limit`` names with a cookie greater than ``after``, in cookie order."""
        return list(map(Listed._make, self._database.rows(_NAMES, (directory, after, limit))))

    def load_listed(self, directory: InodeNumber, after: int, last: int) -> list[InodeRow]:
        """The saved attributes behind the names with cookies from ``after`` (exclusive) to ``last``."""
        return list(self._database.rows(_ROWS, (directory, after, last)))

    def stored_blocks(self, inode: InodeNumber) -> int:
        """How many blocks of a file are not holes."""
        return int(self._database.value(_STORED_BLOCKS, (inode,)))

    def attribute(self, inode: InodeNumber, name: bytes) -> bytes | None:
        """The value of an extended attribute."""
        found = self._database.row("SELECT value FROM attribute WHERE inode = ? AND name = ?", (inode, name))
        return None if found is None else found[0]

    def attributes(self, inode: InodeNumber) -> dict[bytes, bytes]:
        """All extended attributes of an inode."""
        return dict(self._database.rows("SELECT name, value FROM attribute WHERE inode = ?", (inode,)))

    def set_attribute(self, inode: InodeNumber, name: bytes, value: bytes) -> None:
        """Create or replace an extended attribute."""
        self._database.write("INSERT OR REPLACE INTO attribute VALUES(?,?,?)", (inode, name, value))

    def remove_attribute(self, inode: InodeNumber, name: bytes) -> None:
        """Drop an extended attribute."""
        self._database.write("DELETE FROM attribute WHERE inode = ? AND name = ?", (inode, name))

    def _remember(self, name: str, value: int) -> None:
        self._database.write("INSERT OR REPLACE INTO volume VALUES(?,?)", (name, value))
