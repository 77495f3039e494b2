"""Which shards need pieces, and how much that hurries: what hosts are worth, applied to who holds what.

Owns the looking, in slices. Decides nothing: ``policy.patching`` does. Must not know how pieces are made.

A look reads the shards that lack pieces and those on hosts that are not good; the rest of the volume costs nothing.
Invariant: while no host at all can be reached nothing is known, and so nothing is said.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

import trio

from layrfs.ids import NodeId
from layrfs.policy.patching import PieceState, Urgency, endangered, repair
from layrfs.storage.pieces import Held, Pieces

SLICE = 64
"""Shards looked at between two looks at what else there is to do: about a millisecond."""

MOST = 20_000
"""Needs that are remembered, the most endangered ones; the rest is found when these are met."""

StateOf = Callable[[NodeId], PieceState]
"""Of a piece on this host of which nothing else is known."""

Living = Callable[[], Collection[NodeId]]
"""Hosts that can be reached now, as far as is known."""


class Need(NamedTuple):
    """A shard, and the positions to be made anew. They sort with the most endangered first."""

    key: int
    shard: int
    urgency: Urgency
    positions: tuple[int, ...]
    is_needed: bool = True
    """By files or snapshots; otherwise it waits to be collected."""


class Needs:
    """One volume's."""

    def __init__(
        self, pieces: Pieces, state_of: StateOf, living: Living, is_needed: Callable[[int], bool] = lambda _shard: True
    ) -> None:
        self._pieces = pieces
        self._is_needed = is_needed
        self._state_of = state_of
        self.living = living
        self.look_seconds = 0.0
        """How long the last look took."""

    def is_readable(self, shard: int) -> bool:
        """Whether enough of its pieces are good, and on hosts that can be reached now."""
        living, states = set(self.living()), dict[NodeId, PieceState]()
        return any(
            sum(
                host in living and self._state(held, position, states) == "good"
                for position, (_piece, host) in held.pieces.items()
            )
            >= held.redundancy.needed
            for held in self._pieces.held([shard])
        )

    async def look(self) -> list[Need] | None:
        """Of all shards, the most endangered first; None while no host can be reached."""
        began = trio.current_time()
        if not self.living():
            return None
        found: dict[int, list[Need]] = {}  # by key, of which there are few: sorting all of them would hold up others
        seen: set[int] = set()
        unsure = [host for host in self._pieces.holders() if self._state_of(host) != "good"]
        async for shards in self._slices(unsure):
            for need in self.of(shard for shard in shards if shard not in seen):
                alike = found.setdefault(need.key, [])
                if len(alike) < MOST:
                    alike.append(need)
            seen.update(shards)
        self.look_seconds = trio.current_time() - began
        return list(islice(chain.from_iterable(found[key] for key in sorted(found)), MOST))

    def of(self, shards: Iterable[int]) -> Iterator[Need]:
        """Of a few shards, in any order; nothing of those that are well, or not there."""
        states: dict[NodeId, PieceState] = {}
        for held in self._pieces.held(shards):
            pieces = {position: self._state(held, position, states) for position in held.pieces}
            urgency, positions = repair(held.redundancy, pieces)
            if urgency != "none":
                key = endangered(held.redundancy, pieces)
                yield Need(key, held.shard, urgency, positions, self._is_needed(held.shard))

    async def _slices(self, unsure: Iterable[NodeId]) -> AsyncIterator[Collection[int]]:
        known = list(self._pieces.degraded)
        for at in range(0, len(known), SLICE):
            yield known[at : at + SLICE]
            await trio.lowlevel.checkpoint()
        for host in unsure:
            after = 0
            while shards := self._pieces.on_host(host, after, SLICE):
                after = shards[-1]
                yield shards
                await trio.lowlevel.checkpoint()

    def _state(self, held: Held, position: int, states: dict[NodeId, PieceState]) -> PieceState:
        if position in held.refuted:
            return "gone"
        _piece, host = held.pieces[position]
        if host not in states:
            states[host] = self._state_of(host)
        return states[host]
