"""How far the audits of each host are, and what there is to ask it for.

Owns the table ``local_audit`` and queries over ``piece``, ``host`` and ``shard``. Must not know how hosts are asked.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import NamedTuple

import apsw

from layrfs.crypto.merkle import leaf_count
from layrfs.errors import LocalError
from layrfs.ids import NodeId, PieceId
from layrfs.model.redundancy import Redundancy, is_possible
from layrfs.storage.database import Database

_AT = (
    "SELECT p.id, p.shard, s.sealed_bytes, s.needed, s.total FROM host h JOIN piece p ON p.host = h.number"
    " JOIN shard s ON s.number = p.shard WHERE h.node_id = ? ORDER BY p.id"
)

_COUNTS = "SELECT h.node_id, count(*) FROM piece p JOIN host h ON h.number = p.host GROUP BY p.host"


class Owed(NamedTuple):
    """A piece that a host should have; ``shard`` is the number of its shard, None when that is not of files."""

    piece: PieceId
    leaves: int
    shard: int | None


class Round(NamedTuple):
    """Of a host: when it was last asked for all that was due (seconds), and the last piece of the sweep."""

    visited: int
    cursor: PieceId | None


def owed_by(path: str, host: NodeId) -> list[Owed]:
    """The pieces of files a host should have, by id, as of the last commit. For a thread; raises ``LocalError``."""
    redundancy = functools.cache(Redundancy)
    with _reading(path) as connection:
        return [
            Owed(PieceId(piece), leaf_count(redundancy(needed, total).piece_bytes(sealed_bytes)), shard)
            for piece, shard, sealed_bytes, needed, total in connection.execute(_AT, (host,))
            if is_possible(needed, total)
        ]


def counts(path: str) -> dict[NodeId, int]:
    """How many pieces of files each host should have, as of the last commit. For a thread; raises ``LocalError``."""
    with _reading(path) as connection:
        return {NodeId(node): count for node, count in connection.execute(_COUNTS)}


@contextlib.contextmanager
def _reading(path: str) -> Iterator[apsw.Connection]:
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        try:
            yield connection
        finally:
            connection.close()
    except apsw.Error as error:
        raise LocalError(f"The database {path} cannot be read: {error}") from error


class Rounds:
    """Plain code on the trio thread, in the open transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, host: NodeId) -> Round | None:
        """None of a host that was never asked for all that was due."""
        row = self._database.row("SELECT visited, cursor FROM local_audit WHERE host = ?", (host,))
        return None if row is None else Round(row[0], None if row[1] is None else PieceId(row[1]))

    def end(self, host: NodeId, done: Round) -> None:
        """A host was asked for all that was due."""
        self._database.write("INSERT OR REPLACE INTO local_audit VALUES(?, ?, ?)", (host, *done))

    def shard_numbers(self) -> list[int]:
        """Of every shard the volume has, those included that only its past needs."""
        return [row[0] for row in self._database.rows("SELECT number FROM shard ORDER BY number")]
