"""``Market`` without money: agrees with hosts after a moment, and keeps digests in memory."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from layrfs.errors import LayrError, Unavailable
from layrfs.ids import NodeId, PieceId
from layrfs.model.payables import PieceDigests, Salts
from layrfs.model.records import NodeRecord
from layrfs.model.shards import PieceRecord


class FakeMarket:
    """Pays up to ``highest``. ``unwilling`` hosts agree to nothing; agreeing takes ``seconds``."""

    def __init__(self, highest: int = 10, unwilling: Iterable[NodeRecord] = (), seconds: float = 1.0) -> None:
        self.highest = highest
        self.unwilling = {each.node_id for each in unwilling}
        self.seconds = seconds
        self.asked: list[tuple[NodeId, PieceId, int]] = []
        self.wanted: dict[PieceId, Salts] = {}
        """What is lacking."""
        self.kept: list[PieceDigests] = []
        self.refusal: LayrError = Unavailable("no contract")

    def highest_price(self) -> int:
        return self.highest

    async def agree(self, host: NodeRecord, piece: PieceId, piece_bytes: int) -> Salts:
        self.asked.append((host.node_id, piece, piece_bytes))
        await trio.sleep(self.seconds)
        if host.node_id in self.unwilling:
            raise self.refusal
        return salts_for(host.node_id)

    def lacking(self, piece: PieceRecord) -> Salts | None:
        return self.wanted.get(piece.id)

    def keep(self, digests: Iterable[PieceDigests]) -> None:
        self.kept += digests


def salts_for(host: NodeId) -> Salts:
    """What pieces at a host are digested under."""
    return Salts(host[0], 0, (host[:1] * 32, host[1:2] * 32))
