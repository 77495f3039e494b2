"""Digests that are lacking are made: of pieces that a new contract is to go on paying for, and where records were lost.

Most are made when pieces pass through anyway; for the rest, shards are fetched, one after the other and with pauses.
Must not know how digests are used. Invariant: a shard is fetched once for all of its pieces that lack them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import NamedTuple, Protocol

import trio

from layrfs.errors import LayrError
from layrfs.ids import NodeId, ShardId
from layrfs.model.payables import Salts
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.upkeep.challenging import HeldPiece
from layrfs.upkeep.holdings import Holdings

SHARE = 4
"""One part of the time shards are fetched, three parts nobody notices."""

FAILED_SECONDS = 5.0
"""Nobody waits, and hosts that cannot be reached are not to be asked all the time."""

YIELD_EVERY = 64

LONGEST_PAUSE_SECONDS = 300.0
"""Between passes: a session may be short, and a renewed contract is to pay for all soon."""

_log = logging.getLogger(__name__)


class Digester(Protocol):
    """``layrfs.pipeline.pooled.PooledTransfers``, or a fake."""

    async def digest(self, shard: ShardRecord, wanted: Sequence[tuple[PieceRecord, Salts]]) -> None:
        """Fetch a shard and keep digests of these of its pieces."""
        ...


class Lacking(Protocol):
    """``layrfs.upkeep.paid_market.PaidMarket``, or a fake."""

    def lacking(self, piece: PieceRecord) -> Salts | None:
        """What to digest a piece under."""
        ...

    def seconds_left(self, host: NodeId) -> float:
        """Until the host is not paid any more for what is lacking."""
        ...


class Refilled(NamedTuple):
    """Of how many shards digests were made, and of how many they could not be."""

    made: int
    failed: int


class Refiller:
    """One volume's."""

    def __init__(self, *, holdings: Holdings, market: Lacking, digester: Digester) -> None:
        self._holdings = holdings
        self._market = market
        self._digester = digester

    async def refill(self, host: NodeId) -> Refilled:
        """Have digests of all pieces that a host is to be paid for. A shard that cannot be fetched now is passed over.

        Raises ``LocalError``, ``CorruptFile``.
        """
        refilled, failed = 0, set[ShardId]()
        chosen = await self._holdings.chosen(host, tuple)
        for count, owed in enumerate(chosen):
            if count % YIELD_EVERY == 0:
                await trio.lowlevel.checkpoint()
            held = self._holdings.held(host, owed)
            if held is None or held.shard.id in failed or self._market.lacking(held.piece) is None:
                continue
            if await self._digest(held, self._market.seconds_left(host) / (len(chosen) - count)):
                refilled += 1
            else:
                failed.add(held.shard.id)
        return Refilled(refilled, len(failed))

    async def _digest(self, held: HeldPiece, seconds: float) -> bool:
        """``seconds``: there are so many for each shard."""
        wanted = [(piece, salts) for piece in held.shard.pieces if (salts := self._market.lacking(piece)) is not None]
        began = trio.current_time()
        try:
            await self._digester.digest(held.shard, wanted)
        except LayrError as error:
            _log.info("shard %s cannot be digested now: %s", held.shard.id.hex()[:12], error)
            await trio.sleep(FAILED_SECONDS)
            return False
        await trio.sleep(pause_seconds(trio.current_time() - began, seconds))
        return True


class RefillRounds:
    """All hosts of one volume, again and again; ``run`` once."""

    def __init__(
        self,
        *,
        refiller: Refiller,
        hosts: Callable[[], Collection[NodeId]],
        contract_with: Callable[[NodeId], Awaitable[int | None]],
        refilled: Callable[[], None],
        again_seconds: float,
    ) -> None:
        """``hosts``: those to be paid. ``contract_with``: the number of one that takes more, made when there is none.

        ``refilled``: there is something to cover. ``again_seconds``: after this what was complete is looked at again.
        """
        self._refiller = refiller
        self._hosts = hosts
        self._contract_with = contract_with
        self._refilled = refilled
        self._again_seconds = again_seconds
        self._complete: dict[NodeId, tuple[int, float]] = {}
        self._appeared = trio.Event()

    def hosts_appeared(self) -> None:
        """Hosts have been found or come back."""
        self._appeared.set()
        self._appeared = trio.Event()

    async def run(self) -> None:
        """Until cancelled. Contracts wait for no digests: one host's take days, others would let go."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._again_and_again, self._contract_with)
            nursery.start_soon(self._again_and_again, self._refill)

    async def _again_and_again(self, do: Callable[[NodeId], Awaitable[object]]) -> None:
        while True:
            appeared = self._appeared
            await self._for_each(do)
            with trio.move_on_after(min(self._again_seconds, LONGEST_PAUSE_SECONDS)):
                await appeared.wait()

    async def _for_each(self, do: Callable[[NodeId], Awaitable[object]]) -> None:
        """What fails for one host keeps nothing from others."""
        try:
            hosts = list(self._hosts())
        except LayrError as error:
            _log.warning("it is not known who is to be paid further: %s", error)
            return
        for host in hosts:
            try:
                await do(host)
            except LayrError as error:
                _log.warning("host %s cannot be paid for what is lacking now: %s", host.hex()[:12], error)

    async def _refill(self, host: NodeId) -> None:
        contract, began = await self._contract_with(host), trio.current_time()
        known, complete_at = self._complete.get(host, (None, -math.inf))
        if contract is None or (contract == known and began < complete_at + self._again_seconds):
            return
        found = await self._refiller.refill(host)
        if not found.failed:
            self._complete[host] = contract, began
        if found.made:
            self._refilled()


def pause_seconds(busy_seconds: float, seconds: float) -> float:
    """After a shard: the usual share of the time, or less when else not all would be done in half of what is left."""
    return max(0.0, min((SHARE - 1) * busy_seconds, seconds / 2 - busy_seconds))
