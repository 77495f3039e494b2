"""Which copies hosts should have, for a check of all of them.

Owns queries over ``shard``, ``piece`` and ``host``, and what is recorded of copies that proved gone. Must not know how
hosts are asked. Invariant: the last copies of a shard stay on record, whatever a host says: it may find them again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from layrfs.ids import InodeNumber, NodeId, PieceId, ShardId
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.tree import Tree


class Shard(NamedTuple):
    """A shard as far as its copies go."""

    number: int
    id: ShardId
    needed: int
    total: int
    pieces: frozenset[PieceId]


class Part(NamedTuple):
    """A content of a shard: where it lies in the payload, and the digest of its bytes."""

    content: int
    digest: bytes
    offset: int
    length: int


_FILES = "SELECT DISTINCT b.inode FROM content c CROSS JOIN block b ON b.content = c.number WHERE c.shard = ?"
_NOT_HERE = " AND NOT EXISTS (SELECT 1 FROM local l WHERE l.inode = b.inode AND l.block = b.number)"


class Copies:
    """Plain code on the trio thread, in the open transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def by_host(self) -> dict[NodeId, list[PieceId]]:
        """What each host should hold of files in use."""
        found: dict[NodeId, list[PieceId]] = {}
        for node, piece in self._database.rows(
            "SELECT h.node_id, p.id FROM piece p JOIN host h ON h.number = p.host ORDER BY h.number, p.shard"
        ):
            found.setdefault(NodeId(node), []).append(PieceId(piece))
        return found

    def shards(self) -> Iterator[Shard]:
        """Every shard with pieces on record. Do not await while iterating."""
        rows = self._database.rows(
            "SELECT s.number, s.id, s.needed, s.total, p.id FROM shard s JOIN piece p ON p.shard = s.number"
            " ORDER BY s.number"
        )
        for (number, identity, needed, total), group in itertools.groupby(rows, key=lambda row: row[:4]):
            yield Shard(number, ShardId(identity), needed, total, frozenset(PieceId(row[4]) for row in group))

    def parts(self, shard: int) -> list[Part]:
        """What is in a shard."""
        query = "SELECT number, digest, offset, length FROM content WHERE shard = ? ORDER BY offset"
        return [Part(*row) for row in self._database.rows(query, (shard,))]

    def files(self, shards: Iterable[int], *, here_too: bool = False) -> list[bytes]:
        """Paths of the files that need any of the shards, and (but with ``here_too``) whose blocks are not here."""
        query = _FILES if here_too else _FILES + _NOT_HERE
        inodes: dict[InodeNumber, None] = {}
        for shard in shards:
            inodes.update((row[0], None) for row in self._database.rows(query, (shard,)))
        tree = Tree(self._database)
        return [tree.path_of(inode) or b"#%d" % inode for inode in inodes]

    def drop(self, missing: Iterable[tuple[ShardId, PieceId]]) -> int:
        """Record that copies are gone, so that others are made; how many. Never the last ones of a shard."""
        catalog = Catalog(self._database)
        return sum(catalog.pieces.drop(shard, piece) is not None for shard, piece in missing)

    def send_again(self, shards: Sequence[int]) -> int:
        """Have what is here of shards that no host has any more sent anew; how many blocks that are."""
        blocks = 0
        for shard in shards:
            rows = list(
                self._database.rows(
                    "SELECT l.inode, l.block, c.number FROM content c CROSS JOIN block b ON b.content = c.number"
                    " JOIN local l ON l.inode = b.inode AND l.block = b.number WHERE c.shard = ? AND l.dirty = 0",
                    (shard,),
                )
            )
            self._database.write_many(
                "UPDATE content SET digest = randomblob(32) WHERE number = ?", [(row[2],) for row in rows]
            )
            self._database.write_many(
                "INSERT OR REPLACE INTO local(inode, block, dirty) VALUES(?, ?, 1)", [row[:2] for row in rows]
            )
            blocks += len(rows)
        return blocks
