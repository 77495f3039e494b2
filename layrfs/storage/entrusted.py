"""What a delegate has been entrusted with, of one volume: in a database of its own, with the owner's tables.

So whatever checks and repairs a volume's pieces works here unchanged: it finds the shards in ``shard``, ``piece`` and
``host``. Owns ``local_entrusted`` and ``local_bucket``, which say what the owner knows. Must not know hosts or keys.
Invariant: what was made here is what ``piece`` has above the owner's generation, and is known until the owner
says otherwise; so nothing of it is written twice, and a crash cannot tear it.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence, Set
from typing import NamedTuple

import apsw
import msgspec

from layrfs.errors import BadMessage, LocalError, NoSpace
from layrfs.ids import NodeId, PieceId, ShardId
from layrfs.model.notes import Purpose
from layrfs.model.purposes import purpose_of
from layrfs.model.redundancy import is_possible
from layrfs.storage.database import Database, Value
from layrfs.wire.delegation import (
    BUCKET_DIGEST_BYTES,
    BUCKETS,
    EntrustedPurpose,
    EntrustedShard,
    bucket_digest,
    shards_untrusted,
)

MOST_BYTES = 1 << 30
"""Of all buckets of a volume: four million shards, or 16 TB."""

GARBAGE = 0
"""The version of what was made here and is needed no more; no version of a volume has this number."""

_MADE_IN = (
    "SELECT p.id, h.node_id FROM shard s JOIN local_entrusted e ON e.shard = s.number"
    " JOIN piece p ON p.shard = s.number AND p.generation > e.generation JOIN host h ON h.number = p.host"
    " WHERE s.id >= ? AND s.id < ?"
)
_MADE = (
    "SELECT s.id, p.position, p.generation, p.id, h.node_id, e.pieces FROM shard s"
    " JOIN local_entrusted e ON e.shard = s.number AND s.generation > e.generation"
    " JOIN piece p ON p.shard = s.number AND p.generation > e.generation"
    " JOIN host h ON h.number = p.host WHERE s.id > ? ORDER BY s.id, p.position LIMIT ?"
)


class Made(NamedTuple):
    """A piece that was made here; ``replaced`` is the one that the owner knows at its place, empty for none."""

    shard: ShardId
    position: int
    generation: int
    piece: PieceId
    host: NodeId
    replaced: bytes


class Entrusted:
    """Plain code on the trio thread, in the open transaction."""

    def __init__(
        self, database: Database, *, most_bytes: int = MOST_BYTES, now: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._now = now
        self._most_bytes = most_bytes
        database.before_commit(self._drop_logs)

    def wanted(self, digests: bytes) -> list[int]:
        """The buckets that the owner knows otherwise than they are here."""
        ours = [bytes(BUCKET_DIGEST_BYTES)] * BUCKETS
        for number, digest in self._database.rows("SELECT number, digest FROM local_bucket"):
            ours[number] = digest
        width = BUCKET_DIGEST_BYTES
        return [at for at, digest in enumerate(ours) if digests[at * width : (at + 1) * width] != digest]

    def replace(self, bucket: int, body: bytes) -> None:
        """What the owner says of a bucket now. Raises ``BadMessage``, ``NoSpace``; then nothing is changed.

        What was made here and is not in it is garbage, to be dropped from its host by who made it: an owner who did
        that on a delegate's word could be made to drop what it needs.
        """
        shards = shards_untrusted(body, bucket)
        if not all(is_possible(shard.needed, shard.total) for shard in shards):
            raise BadMessage("an entrusted shard has a redundancy that there is not")
        query = "SELECT coalesce(sum(bytes), 0) FROM local_bucket WHERE number <> ?"
        if self._database.value(query, (bucket,)) + len(body) > self._most_bytes:
            raise NoSpace("a volume is larger than a delegate takes")
        self._drop_made(bucket, {(piece.id, piece.host) for shard in shards for piece in shard.pieces})
        self._remove(bucket)
        self._add(shards)
        row = (bucket, bucket_digest(body), len(body))
        self._database.write("INSERT OR REPLACE INTO local_bucket VALUES(?, ?, ?)", row)

    def purpose(self, shard: ShardId) -> Purpose:
        """What notes have to say of a shard's pieces. Raises ``KeyError`` when there is no such shard."""
        query = "SELECT purpose FROM local_entrusted WHERE shard = (SELECT number FROM shard WHERE id = ?)"
        packed = self._database.value(query, (shard,))
        if packed is None:
            raise KeyError(shard)
        return purpose_of(msgspec.msgpack.decode(packed, type=EntrustedPurpose))

    def shard_count(self) -> int:
        """How many shards of the volume are looked after."""
        count: int = self._database.value("SELECT count(*) FROM local_entrusted")
        return count

    def _drop_made(self, bucket: int, needed: Set[tuple[bytes, bytes]]) -> None:
        made = self._database.rows(_MADE_IN, _bounds(bucket))
        rows = [(piece, host, GARBAGE, int(self._now())) for piece, host in made if (piece, host) not in needed]
        self._database.write_many("INSERT OR REPLACE INTO local_retired VALUES(?, ?, ?, ?)", rows)

    def _remove(self, bucket: int) -> None:
        bounds = _bounds(bucket)
        for statement in (
            "DELETE FROM local_entrusted WHERE shard IN (SELECT number FROM shard WHERE id >= ? AND id < ?)",
            "DELETE FROM piece WHERE shard IN (SELECT number FROM shard WHERE id >= ? AND id < ?)",
            "DELETE FROM shard WHERE id >= ? AND id < ?",
        ):
            self._database.write(statement, bounds)

    def _add(self, shards: Sequence[EntrustedShard]) -> None:
        """Of one bucket, which has none now. A table at a time: it is quick, and everybody waits meanwhile."""
        numbers = itertools.count(1 + (self._database.value("SELECT max(number) FROM shard") or 0))
        numbered = list(zip(numbers, shards, strict=False))
        hosts = self._hosts({piece.host for shard in shards for piece in shard.pieces})
        self._database.write_many("INSERT INTO shard VALUES(?, ?, ?, 0, ?, ?, ?, ?)", map(_shard_row, numbered))
        self._database.write_many(
            "INSERT INTO piece(shard, position, generation, id, host) VALUES(?, ?, ?, ?, ?)",
            (
                (number, piece.position, piece.generation, piece.id, hosts[piece.host])
                for number, shard in numbered
                for piece in shard.pieces
            ),
        )
        self._database.write_many("INSERT INTO local_entrusted VALUES(?, ?, ?, ?)", map(_entrusted_row, numbered))
        self._database.write_many(
            "DELETE FROM local_retired WHERE piece = ? AND host = ?",
            ((piece.id, piece.host) for shard in shards for piece in shard.pieces),
        )

    def _hosts(self, nodes: Set[NodeId]) -> dict[NodeId, int]:
        """Their numbers."""
        self._database.write_many("INSERT OR IGNORE INTO host(node_id) VALUES(?)", ((node,) for node in sorted(nodes)))
        query = "SELECT number FROM host WHERE node_id = ?"
        return {node: self._database.value(query, (node,)) for node in nodes}

    def _drop_logs(self) -> None:
        """Nobody publishes versions from here, and what was replaced is the owner's to drop."""
        for rows in ("local_change", f"local_retired WHERE version <> {GARBAGE}"):
            if self._database.value(f"SELECT 1 FROM {rows} LIMIT 1") is not None:  # noqa: S608 - constants
                self._database.write(f"DELETE FROM {rows}")  # noqa: S608 - constants


