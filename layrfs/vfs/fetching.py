"""From hosts into cache files: one fetch per shard at a time, and everything useful in it at once.

Owns which shards are on their way here. Must not know who reads. A shard that several small blocks share brings all of
them that are absent, as far as there is room: files that were written together are read together.
Invariant: every block being filled is ABSENT and in busy until its bytes are complete and recorded, or its
place in the cache file is zeros again.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Sequence

import trio

from layrfs.crashpoints import reached
from layrfs.errors import CorruptFile, LayrError, LocalError, RemoteError
from layrfs.ids import BlockNumber
from layrfs.model.shards import ShardRecord
from layrfs.pipeline.transfers import Downloads, TargetPart
from layrfs.storage.content import BlockPlace, Place
from layrfs.storage.journal import BlockKey
from layrfs.vfs.blocks import ABSENT, BlockMap, Busy
from layrfs.vfs.eviction import Evictor
from layrfs.vfs.shelf import Shelf

logger = logging.getLogger(__name__)

FETCHES = 32
"""Shards on their way at once; the pipeline bounds how many really move."""

AHEAD = 16
"""Fetches ahead of readers that may wait for their turn."""

SLICE = 128
"""Rows handled between two looks at what else there is to do."""

FAILED_SECONDS = 2.0
"""A shard that just could not be fetched is not tried again for so long: the kernel asks once more for every read that
failed, page by page, and who reads would wait for hosts all over again."""

SHARE = 2
"""Neighbours may take this many times the shard's own size (equal blocks are one content but many files)."""


class Fetch(Busy):
    """One shard on its way."""

    def __init__(self, shard: int, *, urgent: bool) -> None:
        super().__init__()
        self.shard = shard
        self.urgent = urgent
        self.spoiled = False
        """The rows have changed since: nothing of it is used, and whoever waits begins again."""
        self.wanted: list[BlockPlace] = []
        self.places: list[BlockPlace] = []


