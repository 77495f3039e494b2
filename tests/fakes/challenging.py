"""``Challenger`` without hosts: what each host answers is a word in a dictionary. Time passes as ``seconds`` says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from layrfs.ids import NodeId, PieceId
from layrfs.model.audits import Level
from layrfs.policy.trust import Outcome
from layrfs.upkeep.challenging import SILENT, HeldPiece


@dataclass
class FakeChallenger:
    hosts: dict[NodeId, Outcome] = field(default_factory=dict)
    """What a host answers for every piece; ``passed`` when it is not here."""
    pieces: dict[PieceId, Outcome] = field(default_factory=dict)
    """What is answered for a piece, before that."""
    others: set[NodeId] = field(default_factory=set)
    """Hosts that would answer if somebody asked them."""
    seconds: float = 0.1
    slow: dict[NodeId, float] = field(default_factory=dict)
    """Hosts that take longer."""
    asked: list[tuple[NodeId, PieceId, Level]] = field(default_factory=list)
    meanwhile: Callable[[HeldPiece], None] = lambda _held: None
    """Called while a host is asked."""

    async def ask(self, held: HeldPiece, level: Level) -> Outcome:
        self.asked.append((held.piece.host, held.piece.id, level))
        await trio.sleep(self.slow.get(held.piece.host, self.seconds))
        self.meanwhile(held)
        return self.pieces.get(held.piece.id, self.hosts.get(held.piece.host, "passed"))

    async def reaches_another(self, host: NodeId) -> bool:
        await trio.sleep(self.seconds)
        return any(other != host and self.hosts.get(other) not in SILENT for other in self.others)
