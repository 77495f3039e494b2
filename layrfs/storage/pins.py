"""Which files and directories are pinned: the column ``pinned`` of ``local_use``, and what follows from it.

Owns that column; ``layrfs.storage.journal`` owns the rest of the rows. Must not know who fetches or evicts. A pin is a
mark on an inode, of files and directories alike, so that a look at one row answers, and so that the index of what may
leave simply lacks what is pinned. Marking everything below a directory is one statement: no crash leaves half of it.
"""

from __future__ import annotations

from typing import NamedTuple

from layrfs.ids import BlockNumber, InodeNumber
from layrfs.storage.database import Database

_BELOW = (
    "WITH RECURSIVE below(inode) AS (VALUES(?1)"
    " UNION SELECT e.inode FROM below CROSS JOIN entry e INDEXED BY entry_parent ON e.parent = below.inode)"
)
_PIN = (
    f"{_BELOW} INSERT INTO local_use(inode, bytes, used, pinned) SELECT inode, 0, 0, 1 FROM below WHERE true"  # noqa: S608 - constant text
    " ON CONFLICT(inode) DO UPDATE SET pinned = 1"
)
_UNPIN = f"{_BELOW} UPDATE local_use SET pinned = 0 WHERE pinned = 1 AND inode IN (SELECT inode FROM below)"  # noqa: S608 - constant text
_TOPMOST = (
    "SELECT u.inode FROM local_use u INDEXED BY local_use_pinned WHERE u.pinned = 1 AND u.inode > ?1"
    " AND NOT EXISTS (SELECT 1 FROM entry e CROSS JOIN local_use p ON p.inode = e.parent"
    "                 WHERE e.inode = u.inode AND p.pinned = 1)"
    " ORDER BY u.inode LIMIT ?2"
)
_BLOCKS = (
    "SELECT b.inode, b.number, b.length FROM block b"
    " WHERE b.inode = ?1 AND b.content <> 0"
    " AND NOT EXISTS (SELECT 1 FROM local l WHERE l.inode = b.inode AND l.block = b.number) ORDER BY b.number"
)


class AbsentBlock(NamedTuple):
    """A block of a pinned file that is on hosts but not here; ``length`` in bytes."""

    inode: InodeNumber
    block: BlockNumber
    length: int


class PinTable:
    """Plain code on the trio thread, in the open transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def is_pinned(self, inode: InodeNumber) -> bool:
        return bool(self._database.value("SELECT pinned FROM local_use WHERE inode = ?", (inode,)))

    def has_any(self) -> bool:
        """Whether anything at all is pinned."""
        return self._database.value("SELECT 1 FROM local_use WHERE pinned = 1 LIMIT 1") is not None

    def pin(self, inode: InodeNumber) -> None:
        """Mark an inode and, of a directory, all that is below it now."""
        self._database.write(_PIN, (inode,))

    def unpin(self, inode: InodeNumber) -> None:
        """Take the marks away again, of all that is below as well."""
        self._database.write(_UNPIN, (inode,))

    def forget(self, inode: InodeNumber) -> None:
        """The inode, which is no file, was removed."""
        self._database.write("DELETE FROM local_use WHERE inode = ?", (inode,))

    def topmost(self, after: InodeNumber, limit: int) -> list[InodeNumber]:
        """The next pinned inodes after one that are in no pinned directory; 0 to begin."""
        return [row[0] for row in self._database.rows(_TOPMOST, (after, limit))]

    def inodes(self, after: InodeNumber, limit: int) -> list[InodeNumber]:
        """The next pinned inodes, directories among them; 0 to begin."""
        rows = self._database.rows(
            "SELECT inode FROM local_use INDEXED BY local_use_pinned WHERE pinned = 1 AND inode > ?"
            " ORDER BY inode LIMIT ?",
            (after, limit),
        )
        return [row[0] for row in rows]

    def absent(self, inode: InodeNumber) -> list[AbsentBlock]:
        """Blocks of an inode that have to be fetched; those lost before they ever reached a host are not."""
        return [AbsentBlock(*row) for row in self._database.rows(_BLOCKS, (inode,))]

    def bytes_here(self) -> int:
        """Bytes of all clean blocks of pinned files in the cache."""
        value: int | None = self._database.value("SELECT sum(bytes) FROM local_use WHERE pinned = 1")
        return value or 0
