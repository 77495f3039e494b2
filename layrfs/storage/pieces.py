"""Which host has which piece of which shard: the tables ``piece`` and ``host``, and the generation of every shard.

Owns those rows, what is known against single pieces (``local_refuted``), and the set of shards that lack pieces. Must
not know what is in a shard, how pieces are made, or why a host is trusted. Invariants: no host has two pieces of one
shard on record; the last pieces of a shard stay on record, whatever a host says of them; a piece that is made anew has
a generation that no recorded piece of its shard ever had, so that an order to drop the old one can never mean the new
one; what is put on record is not to be dropped by anybody.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from layrfs.ids import NodeId, PieceId, ShardId
from layrfs.model.redundancy import Redundancy, is_possible
from layrfs.model.shards import PieceRecord
from layrfs.policy.replacing import replacement
from layrfs.storage.database import Database

Retired = tuple[PieceId, NodeId]
"""A piece that nothing needs any more, and the host that may still have it."""

IS_REFUTED = "EXISTS (SELECT 1 FROM local_refuted r WHERE r.piece = p.id)"
"""Of a piece ``p``."""

COUNT = f"(SELECT count(*) FROM piece p WHERE p.shard = s.number AND NOT {IS_REFUTED})"  # noqa: S608 - a constant
"""Of a shard ``s``: pieces that count."""

_HELD = (
    f"SELECT s.number, s.needed, s.total, p.position, p.id, h.node_id, {IS_REFUTED} FROM shard s"  # noqa: S608 - a constant
    " LEFT JOIN piece p ON p.shard = s.number LEFT JOIN host h ON h.number = p.host"
    " WHERE s.number IN (SELECT value FROM json_each(?))"
    " ORDER BY s.number, p.position"
)
_ON_HOST = (
    "SELECT shard FROM piece INDEXED BY piece_host WHERE host = (SELECT number FROM host WHERE node_id = ?)"
    " AND shard > ? ORDER BY shard LIMIT ?"
)


class Held(NamedTuple):
    """Who should have what of a shard."""

    shard: int
    redundancy: Redundancy
    pieces: dict[int, tuple[PieceId, NodeId]]
    """By position; positions without a piece are not in it."""
    refuted: set[int]
    """Positions whose pieces are known not to be there."""


class Pieces:
    """Plain code on the trio thread; every method is a handful of statements in the open transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._hosts: dict[NodeId, int] = {}
        self.degraded: set[int] = set()
        """Shards with fewer pieces on record than they should have, without refuted ones; those of before this start by
        ``find_degraded``."""

    def forget(self) -> None:
        """Rows are those of another version now."""
        self._hosts.clear()

    # ------------------------------------------------------------------ pieces

    def of(self, shard: int) -> Iterator[PieceRecord]:
        """What is on record, by position."""
        rows = self._database.rows(
            "SELECT p.position, p.generation, p.id, h.node_id FROM piece p JOIN host h ON h.number = p.host"
            " WHERE p.shard = ? ORDER BY p.position",
            (shard,),
        )
        for position, generation, piece, node in rows:
            yield PieceRecord(position=position, generation=generation, id=PieceId(piece), host=NodeId(node))

    def put(self, shard: int, pieces: Iterable[PieceRecord]) -> list[Retired]:
        """Record pieces made for a shard, instead of older ones at their positions; what nothing needs after that.

        Some of them may be of no use: ``layrfs.policy.replacing``.
        """
        made = list(pieces)
        self.note_generation(shard, max((piece.generation for piece in made), default=0))
        _all, new, needless = replacement(self.of(shard), made)
        for piece in new:
            self._put(shard, piece)
        self.recount(shard)
        return [(piece.id, piece.host) for piece in needless]

    def _put(self, shard: int, piece: PieceRecord) -> None:
        self._database.write(
            "INSERT OR REPLACE INTO piece(shard, position, generation, id, host) VALUES(?, ?, ?, ?, ?)",
            (shard, piece.position, piece.generation, piece.id, self._host(piece.host)),
        )
        # An order to drop just this piece may be left of a time when a delegate's owner did not know it.
        self._database.write("DELETE FROM local_retired WHERE piece = ? AND host = ?", (piece.id, piece.host))

    def highest_generation(self, shard: int) -> int:
        """That any of its pieces ever had, as far as is known. Raises ``KeyError`` when there is no such shard."""
        return self.next_generation(shard) - 1

    def note_generation(self, shard: int, generation: int) -> None:
        """Somebody else has made such a piece of the shard: what is made next here must be another."""
        self._database.write(
            "UPDATE shard SET generation = ?2 WHERE number = ?1 AND generation < ?2", (shard, generation)
        )

    def next_generation(self, shard: int) -> int:
        """For pieces that are made anew. Raises ``KeyError`` when there is no such shard."""
        highest: int | None = self._database.value("SELECT generation FROM shard WHERE number = ?", (shard,))
        if highest is None:
            raise KeyError(shard)
        return highest + 1

    def drop(self, shard: ShardId, piece: PieceId) -> int | None:
        """Forget a piece that its host does not have any more, so that it is made anew; the shard's number.

        None, and nothing forgotten, when no more pieces would be left than are needed to read the shard at all.
        """
        row = self._database.row(
            "SELECT s.number FROM shard s JOIN piece p ON p.shard = s.number WHERE s.id = ? AND p.id = ?"
            " AND (SELECT count(*) FROM piece WHERE shard = s.number) > s.needed",
            (shard, piece),
        )
        if row is None:
            return None
        self._database.write("DELETE FROM piece WHERE shard = ? AND id = ?", (row[0], piece))
        self.degraded.add(row[0])
        return int(row[0])

    # ------------------------------------------------------------------ health

    def refute(self, shard: int, piece: PieceId) -> None:
        """Its host has proven not to have it. It stays on record, to be found should it come back: also after a
        restart, or what is lost would count as stored."""
        self._database.write(
            "INSERT OR IGNORE INTO local_refuted SELECT id, shard FROM piece WHERE shard = ? AND id = ?", (shard, piece)
        )
        self.recount(shard)

    def believe(self, shard: int, piece: PieceId) -> bool:
        """Its host has it after all. False: nothing else was known."""
        if self._database.value("SELECT 1 FROM local_refuted WHERE piece = ?", (piece,)) is None:
            return False
        self._database.write("DELETE FROM local_refuted WHERE piece = ?", (piece,))
        self.recount(shard)
        return True

    def refuted(self, after: PieceId, limit: int) -> list[tuple[PieceId, ShardId, NodeId]]:
        """The next pieces after an id that their hosts were found not to have, and have on record all the same."""
        rows = self._database.rows(
            "SELECT p.id, s.id, h.node_id FROM local_refuted r"
            " CROSS JOIN piece p ON p.shard = r.shard AND p.id = r.piece"
            " CROSS JOIN host h ON h.number = p.host CROSS JOIN shard s ON s.number = p.shard"
            " WHERE r.piece > ? ORDER BY r.piece LIMIT ?",
            (after, limit),
        )
        return [(PieceId(piece), ShardId(shard), NodeId(host)) for piece, shard, host in rows]

    def recount(self, shard: int) -> None:
        """Rows of the shard may have changed: does it lack pieces?"""
        query = f"SELECT total > {COUNT} FROM shard s WHERE number = ?"  # noqa: S608 - a constant
        if self._database.value(query, (shard,)):
            self.degraded.add(shard)
        else:
            self.degraded.discard(shard)

    def find_degraded(self, after: int, limit: int) -> int | None:
        """Look at the next ``limit`` shards after a number; where to go on (None: that was the end)."""
        rows = list(
            self._database.rows(
                f"SELECT s.number, s.total - {COUNT} FROM shard s"  # noqa: S608 - a constant
                " WHERE s.number > ? ORDER BY s.number LIMIT ?",
                (after, limit),
            )
        )
        self.degraded.update(row[0] for row in rows if row[1] > 0)
        return rows[-1][0] if rows else None

    def on_host(self, host: NodeId, after: int, limit: int) -> list[int]:
        """The next shards after a number that have a piece on the host, ascending; quick however many there are."""
        rows = self._database.rows(_ON_HOST, (host, after, limit))
        return [row[0] for row in rows]

    def held(self, shards: Iterable[int]) -> list[Held]:
        """Of those of the shards that there are, who should have what; ask for a few at a time."""
        found: dict[int, Held] = {}
        for shard, needed, total, position, piece, node, refuted in self._database.rows(
            _HELD, (json.dumps(list(shards)),)
        ):
            if not is_possible(needed, total):
                continue  # the database is damaged: fsck says what to do
            held = found.get(shard)
            if held is None:
                held = found[shard] = Held(shard, Redundancy(needed, total), {}, set())
            if position is not None:
                held.pieces[position] = (PieceId(piece), NodeId(node))
            if refuted:
                held.refuted.add(position)
        return list(found.values())

    # ------------------------------------------------------------------- hosts

    def put_host_record(self, node: NodeId, record: bytes) -> None:
        """Remember the signed node record last seen of a host."""
        self._database.write("UPDATE host SET record = ? WHERE number = ?", (record, self._host(node)))

    def host_records(self) -> dict[NodeId, bytes]:
        """The node records last seen of all hosts ever met, in that order; they may be out of date."""
        return dict(self._database.rows("SELECT node_id, record FROM host WHERE record IS NOT NULL ORDER BY number"))

    def holders(self) -> list[NodeId]:
        """The hosts that hold anything, without counting how much: a look into an index for each."""
        rows = self._database.rows(
            "SELECT h.node_id FROM host h WHERE EXISTS (SELECT 1 FROM piece p WHERE p.host = h.number)"
            " ORDER BY h.number"
        )
        return [NodeId(row[0]) for row in rows]

    def _host(self, node: NodeId) -> int:
        number = self._hosts.get(node) or self._database.value("SELECT number FROM host WHERE node_id = ?", (node,))
        if number is None:
            number = self._database.insert("INSERT INTO host(node_id) VALUES(?)", (node,))
        self._hosts[node] = number
        return int(number)
