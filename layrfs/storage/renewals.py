"""Which pieces are at a host, and when it was last asked to go on keeping them.

Owns the table ``local_renewed``. Must not know how long hosts are patient.
"""

from __future__ import annotations

from layrfs.ids import NodeId, PieceId
from layrfs.storage.database import Database


class Renewals:
    """Plain code on the trio thread, in the open transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def renewed(self) -> dict[NodeId, int]:
        """When all pieces of each host were last renewed, in seconds."""
        return dict(self._database.rows("SELECT host, renewed FROM local_renewed"))

    def set_renewed(self, host: NodeId, at: int) -> None:
        """All pieces of a host were renewed, or stored later than that."""
        self._database.write("INSERT OR REPLACE INTO local_renewed VALUES(?, ?)", (host, at))

    def pieces_at(self, host: NodeId, after: tuple[int, int], limit: int) -> list[tuple[int, int, PieceId]]:
        """The next pieces on a host as shard number, position, id; ``(0, -1)`` to begin."""
        rows = self._database.rows(
            "SELECT p.shard, p.position, p.id FROM piece p JOIN host h ON h.number = p.host WHERE h.node_id = ?"
            " AND (p.shard, p.position) > (?, ?) ORDER BY p.shard, p.position LIMIT ?",
            (host, *after, limit),
        )
        return list(rows)

    def has_piece(self, shard: int, piece: PieceId, host: NodeId) -> bool:
        """Whether a host is still recorded to have a piece of a shard."""
        query = (
            "SELECT 1 FROM piece p JOIN host h ON h.number = p.host WHERE p.shard = ? AND p.id = ? AND h.node_id = ?"
        )
        return self._database.value(query, (shard, piece, host)) is not None
