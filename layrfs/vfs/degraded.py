"""Shards with fewer pieces than they should have get the missing ones when hosts appear.

Owns nothing but the order in which that is tried; which shards they are is in the ledger. Must not know placement.
Invariant: nobody else tops up shards of files, and one at a time: two would give one host two copies of a shard.
"""

from __future__ import annotations

import logging

import trio

from layrfs.errors import LayrError
from layrfs.pipeline.transfers import Transfers, missing_slots
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
        """Try every degraded shard once, oldest first, until no host takes a piece."""
        for number in sorted(self._shelf.ledger.degraded):
            try:
                placed = await self._top_up(number)
            except LayrError as error:
                logger.info("shard %d stays degraded: %s", number, error)
                continue
            if not placed:
                break

    async def _top_up(self, number: int) -> bool:
        """Whether hosts take pieces."""
        catalog = self._shelf.catalog
        record = catalog.shard(number) if catalog.has_shard(number) else None
        slots = missing_slots(record) if record else []
        pieces = await self._transfers.top_up(record, slots) if record and slots else ()
        if catalog.has_shard(number):
            catalog.put_pieces(number, pieces)
        complete = len(pieces) == len(slots)
        if complete:
            self._shelf.ledger.degraded.discard(number)
        return bool(pieces) or complete
