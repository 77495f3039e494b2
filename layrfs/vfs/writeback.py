"""Dirty blocks go to hosts: when, which together, and what is recorded when they are there.

Owns the choice of the moment and the uploads under way. Must not know how bytes travel. The queue is the journal
itself (rows with ``dirty = 1``, in the order of inodes), swept again and again: a million waiting files cost no memory.

A block goes when its file was closed ``CLOSED_SECONDS`` ago, or was not written for ``OPEN_SECONDS`` though open, or
when the cache is half full of dirty data, or somebody waits (``flush``). Uploads that fail are tried again for ever,
with pauses that grow while no host answers.
Invariant: every claimed block (``ledger.sending``) is unclaimed or recorded when its upload ends, however that ends.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import trio

from layrfs.crashpoints import reached
from layrfs.errors import CorruptFile, LayrError, LocalError, Superseded
from layrfs.ids import BlockNumber, InodeNumber
from layrfs.model.redundancy import Redundancy
from layrfs.model.sharding import MIN_BLOCK_BYTES
from layrfs.pipeline.transfers import Transfers, Uploaded
from layrfs.policy.packing import pack
from layrfs.storage.journal import BlockKey
from layrfs.vfs.eviction import Evictor
from layrfs.vfs.recutting import may_recut, recut
from layrfs.vfs.shelf import Part, Shelf

logger = logging.getLogger(__name__)

CLOSED_SECONDS = 2.0
OPEN_SECONDS = 10.0
UPLOADS = 6
"""Shards on their way to hosts at once."""

SWEEP_SECONDS = 0.5
SLICE = 64
"""Blocks claimed or recorded in one go, a few milliseconds, between two looks at what else there is to do."""
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0

Progress = Callable[[int, int], None]
"""Told bytes sent so far and bytes still to go."""


class Sweep:
    """One pass over dirty blocks, and how the uploads that matter to it end."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.progress = progress
        self.outstanding = 0
        self.sent_bytes = 0
        self.again = False
        """Something was not sent: another pass is needed."""
        self.started = 0
        self.changed = trio.Event()

    def ended(self, group: Group, *, well: bool) -> None:
        self.outstanding -= 1
        self.again = self.again or not well
        self.sent_bytes += group.plain_bytes if well else 0
        self.changed.set()
        self.changed = trio.Event()


