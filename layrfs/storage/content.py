"""Where the bytes of every block are on the network: the tables ``block``, ``content`` and ``shard``.

Owns those rows and the numbers in them. Must not know cache files, inodes' attributes or how shards travel.

A block row names a content (equal blocks share one), a content is a range of a shard's payload, a shard has pieces on
hosts. Content is found by digest; content of a shard that cannot be fetched now (``reach``) is never offered for that,
and storing equal bytes again moves the content to the new shard: copying a lost file in once more heals every block.
Invariant: a block row names a content row, a content row names a shard row with at least one piece.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from layrfs.ids import BlockNumber, InodeNumber, Salt, ShardId
from layrfs.model.manifest import ManifestBlock, ManifestShard
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import ShardRecord
from layrfs.storage.database import Database
from layrfs.storage.pieces import COUNT, Pieces
from layrfs.storage.reach import Alive, Reach


class Place(NamedTuple):
    """A block's valid bytes: ``length`` of them at ``offset`` of the payload of shard number ``shard``."""

    content: int
    shard: int
    offset: int
    length: int


class BlockPlace(NamedTuple):
    """A block of some file whose bytes lie in a shard one already knows."""

    inode: InodeNumber
    block: BlockNumber
    content: int
    offset: int
    length: int


class NewContent(NamedTuple):
    """Bytes just stored in a shard: the digest that names them and their place."""

    digest: bytes
    offset: int
    length: int


_NUMBERS = "SELECT number FROM block WHERE inode = ? ORDER BY number"
_NUMBERS_AND_UNSENT = (
    "SELECT number FROM block WHERE inode = ?1 UNION SELECT block FROM unsent WHERE inode = ?1 ORDER BY 1"
)
_KNOWN = "SELECT 1 FROM block WHERE inode = ? AND number = ?"
_KNOWN_OR_UNSENT = """SELECT 1 FROM block WHERE inode = ?1 AND number = ?2
    UNION ALL SELECT 1 FROM unsent WHERE inode = ?1 AND block = ?2"""
_PLACE = (
    "SELECT c.number, c.shard, c.offset, b.length FROM block b JOIN content c ON c.number = b.content"
    " WHERE b.inode = ? AND b.number = ?{sent}"
)
_ABSENT = (
    "SELECT b.inode, b.number, c.number, c.offset, b.length"
    " FROM content c INDEXED BY content_shard"
    " CROSS JOIN block b INDEXED BY block_content ON b.content = c.number"
    " WHERE c.shard = ?1 AND c.number >= ?2 AND (c.number, b.inode, b.number) > (?2, ?3, ?4)"
    " AND NOT EXISTS (SELECT 1 FROM local l WHERE l.inode = b.inode AND l.block = b.number){sent}"
    " ORDER BY c.number, b.inode, b.number LIMIT ?5"
)
_SENT = " AND NOT EXISTS (SELECT 1 FROM unsent u WHERE u.inode = b.inode AND u.block = b.number)"


