"""``Asker`` over ``FakeTransfers``. ``silent`` hosts do not answer, ``lossy`` ones say they have nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from layrfs.errors import Unreachable
from layrfs.ids import NodeId, PieceId
from tests.fakes.transfers import FakeTransfers


@dataclass
class FakeAsker:
    transfers: FakeTransfers
    silent: set[NodeId] = field(default_factory=set)
    lossy: set[NodeId] = field(default_factory=set)
    renewed: list[tuple[NodeId, int]] = field(default_factory=list)
    deleted: list[tuple[NodeId, int]] = field(default_factory=list)

    async def renew(self, host: NodeId, pieces: Sequence[PieceId]) -> list[bool]:
        await self._reach(host)
        self.renewed.append((host, len(pieces)))
        return [host not in self.lossy and self.transfers.pieces.get(piece) == host for piece in pieces]

    async def delete(self, host: NodeId, pieces: Sequence[PieceId]) -> None:
        await self._reach(host)
        self.deleted.append((host, len(pieces)))
        assert all(self.transfers.pieces.get(piece, host) == host for piece in pieces)
        self.transfers.drop(pieces)

    async def _reach(self, host: NodeId) -> None:
        await trio.lowlevel.checkpoint()
        if host in self.silent:
            raise Unreachable("nobody answers")
