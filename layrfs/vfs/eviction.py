"""Room in the cache: clean blocks leave, least recently used first; writers wait while dirty ones are on their way out.

Owns what leaves and who waits. Must not know hosts. Dirty blocks and pinned files never leave, nor does what no host
could give back: the cache may have the last copy of it.
Invariant: rows that call a block clean are gone *and committed* before its bytes are; a block being emptied is ABSENT
and busy, a file being deleted is in ``ledger.leaving``.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from collections.abc import Set as AbstractSet
from functools import partial
from typing import NamedTuple

import trio

from layrfs.crashpoints import reached
from layrfs.errors import NoSpace
from layrfs.ids import BlockNumber, InodeNumber
from layrfs.policy.eviction import Candidate, choose, to_free
from layrfs.storage.journal import Use
from layrfs.storage.pins import PinTable
from layrfs.vfs.blocks import CLEAN, BlockMap, Busy, on_disk
from layrfs.vfs.shelf import Shelf


class Clearing(NamedTuple):
    """Blocks whose rows are gone and whose bytes are going."""

    leaving: list[InodeNumber]
    """Files that go as a whole."""
    emptied: dict[InodeNumber, list[BlockNumber]]
    ranges: dict[InodeNumber, list[tuple[int, int]]]
    busy: Busy


logger = logging.getLogger(__name__)

STALL_SECONDS = 30.0
"""Writers that find no room are told so when nothing has moved towards hosts for so long."""

LONGEST_STALL_SECONDS = 600.0
"""And when bytes have, but no upload has ended well for so long: what hosts take and do not keep makes no room."""

SLICE = 64
"""Files or blocks that leave in one go, between two looks at what else there is to do."""

SMALL_BYTES = 256 << 10
"""Closed files no larger than this leave as a whole, of larger ones as many blocks as are needed."""

PUNCH_BYTES = 32 << 20
"""Cut out at most this in one system call: a write to the same file waits for it."""

BATCH = 256
"""Closed files looked at in one query."""

CAREFUL_BATCHES = 4
"""So many of those are looked through for what hosts have enough copies of, before other files leave, too."""


class Evictor:
    """Makes room."""

    def __init__(
        self,
        shelf: Shelf,
        pins: PinTable,
        in_thread: Callable[[Callable[[], None]], Awaitable[None]],
        has_room: Callable[[], bool],
        last_moved: Callable[[], float],
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._shelf = shelf
        self._pins = pins
        self._in_thread = in_thread
        self._database_has_room = has_room
        self.last_moved = last_moved
        self._stall_seconds = stall_seconds
        self._evicting = trio.Lock()
        self._stuck_since = self._stuck_at = -math.inf
        self.writers_waiting = 0
        """How many writers wait for room; uploads hurry then."""

    def refresh(self) -> None:
        """Look at the disk and the sums again."""
        ledger = self._shelf.ledger
        ledger.refresh(self._shelf.files.free_bytes())
        if not self._database_has_room():
            ledger.room = min(ledger.room, 0)

    async def room_for_reading(self, wanted_bytes: int) -> None:
        """Make room if that is possible and reserve it; readers go on in any case. Give it back with ``reserve``."""
        await self._free_for(wanted_bytes)
        self._shelf.ledger.reserve(wanted_bytes)

    async def room_for_writing(self, wanted_bytes: int) -> None:
        """Return when there is room. Raises ``NoSpace`` when none comes up and uploads make no progress."""
        ledger = self._shelf.ledger
        self.writers_waiting += 1
        try:
            while not await self._free_for(wanted_bytes):
                if ledger.dirty_blocks == 0 and ledger.limit_bytes < 2 * wanted_bytes:
                    return
                self._check_stalled()
                with trio.move_on_after(1.0):
                    await ledger.progress()
            self._stuck_at = -math.inf
        finally:
            self.writers_waiting -= 1

    def _check_stalled(self) -> None:
        """Once stuck, every writer is told at once, until an upload ends well, room turns up or none comes for long."""
        now, last_sent = trio.current_time(), self._shelf.ledger.last_sent
        if last_sent > self._stuck_since or now - self._stuck_at > self._stall_seconds:
            self._stuck_since = now
        self._stuck_at = now
        moved = max(self._stuck_since, min(self.last_moved(), self._stuck_since + LONGEST_STALL_SECONDS))
        if now - moved >= self._stall_seconds:
            raise NoSpace("The cache is full of data that no host has yet, and uploads make no progress.")

    async def _free_for(self, wanted_bytes: int) -> bool:
        """Evict until there is room; whether there is now."""
        ledger = self._shelf.ledger
        if ledger.room >= wanted_bytes:
            return True
        async with self._evicting:
            self.refresh()
            needed = to_free(room_bytes=ledger.room, wanted_bytes=wanted_bytes, limit_bytes=ledger.limit_bytes)
            if needed > 0:
                await self._free(needed)
                ledger.pinned_bytes = self._pins.bytes_here()
                self.refresh()
        return ledger.room >= wanted_bytes

    async def keep_limit(self) -> None:
        """Evict what is over the limit: the housekeeper calls this now and then."""
        if self._shelf.ledger.room < 0 < self._shelf.ledger.clean_bytes:
            await self._free_for(0)

    async def room_on_disk(self, wanted_bytes: int) -> bool:
        """Whether the disk takes so much more, once what may leave has left."""
        ledger, files = self._shelf.ledger, self._shelf.files
        if files.free_bytes() - ledger.keep_free_bytes >= wanted_bytes:
            return True
        await self._free_for(wanted_bytes)
        return files.free_bytes() - ledger.keep_free_bytes >= wanted_bytes

    async def drop_clean(self) -> int:
        """Evict everything clean that is not pinned and nobody is waiting for; the bytes that were freed."""
        async with self._evicting:
            freed = await self._free(self._shelf.ledger.limit_bytes + self._shelf.ledger.cached_bytes)
            self.refresh()
        return freed

    # ------------------------------------------------------------- choosing

    async def _free(self, needed_bytes: int) -> int:
        """What hosts have too few copies of leaves when nothing else does; what no host could give now stays."""
        catalog = self._shelf.catalog
        reach = catalog.reach
        last = Spared(self._shelf, reach.lost | (reach.distrusted - reach.held(reach.distrusted)))
        few = Spared(self._shelf, last.shards | reach.distrusted | catalog.pieces.degraded)
        freed = await self._free_others(few, needed_bytes, CAREFUL_BATCHES if few.shards else None)
        if freed < needed_bytes and few.shards:
            freed += await self._free_others(last, needed_bytes - freed, None)
        return freed

    async def _free_others(self, spared: Spared, needed_bytes: int, batches: int | None) -> int:
        freed, after = 0, Use(InodeNumber(0), 0, -1)
        for batch in itertools.count():
            if freed >= needed_bytes or batch == batches:
                break
            closed = self._shelf.journal.oldest(after, BATCH)
            # open files compete with this batch; after the last batch nothing but they is left
            horizon = float(closed[-1].used) if len(closed) == BATCH else float("inf")
            candidates = [*self._closed(closed, spared), *self._opened(horizon, spared)]
            freed += await self._evict(choose(candidates, needed_bytes - freed), spared, needed_bytes - freed)
            if len(closed) < BATCH:
                break
            after = closed[-1]
            await trio.lowlevel.checkpoint()
        return freed

    def _closed(self, uses: list[Use], spared: Spared) -> Iterator[Candidate]:
        ledger = self._shelf.ledger
        for use in uses:
            if use.inode not in ledger.open and (clean_bytes := spared.clean_bytes(use)) > 0:
                yield Candidate(use.inode, None, clean_bytes, max(use.used, ledger.used.get(use.inode, 0)))

    def _opened(self, horizon: float, spared: Spared) -> Iterator[Candidate]:
        for file in self._shelf.ledger.open.values():
            clean = [block for block, state in file.states.items() if state == CLEAN and block not in file.waiting]
            clean = spared.others(file.inode, clean)
            if not clean or self._pins.is_pinned(file.inode):
                continue
            each = 1 + self._shelf.journal.clean_bytes_of(file.inode) // len(clean)
            for block in clean:
                used = file.used.get(block, file.opened)
                if used <= horizon:
                    yield Candidate(file.inode, block, each, used)

    # ------------------------------------------------------------- carrying out

    async def _evict(self, chosen: list[Candidate], spared: Spared, needed_bytes: int) -> int:
        freed = 0
        for first in range(0, len(chosen), SLICE):
            freed += await self._evict_slice(chosen[first : first + SLICE], spared, needed_bytes - freed)
        return freed

    async def _evict_slice(self, chosen: list[Candidate], spared: Spared, needed_bytes: int) -> int:
        shelf, emptied, freed = self._shelf, dict[InodeNumber, list[BlockNumber]](), 0
        for candidate in chosen:
            inode = InodeNumber(candidate.inode)
            blocks = self._still_clean(inode, candidate.block, spared)
            if candidate.clean_bytes > SMALL_BYTES:
                blocks = _enough(blocks, needed_bytes - freed)
            freed += shelf.forget_clean(inode, blocks)
            emptied.setdefault(inode, []).extend(block for block, _length in blocks)
        shelf.journal.commit()
        reached("eviction committed")
        await self.clear(self.begin_clearing(emptied, whole_files=True))
        return freed

    def begin_clearing(self, emptied: dict[InodeNumber, list[BlockNumber]], *, whole_files: bool) -> Clearing:
        """Keep everybody from blocks that are not in the cache any more; commit their rows, then ``clear``.

        ``whole_files``: of what is not used any more the file goes; its blocks must all have rows.
        """
        shelf = self._shelf
        leaving = [inode for inode in emptied if whole_files and shelf.is_unused(inode)]
        for inode in leaving:
            del emptied[inode]
        ranges = {inode: _ranges(blocks, shelf.block_bytes(inode)) for inode, blocks in emptied.items()}
        return Clearing(leaving, emptied, ranges, self._occupy(leaving, emptied))

    async def clear(self, clearing: Clearing) -> None:
        """Let the bytes go; not cancelled."""
        try:
            with trio.CancelScope(shield=True):
                await self._in_thread(partial(self._clear, clearing.leaving, clearing.ranges))
            reached("evicted")
        finally:
            self._leave(clearing.leaving, clearing.emptied)
            clearing.busy.done.set()
        self._shelf.ledger.moved()

    def _still_clean(self, inode: InodeNumber, block: int | None, spared: Spared) -> list[tuple[BlockNumber, int]]:
        file = self._shelf.ledger.open.get(inode)
        if block is not None:
            number = BlockNumber(block)
            length = self._shelf.journal.clean_length(inode, number) if _evictable(file, block) else 0
            return [(number, length)] if length else []
        clean = spared.clean_blocks(inode)
        return clean if file is None else [(number, length) for number, length in clean if _evictable(file, number)]

    def _occupy(self, leaving: list[InodeNumber], emptied: dict[InodeNumber, list[BlockNumber]]) -> Busy:
        """Keep everybody from filling blocks whose bytes are about to be cleared."""
        ledger, busy = self._shelf.ledger, Busy()
        ledger.leaving.update(dict.fromkeys(leaving, busy))
        for inode, blocks in emptied.items():
            for block in blocks:
                ledger.occupy(inode, block, busy)
        return busy

    def _leave(self, leaving: list[InodeNumber], emptied: dict[InodeNumber, list[BlockNumber]]) -> None:
        ledger = self._shelf.ledger
        for inode in leaving:
            del ledger.leaving[inode]
            if inode in ledger.open:
                ledger.open[inode].file.close()  # its descriptor may be of the file that was deleted
        for inode, blocks in emptied.items():
            for block in blocks:
                self._shelf.leave(inode, block)

    def _clear(self, leaving: list[InodeNumber], ranges: dict[InodeNumber, list[tuple[int, int]]]) -> None:
        """In a thread: the disk may take its time."""
        for inode in leaving:
            self._shelf.files.remove(inode)
        for inode, holes in ranges.items():
            self._shelf.files.punch(inode, holes)


class Spared:
    """Shards whose blocks stay in the cache."""

    def __init__(self, shelf: Shelf, shards: AbstractSet[int]) -> None:
        self.shards = shards
        self._shelf = shelf

    def others(self, inode: InodeNumber, blocks: list[int]) -> list[int]:
        """Of a file's blocks those that may leave."""
        staying = self._shelf.catalog.blocks_in(inode, self.shards) if self.shards and blocks else set()
        return [block for block in blocks if block not in staying]

    def clean_blocks(self, inode: InodeNumber) -> list[tuple[BlockNumber, int]]:
        """The clean ones of those, with their lengths."""
        clean = self._shelf.journal.clean_blocks(inode)
        leaving = set(self.others(inode, [block for block, _length in clean]))
        return [(block, length) for block, length in clean if block in leaving]

    def clean_bytes(self, use: Use) -> int:
        """What they take of a closed file's room in the cache."""
        return (
            sum(on_disk(length) for _block, length in self.clean_blocks(use.inode)) if self.shards else use.clean_bytes
        )


def _evictable(file: BlockMap | None, block: int) -> bool:
    return file is None or (file.states.get(block) == CLEAN and block not in file.waiting)


def _enough(blocks: list[tuple[BlockNumber, int]], needed_bytes: int) -> list[tuple[BlockNumber, int]]:
    """The last blocks of a large file, as many as are needed: whoever reads it again begins at the front."""
    chosen: list[tuple[BlockNumber, int]] = []
    for block in reversed(blocks):
        if needed_bytes <= 0:
            break
        chosen.append(block)
        needed_bytes -= on_disk(block[1])
    return chosen


def _ranges(blocks: list[BlockNumber], block_bytes: int) -> list[tuple[int, int]]:
    """Offsets and lengths, neighbours joined: cutting out one long range is much cheaper than many short ones."""
    ranges: list[tuple[int, int]] = []
    for block in sorted(blocks):
        offset = block * block_bytes
        if ranges and sum(ranges[-1]) == offset and ranges[-1][1] < PUNCH_BYTES:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + block_bytes)
        else:
            ranges.append((offset, block_bytes))
    return ranges
