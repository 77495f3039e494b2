"""What is known in memory of an open file's blocks, and of the cache as a whole.

``BlockMap`` is one open file: the state of every block. ``Ledger`` is shared by all parts of the cache: sums of bytes,
who is busy with which block, who waits for room. Both are bookkeeping in plain code: no disk, no database, no waiting
(but for ``Ledger.progress``).

A block is in one of five states:

=========  =======================  ==========================================  =====================
state      rows                     the cache file at its place                 a write
=========  =======================  ==========================================  =====================
hole       neither                  zeros                                       makes it dirty
ABSENT     block                    zeros; being filled while it is busy        fetches it first
CLEAN      block, local (dirty 0)   its bytes                                   commits dirty 1 first
DIRTY      local (dirty 1)          its bytes, hosts have others or none        nothing more to do
SENDING    local (dirty 1)          its bytes, an upload of just these is on    makes it DIRTY again
=========  =======================  ==========================================  =====================

Invariants: only an ABSENT block is busy; a ``Mark`` in ``sending`` says at once when what the upload reads is not (all
of) what the block is any more; for a file that is not open, the database alone says the state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Final

import trio

from layrfs.ids import BlockNumber, InodeNumber
from layrfs.policy import eviction
from layrfs.storage.cache_files import CacheFile
from layrfs.storage.journal import BlockKey

HOLE: Final = 0
ABSENT: Final = 1
CLEAN: Final = 2
DIRTY: Final = 3
SENDING: Final = 4

STATE_NAMES: Final = {HOLE: "hole", ABSENT: "absent", CLEAN: "clean", DIRTY: "dirty", SENDING: "dirty"}

PAGE_BYTES: Final = 4096


def on_disk(length: int) -> int:
    """Bytes a block with ``length`` valid bytes takes in the cache."""
    return -(-length // PAGE_BYTES) * PAGE_BYTES


def extent(end: int, block: int, block_bytes: int) -> int:
    """How much of a block lies before ``end``, where the cache file ends."""
    return min(max(end - block * block_bytes, 0), block_bytes)


class BlockMap:
    """The blocks of one open file. Block numbers that are in no dictionary are holes."""

    __slots__ = (
        "absent",
        "block_bytes",
        "charged",
        "durable",
        "end",
        "file",
        "inode",
        "opened",
        "states",
        "unflushed",
        "used",
        "waiting",
        "written",
    )

    def __init__(self, inode: InodeNumber, block_bytes: int, file: CacheFile) -> None:
        self.inode = inode
        self.block_bytes = block_bytes
        self.file = file
        self.states: dict[int, int] = {}
        self.absent = 0
        """How many blocks are ABSENT: 0 lets reads skip looking."""
        self.written: dict[int, float] = {}
        """Dirty (DIRTY or SENDING) blocks: when they were last written."""
        self.used: dict[int, float] = {}
        """When blocks were last read or filled, since the file was opened."""
        self.waiting: dict[int, int] = {}
        """How many readers and writers are waiting for a block: those are not evicted."""
        self.end = 0
        """Where the cache file ends (of an open file with dirty blocks; never less than it is)."""
        self.charged = 0
        """What the ledger's ``dirty_bytes`` counts for this file."""
        self.opened = 0.0
        """When it was; blocks not used since count as used then."""
        self.durable = False
        """Clean blocks' bytes are known to be on the disk, not only in the page cache."""
        self.unflushed = 0
        """How often clean blocks came that are not."""

    def not_flushed(self) -> None:
        """There is a new clean block, perhaps in the page cache only."""
        self.durable = False
        self.unflushed += 1

    def set_state(self, block: int, state: int) -> None:
        """Move a block to another state; HOLE forgets it."""
        states = self.states
        if states.get(block) == ABSENT:
            self.absent -= 1
        if state == HOLE:
            states.pop(block, None)
            self.used.pop(block, None)
        else:
            states[block] = state
            if state == ABSENT:
                self.absent += 1
        if state < DIRTY:
            self.written.pop(block, None)

    @contextmanager
    def pinned(self, blocks: range) -> Iterator[None]:
        """Within, the blocks are not evicted."""
        waiting = self.waiting
        for block in blocks:
            waiting[block] = waiting.get(block, 0) + 1
        try:
            yield
        finally:
            for block in blocks:
                waiting[block] -= 1
                if not waiting[block]:
                    del waiting[block]

    def dirty_bytes(self) -> int:
        """Bytes the dirty blocks take in the cache: whole blocks, but for the one the file ends in."""
        if not self.written or self.end == 0:
            return 0
        last = (self.end - 1) // self.block_bytes
        missing = self.block_bytes - on_disk(extent(self.end, last, self.block_bytes)) if last in self.written else 0
        return len(self.written) * self.block_bytes - missing

    def blocks_of(self, offset: int, length: int) -> range:
        """The blocks a range of the file touches."""
        return range(offset // self.block_bytes, (offset + length - 1) // self.block_bytes + 1)


class Mark:
    """An upload's claim on a dirty block, and what has become of the block since."""

    __slots__ = ("charged", "number", "valid_bytes", "written")

    def __init__(self, number: int, length: int, charged: int) -> None:
        self.number = number
        """Claims are counted: one with a higher number was made later."""
        self.valid_bytes = length
        """How much of what the upload reads is still bytes of the block: what was cut off since is not."""
        self.written = False
        """The block was written to or cut since: it stays dirty, and hosts get bytes that it had some time after the
        claim, some perhaps newer than others, which is what a flush of a file that is being written gives on a disk."""
        self.charged = charged
        """What ``dirty_bytes`` counts for the block while its file is not open."""

    @property
    def void(self) -> bool:
        """The block was cut off or removed: what the upload has read means nothing."""
        return self.valid_bytes == 0

    @property
    def changed(self) -> bool:
        """What the upload reads is not the block as it is now."""
        return self.written or self.valid_bytes == 0


class Busy:
    """Somebody fills or empties ABSENT blocks; ``error`` is set when filling failed."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: Exception | None = None


class Ledger:
    """Sums and claims of the whole cache."""

    def __init__(self, open_files: Mapping[InodeNumber, BlockMap], limit_bytes: int, keep_free_bytes: int) -> None:
        self.open = open_files
        self.limit_bytes = limit_bytes
        self.keep_free_bytes = keep_free_bytes
        self.clean_bytes = 0
        self.pinned_bytes = 0
        """Of the clean ones, those that must stay; as of the last look."""
        self.dirty_bytes = 0
        self.dirty_blocks = 0
        self.sent_bytes = 0
        """Bytes whose upload has ended well, since the start."""
        self.last_sent = 0.0
        """When an upload last ended well, on trio's clock."""
        self.room = 0
        """Bytes the cache may still grow by, as of the last ``refresh`` and less what was written since."""
        self.reserved = 0
        """Of the room, what fetches under way are about to fill."""
        self.now = 0.0
        """Seconds since the epoch, coarse: set by the housekeeper, never goes back."""
        self.writing = False
        """Something was written to a cache file since the last commit."""
        self.leaving: dict[InodeNumber, Busy] = {}
        """Files of which nothing is in the cache, whose cache file is being deleted: nobody may begin to use it."""
        self._busy: dict[InodeNumber, dict[int, Busy]] = {}
        self.sending: dict[BlockKey, Mark] = {}
        self.claims = 0
        """How many have been made since the start."""
        self._closed: dict[InodeNumber, float] = {}
        self._closed_before: dict[InodeNumber, float] = {}
        """Files with dirty blocks that were closed a moment ago, and when: in two generations."""
        self.used: dict[InodeNumber, int] = {}
        """Files used since the last commit, and when."""
        self._progress = trio.Event()

    @property
    def cached_bytes(self) -> int:
        return self.clean_bytes + self.dirty_bytes

    def settle(self, file: BlockMap) -> None:
        """Count an open file's dirty bytes as they are now."""
        charge = file.dirty_bytes()
        self.dirty_bytes += charge - file.charged
        file.charged = charge

    def refresh(self, free_bytes: int) -> None:
        """Work out the room anew from exact sums and the free space on the disk."""
        for file in self.open.values():
            if file.written:
                self.settle(file)
        self.room = eviction.room(
            limit_bytes=eviction.limit_with_pins(limit_bytes=self.limit_bytes, pinned_bytes=self.pinned_bytes),
            cached_bytes=self.cached_bytes,
            free_bytes=free_bytes,
            keep_free_bytes=self.keep_free_bytes,
        )
        self.room -= self.reserved

    def reserve(self, wanted_bytes: int) -> None:
        """Set room aside, or with a negative number give it back."""
        self.reserved += wanted_bytes
        self.room -= wanted_bytes

    def closed(self, inode: InodeNumber) -> None:
        """The file was closed now; its dirty blocks rest for a moment."""
        self._closed[inode] = self.now

    def reopened(self, inode: InodeNumber) -> float:
        """The file does not count as closed any more; when it was, 0 if that is long ago."""
        return max(self._closed.pop(inode, 0.0), self._closed_before.pop(inode, 0.0))

    def closed_at(self, inode: InodeNumber) -> float:
        """When the file was closed, 0 if that is long ago."""
        return self._closed.get(inode) or self._closed_before.get(inode, 0.0)

    def forget_long_closed(self) -> None:
        """Call every few seconds: what was closed before the last call counts as closed long ago."""
        self._closed_before, self._closed = self._closed, {}

    def busy(self, inode: InodeNumber, block: int) -> Busy | None:
        """Who fills or empties the block."""
        blocks = self._busy.get(inode)
        return None if blocks is None else blocks.get(block)

    def has_busy(self, inode: InodeNumber) -> bool:
        """Whether somebody is at work in the inode's cache file."""
        return inode in self._busy or inode in self.leaving

    def busy_blocks(self, inode: InodeNumber) -> AbstractSet[int]:
        """The file's blocks that somebody fills or empties."""
        return self._busy.get(inode, {}).keys()

    def occupy(self, inode: InodeNumber, block: int, busy: Busy) -> None:
        self._busy.setdefault(inode, {})[block] = busy

    def leave(self, inode: InodeNumber, block: int) -> None:
        blocks = self._busy[inode]
        del blocks[block]
        if not blocks:
            del self._busy[inode]

    def claim(self, key: BlockKey, length: int, charged: int) -> Mark:
        """An upload is to read the first ``length`` bytes of a block that nobody has claimed."""
        self.claims += 1
        mark = self.sending[key] = Mark(self.claims, length, charged)
        return mark

    def wrote(self, inode: InodeNumber, block: int) -> None:
        """The block is not what an upload on its way has read, if there is one."""
        mark = self.sending.get((inode, BlockNumber(block)))
        if mark is not None:
            mark.written = True

    def cut(self, inode: InodeNumber, block: int, kept_bytes: int) -> None:
        """Of what an upload on its way has read, if there is one, at most so much is still the block's."""
        mark = self.sending.get((inode, BlockNumber(block)))
        if mark is not None:
            mark.written = True
            mark.valid_bytes = min(mark.valid_bytes, kept_bytes)

    def moved(self) -> None:
        """Blocks became clean or room was made: wake who waits for that."""
        self._progress.set()
        self._progress = trio.Event()

    async def progress(self) -> None:
        """Return after the next ``moved``."""
        await self._progress.wait()
