"""Carrying out placement: from pieces to hosts that should take them, and to others when those do not.

Owns one `Placement` for each transfer (which host has which piece, who has failed) and what is remembered of hosts
that failed. The rules are `policy.placement`'s. Must not move bytes.
Invariants: no host is given two pieces of one shard at the same time, however often pieces move; hosts that failed
lately are left alone only while others take pieces.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import trio

from layrfs.errors import LayrError
from layrfs.ids import NODE_ID_BYTES, NodeId, PieceId
from layrfs.model.records import HostAddress, NodeRecord
from layrfs.model.shards import ShardRecord
from layrfs.pipeline.finding import HostFinder
from layrfs.pipeline.jobs import Place, Wish
from layrfs.pipeline.paying import Market, OnlyFree
from layrfs.policy.backoff import NO_FAILURES, Failures
from layrfs.policy.hedging import UNKNOWN, HostMemory
from layrfs.policy.placement import Limits, Wanted, choose_hosts
from layrfs.policy.placement import Placement as Places

CANDIDATES = 20
"""Hosts nearest to a piece's key that are considered: Kademlia's k."""

_log = logging.getLogger(__name__)

_NOWHERE = "0.0.0.0"  # noqa: S104 - an address in no network: of a host that is avoided, but not its neighbours


def avoided(
    shard: ShardRecord, replaced: Collection[int], address_of: Callable[[NodeId], HostAddress | None]
) -> list[HostAddress]:
    """Who must get no more pieces of a shard: its hosts, and for pieces that stay also their networks.

    Where a piece that is ``replaced`` was, another host may stand in the same network: often the same person's.
    """
    known = [(piece.host, None if piece.position in replaced else address_of(piece.host)) for piece in shard.pieces]
    return [HostAddress(host, _NOWHERE, 0) if address is None else address for host, address in known]


class Placer:
    """Remembers who takes pieces and who does not."""

    def __init__(
        self,
        finder: HostFinder,
        memories: Mapping[NodeId, HostMemory],
        excluded: Callable[[], Collection[NodeId]] = tuple,
        suspended: Callable[[], Collection[NodeId]] = tuple,
        market: Market | None = None,
    ) -> None:
        """``excluded``: who must not be used, ``suspended``: only if nobody else takes a new shard; as of each call.

        ``market``: who may be paid, and how; without it nobody.
        """
        self._finder = finder
        self._memories = memories
        self.excluded = excluded
        self.suspended = suspended
        self.market = market or OnlyFree()
        self._failures: dict[NodeId, Failures] = {}

    def begin(self, already: Iterable[HostAddress] = ()) -> Placement:
        """A new shard, or one of which these hosts hold pieces."""
        return Placement(self, already)

    async def candidates(self, piece: PieceId) -> list[NodeRecord]:
        """Hosts for a piece, nearest first."""
        return await self._finder.closest_hosts(piece[:NODE_ID_BYTES], CANDIDATES)

    def resting(self, hosts: Iterable[NodeId]) -> set[NodeId]:
        """Those of the hosts that failed lately, or should not be used."""
        now, shunned = trio.current_time(), {*self.excluded(), *self.suspended()}
        return {host for host in hosts if host in shunned or self._is_resting(host, now)}

    def failed(self, host: NodeId) -> None:
        """The host did not take a piece."""
        self._failures[host] = self._failures.get(host, NO_FAILURES).after_failure(trio.current_time())
        self._finder.suspect(host)

    def succeeded(self, host: NodeId) -> None:
        """The host took a piece."""
        self._failures.pop(host, None)

    def _is_resting(self, host: NodeId, now: float) -> bool:
        fetching = self._memories.get(host, UNKNOWN).failures
        return fetching.resting(now) or self._failures.get(host, NO_FAILURES).resting(now)


class Placement:
    """Where the pieces of one shard go."""

    def __init__(self, placer: Placer, already: Iterable[HostAddress]) -> None:
        self._placer = placer
        self._already = tuple(already)
        self._holding: dict[int, HostAddress] = {}
        self._failed: set[NodeId] = set()
        self._given: set[tuple[HostAddress, PieceId]] = set()

    async def find(self, wishes: Sequence[Wish]) -> list[Place | None]:
        """A host for each wish, None where no eligible one is left. Waits for agreements with hosts that are paid."""
        for wish in wishes:
            self._note_failure(wish)
        wanted = {
            wish.slot.position: Wanted(wish.slot.position, wish.piece_bytes, await self._placer.candidates(wish.piece))
            for wish in wishes
        }
        places: dict[int, Place | None] = {}
        while waiting := [wish for wish in wishes if wish.slot.position not in places]:
            records = self._choose(waiting, [wanted[wish.slot.position] for wish in waiting])
            priced = [(wish, record) for wish, record in zip(waiting, records, strict=True) if record and record.price]
            for wish, record in zip(waiting, records, strict=True):
                if record is None or not record.price:
                    places[wish.slot.position] = None if record is None else Place(record.address)
            if priced:
                places |= await self._agreed(priced)
        return [places[wish.slot.position] for wish in wishes]

    async def _agreed(self, priced: Sequence[tuple[Wish, NodeRecord]]) -> dict[int, Place | None]:
        """By position, those that agree; the others have failed for this shard."""
        agreed: dict[int, Place | None] = {}

        async def agree(wish: Wish, record: NodeRecord) -> None:
            try:
                salts = await self._placer.market.agree(record, wish.piece, wish.piece_bytes)
            except LayrError as error:  # also of this machine: other hosts, and other transfers, go on
                _log.info("host %s gets no piece: %s", record.node_id.hex()[:12], error)
                self._failed.add(record.node_id)
                self._holding.pop(wish.slot.position, None)
                self._given.discard((record.address, wish.piece))
            else:
                agreed[wish.slot.position] = Place(record.address, salts)

        async with trio.open_nursery() as nursery:
            for wish, record in priced:
                nursery.start_soon(agree, wish, record)
        return agreed

    def restart(self) -> None:
        """The transfer begins again: pieces made so far are nobody's."""
        self._holding.clear()

    def end(self, kept: Collection[tuple[NodeId, PieceId]]) -> tuple[tuple[HostAddress, PieceId], ...]:
        """The transfer is over and these pieces count. Answers those that hosts may have got in vain."""
        for host, _ in kept:
            self._placer.succeeded(host)
        silent = self._placer.resting(address.node_id for address, _ in self._given)
        return tuple(
            (address, piece)
            for address, piece in self._given
            if (address.node_id, piece) not in kept and address.node_id not in silent
        )

    def _note_failure(self, wish: Wish) -> None:
        if wish.failed is not None:
            self._failed.add(wish.failed)
            self._placer.failed(wish.failed)
            self._holding.pop(wish.slot.position, None)

    def _choose(self, wishes: Sequence[Wish], wanted: Sequence[Wanted]) -> list[NodeRecord | None]:
        hosts = {record.node_id for piece in wanted for record in piece.candidates}
        plan = self._plan(wanted, self._placer.resting(hosts))
        if not plan.chosen and not self._holding:  # nobody else takes any of it
            plan = self._plan(wanted, self._last_resort())
        for wish in wishes:
            if (record := plan.chosen.get(wish.slot.position)) is not None:
                self._holding[wish.slot.position] = record.address
                self._given.add((record.address, wish.piece))
        return [plan.chosen.get(wish.slot.position) for wish in wishes]

    def _last_resort(self) -> AbstractSet[NodeId]:
        """Who is left alone even then. A shard that has pieces waits for better hosts: it would be made anew again."""
        return frozenset((*self._placer.excluded(), *(self._placer.suspended() if self._already else ())))

    def _plan(self, wanted: Sequence[Wanted], left_alone: AbstractSet[NodeId]) -> Places:
        limits = Limits(highest_price=self._placer.market.highest_price(), excluded=self._failed | left_alone)
        return choose_hosts(wanted, already=(*self._already, *self._holding.values()), limits=limits)
