"""The bytes of one open file.

Owns reading, writing and truncating through the cache file, and nothing about size or times: the caller clips reads to
the file's size and knows it. Must not know hosts; absent blocks are asked of the ``Fetcher``, room of the ``Evictor``.
``read_now`` and ``write_now`` are the hot paths: plain code, one system call, no database; they say when they cannot,
and ``read`` and ``write`` do what it takes.

Before the first change of a clean block its dirty mark is committed (``kill -9``), and what else is in that block is
put on the disk (power cut: otherwise the mark could survive and the unchanged half of the block could not). A block
that only hosts had is marked when its new bytes are in the cache file, and the mark is committed before the write is
answered: bytes without a mark count as a fetch that did not end, a mark without bytes as zeros.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Awaitable, Callable

import trio

from layrfs.crashpoints import reached
from layrfs.errors import LayrError
from layrfs.ids import BlockNumber, InodeNumber
from layrfs.policy.readahead import Reader, observe
from layrfs.storage.cache_files import CacheFile, failed
from layrfs.storage.journal import Use
from layrfs.vfs.blocks import ABSENT, CLEAN, DIRTY, HOLE, SENDING, BlockMap, Ledger
from layrfs.vfs.cutting import cut, uncut
from layrfs.vfs.eviction import Evictor
from layrfs.vfs.fetching import Fetcher
from layrfs.vfs.flushes import Flushes
from layrfs.vfs.shelf import Shelf

InThread = Callable[[Callable[[], None]], Awaitable[None]]

ON_DISK_SECONDS = 600.0
"""A file not changed for so long is on the disk: the kernel writes dirty pages back after 30 seconds."""

AGAIN_BYTES = 1 << 20
LONG_CUT_BYTES = 64 << 20
"""Cutting off more than this takes the kernel long enough to have a thread wait for it."""


class FileContent(BlockMap):
    """Open file content; made by ``Contents.open`` only."""

    __slots__ = (
        "_evictor", "_fetcher", "_flushes", "_in_thread", "_ledger", "_reader", "_shelf", "_sync_rows",
        "promised", "references",
    )  # fmt: skip

    def __init__(
        self,
        inode: InodeNumber,
        block_bytes: int,
        file: CacheFile,
        *,
        shelf: Shelf,
        fetcher: Fetcher,
        evictor: Evictor,
        flushes: Flushes,
        sync_rows: Callable[[], Awaitable[None]],
        in_thread: InThread,
    ) -> None:
        super().__init__(inode, block_bytes, file)
        self._shelf = shelf
        self._ledger: Ledger = shelf.ledger
        self._fetcher = fetcher
        self._evictor = evictor
        self._flushes = flushes
        self._sync_rows = sync_rows
        self._in_thread = in_thread
        self._reader = Reader()
        self.references = 0
        """How many opens have not been released."""
        self.promised = True
        """Somebody may have been told, by ``sync``, that dirty blocks are on the disk."""

    # ----------------------------------------------------------------- reading

    def read_now(self, offset: int, length: int) -> bytes | None:
        """``length`` bytes, or None when a block of the range has to be fetched first."""
        if length <= 0:
            return b""
        if self.absent:
            if self._missing(offset, length):
                return None
            self._look_ahead(offset, length)
        return self._read_present(offset, length)

    async def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes. Raises ``Unavailable`` when no host has them now, ``LocalError``."""
        if length <= 0:
            return b""
        if self.absent:
            self._look_ahead(offset, length)
        with self.pinned(self.blocks_of(offset, length)):
            while self.absent and (missing := self._missing(offset, length)):
                await self._fetcher.fetch(self, missing)
        return self._read_present(offset, length)

    def _read_present(self, offset: int, length: int) -> bytes:
        self.used[offset // self.block_bytes] = self._ledger.now
        file = self.file
        fd = file.fd
        if fd < 0:
            return file.read(offset, length)
        try:
            data = os.pread(fd, length, offset)
        except OSError as error:
            raise failed(error, file.path) from error
        return data if len(data) == length else data + bytes(length - len(data))

    def _missing(self, offset: int, length: int) -> list[int]:
        states = self.states
        return [block for block in self.blocks_of(offset, length) if states.get(block) == ABSENT]

    def _look_ahead(self, offset: int, length: int) -> None:
        before = self._reader
        reader = self._reader = observe(before, offset, length, self.block_bytes)
        if reader.window and (reader.block, reader.window) != (before.block, before.window):
            for block in range(reader.block + 1, reader.block + 1 + reader.window):
                if self.states.get(block) == ABSENT:
                    self._fetcher.prefetch(self, block)

    # ----------------------------------------------------------------- writing

    def write_now(self, offset: int, data: bytes) -> bool:
        """Write ``data``, or say False (and change nothing) when ``write`` has to do it.

        Raises ``NoSpace`` or ``LocalError``.
        """
        end = offset + len(data)
        block = offset // self.block_bytes
        if self.states.get(block) != DIRTY or end > (block + 1) * self.block_bytes:
            return self._write_blocks(offset, data)
        ledger = self._ledger
        if end > self.end:
            if end - self.end > ledger.room:
                return False
            ledger.room -= end - self.end
            self.end = end
        file = self.file
        fd = file.fd
        try:
            if fd < 0 or os.pwrite(fd, data, offset) != len(data):
                file.write(data, offset)
        except OSError as error:
            raise failed(error, file.path) from error
        self.written[block] = ledger.now
        return True

    async def write(self, offset: int, data: bytes) -> None:
        """Write ``data``; waits for blocks to be fetched and for room.

        Raises ``NoSpace``, ``Unavailable``, ``LocalError``.
        """
        while not self.write_now(offset, data):
            with self.pinned(self.blocks_of(offset, len(data))):
                await self._evictor.room_for_writing(len(data))
                self._ledger.reserve(len(data))  # or everybody who waited would take the same room
                try:
                    replaced = await self._prepare(offset, len(data))
                    if self._write_blocks(offset, data, replaced=replaced, has_room=True):
                        return
                finally:
                    self._ledger.reserve(-len(data))

    def _write_blocks(
        self, offset: int, data: bytes, *, replaced: frozenset[int] = frozenset(), has_room: bool = False
    ) -> bool:
        """Blocks in ``replaced`` are wholly overwritten: their old bytes are needed neither here nor on the disk."""
        if not data:
            return True
        blocks, states = self.blocks_of(offset, len(data)), self.states
        if not all(self._is_writable(block, replaced) for block in blocks):
            return False
        if len(data) > self._ledger.room and not has_room:
            return False
        clean = [block for block in blocks if states.get(block) == CLEAN]
        self._ledger.settle(self)
        before = self._ledger.cached_bytes
        was_elsewhere = any(states.get(block) == ABSENT for block in blocks)
        elsewhere = {ABSENT} if self.durable else {ABSENT, CLEAN}
        if over := [block for block in replaced if states.get(block) in elsewhere]:
            self._flushes.overwritten(self.inode, over)
        if clean:
            self._shelf.start_changing(self, clean)
        for block in blocks:
            if states.get(block) == SENDING:
                self._shelf.wrote_sending(self, block)
        self._write_whole(offset, data)
        reached("bytes cached")
        self.end = max(self.end, offset + len(data))
        self._mark_written(blocks)
        self._ledger.settle(self)
        self._ledger.room -= self._ledger.cached_bytes - before  # whole blocks count, and perhaps the one before this
        if was_elsewhere:
            self._shelf.journal.commit()
        return True

    def _mark_written(self, blocks: range) -> None:
        """Their bytes are in the cache file."""
        for block in blocks:
            if self.states.get(block) != DIRTY:
                self._shelf.wrote_new(self, block)
        self.written.update(dict.fromkeys(blocks, self._ledger.now))

    def _write_whole(self, offset: int, data: bytes) -> None:
        """Or leave zeros where no row speaks for what is there, wherever it failed."""
        try:
            self.file.write(data, offset)
        except LayrError:
            new = [block for block in self.blocks_of(offset, len(data)) if self.states.get(block, HOLE) < CLEAN]
            with contextlib.suppress(LayrError):  # the caller hears of the first failure
                self._shelf.files.punch(self.inode, [(block * self.block_bytes, self.block_bytes) for block in new])
            self.end = max(self.end, self.file.size())
            raise

    def _is_writable(self, block: int, replaced: frozenset[int]) -> bool:
        if self.inode in self._ledger.leaving:
            return False
        state = self.states.get(block, HOLE)
        if state == CLEAN:
            return self.durable or block in replaced
        if state == ABSENT:
            return block in replaced and self._ledger.busy(self.inode, block) is None
        return True

    async def _prepare(self, offset: int, length: int) -> frozenset[int]:
        """Have what a write needs; the blocks it overwrites wholly, which need nothing."""
        if (leaving := self._ledger.leaving.get(self.inode)) is not None:
            await leaving.done.wait()
        replaced = frozenset(block for block in self.blocks_of(offset, length) if self._covers(offset, length, block))
        for block in self.blocks_of(offset, length):
            if block in replaced:
                await self._fetcher.settle(self, block)
            elif self.states.get(block) == ABSENT:
                await self._fetcher.fetch(self, [block])
        if any(self.states.get(block) == CLEAN and block not in replaced for block in self.blocks_of(offset, length)):
            await self._make_durable()
        return replaced

    def _covers(self, offset: int, length: int, block: int) -> bool:
        """Whether a write leaves nothing of what a block on hosts holds."""
        start = block * self.block_bytes
        if self.states.get(block) not in {ABSENT, CLEAN} or offset > start:
            return False
        if offset + length >= start + self.block_bytes:
            return True
        place = self._shelf.catalog.place(self.inode, BlockNumber(block))
        return place is not None and offset + length >= start + place.length

    async def _make_durable(self) -> None:
        if self.durable:
            return
        unflushed = self.unflushed
        changed = self._shelf.files.changed_seconds(self.inode)
        if changed is None or time.time() - changed < ON_DISK_SECONDS or self._shelf.files.is_unsure(self.inode):
            await self.sync()
        self.durable = self.unflushed == unflushed

    async def sync(self) -> None:
        """Return when the cache file is on the disk. Raises ``LocalError``."""
        files, inode = self._shelf.files, self.inode
        self.promised = True
        if files.is_unsure(inode):
            await self._write_again()
        await self._flushes.sync(inode)

    async def _write_again(self) -> None:
        """After a flush that failed the kernel calls pages clean that never reached the disk: make them dirty again."""
        for block in [block for block, state in self.states.items() if state >= CLEAN]:
            first, end = block * self.block_bytes, min((block + 1) * self.block_bytes, self.end)
            for at in range(first, end, AGAIN_BYTES):
                if self.states.get(block, HOLE) >= CLEAN:
                    self.file.write(self.file.read(at, min(AGAIN_BYTES, end - at)), at)
                await trio.lowlevel.checkpoint()

    async def truncate(self, old_size: int, new_size: int) -> None:
        """The file has ``new_size`` bytes from now on; what is beyond reads as zeros should it grow again."""
        if new_size >= old_size and new_size >= self.end:
            return
        for block in [block for block, state in self.states.items() if state == ABSENT]:
            if (block + 1) * self.block_bytes > new_size:
                await self._fetcher.settle(self, block)
        end, loses_promised = self.end, self._loses_promised(new_size)
        self._shelf.journal.add_use([Use(self.inode, 0, int(self._ledger.now))])  # should the disk not know of the cut
        before = cut(self._shelf, self, new_size)
        reached("truncation committed")
        if loses_promised:
            await self._sync_rows()
        try:
            if end - new_size > LONG_CUT_BYTES:
                await self._in_thread(lambda: self._shelf.files.cut(self.inode, new_size))
            else:
                self.file.cut(new_size)
        except LayrError:
            uncut(self._shelf, self, before, new_size)
            raise
        reached("truncated")

    def _loses_promised(self, new_size: int) -> bool:
        """Whether bytes are cut that are nowhere else and were promised: a power cut may bring back their rows."""
        if not self.promised:
            return False
        return any(state >= DIRTY and (block + 1) * self.block_bytes > new_size for block, state in self.states.items())
