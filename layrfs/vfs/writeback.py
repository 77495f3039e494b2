"""Dirty blocks go to hosts: which together, and what is recorded when they are there.

Owns the uploads under way. Must not know how bytes travel, nor the moment (``readiness``). The queue is the journal
itself (rows with ``dirty = 1``, in the order of inodes), swept again and again: a million waiting files cost no memory.
Uploads that fail are tried again for ever, with pauses that grow while no host answers.

Somebody who waits (``flush``) is owed the blocks that are dirty when he begins to (``owed``), and goes through just
those, so he is done in two turns whatever is written meanwhile: a block that is written while it travels stays dirty,
but hosts have bytes from after the claim, and a row that says where. A sweep of its own accord does not insist on
blocks that are being written, unless they are overdue.
Invariant: every claimed block (``ledger.sending``) is unclaimed or recorded when its upload ends, however that ends,
and whoever waits for it is told.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import NamedTuple

import trio

from layrfs.crashpoints import reached
from layrfs.errors import CorruptFile, LayrError, LocalError, Superseded
from layrfs.ids import BlockNumber, InodeNumber
from layrfs.model.redundancy import Redundancy
from layrfs.model.sharding import MIN_BLOCK_BYTES
from layrfs.pipeline.transfers import Transfers, Uploaded
from layrfs.policy.packing import pack
from layrfs.storage.journal import BlockKey
from layrfs.vfs.blocks import Mark
from layrfs.vfs.eviction import Evictor
from layrfs.vfs.owed import Claim, Owed, Progress
from layrfs.vfs.readiness import CLOSED_SECONDS, Readiness
from layrfs.vfs.recutting import may_recut, recut
from layrfs.vfs.shelf import Part, Shelf

logger = logging.getLogger(__name__)

UPLOADS = 6
"""Shards on their way to hosts at once."""

SWEEP_SECONDS = 0.5
SLICE = 64
"""Blocks claimed or recorded in one go, a few milliseconds, between two looks at what else there is to do."""
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
WAITED_PAUSE_SECONDS = 5.0
"""The longest while somebody waits: hosts may come back without being missed."""


class Group(NamedTuple):
    """Blocks that travel together."""

    parts: list[Part]
    redundancy: Redundancy


Queues = dict[Redundancy, list[Part]]
"""Claimed blocks on their way into shards; a shard has one redundancy."""


class Writeback:
    """Sends dirty blocks; works while ``run`` runs."""

    def __init__(
        self,
        shelf: Shelf,
        evictor: Evictor,
        transfers: Transfers,
        redundancy_of: Callable[[InodeNumber], Redundancy],
        fix_block_bytes: Callable[[InodeNumber], int],
        closed_seconds: float = CLOSED_SECONDS,
    ) -> None:
        self._shelf = shelf
        self._evictor = evictor
        self._transfers = transfers
        self._redundancy_of = redundancy_of
        self._fix_block_bytes = fix_block_bytes
        self._readiness = Readiness(shelf.ledger, evictor, closed_seconds)
        self._groups, self._todo = trio.open_memory_channel[Group](0)
        self._owed: list[Owed] = []
        """Of every flush that is on."""
        self._claims: dict[Mark, list[Claim]] = {}
        """Who waits for the end of an upload."""
        self._pause_seconds = 0.0
        self._resume_at = 0.0
        self._resumed = trio.Event()
        self._held: dict[InodeNumber, tuple[float, float]] = {}
        """Files that cannot be read: until when they are left alone, and for how long next time."""
        self._stopped: str | None = None
        self.problem: str | None = None
        """Why nothing goes out at the moment, in a sentence."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(UPLOADS):
                nursery.start_soon(self._work, self._todo.clone())
            task_status.started()
            while True:
                await self._until_resumed()
                started = 0
                if self._shelf.ledger.dirty_blocks and self._stopped is None:
                    try:
                        started = await self._sweep(self._all_dirty(), None)
                    except CorruptFile as error:  # nothing can be sent any more; what is open can still be read
                        self._pause(error)
                if not (started and self._evictor.writers_waiting):
                    await trio.sleep(SWEEP_SECONDS)  # what is closed meanwhile travels together

    async def flush(self, inodes: Sequence[InodeNumber] | None, progress: Progress | None) -> None:
        """Return when every byte that is dirty now (of some files, or all) is on hosts; tries for ever.

        Hosts have each block then as it was at some time since the call, some perhaps newer than others. Raises
        ``Superseded`` when nothing goes out any more and something would have to.
        """
        self.resume()
        owed = Owed(self._shelf.ledger.claims, progress)
        self._owed.append(owed)
        try:
            await self._list(self._all_dirty() if inodes is None else self._dirty_of(inodes), owed)
            while owed.turn():
                if self._stopped is not None:
                    raise Superseded(self._stopped)
                await self._until_resumed()
                started = await self._sweep(self._still_dirty(owed), owed)
                if not started and not owed.outstanding:
                    await trio.sleep(SWEEP_SECONDS)
                while owed.outstanding:
                    owed.changed = trio.Event()
                    self._tell(owed)
                    await owed.changed.wait()
            self._tell(owed)
        finally:
            self._owed.remove(owed)

    def _tell(self, owed: Owed) -> None:
        if owed.progress is not None:
            owed.progress(owed.sent_bytes, self._shelf.ledger.dirty_bytes)

    def stop(self, reason: str) -> None:
        """From now on what is dirty stays here, for the reason that this sentence says."""
        self._stopped = reason
        self.resume()

    def resume(self) -> None:
        """Something changed (hosts appeared, somebody waits): try at once."""
        self._pause_seconds = self._resume_at = 0.0
        self._held.clear()
        self._resumed.set()
        self._resumed = trio.Event()

    def is_travelling(self, inode: InodeNumber) -> bool:
        """Whether an upload of some block of the file is under way or being put together."""
        return any(key[0] == inode for key in self._shelf.ledger.sending)

    # ------------------------------------------------------------- which blocks

    async def _all_dirty(self) -> AsyncGenerator[list[BlockKey], None]:
        after: BlockKey = (InodeNumber(0), BlockNumber(-1))
        while keys := self._shelf.journal.dirty_after(after, SLICE):
            after = keys[-1]
            yield keys
            await trio.lowlevel.checkpoint()

    async def _dirty_of(self, inodes: Sequence[InodeNumber]) -> AsyncGenerator[list[BlockKey], None]:
        for index, inode in enumerate(inodes):
            after = BlockNumber(-1)
            while keys := self._shelf.journal.dirty_of(inode, after, SLICE):
                after = keys[-1][1]
                yield keys
                await trio.lowlevel.checkpoint()
            if index % SLICE == 0:
                await trio.lowlevel.checkpoint()

    async def _still_dirty(self, owed: Owed) -> AsyncGenerator[list[BlockKey], None]:
        while keys := owed.take(SLICE):
            yield self._shelf.journal.still_dirty(keys)
            await trio.lowlevel.checkpoint()

    async def _list(self, slices: AsyncGenerator[list[BlockKey], None], owed: Owed) -> None:
        """Note what is dirty, once it is decided for good into which blocks files are cut."""
        settled, resized = InodeNumber(0), False
        async with aclosing(slices):
            async for keys in slices:
                for key in keys:
                    if key[0] != settled:
                        settled, resized = key[0], self._settle_block_bytes(key[0], owed)
                        for new in self._shelf.journal.dirty_of(settled, BlockNumber(-1), -1) if resized else ():
                            owed.add(new)
                    if not resized:
                        owed.add(key)

    async def _sweep(self, slices: AsyncGenerator[list[BlockKey], None], owed: Owed | None) -> int:
        """Claim what is ready (or owed), pack it into shards and hand those to the workers; how many."""
        queues: Queues = defaultdict(list)
        started = 0
        try:
            async with aclosing(slices):
                async for keys in slices:
                    for part in self._take_ready(keys) if owed is None else self._take_owed(keys, owed):
                        queues[self._redundancy_of(part.key[0])].append(part)
                    started += await self._dispatch(queues, everything=owed is None and self._is_awaited(queues))
                    if self._is_paused():
                        return started
            started += await self._dispatch(queues, everything=True)
        finally:
            for queue in queues.values():
                self._end(queue)
        if owed is None:
            self._readiness.swept()
        return started

    def _take_ready(self, keys: list[BlockKey]) -> list[Part]:
        """Claim what is ready. Waiting files are passed over by memory alone: no system call, no row."""
        taken: list[Part] = []
        settled, resized = InodeNumber(0), False
        for key in keys:
            if self._is_held(key[0]) or not self._readiness.is_ready(key):
                continue
            if key[0] != settled:
                settled, resized = key[0], self._settle_block_bytes(key[0], None)
            part = None if resized else self._shelf.claim(key)
            if part is not None:
                taken.append(part)
        return taken

    def _take_owed(self, keys: list[BlockKey], owed: Owed) -> list[Part]:
        """Claim what can be claimed, and wait for what others have claimed."""
        taken: list[Part] = []
        for key in keys:
            if self._is_held(key[0]):
                owed.add(key)
                continue
            part = self._shelf.claim(key)
            if part is not None:
                taken.append(part)
            if (mark := self._shelf.ledger.sending.get(key)) is not None:
                self._claims.setdefault(mark, []).append(owed.waits_for(mark))
        return taken

    def _settle_block_bytes(self, inode: InodeNumber, owed: Owed | None) -> bool:
        """Before a file is first cut into blocks for hosts, have its block size decided; whether it is another now.

        It stays as it is while a flush has a list of the file's blocks.
        """
        shelf = self._shelf
        if shelf.end(inode) <= MIN_BLOCK_BYTES or any(inode in other.fixed for other in self._owed):
            return False
        if owed is not None:
            owed.fixed.add(inode)
        if not may_recut(shelf, inode):
            return False
        old_bytes, new_bytes = shelf.block_bytes(inode), self._fix_block_bytes(inode)
        if old_bytes == new_bytes:
            return False
        recut(shelf, inode, old_bytes, new_bytes)
        return True

    async def _dispatch(self, queues: Queues, *, everything: bool) -> int:
        """Hand full shards to the workers (or everything, the last shard not full); the rest stays queued. How many."""
        started = 0
        for redundancy, queue in queues.items():
            packed = pack([part.source.length for part in queue], everything=everything)
            for first, end in packed.shards:
                if self._is_paused():
                    return started
                parts = queue[: end - first]
                del queue[: end - first]
                started += await self._hand_over(parts, redundancy)
        return started

    async def _hand_over(self, parts: list[Part], redundancy: Redundancy) -> int:
        going = [part for part in parts if self._may_go(part)]
        if len(going) < len(parts):
            self._end(part for part in parts if part not in going)
        if not going:
            return 0
        try:
            await self._groups.send(Group(going, redundancy))
        except BaseException:
            self._end(going)
            raise
        return 1

    def _is_awaited(self, queues: Queues) -> bool:
        """Whether a flush waits for what a sweep of its own accord has claimed: that may go on for hours."""
        return bool(self._claims) and any(part.mark in self._claims for queue in queues.values() for part in queue)

    def _may_go(self, part: Part) -> bool:
        """Whether somebody wants it, though it was perhaps changed since it was claimed."""
        if part.mark.void:
            return False
        return not part.mark.written or part.mark in self._claims or self._readiness.is_overdue(part.key)

    # ---------------------------------------------------------------- one group

    async def _work(self, todo: trio.MemoryReceiveChannel[Group]) -> None:
        async with todo:
            async for group in todo:
                await self._carry_out(group)

    async def _carry_out(self, group: Group) -> None:
        try:
            await self._deliver(group.parts, group.redundancy)
        finally:
            self._end(group.parts)

    async def _deliver(self, parts: list[Part], redundancy: Redundancy) -> None:
        """Upload and record. What could not be recorded is unclaimed at the end of the group."""
        try:
            uploaded = await self._transfers.upload([part.source for part in parts], redundancy)
            reached("receipts arrived")
            await self._record(parts, uploaded)
            reached("upload recorded")
        except LayrError as error:
            if not isinstance(error, LocalError) or error.retry:
                self._pause(error)
                return
            if len(parts) == 1:
                self._hold(parts[0], error)
                return
        else:
            return
        # one file that cannot be read must not hold up the others
        middle = len(parts) // 2
        await self._deliver(parts[:middle], redundancy)
        await self._deliver(parts[middle:], redundancy)

    async def _record(self, parts: list[Part], uploaded: Uploaded) -> None:
        shelf, shard = self._shelf, 0
        if uploaded.shard is not None:
            shard = shelf.catalog.add_shard(uploaded.shard)
        for first in range(0, len(parts), SLICE):
            if first:
                await trio.lowlevel.checkpoint()
            slice_ = slice(first, first + SLICE)
            shelf.sent(parts[slice_], uploaded.outcomes[slice_], shard)
        self._pause_seconds, self.problem = 0.0, None
        shelf.ledger.sent_bytes += sum(part.source.length for part in parts)
        shelf.ledger.last_sent = trio.current_time()
        self._evictor.refresh()
        shelf.ledger.moved()

    def _end(self, parts: Iterable[Part]) -> None:
        """Claims end: those still there have come to nothing."""
        sending = self._shelf.ledger.sending
        for part in parts:
            key = part.key
            well = sending.get(key) is not part.mark
            if not well:
                self._shelf.unclaim(part)
            elif not part.mark.void:
                self._readiness.sent(key)
            if self._claims:
                for claim in self._claims.pop(part.mark, ()):
                    claim.ended(key, part.source.length, well=well or part.mark.void)

    # ----------------------------------------------------------------- failures

    def _is_paused(self) -> bool:
        return trio.current_time() < self._resume_at

    async def _until_resumed(self) -> None:
        while self._is_paused():
            with trio.move_on_at(self._resume_at):
                await self._resumed.wait()

    def _pause(self, error: LayrError) -> None:
        self.problem = str(error)
        if self._is_paused():
            return
        longest_seconds = WAITED_PAUSE_SECONDS if self._owed else LONGEST_PAUSE_SECONDS
        self._pause_seconds = min(longest_seconds, max(FIRST_PAUSE_SECONDS, 2 * self._pause_seconds))
        self._resume_at = trio.current_time() + self._pause_seconds
        logger.warning("uploads pause for %d s: %s", self._pause_seconds, error)

    def _is_held(self, inode: InodeNumber) -> bool:
        held = self._held.get(inode)
        return held is not None and trio.current_time() < held[0]

    def _hold(self, part: Part, error: LayrError) -> None:
        inode = part.key[0]
        seconds = min(LONGEST_PAUSE_SECONDS, 2 * self._held.get(inode, (0.0, FIRST_PAUSE_SECONDS / 2))[1])
        now = trio.current_time()
        self._held = {held: until for held, until in self._held.items() if until[0] + LONGEST_PAUSE_SECONDS > now}
        self._held[inode] = (now + seconds, seconds)
        self.problem = str(error)
        logger.error("block %d of file %d cannot be uploaded, again in %d s: %s", part.key[1], inode, seconds, error)
