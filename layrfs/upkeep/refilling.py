"""Digests that are lacking are made: of pieces that a new contract is to go on paying for, and where records were lost.

Most are made when pieces pass through anyway; for the rest, shards are fetched, one after the other and with pauses.
Must not know how digests are used. Invariant: a shard is fetched once for all of its pieces that lack them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

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


class Refiller:
    """One volume's."""

    def __init__(self, *, holdings: Holdings, market: Lacking, digester: Digester) -> None:
        self._holdings = holdings
        self._market = market
        self._digester = digester

    async def refill(self, host: NodeId) -> int:
        """Have digests of all pieces that a host is to be paid for; of how many shards they were made.

        A shard that cannot be fetched now is passed over.
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
        return refilled

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


def pause_seconds(busy_seconds: float, seconds: float) -> float:
    """After a shard: the usual share of the time, or less when else not all would be done in half of what is left."""
    return max(0.0, min((SHARE - 1) * busy_seconds, seconds / 2 - busy_seconds))