def made_here(path: str, after: bytes, limit: int) -> tuple[list[Made], bool]:
    """Pieces made here, as committed, of shards with ids above ``after``; whether there are more. Blocking.

    All those of one shard are in one answer; a shard has fewer than ``limit``. Raises ``LocalError``.
    """
    try:
        with contextlib.closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            rows: Sequence[tuple[bytes, int, int, bytes, bytes, bytes]] = list(
                connection.execute(_MADE, (after, limit + 1))
            )
    except apsw.Error as error:
        raise LocalError(f"The database {path} cannot be read: {error}") from error
    made = [_made(*row) for row in rows]
    if len(made) <= limit:
        return made, False
    return [one for one in made if one.shard != made[-1].shard], True


def _shard_row(numbered: tuple[int, EntrustedShard]) -> tuple[Value, ...]:
    number, shard = numbered
    return number, shard.id, shard.salt, shard.sealed_bytes, shard.needed, shard.total, shard.generation


def _entrusted_row(numbered: tuple[int, EntrustedShard]) -> tuple[Value, ...]:
    number, shard = numbered
    known = msgspec.msgpack.encode({piece.position: piece.id for piece in shard.pieces})
    return number, shard.generation, known, msgspec.msgpack.encode(shard.purpose)


def _bounds(bucket: int) -> tuple[bytes, bytes]:
    """Of the ids in a bucket: from the first up to before the second."""
    after = bucket + 1 << 4
    return (bucket << 4).to_bytes(2, "big"), after.to_bytes(2, "big") if bucket + 1 < BUCKETS else b"\xff" * 33


def _made(shard: bytes, position: int, generation: int, piece: bytes, host: bytes, known: bytes) -> Made:
    replaced = msgspec.msgpack.decode(known, type=dict[int, bytes]).get(position, b"")
    return Made(ShardId(shard), position, generation, PieceId(piece), NodeId(host), replaced)