class Group:
    """Blocks that travel together, and the sweeps that wait for them."""

    def __init__(self, parts: list[Part], redundancy: Redundancy) -> None:
        self.parts = parts
        self.redundancy = redundancy
        self.plain_bytes = sum(part.source.length for part in parts)
        self.sweeps: list[Sweep] = []

    def join(self, sweep: Sweep) -> None:
        if sweep not in self.sweeps:
            self.sweeps.append(sweep)
            sweep.outstanding += 1


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
        self._closed_seconds = closed_seconds
        self._groups, self._todo = trio.open_memory_channel[Group](0)
        self._travelling: dict[BlockKey, Group] = {}
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
                sweep = Sweep()
                if self._shelf.ledger.dirty_blocks and self._stopped is None:
                    try:
                        await self._sweep(self._all_dirty(), sweep, hurry=False)
                    except CorruptFile as error:  # nothing can be sent any more; what is open can still be read
                        self._pause(error)
                if not (sweep.started and self._evictor.writers_waiting):
                    await trio.sleep(SWEEP_SECONDS)  # what is closed meanwhile travels together

    async def flush(self, inodes: Sequence[InodeNumber] | None, progress: Progress | None) -> None:
        """Return when every block that is dirty now (of some files, or all) is on hosts; tries for ever.

        Raises ``Superseded`` when nothing goes out any more and something would have to.
        """
        self.resume()
        while True:
            if self._stopped is not None and self._shelf.ledger.dirty_blocks:
                raise Superseded(self._stopped)
            await self._until_resumed()
            sweep = Sweep(progress)
            await self._sweep(self._all_dirty() if inodes is None else self._dirty_of(inodes), sweep, hurry=True)
            while sweep.outstanding:
                changed = sweep.changed
                self._tell(sweep)
                await changed.wait()
            self._tell(sweep)
            if not sweep.again:
                return
            if not sweep.started:
                await trio.sleep(SWEEP_SECONDS)

    def _tell(self, sweep: Sweep) -> None:
        if sweep.progress is not None:
            sweep.progress(sweep.sent_bytes, self._shelf.ledger.dirty_bytes)

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

    async def _sweep(self, slices: AsyncGenerator[list[BlockKey], None], sweep: Sweep, *, hurry: bool) -> None:
        """Claim what is ready, pack it into shards and hand those to the workers."""
        queues: Queues = defaultdict(list)
        try:
            async with aclosing(slices):
                async for keys in slices:
                    for part in self._take_slice(keys, sweep, hurry=hurry):
                        queues[self._redundancy_of(part.key[0])].append(part)
                    await self._dispatch(queues, sweep, everything=False)
                    if self._is_paused():
                        sweep.again = True
                        return
            await self._dispatch(queues, sweep, everything=True)
        finally:
            for queue in queues.values():
                for part in queue:
                    self._shelf.unclaim(part)
                    sweep.again = True

    def _take_slice(self, keys: list[BlockKey], sweep: Sweep, *, hurry: bool) -> list[Part]:
        """Claim what is ready. Waiting files are passed over by memory alone: no system call, no row."""
        taken: list[Part] = []
        settled, resized = InodeNumber(0), False
        for key in keys:
            if self._is_held(key[0]):
                sweep.again = True
                continue
            if not hurry and not self._is_ready(key):
                continue
            if key[0] != settled:
                settled, resized = key[0], self._settle_block_bytes(key[0])
                sweep.again = sweep.again or resized
            part = None if resized else self._take(key, sweep, hurry=hurry)
            if part is not None:
                taken.append(part)
        return taken

    def _take(self, key: BlockKey, sweep: Sweep, *, hurry: bool) -> Part | None:
        part = self._shelf.claim(key)
        if part is None and hurry:
            group = self._travelling.get(key)
            mark = self._shelf.ledger.sending.get(key)
            if mark is not None and (group is None or mark.changed):
                sweep.again = True  # being put together, or changed since: it has to go in another pass
            if group is not None:
                group.join(sweep)
        return part

    def _is_ready(self, key: BlockKey) -> bool:
        inode, block = key
        ledger, now = self._shelf.ledger, self._shelf.ledger.now
        if self._evictor.writers_waiting or ledger.dirty_bytes * 2 > ledger.room + ledger.cached_bytes:
            return True
        file = ledger.open.get(inode)
        if file is not None:
            return now - file.written.get(block, now) >= OPEN_SECONDS
        return now - ledger.closed_at(inode) >= self._closed_seconds

    def _settle_block_bytes(self, inode: InodeNumber) -> bool:
        """Before a file is first cut into blocks for hosts, have its block size decided; whether it is another now."""
        shelf = self._shelf
        if shelf.end(inode) <= MIN_BLOCK_BYTES or not may_recut(shelf, inode):
            return False
        old_bytes, new_bytes = shelf.block_bytes(inode), self._fix_block_bytes(inode)
        if old_bytes == new_bytes:
            return False
        recut(shelf, inode, old_bytes, new_bytes)
        return True

    async def _dispatch(self, queues: Queues, sweep: Sweep, *, everything: bool) -> None:
        """Hand full shards to the workers (or everything, the last shard not full); the rest stays queued."""
        for redundancy, queue in queues.items():
            packed = pack([part.source.length for part in queue], everything=everything)
            for first, end in packed.shards:
                if self._is_paused():
                    return
                parts = queue[: end - first]
                del queue[: end - first]
                await self._hand_over(parts, redundancy, sweep)

    async def _hand_over(self, parts: list[Part], redundancy: Redundancy, sweep: Sweep) -> None:
        group = Group([part for part in parts if not part.mark.changed], redundancy)
        for part in parts:
            if part.mark.changed:
                self._shelf.unclaim(part)
        if not group.parts:
            return
        group.join(sweep)
        sweep.started += 1
        self._travelling.update(dict.fromkeys((part.key for part in group.parts), group))
        try:
            await self._groups.send(group)
        except BaseException:
            self._end(group, well=False)
            raise

    # ---------------------------------------------------------------- one group

    async def _work(self, todo: trio.MemoryReceiveChannel[Group]) -> None:
        async with todo:
            async for group in todo:
                await self._carry_out(group)

    async def _carry_out(self, group: Group) -> None:
        well = False
        try:
            well = await self._deliver(group.parts, group.redundancy)
        finally:
            self._end(group, well=well)

    async def _deliver(self, parts: list[Part], redundancy: Redundancy) -> bool:
        """Upload and record; whether all went well. What did not is unclaimed at the end of the group."""
        try:
            uploaded = await self._transfers.upload([part.source for part in parts], redundancy)
            reached("receipts arrived")
            well = await self._record(parts, uploaded)
            reached("upload recorded")
        except LayrError as error:
            if not isinstance(error, LocalError) or error.retry:
                self._pause(error)
                return False
            if len(parts) == 1:
                self._hold(parts[0], error)
                return False
        else:
            return well
        # one file that cannot be read must not hold up the others
        middle = len(parts) // 2
        first = await self._deliver(parts[:middle], redundancy)
        return await self._deliver(parts[middle:], redundancy) and first

    async def _record(self, parts: list[Part], uploaded: Uploaded) -> bool:
        """Whether all of it counts."""
        shelf, shard, well = self._shelf, 0, True
        if uploaded.shard is not None:
            shard = shelf.catalog.add_shard(uploaded.shard)
            if len(uploaded.shard.pieces) < uploaded.shard.redundancy.total:
                shelf.ledger.degraded.add(shard)
        for first in range(0, len(parts), SLICE):
            if first:
                await trio.lowlevel.checkpoint()
            slice_ = slice(first, first + SLICE)
            well = shelf.sent(parts[slice_], uploaded.outcomes[slice_], shard) and well
        self._pause_seconds, self.problem = 0.0, None
        shelf.ledger.sent_bytes += sum(part.source.length for part in parts)
        shelf.ledger.last_sent = trio.current_time()
        self._evictor.refresh()
        shelf.ledger.moved()
        return well

    def _end(self, group: Group, *, well: bool) -> None:
        for part in group.parts:
            del self._travelling[part.key]
            if self._shelf.ledger.sending.get(part.key) is part.mark:
                self._shelf.unclaim(part)
        for sweep in group.sweeps:
            sweep.ended(group, well=well)

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
        self._pause_seconds = min(LONGEST_PAUSE_SECONDS, max(FIRST_PAUSE_SECONDS, 2 * self._pause_seconds))
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
