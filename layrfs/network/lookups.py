"""The iterative lookup: ask the nearest known nodes for nearer ones until the nearest ``width`` have all answered.

``Search`` is the decision (plain values, no clock), ``look_up`` carries it out with a sliding window: ``ALPHA``
requests that are younger than ``SOFT_SECONDS``, however many older ones still have a chance. So one dead node delays a
lookup by the soft time, not by the hard one.

Must not know tables, datagrams or records. Invariant: who is in the result has answered during this lookup, and no
lookup asks more than ``MOST_ASKED`` nodes or one address more than twice, whatever the answers say.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

import trio

from layrfs.ids import NodeId
from layrfs.network.addresses import Address

ALPHA = 3
SOFT_SECONDS = 0.15
HARD_SECONDS = 1.0
MOST_ASKED = 80
MOST_PER_ADDRESS = 2


class Peer(NamedTuple):
    """A node somebody told us about; unproven."""

    node_id: NodeId
    address: Address


Ask = Callable[[Peer, bytes], Awaitable[Sequence[Peer] | None]]
"""Asks a peer for those nearest to an id; None when it failed. Ends by itself within HARD_SECONDS."""


class Search:
    """State of one lookup: who is known, asked, failed, and who answered."""

    def __init__(self, target: bytes, start: Iterable[Peer], *, width: int, until: NodeId | None = None) -> None:
        self.target = target
        self._goal = int.from_bytes(target, "big")
        self._width = width
        self._until = until
        self._unasked: list[tuple[int, Peer]] = []
        self._met: set[Peer] = set()
        self._in_flight: dict[Peer, int] = {}
        self._answered: dict[NodeId, int] = {}
        self._failed: dict[NodeId, int] = {}
        self._addresses: Counter[Address] = Counter()
        self._asked = 0
        self.offer(start)

    def offer(self, peers: Iterable[Peer]) -> None:
        """Somebody knows these."""
        for peer in peers:
            if peer not in self._met:
                self._met.add(peer)
                heapq.heappush(self._unasked, (self._distance(peer.node_id), peer))

    def next(self) -> Peer | None:
        """Who should be asked now, and is from now on in flight; None when nobody should."""
        while self._unasked and self._asked < MOST_ASKED:
            distance, peer = self._unasked[0]
            if self.finished or distance > self._horizon():
                return None
            heapq.heappop(self._unasked)
            if self._addresses[peer.address] < MOST_PER_ADDRESS and peer.node_id not in self._answered:
                self._addresses[peer.address] += 1
                self._asked += 1
                self._in_flight[peer] = distance
                return peer
        return None

    def answered(self, peer: Peer, nearer: Iterable[Peer]) -> None:
        """The peer in flight answered with these."""
        self._answered[peer.node_id] = self._in_flight.pop(peer)
        self.offer(nearer)

    def failed(self, peer: Peer) -> None:
        """The peer in flight did not answer, or with nonsense."""
        self._failed[peer.node_id] = self._in_flight.pop(peer)

    @property
    def finished(self) -> bool:
        """Whether the nearest ``width`` of all who may be alive have answered, or who was sought has."""
        if self._until is not None and self._until in self._answered:
            return True
        horizon = self._horizon()
        waiting = any(distance <= horizon for distance in self._in_flight.values())
        asking = bool(self._unasked) and self._unasked[0][0] <= horizon and self._asked < MOST_ASKED
        return not waiting and not asking

    def result(self) -> list[NodeId]:
        """Those who answered, nearest first, at most ``width``."""
        return heapq.nsmallest(self._width, self._answered, key=self._answered.__getitem__)

    def reach(self) -> int | None:
        """Nobody within this distance has escaped the lookup; None: nobody at all has, the network is smaller.

        Dead nodes fill the answers of others too, so they count: beyond them there may be more.
        """
        tried = self._answered | self._failed
        if len(tried) < self._width:
            return None
        return heapq.nsmallest(self._width, tried.values())[-1]

    def _distance(self, node_id: NodeId) -> int:
        return int.from_bytes(node_id, "big") ^ self._goal

    def _horizon(self) -> int:
        """Beyond this distance nobody can belong to the result any more."""
        if len(self._answered) < self._width:
            return 1 << (8 * len(self.target))
        return heapq.nsmallest(self._width, self._answered.values())[-1]


async def look_up(search: Search, ask: Ask) -> list[NodeId]:
    """Carry out a search; the ids of those who answered, nearest first."""
    started: dict[Peer, float] = {}
    changed = trio.Event()

    async def ask_one(peer: Peer) -> None:
        nonlocal changed
        nearer = await ask(peer, search.target)
        del started[peer]
        if nearer is None:
            search.failed(peer)
        else:
            search.answered(peer, nearer)
        changed.set()

    async with trio.open_nursery() as nursery:
        while not search.finished:
            young = _young(started.values())
            while len(young) < ALPHA and (peer := search.next()) is not None:
                started[peer] = trio.current_time()
                young.append(started[peer])
                nursery.start_soon(ask_one, peer)
            changed = trio.Event()
            with trio.move_on_at(min(young, default=trio.current_time() + HARD_SECONDS) + SOFT_SECONDS):
                await changed.wait()
        nursery.cancel_scope.cancel()
    return search.result()


def _young(started: Iterable[float]) -> list[float]:
    """When the requests within their soft time were sent."""
    now = trio.current_time()
    return [when for when in started if now < when + SOFT_SECONDS]
