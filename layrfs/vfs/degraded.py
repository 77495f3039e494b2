"""Shards with fewer pieces than they should have get the missing ones when hosts appear.

Owns nothing but the order in which that is tried; which shards they are is in the ledger. Must not know placement.
Invariant: nobody else tops up shards of files, and one at a time: two would give one host two copies of a shard.
"""

from __future__ import annotations

import logging

import trio

from layrfs.errors import LayrError, Unavailable
from layrfs.ids import NodeId
from layrfs.model.shards import ShardRecord
from layrfs.pipeline.transfers import Slot, Transfers, missing_slots
from layrfs.policy.copies import within_reach
from layrfs.vfs.shelf import Shelf

logger = logging.getLogger(__name__)

RETRY_SECONDS = 60.0


class Completer:
    """Tops up degraded shards while ``run`` runs."""

    def __init__(self, shelf: Shelf, transfers: Transfers) -> None:
        self._shelf = shelf
        self._transfers = transfers
        self._wake = trio.Event()
        self._next_pass_ended = trio.Event()

    def hosts_appeared(self) -> None:
        """Try now."""
        self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            with trio.move_on_after(RETRY_SECONDS):
                await self._wake.wait()
            self._wake = trio.Event()
            ended, self._next_pass_ended = self._next_pass_ended, trio.Event()
            await self._pass()
            ended.set()

    async def top_up(self) -> None:
        """Return when every degraded shard has been tried once more; it is tried even if the caller gives up."""
        ended = self._next_pass_ended
        self._wake.set()
        await ended.wait()

    async def _pass(self) -> None:
        """Try every degraded shard once, oldest first, until no host takes a piece.

        Of hosts that have failed to deliver one shard no other is asked for: silence costs its time once, not for each.
        """
        silent: set[NodeId] = set()
        for number in sorted(self._shelf.catalog.pieces.degraded):
            record = self._record(number)
            if record is None:
                continue
            slots = missing_slots(record, self._shelf.catalog.pieces.next_generation(number))
            if within_reach(record.redundancy.needed, [piece.host for piece in record.pieces], silent):
                try:
                    takes = await self._top_up(number, record, slots)
                except Unavailable:
                    silent.update(piece.host for piece in record.pieces)
                except LayrError as error:
                    logger.info("shard %d stays degraded: %s", number, error)
                else:
                    if not takes:
                        break
        if silent:
            logger.info("%d hosts do not answer: shards that are only there stay degraded", len(silent))

    async def _top_up(self, number: int, record: ShardRecord, slots: list[Slot]) -> bool:
        """Whether hosts take pieces."""
        pieces = await self._transfers.top_up(record, slots)
        if self._shelf.catalog.has_shard(number):
            self._shelf.catalog.pieces.put(number, pieces)
        return bool(pieces)

    def _record(self, number: int) -> ShardRecord | None:
        catalog = self._shelf.catalog
        return catalog.shard(number) if catalog.has_shard(number) else None
