"""A host is asked to prove that it has a piece it took, and what follows from its answer.

Owns that: the host's long memory, and that a piece which is wrong or gone is given up at once, so that it is made anew.
Must not know how a host is asked, or how pieces are made. Invariants: silence is held against
a host only when another host answers at that time, because otherwise it is our line; an answer about a piece that was
given up meanwhile counts for nothing.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable

import msgspec
import trio

from layrfs.ids import NodeId, PieceId, ShardId
from layrfs.model.audits import Level
from layrfs.model.shards import ShardRecord
from layrfs.policy.trust import Outcome
from layrfs.storage.trust import Trusts
from layrfs.upkeep.challenging import SILENT, Challenger, HeldPiece
from layrfs.upkeep.holdings import Holdings

SHARDS_TOGETHER = 256
"""Of an audit that somebody waits for: so many are asked for at the same time, each host for one piece at a time."""

MOST_TIMEOUTS = 3
"""A host that was too slow so often in one audit is not asked for the rest of it: others would wait for it."""

ANSWERED: frozenset[Outcome] = frozenset({"passed", "failed", "missing", "refused"})
LOST = {"failed": "wrong", "missing": "missing"}
"""Outcomes that prove that a piece is gone, in the words of those who give pieces up."""

OnLost = Callable[[ShardId, PieceId, NodeId, str], None]
OnHeld = Callable[[ShardId, PieceId], None]


class PieceResult(msgspec.Struct, frozen=True):
    """One answer; ``seconds`` is how long it took, a second try included."""

    shard: ShardId
    position: int
    piece: PieceId
    host: NodeId
    level: Level
    outcome: Outcome
    seconds: float


class Auditor:
    """One volume's."""

    def __init__(
        self, *, challenger: Challenger, trusts: Trusts, holdings: Holdings, on_lost: OnLost, on_held: OnHeld
    ) -> None:
        """``on_lost``: a host has proven not to have a piece any more; ``on_held``: that it has it. Both each time."""
        self._challenger = challenger
        self._trusts = trusts
        self._holdings = holdings
        self._on_lost = on_lost
        self._on_held = on_held
        self._answered_at: dict[NodeId, float] = {}
        """When each host last said anything, on trio's clock."""

        self._lost: set[tuple[PieceId, NodeId]] = set()
        """What is on record all the same, as the last of a shard or as the past's: it counts against its host once."""

    async def audit(self, shards: Iterable[ShardRecord], level: Level, heard: Callable[[PieceResult], None]) -> None:
        """Ask for every piece of these shards; ``heard`` is told each answer, in any order.

        ``shards`` may be read while hosts are asked. A host that is silent is not waited for again and again: it counts
        as silent for the rest.
        """
        silent: dict[NodeId, list[Outcome]] = defaultdict(list)
        remaining = iter(shards)
        while together := list(itertools.islice(remaining, SHARDS_TOGETHER)):
            by_host: dict[NodeId, list[HeldPiece]] = defaultdict(list)
            for shard in together:
                for piece in shard.pieces:
                    by_host[piece.host].append(HeldPiece(shard, piece))
            async with trio.open_nursery() as nursery:
                for host, pieces in by_host.items():
                    nursery.start_soon(self._audit_host, pieces, level, silent[host], heard)

    async def _audit_host(
        self, pieces: list[HeldPiece], level: Level, silent: list[Outcome], heard: Callable[[PieceResult], None]
    ) -> None:
        for held in pieces:
            if "offline" in silent or len(silent) >= MOST_TIMEOUTS:
                heard(_result(held, level, silent[-1], 0.0))
                continue
            result = await self.ask(held, level)
            if result is None:
                continue
            if result.outcome in SILENT:
                silent.append(result.outcome)
            heard(result)

    async def ask(self, held: HeldPiece, level: Level) -> PieceResult | None:
        """One answer and what follows from it; None when the host need not have the piece any more."""
        began = trio.current_time()
        outcome = await self._challenger.ask(held, level)
        seconds = trio.current_time() - began
        host = held.piece.host
        counts = outcome not in SILENT or await self._is_another_there(host, began)
        if not self._holdings.is_held(held):
            return None
        if outcome in ANSWERED:
            self._answered_at[host] = trio.current_time()
        if counts and not (outcome in LOST and self.is_known_to_be_lost(held)):
            self._trusts.heard(host, outcome, retrieval=level == "deep")
        self._note(held, outcome)
        return _result(held, level, outcome, seconds)

    def is_known_to_be_lost(self, held: HeldPiece) -> bool:
        """Whether its host has proven that already, since this start."""
        return (held.piece.id, held.piece.host) in self._lost

    def _note(self, held: HeldPiece, outcome: Outcome) -> None:
        """Say it, also when it is no news: who hears it may have forgotten it, because the host was away meanwhile."""
        key = held.piece.id, held.piece.host
        if outcome == "passed":
            self._lost.discard(key)
            self._on_held(held.shard.id, held.piece.id)
        elif outcome in LOST:
            self._on_lost(held.shard.id, *key, LOST[outcome])
            if self._holdings.is_held(held):
                self._lost.add(key)

    async def _is_another_there(self, host: NodeId, since: float) -> bool:
        """Whether somebody else has answered since a time, or does now."""
        if any(at >= since for other, at in self._answered_at.items() if other != host):
            return True
        return await self._challenger.reaches_another(host)


def _result(held: HeldPiece, level: Level, outcome: Outcome, seconds: float) -> PieceResult:
    piece = held.piece
    return PieceResult(held.shard.id, piece.position, piece.id, piece.host, level, outcome, seconds)
