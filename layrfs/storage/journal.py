"""What of the volume is in this machine's cache, and what of that is not on hosts yet.

Owns the tables ``local``, ``local_replaced``, ``local_use`` and ``local_mark``. Must not know cache files or the
network. A row of ``local`` says that a block's bytes are in the cache file; ``dirty = 1`` that hosts do not have them:
those rows are the journal, and the queue of uploads, and survive ``kill -9`` from the next commit on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from layrfs.ids import BlockNumber, InodeNumber
from layrfs.storage.database import Database

BlockKey = tuple[InodeNumber, BlockNumber]


class Use(NamedTuple):
    """How many bytes of clean blocks a file has in the cache, and when it was last used (seconds)."""

    inode: InodeNumber
    clean_bytes: int
    used: int


class Journal:
    """Plain code on the trio thread, in the open transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def commit(self) -> None:
        """What was written so far survives the end of this process."""
        self._database.commit()

    # ------------------------------------------------------------------ blocks

    def blocks(self, inode: InodeNumber) -> list[tuple[BlockNumber, int]]:
        """Blocks of a file in the cache, ascending, each with 1 when dirty."""
        return list(self._database.rows("SELECT block, dirty FROM local WHERE inode = ? ORDER BY block", (inode,)))

    def has_blocks(self, inode: InodeNumber) -> bool:
        return self._database.value("SELECT 1 FROM local WHERE inode = ? LIMIT 1", (inode,)) is not None

    def has_dirty(self, inode: InodeNumber) -> bool:
        return self._database.value("SELECT 1 FROM local WHERE inode = ? AND dirty = 1 LIMIT 1", (inode,)) is not None

    def clean_blocks(self, inode: InodeNumber) -> list[tuple[BlockNumber, int]]:
        """Clean blocks of a file with the length of their valid bytes, ascending."""
        rows = self._database.rows(
            "SELECT l.block, b.length FROM local l JOIN block b ON b.inode = l.inode AND b.number = l.block"
            " WHERE l.inode = ? AND l.dirty = 0 ORDER BY l.block",
            (inode,),
        )
        return list(rows)

    def clean_length(self, inode: InodeNumber, block: BlockNumber) -> int:
        """Valid bytes of a clean block, 0 when it is not one."""
        length: int | None = self._database.value(
            "SELECT b.length FROM local l JOIN block b ON b.inode = l.inode AND b.number = l.block"
            " WHERE l.inode = ? AND l.block = ? AND l.dirty = 0",
            (inode, block),
        )
        return length or 0

    def cached(self, inode: InodeNumber, blocks: Iterable[BlockNumber]) -> list[tuple[BlockNumber, int]]:
        """Of some blocks, those that are in the cache and clean, with the length of their valid bytes."""
        query = (
            "SELECT l.block, coalesce(b.length, 0) FROM local l"
            " LEFT JOIN block b ON b.inode = l.inode AND b.number = l.block"
            " WHERE l.inode = ? AND l.block = ? AND l.dirty = 0"
        )
        rows = (self._database.row(query, (inode, block)) for block in blocks)
        return [(row[0], row[1]) for row in rows if row is not None]

    def cached_as(self, content: int) -> list[BlockKey]:
        """Blocks in the cache whose bytes are a content's."""
        query = (
            "SELECT b.inode, b.number FROM block b INDEXED BY block_content"
            " JOIN local l ON l.inode = b.inode AND l.block = b.number WHERE b.content = ?"
        )
        return list(self._database.rows(query, (content,)))

    def mark_dirty(self, inode: InodeNumber, block: BlockNumber) -> None:
        self._database.write("INSERT OR REPLACE INTO local(inode, block, dirty) VALUES(?, ?, 1)", (inode, block))

    def mark_all_dirty(self, keys: Iterable[BlockKey]) -> None:
        self._database.write_many("INSERT OR REPLACE INTO local(inode, block, dirty) VALUES(?, ?, 1)", keys)

    def sent_while_written(self, keys: Iterable[tuple[InodeNumber, BlockNumber, int]]) -> None:
        """Hosts have older bytes of dirty blocks now, of a time when so many of each were in the file."""
        rows = ((before, inode, block) for inode, block, before in keys)
        self._database.write_many("UPDATE unsent SET before = ? WHERE inode = ? AND block = ?", rows)

    def mark_clean(self, keys: Iterable[BlockKey]) -> None:
        """The blocks' bytes are in the cache file and on hosts."""
        self._database.write_many("INSERT OR REPLACE INTO local(inode, block, dirty) VALUES(?, ?, 0)", keys)

    def forget(self, keys: Iterable[BlockKey]) -> None:
        """The blocks' bytes are not in the cache file any more."""
        self._database.write_many("DELETE FROM local WHERE inode = ? AND block = ?", keys)

    def forget_range(self, inode: InodeNumber, first: BlockNumber, end: BlockNumber) -> None:
        self._database.write("DELETE FROM local WHERE inode = ? AND block >= ? AND block < ?", (inode, first, end))

    def last_block(self, inode: InodeNumber) -> BlockNumber | None:
        """The highest block in the cache."""
        highest: BlockNumber | None = self._database.value("SELECT max(block) FROM local WHERE inode = ?", (inode,))
        return highest

    def dirty_after(self, after: BlockKey, limit: int) -> list[BlockKey]:
        """The next dirty blocks of the volume after a key; ``(0, -1)`` to begin."""
        rows = self._database.rows(
            "SELECT inode, block FROM local WHERE dirty = 1 AND (inode, block) > (?, ?) ORDER BY inode, block LIMIT ?",
            (*after, limit),
        )
        return list(rows)

    def dirty_of(self, inode: InodeNumber, after: BlockNumber, limit: int) -> list[BlockKey]:
        """The next dirty blocks of one file after a block, -1 to begin; all of them when ``limit`` is -1."""
        rows = self._database.rows(
            "SELECT inode, block FROM local WHERE dirty = 1 AND inode = ? AND block > ? ORDER BY inode, block LIMIT ?",
            (inode, after, limit),
        )
        return list(rows)

    # ---------------------------------------------------------- whole overwrites

    def replaced(self) -> list[BlockKey]:
        """Blocks that were overwritten whole and may not be on the disk."""
        return list(self._database.rows("SELECT inode, block FROM local_replaced"))

    def replaced_with_old(self) -> list[BlockKey]:
        """Of those, the dirty ones of which hosts have the old bytes; a file's together."""
        rows = self._database.rows(
            "SELECT r.inode, r.block FROM local_replaced r"
            " JOIN local l ON l.inode = r.inode AND l.block = r.block AND l.dirty = 1"
            " JOIN block b ON b.inode = r.inode AND b.number = r.block AND b.content <> 0 ORDER BY r.inode, r.block"
        )
        return list(rows)

    def mark_replaced(self, keys: Iterable[BlockKey]) -> None:
        """See ``layrfs.vfs.flushes``."""
        self._database.write_many("INSERT OR REPLACE INTO local_replaced(inode, block) VALUES(?, ?)", keys)

    def forget_replaced(self, keys: Iterable[BlockKey]) -> None:
        """They are on the disk, or nobody needs them."""
        self._database.write_many("DELETE FROM local_replaced WHERE inode = ? AND block = ?", keys)

    def still_dirty(self, keys: Iterable[BlockKey]) -> list[BlockKey]:
        """Those of some blocks that are dirty."""
        query = "SELECT 1 FROM local WHERE inode = ? AND block = ? AND dirty = 1"
        return [key for key in keys if self._database.value(query, key) is not None]

    # --------------------------------------------------------------------- use

    def add_use(self, rows: Iterable[Use]) -> None:
        """Add to (or with negative bytes, take from) what files have in the cache, and say when they were used."""
        self._database.write_many(
            "INSERT INTO local_use(inode, bytes, used) VALUES(?, ?, ?)"
            " ON CONFLICT(inode) DO UPDATE SET bytes = bytes + excluded.bytes, used = max(used, excluded.used)",
            rows,
        )

    def touch(self, rows: Iterable[tuple[InodeNumber, int]]) -> None:
        """Rows of inode and time: the files were used then."""
        self._database.write_many("UPDATE local_use SET used = ?2 WHERE inode = ?1", rows)

    def used_since(self, used: int) -> frozenset[InodeNumber]:
        """Files of which blocks were used, fetched or sent since a time, in seconds."""
        rows = self._database.rows("SELECT inode FROM local_use WHERE used >= ?", (used,))
        return frozenset(row[0] for row in rows)

    def forget_use(self, inodes: Iterable[InodeNumber]) -> None:
        self._database.write_many("DELETE FROM local_use WHERE inode = ?", ((inode,) for inode in inodes))

    def clean_bytes_of(self, inode: InodeNumber) -> int:
        """Bytes of the file's clean blocks in the cache."""
        value: int | None = self._database.value("SELECT bytes FROM local_use WHERE inode = ?", (inode,))
        return value or 0

    def clean_bytes(self) -> int:
        """Bytes of all clean blocks in the cache."""
        value: int | None = self._database.value("SELECT sum(bytes) FROM local_use")
        return value or 0

    def oldest(self, after: Use, limit: int) -> list[Use]:
        """Files with clean blocks in the cache that may leave, least recently used first; ``Use(0, 0, -1)`` to begin.

        Pinned files are not in the index this walks along: a million of them cost nothing.
        """
        rows = self._database.rows(
            "SELECT inode, bytes, used FROM local_use INDEXED BY local_use_order"
            " WHERE bytes > 0 AND pinned = 0 AND (used, inode) > (?, ?) ORDER BY used, inode LIMIT ?",
            (after.used, after.inode, limit),
        )
        return [Use(*row) for row in rows]

    # ---------------------------------------------------------- marks, recovery

    def mark(self, name: str) -> str | int | bytes | None:
        """A fact about this machine's last run."""
        value: str | int | bytes | None = self._database.value("SELECT value FROM local_mark WHERE name = ?", (name,))
        return value

    def set_mark(self, name: str, value: str | int | bytes | None) -> None:
        self._database.write("INSERT OR REPLACE INTO local_mark(name, value) VALUES(?, ?)", (name, value))

    def forget_marks(self, beginning: str) -> None:
        """Those whose names begin so."""
        self._database.write("DELETE FROM local_mark WHERE substr(name, 1, ?) = ?", (len(beginning), beginning))

    def sizes_between(self, first: InodeNumber, end: InodeNumber) -> dict[InodeNumber, int]:
        """The inodes that exist from ``first`` to before ``end``, with their sizes as last written to the database."""
        rows = self._database.rows("SELECT number, size FROM inode WHERE number >= ? AND number < ?", (first, end))
        return dict(rows)

    def size_of(self, inode: InodeNumber) -> int:
        """The file's size as last written to the database, 0 when there is no such file."""
        size: int | None = self._database.value("SELECT size FROM inode WHERE number = ?", (inode,))
        return size or 0

    def cached_inodes(self, first: InodeNumber, end: InodeNumber) -> Iterator[InodeNumber]:
        """Files with a block in the cache, from ``first`` to before ``end``. Do not write while iterating."""
        query = "SELECT DISTINCT inode FROM local WHERE inode >= ? AND inode < ? ORDER BY inode"
        return (row[0] for row in self._database.rows(query, (first, end)))

    def remove_orphans(self) -> None:
        """Drop rows of files that do not exist: a removal in several steps was interrupted."""
        for table, column in (("local", "inode"), ("local_use", "inode"), ("block", "inode")):
            self._database.write(f"DELETE FROM {table} WHERE {column} NOT IN (SELECT number FROM inode)")  # noqa: S608
