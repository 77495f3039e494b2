"""Which nodes look after this volume while its owner is away, and what they are told of it.

Owns the table ``local_delegate``, and the reading of ``shard``, ``piece`` and ``host`` into what is handed over. Must
not know keys or connections. Functions that take a path block and are for a thread: a volume may have millions of
shards. Invariant: a bucket's bytes depend on its rows alone, so that its digest says whether they have changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import apsw
import msgspec

from layrfs.errors import LocalError
from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.notes import CONTENT, Purpose
from layrfs.model.purposes import entrusted_purpose
from layrfs.model.shards import ShardRecord
from layrfs.storage.database import Database
from layrfs.wire.delegation import (
    BUCKET_DIGEST_BYTES,
    BUCKETS,
    EntrustedPiece,
    EntrustedShard,
    bucket_digest,
    bucket_of,
    shards_body,
)

Metadata = Sequence[tuple[ShardRecord, Purpose]]
"""Shards of the volume's own lists; they are in no table."""

_SHARDS = (
    "SELECT s.id, s.salt, s.sealed_bytes, s.needed, s.total, s.generation, p.position, p.generation, p.id, h.node_id"
    " FROM shard s LEFT JOIN piece p ON p.shard = s.number LEFT JOIN host h ON h.number = p.host"
    " WHERE s.id >= ? AND s.id < ? ORDER BY s.id, p.position"
)
_ENDS_ALL = b"\xff" * 33


class Delegation(NamedTuple):
    """One node: for how long it goes on after it last heard of us, and how it did."""

    node: NodeId
    seconds: int
    heard: int | None
    lies: int
    problem: str | None


class Delegates:
    """Plain code on the trio thread, in the open transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Delegation]:
        """Every node that was asked to."""
        rows = self._database.rows("SELECT node, seconds, heard, lies, problem FROM local_delegate ORDER BY node")
        return [Delegation(NodeId(node), *rest) for node, *rest in rows]

    def find(self, node: NodeId) -> Delegation | None:
        """One of them."""
        return next((one for one in self.all() if one.node == node), None)

    def put(self, node: NodeId, seconds: int) -> None:
        """This node is one from now on, or for another time than before, and is believed again."""
        self._database.write(
            "INSERT INTO local_delegate VALUES(?1, ?2, NULL, 0, NULL)"
            " ON CONFLICT(node) DO UPDATE SET seconds = ?2, lies = 0",
            (node, seconds),
        )

    def heard(self, node: NodeId, now: int) -> None:
        """It has all there is to say."""
        self._database.write("UPDATE local_delegate SET heard = ?, problem = NULL WHERE node = ?", (now, node))

    def failed(self, node: NodeId, problem: str) -> None:
        """It could not be told, for this reason."""
        self._database.write("UPDATE local_delegate SET problem = ? WHERE node = ?", (problem, node))

    def lied(self, node: NodeId) -> None:
        """What it said was not so."""
        self._database.write("UPDATE local_delegate SET lies = lies + 1 WHERE node = ?", (node,))

    def remove(self, node: NodeId) -> None:
        """It is none any more."""
        self._database.write("DELETE FROM local_delegate WHERE node = ?", (node,))


def all_digests(path: str, metadata: Metadata) -> bytes:
    """Of all buckets in order, as of the last commit. Raises ``LocalError``. One bucket is in memory at a time."""
    digests = [bytes(BUCKET_DIGEST_BYTES)] * BUCKETS
    of_metadata = sorted(_of_metadata(metadata), key=lambda shard: shard.id)
    shards = merge(_of_files(path, b"", _ENDS_ALL), of_metadata, key=lambda shard: shard.id)
    for bucket, together in groupby(shards, lambda shard: bucket_of(shard.id)):
        digests[bucket] = bucket_digest(shards_body(list(together)))
    return b"".join(digests)


def bucket_body(path: str, metadata: Metadata, bucket: int) -> bytes:
    """What is handed over of a bucket, as of the last commit. Raises ``LocalError``."""
    first, after = (bucket << 4).to_bytes(2, "big"), bucket + 1 << 4
    of_files = _of_files(path, first, after.to_bytes(2, "big") if bucket + 1 < BUCKETS else _ENDS_ALL)
    of_metadata = [shard for shard in _of_metadata(metadata) if bucket_of(shard.id) == bucket]
    return shards_body(sorted((*of_files, *of_metadata), key=lambda shard: shard.id))


def _of_files(path: str, first: bytes, end: bytes) -> Iterator[EntrustedShard]:
    purpose = entrusted_purpose(CONTENT)
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        try:
            for head, rows in groupby(connection.execute(_SHARDS, (first, end)), itemgetter(slice(0, 6))):
                pieces = tuple(
                    EntrustedPiece(position, generation, PieceId(piece), NodeId(node))
                    for *_head, position, generation, piece, node in rows
                    if position is not None
                )
                shard, salt, sealed_bytes, needed, total, generation = head
                yield EntrustedShard(
                    ShardId(shard), Salt(salt), sealed_bytes, needed, total, generation, pieces, purpose
                )
        finally:
            connection.close()
    except apsw.Error as error:
        raise LocalError(f"The database {path} cannot be read: {error}") from error


def _of_metadata(metadata: Iterable[tuple[ShardRecord, Purpose]]) -> Iterator[EntrustedShard]:
    for shard, purpose in metadata:
        pieces = sorted(shard.pieces, key=lambda piece: piece.position)
        yield EntrustedShard(
            shard.id,
            shard.salt,
            shard.sealed_bytes,
            shard.redundancy.needed,
            shard.redundancy.total,
            max((piece.generation for piece in pieces), default=0),
            tuple(EntrustedPiece(*msgspec.structs.astuple(piece)) for piece in pieces),
            entrusted_purpose(purpose),
        )