class Fetcher:
    """Brings absent blocks; works while ``run`` runs."""

    def __init__(self, shelf: Shelf, evictor: Evictor, transfers: Downloads) -> None:
        self._shelf = shelf
        self._evictor = evictor
        self._transfers = transfers
        self._by_shard: dict[int, Fetch] = {}
        self._failed: dict[int, tuple[float, RemoteError]] = {}
        self._jobs, self._todo = trio.open_memory_channel[Fetch](AHEAD)

    async def fetch(self, file: BlockMap, blocks: Sequence[int], *, urgent: bool = True) -> None:
        """Return when every block was there once; the caller pins them. Raises ``Unavailable``, ``LocalError``."""
        begun = [await self._begin(file, block, urgent=urgent) for block in blocks]
        for block, busy in zip(blocks, begun, strict=True):
            await self._until_present(file, block, busy, urgent=urgent)

    def prefetch(self, file: BlockMap, block: int) -> None:
        """Start fetching an absent block, if that is not under way and there is a turn and room for it."""
        ledger = self._shelf.ledger
        if ledger.busy(file.inode, block) is not None or file.inode in ledger.leaving or ledger.room <= 0:
            return
        if self._shelf.catalog.place(file.inode, BlockNumber(block)) is None:
            return  # lost: whoever reads it is told, not who reads before it
        fetch = self._new(file, block, urgent=False)
        if fetch is None:
            return
        try:
            self._jobs.send_nowait(fetch)
        except trio.WouldBlock:
            self._end(fetch)

    async def settle(self, file: BlockMap, block: int) -> None:
        """Return when nobody fills or empties the block any more."""
        while (busy := self._shelf.ledger.busy(file.inode, block)) is not None:
            await busy.done.wait()

    def spoil(self, blocks: Collection[BlockKey], contents: Collection[int], shards: Collection[int]) -> None:
        """What is on its way for such blocks, as such contents or from such shards, is not what they hold any more."""
        for fetch in self._by_shard.values():
            fetch.spoiled = fetch.spoiled or fetch.shard in shards
            for place in fetch.places:
                if (place.inode, place.block) in blocks or place.content in contents:
                    fetch.spoiled = True

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(FETCHES):
                nursery.start_soon(self._work, self._todo.clone())
            task_status.started()

    async def _work(self, todo: trio.MemoryReceiveChannel[Fetch]) -> None:
        async with todo:
            async for fetch in todo:
                with contextlib.suppress(CorruptFile):  # the database said so itself; those who wait were told
                    await self._carry_out(fetch)

    # ------------------------------------------------------------- one block

    async def _until_present(self, file: BlockMap, block: int, busy: Busy | None, *, urgent: bool) -> None:
        while busy is not None:
            await busy.done.wait()
            if busy.error is not None and file.states.get(block) == ABSENT:
                raise type(busy.error)(str(busy.error)) from busy.error
            busy = await self._begin(file, block, urgent=urgent)

    async def _begin(self, file: BlockMap, block: int, *, urgent: bool) -> Busy | None:
        """Who brings the block; None when nothing needs to be waited for."""
        if file.states.get(block) != ABSENT:
            return None
        ledger = self._shelf.ledger
        busy = ledger.busy(file.inode, block) or ledger.leaving.get(file.inode)
        if busy is not None:
            if isinstance(busy, Fetch):
                busy.urgent = busy.urgent or urgent
            return busy
        self._check_failed(self._place(file, block).shard)
        fetch = self._new(file, block, urgent=urgent)
        if fetch is None:
            place = self._place(file, block)
            return self._by_shard[place.shard]
        try:
            await self._jobs.send(fetch)
        except BaseException:
            self._end(fetch)
            raise
        return fetch

    def _check_failed(self, shard: int) -> None:
        """Raises what the shard could not be fetched for a moment ago."""
        when, error = self._failed.get(shard, (-FAILED_SECONDS, None))
        if error is not None and trio.current_time() - when < FAILED_SECONDS:
            raise type(error)(str(error)) from error

    def _note_failed(self, shard: int, error: RemoteError) -> None:
        now = trio.current_time()
        self._shelf.catalog.reach.distrust(shard)
        self._failed = {one: what for one, what in self._failed.items() if now - what[0] < FAILED_SECONDS}
        self._failed[shard] = (now, error)

    def hosts_appeared(self) -> None:
        """What failed may be tried again at once."""
        self._failed.clear()

    def _new(self, file: BlockMap, block: int, *, urgent: bool) -> Fetch | None:
        """A fetch of the block's shard, with the block claimed; None when the shard is on its way already."""
        place = self._place(file, block)
        running = self._by_shard.get(place.shard)
        if running is not None:
            running.urgent = running.urgent or urgent
            return None
        fetch = Fetch(place.shard, urgent=urgent)
        self._claim(fetch, BlockPlace(file.inode, BlockNumber(block), place.content, place.offset, place.length))
        fetch.wanted = list(fetch.places)
        self._by_shard[place.shard] = fetch
        return fetch

    def _place(self, file: BlockMap, block: int) -> Place:
        place = self._shelf.catalog.place(file.inode, BlockNumber(block))
        if place is None:
            raise LocalError(
                f"Block {block} of file {file.inode} is on no host: only the machine it was written on may have it."
            )
        return place

    def _claim(self, fetch: Fetch, place: BlockPlace) -> None:
        self._shelf.ledger.occupy(place.inode, place.block, fetch)
        fetch.places.append(place)

    # ------------------------------------------------------------- one shard

    async def _carry_out(self, fetch: Fetch) -> None:
        reserved = 0
        try:
            record = self._shard(fetch.shard)
            await self._evictor.room_for_reading(record.plain_bytes)
            reserved = record.plain_bytes
            await self._add_neighbours(fetch, record)
            targets = [self._target(place) for place in fetch.places]
            await self._transfers.download(record, targets, urgent=fetch.urgent)
            reached("fetch arrived")
            self._shelf.catalog.reach.trust(fetch.shard)
            await self._record(fetch)
        except LayrError as error:
            fetch.error = None if fetch.spoiled else error  # whoever waits tries again with what is true now
            if isinstance(error, RemoteError):
                self._note_failed(fetch.shard, error)
            logger.warning("shard %d could not be fetched: %s", fetch.shard, error)
        finally:
            self._shelf.ledger.reserve(-reserved)
            self._end(fetch)

    def _shard(self, number: int) -> ShardRecord:
        try:
            return self._shelf.catalog.shard(number)
        except KeyError:
            raise LocalError(f"Shard {number} is not in the database: it is damaged.") from None

    async def _add_neighbours(self, fetch: Fetch, record: ShardRecord) -> None:
        room = min(SHARE * record.plain_bytes, record.plain_bytes + max(0, self._shelf.ledger.room))
        after = (0, 0, 0)
        while room > 0:
            rows = self._shelf.catalog.absent_in_shard(fetch.shard, after, SLICE)
            for place in rows:
                if self._is_free(place) and place.length <= room:
                    self._claim(fetch, place)
                    room -= place.length
            if len(rows) < SLICE:
                break
            after = (rows[-1].content, rows[-1].inode, rows[-1].block)
            await trio.lowlevel.checkpoint()

    def _is_free(self, place: BlockPlace) -> bool:
        """Filling a later block of a closed file would change what its dirty blocks count for: those are left out."""
        shelf = self._shelf
        if shelf.ledger.busy(place.inode, place.block) is not None or place.inode in shelf.ledger.leaving:
            return False
        file = shelf.ledger.open.get(place.inode)
        if file is not None:
            return file.states.get(place.block) == ABSENT
        return place.block == 0 or not shelf.journal.has_dirty(place.inode)

    def _target(self, place: BlockPlace) -> TargetPart:
        shelf = self._shelf
        shelf.files.make_directory(place.inode)
        return TargetPart(
            path=shelf.files.path(place.inode),
            file_offset=place.block * shelf.block_bytes(place.inode) if place.block else 0,
            shard_offset=place.offset,
            length=place.length,
        )

    async def _record(self, fetch: Fetch) -> None:
        while fetch.places and not fetch.spoiled:
            self._shelf.filled(fetch.places[:SLICE])
            del fetch.places[:SLICE]
            if fetch.places:
                await trio.lowlevel.checkpoint()

    def _end(self, fetch: Fetch) -> None:
        """Give up what was not filled, and let everybody go on."""
        del self._by_shard[fetch.shard]
        try:
            for place in fetch.places:
                self._shelf.leave(place.inode, place.block)
            for place in fetch.places:
                self._shelf.clear(place.inode, place.block)
        finally:
            fetch.places.clear()
            fetch.done.set()