class Catalog:
    """Plain code on the trio thread; every method is a handful of statements in the open transaction."""

    def __init__(
        self,
        database: Database,
        *,
        unsent_elsewhere: bool = False,
        older_counts: bool = False,
        alive: Alive | None = None,
    ) -> None:
        """``alive``: see ``Reach``. ``unsent_elsewhere``: ``unsent`` is about another machine, or another time.

        Those blocks are there and cannot be read, whatever an older row says of them, unless ``older_counts``.
        """
        self._database = database
        sent = _SENT if unsent_elsewhere and not older_counts else ""
        self._place = _PLACE.format(sent=sent)
        self._absent = _ABSENT.format(sent=sent)
        self._numbers = _NUMBERS_AND_UNSENT if unsent_elsewhere else _NUMBERS
        self._known = _KNOWN_OR_UNSENT if unsent_elsewhere else _KNOWN
        self._next_content = self._next_shard = 1
        self.reach = Reach(database, alive)
        self.pieces = Pieces(database)
        self.refresh()

    def refresh(self) -> None:
        """Forget what was remembered of rows: they are those of another version now."""
        self._next_content = 1 + (self._database.value("SELECT max(number) FROM content") or 0)
        self._next_shard = 1 + (self._database.value("SELECT max(number) FROM shard") or 0)
        self.pieces.forget()
        self.reach.forget()

    # ------------------------------------------------------------------ blocks

    def block_numbers(self, inode: InodeNumber) -> list[BlockNumber]:
        """Blocks of the file that have a row, or are unsent elsewhere; ascending."""
        return [row[0] for row in self._database.rows(self._numbers, (inode,))]

    def has_block(self, inode: InodeNumber, block: int) -> bool:
        """Whether the block is one of `block_numbers`."""
        return self._database.row(self._known, (inode, block)) is not None

    def place(self, inode: InodeNumber, block: BlockNumber) -> Place | None:
        """Where the block was last stored; None for a hole or a block that never was."""
        row = self._database.row(self._place, (inode, block))
        return None if row is None else Place(*row)

    def put_blocks(self, rows: Iterable[tuple[InodeNumber, BlockNumber, int, int]]) -> None:
        """Rows of inode, block, content number, length: what the blocks hold from now on.

        A shard that counted as dead does not any more, from the same moment on.
        """
        rows = list(rows)
        self._database.write_many(
            "INSERT OR REPLACE INTO block(inode, number, content, length) VALUES(?, ?, ?, ?)", rows
        )
        self._database.write_many(
            "DELETE FROM dead WHERE shard = (SELECT shard FROM content WHERE number = ?)", ((row[2],) for row in rows)
        )

    def rows_from(self, inode: InodeNumber, first: BlockNumber) -> list[tuple[InodeNumber, BlockNumber, int, int]]:
        """What ``put_blocks`` would take to have the file's blocks from ``first`` on as they are now."""
        sql = "SELECT inode, number, content, length FROM block WHERE inode = ? AND number >= ?"
        return list(self._database.rows(sql, (inode, first)))

    def remove_block(self, inode: InodeNumber, block: BlockNumber) -> None:
        self._database.write("DELETE FROM block WHERE inode = ? AND number = ?", (inode, block))

    def remove_blocks(self, inode: InodeNumber, first: BlockNumber, end: BlockNumber) -> None:
        """Forget the file's blocks from ``first`` to before ``end``."""
        self._database.write("DELETE FROM block WHERE inode = ? AND number >= ? AND number < ?", (inode, first, end))

    def cut_block(self, inode: InodeNumber, block: BlockNumber, length: int) -> None:
        """The block keeps at most ``length`` valid bytes; its content is not touched."""
        self._database.write(
            "UPDATE block SET length = ? WHERE inode = ? AND number = ? AND length > ?", (length, inode, block, length)
        )

    def last_block(self, inode: InodeNumber) -> BlockNumber | None:
        """The highest block with a row."""
        highest: BlockNumber | None = self._database.value("SELECT max(number) FROM block WHERE inode = ?", (inode,))
        return highest

    # ----------------------------------------------------------------- content

    def find_content(self, digests: Sequence[bytes]) -> Mapping[bytes, tuple[int, int]]:
        """Of the digests, those already stored where they can be fetched: digest to content number and length."""
        known = [(digest, row) for digest in digests if (row := self._content(digest)) is not None]
        within = self.reach.within(shard for _digest, (_number, shard, _length) in known)
        return {digest: (number, length) for digest, (number, shard, length) in known if shard in within}

    def add_content(self, shard: int, contents: Sequence[NewContent]) -> list[int]:
        """Record what a shard holds; the content numbers in order. Known, fetchable content keeps its place."""
        numbers, rows = [], []
        new: dict[bytes, int] = {}
        known = {content.digest: self._content(content.digest) for content in contents}
        within = {shard} | self.reach.within({row[1] for row in known.values() if row is not None} - {shard})
        for content in contents:
            row = known[content.digest]
            if row is not None:
                number = row[0]
                if row[1] not in within:
                    self._move_content(number, shard, content)
            elif (number := new.get(content.digest, 0)) == 0:
                number = new[content.digest] = self._next_content
                self._next_content += 1
                rows.append((number, content.digest, shard, content.offset, content.length))
            numbers.append(number)
        self._database.write_many(
            "INSERT INTO content(number, digest, shard, offset, length) VALUES(?, ?, ?, ?, ?)", rows
        )
        return numbers

    def known_content(self, numbers: Iterable[int]) -> set[int]:
        """Which of these content numbers still stand for something: what nothing needed may have been removed."""
        query = "SELECT 1 FROM content c JOIN shard s ON s.number = c.shard WHERE c.number = ?"
        return {number for number in set(numbers) if self._database.value(query, (number,)) is not None}

    def repack_content(self, number: int, old_shard: int, shard: int, content: NewContent) -> bool:
        """Bytes of one shard were stored in another, too: use them there. False when they are not that content."""
        row = self._content(content.digest)
        if row is None or row[:2] != (number, old_shard):
            return False
        self._move_content(number, shard, content)
        return True

    def _content(self, digest: bytes) -> tuple[int, int, int] | None:
        return self._database.row("SELECT number, shard, length FROM content WHERE digest = ?", (digest,))

    def _move_content(self, number: int, shard: int, content: NewContent) -> None:
        self._database.write("DELETE FROM dead WHERE shard = ?", (shard,))
        self._database.write(
            "UPDATE content SET shard = ?, offset = ?, length = ? WHERE number = ?",
            (shard, content.offset, content.length, number),
        )

    # ------------------------------------------------------------------ shards

    def add_shard(self, record: ShardRecord) -> int:
        """Record a shard and its pieces; its number, which is never that of another in one run."""
        number = self._next_shard
        self._next_shard += 1
        self._database.write(
            "INSERT INTO shard(number, id, salt, plain_bytes, sealed_bytes, needed, total, generation)"
            " VALUES(?, ?, ?, ?, ?, ?, ?, 0)",
            (
                number,
                record.id,
                record.salt,
                record.plain_bytes,
                record.sealed_bytes,
                record.redundancy.needed,
                record.redundancy.total,
            ),
        )
        self.pieces.put(number, record.pieces)
        return number

    def has_shard(self, number: int) -> bool:
        """Whether there is such a shard: what nothing needs is removed."""
        return self._database.value("SELECT 1 FROM shard WHERE number = ?", (number,)) is not None

    def find_shard(self, shard: ShardId) -> ShardRecord | None:
        """A shard by its id, as it is today."""
        number = self.number_of(shard)
        return None if number is None else self.shard(number)

    def shard(self, number: int) -> ShardRecord:
        """A shard with its pieces. Raises ``KeyError`` when there is no such number, ``CorruptFile``."""
        row = self._database.row(
            "SELECT id, salt, plain_bytes, sealed_bytes, needed, total FROM shard WHERE number = ?", (number,)
        )
        if row is None:
            raise KeyError(number)
        return ShardRecord(
            id=ShardId(row[0]),
            salt=Salt(row[1]),
            plain_bytes=row[2],
            sealed_bytes=row[3],
            redundancy=Redundancy.of_row(row[4], row[5]),
            pieces=tuple(self.pieces.of(number)),
        )

    def number_of(self, shard: ShardId) -> int | None:
        """The number of a shard."""
        number: int | None = self._database.value("SELECT number FROM shard WHERE id = ?", (shard,))
        return number

    def shard_count(self) -> int:
        """Shards the volume has."""
        count: int = self._database.value("SELECT count(*) FROM shard")
        return count

    def live_bytes(self) -> int:
        """Plaintext of all shards but those that nothing needs."""
        total: int = self._database.value(
            "SELECT (SELECT coalesce(sum(plain_bytes), 0) FROM shard) -"
            " (SELECT coalesce(sum(s.plain_bytes), 0) FROM dead d JOIN shard s ON s.number = d.shard)"
        )
        return total

    def absent_in_shard(self, shard: int, after: tuple[int, int, int], limit: int) -> list[BlockPlace]:
        """Blocks of any file whose bytes lie in the shard and are not in the cache.

        In the order of content number, inode, block; ``after`` is the last one seen, ``(0, 0, 0)`` to begin.
        """
        rows = self._database.rows(self._absent, (shard, *after, limit))
        return [BlockPlace(*row) for row in rows]

    def has_unsent(self, inode: InodeNumber) -> bool:
        """Whether some block of the file has bytes that no host has."""
        return self._database.value("SELECT 1 FROM unsent WHERE inode = ? LIMIT 1", (inode,)) is not None

    def has_lost(self, inode: InodeNumber) -> bool:
        """Whether some block of the file was lost with the machine it was written on."""
        query = "SELECT 1 FROM block INDEXED BY block_lost WHERE inode = ? AND content = 0"
        return self._database.value(query, (inode,)) is not None

    def shards_of(self, inode: InodeNumber) -> Iterator[int]:
        """The shards a file needs, in the order of their first block. Do not await while iterating."""
        rows = self._database.rows(
            "SELECT c.shard FROM block b CROSS JOIN content c ON c.number = b.content"
            " WHERE b.inode = ? ORDER BY b.number",
            (inode,),
        )
        seen: set[int] = set()
        for (shard,) in rows:
            if shard not in seen:
                seen.add(shard)
                yield shard

    def blocks_in(self, inode: InodeNumber, shards: Container[int]) -> set[int]:
        """The file's blocks whose bytes are in one of the shards."""
        rows = self._database.rows(
            "SELECT b.number, c.shard FROM block b CROSS JOIN content c ON c.number = b.content WHERE b.inode = ?",
            (inode,),
        )
        return {number for number, shard in rows if shard in shards}

    def copies(self, inode: InodeNumber) -> list[tuple[BlockNumber, int, int]]:
        """Of each stored block of a file: its number, how many pieces of its shard are on hosts, how many should be."""
        rows = self._database.rows(
            f"SELECT b.number, {COUNT}, s.total"  # noqa: S608 - a constant
            " FROM block b CROSS JOIN content c ON c.number = b.content CROSS JOIN shard s ON s.number = c.shard"
            " WHERE b.inode = ? ORDER BY b.number",
            (inode,),
        )
        return list(rows)

    def manifest_shards(self, inode: InodeNumber) -> tuple[ManifestShard, ...]:
        """The body of a file's manifest."""
        rows = self._database.rows(
            "SELECT b.number, c.shard, c.offset, b.length FROM block b CROSS JOIN content c ON c.number = b.content"
            " WHERE b.inode = ? ORDER BY b.number",
            (inode,),
        )
        blocks: dict[int, list[ManifestBlock]] = {}
        for number, shard, offset, length in rows:
            blocks.setdefault(shard, []).append(ManifestBlock(BlockNumber(number), offset, length))
        return tuple(ManifestShard(self.shard(shard), tuple(parts)) for shard, parts in blocks.items())
