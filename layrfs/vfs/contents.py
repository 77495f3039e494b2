"""The contents of all files: one door to the cache, its journal, and the way to hosts and back.

Builds the parts and owns their tasks (``run``), open files and their reference counts, and the end of deleted files.
Must not know names, attributes or permissions: the caller does, and tells a file's block size when asked.

Order of shutdown: ``flush_to_network`` if wanted, ``sync(None)``, cancel ``run``, ``close``, then close the database.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import trio

from layrfs.errors import LayrError
from layrfs.ids import InodeNumber
from layrfs.logs import log_failure
from layrfs.model.redundancy import DEFAULT_REDUNDANCY, Redundancy
from layrfs.model.sharding import MAX_BLOCK_BYTES
from layrfs.model.status import BlockRun
from layrfs.pipeline.transfers import Transfers
from layrfs.storage.cache_files import CacheFiles
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.journal import Journal
from layrfs.storage.pins import PinTable
from layrfs.vfs.blocks import Ledger
from layrfs.vfs.cache_stats import CacheStats
from layrfs.vfs.eviction import STALL_SECONDS, Evictor
from layrfs.vfs.fetching import Fetcher
from layrfs.vfs.file_content import FileContent, InThread
from layrfs.vfs.flushes import Flushes
from layrfs.vfs.keeping import Keeper
from layrfs.vfs.owed import Progress
from layrfs.vfs.pins import Pins
from layrfs.vfs.readiness import CLOSED_SECONDS
from layrfs.vfs.recovery import Recovery, boot_id
from layrfs.vfs.removals import Removals
from layrfs.vfs.shelf import Shelf
from layrfs.vfs.versions import Versions
from layrfs.vfs.writeback import Writeback

__all__ = ["Contents", "FileContent", "FileState", "Progress"]

logger = logging.getLogger(__name__)

FileState = Literal["cached", "uploading", "safe", "degraded", "lost"]

KEEP_FREE_BYTES = 256 << 20
TICK_SECONDS = 0.5
CLOSED_TICKS = 8
"""Closed files are remembered for 4 to 8 seconds, or for longer when uploads of their blocks wait for longer."""

RATE_SECONDS = 5.0


def _default_redundancy(_inode: InodeNumber) -> Redundancy:
    return DEFAULT_REDUNDANCY


async def _in_thread(work: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(work)


class Contents:
    """See the module. Everything is plain code for the trio thread unless it is ``async``."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        cache_directory: str,
        transfers: Transfers,
        block_bytes_of: Callable[[InodeNumber], int],
        fix_block_bytes: Callable[[InodeNumber], int] | None = None,
        redundancy_of: Callable[[InodeNumber], Redundancy] = _default_redundancy,
        cache_bytes: int = 1 << 30,
        keep_free_bytes: int = KEEP_FREE_BYTES,
        stall_seconds: float = STALL_SECONDS,
        closed_seconds: float = CLOSED_SECONDS,
        follows: bool = False,
        in_thread: InThread = _in_thread,
        boot: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``block_bytes_of`` knows the block size of any file that exists.

        ``fix_block_bytes`` is called before blocks of a file go out for the first time, decides their size for good
        (``count:N``) and answers it; without it block sizes never change. ``redundancy_of`` is asked when a file goes.
        ``follows``: another machine writes, and nothing is sent to hosts from here; see ``versions``.
        """
        self._database = database
        self._now = now
        self._in_thread = in_thread
        self._closed_seconds = closed_seconds
        self._open: dict[InodeNumber, FileContent] = {}
        self._lingering: set[FileContent] = set()
        self._doomed: set[InodeNumber] = set()
        ledger = Ledger(self._open, cache_bytes, keep_free_bytes)
        self._shelf = Shelf(ledger, Journal(database), catalog, CacheFiles(cache_directory), block_bytes_of)
        self._recovery = Recovery(
            self._shelf, database.sync, boot if boot is not None else boot_id(), now, follows=follows
        )
        self._flushes = Flushes(self._shelf.journal, self._shelf.files, in_thread, self._recovery.distrust)
        self._removals = Removals(self._shelf, database.sync, in_thread)
        pins = PinTable(database)
        self._evictor = Evictor(
            self._shelf, pins, in_thread, lambda: database.has_room, lambda: transfers.last_moved, stall_seconds
        )
        self._fetcher = Fetcher(self._shelf, self._evictor, transfers)
        self.pins = Pins(pins, Keeper(self._shelf, pins, self._evictor, self._fetcher, self.open, self.release))
        fix = fix_block_bytes or block_bytes_of
        self._writeback = Writeback(self._shelf, self._evictor, transfers, redundancy_of, fix, closed_seconds)
        self._follows = follows
        self.versions = Versions(self._shelf, self._evictor, self._fetcher, block_bytes_of)
        self._rate, self._rate_sent_bytes = 0.0, 0
        database.before_commit(self._recovery.stamp)
        database.before_sync(self._flushes.sync_renamed)

    # ------------------------------------------------------------- open files

    def open(self, inode: InodeNumber, *, is_new: bool = False) -> FileContent:
        """The content of a file; release it as often as it was opened. Of a new one there is nothing to look up."""
        file = self._open.get(inode)
        if file is None:
            shelf = self._shelf
            file = FileContent(
                inode,
                shelf.block_bytes(inode),
                shelf.files.file(inode, is_new=is_new),
                shelf=shelf,
                fetcher=self._fetcher,
                evictor=self._evictor,
                flushes=self._flushes,
                sync_rows=self._database.sync,
                in_thread=self._in_thread,
            )
            if is_new:
                file.promised = False
            else:
                shelf.load(file)
            self._open[inode] = file
        file.references += 1
        return file

    def stored_blocks(self, inode: InodeNumber) -> int | None:
        """How many blocks of an open file are not holes; None for one that is not open: the database knows."""
        file = self._open.get(inode)
        return None if file is None else len(file.states)

    def release(self, content: FileContent) -> None:
        """The last one closes the file: from now on its dirty blocks may go when they have been idle for a moment."""
        content.references -= 1
        if content.references == 0 and content.written and self._shelf.ledger.has_busy(content.inode):
            self._lingering.add(content)  # its cache file still grows; the housekeeper closes it
        elif content.references == 0:
            self._close(content)

    def _close(self, content: FileContent) -> None:
        self._lingering.discard(content)  # it may have been opened again and released meanwhile
        self._shelf.unload(content)
        del self._open[content.inode]
        if content.inode in self._doomed:
            self._doomed.discard(content.inode)
            self.remove(content.inode)

    def remove(self, inode: InodeNumber) -> None:
        """The file was deleted: its rows go now (or when it is released), its bytes after the next commit."""
        if inode in self._open:
            self._doomed.add(inode)
        else:
            self._removals.remove(inode, self._block_bytes(inode))

    def replaces(self, inode: InodeNumber) -> None:
        """The file took another's name: its bytes are on the disk before it is certain that the other's go."""
        self._flushes.renamed(inode)

    def remove_cached(self, inode: InodeNumber) -> None:
        """The file was deleted by another machine, its rows are gone, and nobody needs it any more: its bytes go."""
        if self._shelf.is_unused(inode):
            self._removals.remove_bytes(inode)

    def _block_bytes(self, inode: InodeNumber) -> int:
        try:
            return self._shelf.block_bytes(inode)
        except LayrError:
            return MAX_BLOCK_BYTES

    # ---------------------------------------------------------- durability

    async def sync(self, inode: InodeNumber | None) -> None:
        """Return when a file's cache file (or every one) is on the disk; sync the database after.

        Raises ``LocalError``.
        """
        file = None if inode is None else self._open.get(inode)
        if file is not None:
            await file.sync()
        else:
            await self._flushes.sync(inode)

    async def flush_to_network(self, inodes: Sequence[InodeNumber] | None, progress: Progress | None = None) -> None:
        """Return when all that is dirty now, of some files or all, is on hosts. Tries for ever; cancel it."""
        await self._writeback.flush(inodes, progress)

    async def drop_clean(self) -> int:
        """Empty the cache of everything that hosts have; the bytes it freed. Works without ``run``, too."""
        if not self._shelf.ledger.clean_bytes:
            self._shelf.ledger.clean_bytes = self._shelf.journal.clean_bytes()
        return await self._evictor.drop_clean()

    def hosts_appeared(self) -> None:
        """Hosts have been found or come back: try again what waits for them."""
        self._writeback.resume()
        self._fetcher.hosts_appeared()
        self.pins.look_again()

    def stop_uploads(self, reason: str) -> None:
        """What is on no host stays here from now on: nobody would learn where it is. ``reason`` is a sentence."""
        self._writeback.stop(reason)

    # -------------------------------------------------------------- what is where

    def state(self, inode: InodeNumber) -> FileState:
        """What ``user.layrfs.state`` says of a file: the worst of its blocks."""
        shelf = self._shelf
        if shelf.journal.has_dirty(inode):
            return "uploading" if self._writeback.is_travelling(inode) else "cached"
        if shelf.catalog.has_unsent(inode):
            return "uploading"  # by another machine, or lost with it: here nobody can know
        if shelf.catalog.has_lost(inode):
            return "lost"
        reach, degraded = shelf.catalog.reach, shelf.catalog.pieces.degraded
        unreachable = reach.distrusted | reach.lost
        if not unreachable and not degraded:
            return "safe"
        shards = set(shelf.catalog.shards_of(inode))
        if shards & unreachable:
            return "lost"
        return "degraded" if shards & degraded else "safe"

    def is_degraded(self, inode: InodeNumber) -> bool:
        """Whether what hosts have of a file has too few copies, whatever else its state says."""
        degraded = self._shelf.catalog.pieces.degraded
        return bool(degraded) and any(shard in degraded for shard in self._shelf.catalog.shards_of(inode))

    def usage(self, inode: InodeNumber) -> tuple[int, int]:
        """Bytes of a file in the cache, and how many of those are on no host yet."""
        shelf, end, dirty_bytes = self._shelf, self._shelf.end(inode), 0
        for block, dirty in shelf.journal.blocks(inode):
            dirty_bytes += shelf.charge(inode, block, end) if dirty else 0
        return shelf.journal.clean_bytes_of(inode) + dirty_bytes, dirty_bytes

    def runs(self, inode: InodeNumber, block_count: int) -> tuple[BlockRun, ...]:
        """The first ``block_count`` blocks of a file: what is here, and how many pieces of it are on hosts."""
        local: dict[int, int] = dict(self._shelf.journal.blocks(inode))
        catalog = self._shelf.catalog
        stored: dict[int, tuple[int, int]] = dict.fromkeys(catalog.block_numbers(inode), (0, 0))
        stored |= {number: (pieces, total) for number, pieces, total in catalog.copies(inode)}
        runs: list[BlockRun] = []
        at = 0
        for block in [*sorted(local.keys() | stored.keys()), block_count]:
            if block > at:
                runs.append(BlockRun(at, block - at, "hole"))
            at = block + 1
            if block >= block_count:
                break
            here = "absent" if block not in local else "dirty" if local[block] else "clean"
            run = BlockRun(block, 1, here, *stored.get(block, (0, 0)))
            last = runs[-1] if runs else None
            if last is not None and (last.local, last.pieces, last.wanted) == (run.local, run.pieces, run.wanted):
                runs[-1] = msgspec.structs.replace(last, count=last.count + 1)
            else:
                runs.append(run)
        return tuple(runs)

    def stats(self) -> CacheStats:
        """The whole cache now."""
        ledger, catalog = self._shelf.ledger, self._shelf.catalog
        return CacheStats(
            limit_bytes=ledger.limit_bytes,
            room_bytes=ledger.room,
            cached_bytes=ledger.cached_bytes,
            clean_bytes=ledger.clean_bytes,
            dirty_bytes=ledger.dirty_bytes,
            dirty_blocks=ledger.dirty_blocks,
            uploading_bytes=sum(mark.charged for mark in ledger.sending.values()),
            uploading_blocks=len(ledger.sending),
            upload_bytes_per_second=self._rate,
            eta_seconds=ledger.dirty_bytes / self._rate if self._rate >= 1 else None if ledger.dirty_bytes else 0.0,
            degraded_shards=len(catalog.pieces.degraded),
            last_moved=max(self._shelf.ledger.last_sent, self._evictor.last_moved()),
            problem=self._writeback.problem,
        )

    # ---------------------------------------------------------------------- tasks

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Recover, say started, and work until cancelled. Nothing may be opened before it has started."""
        self._tick_clock(self._now())
        await self._recovery.recover()
        self._flushes.load()
        await self._database.sync()  # the mark that this run began must survive a power cut
        self._evictor.refresh()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._fetcher.run)
            if not self._follows:
                await nursery.start(self._writeback.run)
            nursery.start_soon(self._flushes.run)
            nursery.start_soon(self.pins.run)
            nursery.start_soon(self._keep_house)
            nursery.start_soon(self._remove)
            task_status.started()
            try:
                await self._recovery.remove_strays()
            except LayrError as error:
                log_failure(logger, "what is left of deleted files stays for now", error)

    def close(self, *, in_order: bool = True) -> None:
        """After ``run`` has ended: close cache files, wait for the disk, record a proper stop. Close the database next.

        Not ``in_order``, the next start looks through the cache; so it does when this raises ``LocalError``.
        """
        for file in list(self._open.values()):
            self._shelf.unload(file)
        self._open.clear()
        gone = self._removals.finish_rows()
        if in_order:
            self._flushes.sync_all()
            self._recovery.stopped()
            self._database.flush()
            self._removals.unlink(gone)

    async def _keep_house(self) -> None:
        """Clock, sums and limits, twice a second."""
        started, wall = trio.current_time(), self._now()
        closed_ticks = max(CLOSED_TICKS, math.ceil(self._closed_seconds / TICK_SECONDS))
        for tick in itertools.count(1):
            await trio.sleep(TICK_SECONDS)
            if tick % closed_ticks == 0:
                self._shelf.ledger.forget_long_closed()
            self._tick_clock(wall + trio.current_time() - started)
            self._measure()
            try:
                self._recovery.watch_clock()
                self._evictor.refresh()
                await self._evictor.keep_limit()
                self._close_lingering()
            except LayrError as error:
                log_failure(logger, "cache", error)

    async def _remove(self) -> None:
        """The end of deleted and replaced files, twice a second."""
        while True:
            await trio.sleep(TICK_SECONDS)
            try:
                await self._flushes.sync_renamed()
                await self._removals.finish()
            except LayrError as error:
                log_failure(logger, "cache", error)

    def _close_lingering(self) -> None:
        for content in list(self._lingering):
            if content.references:
                self._lingering.discard(content)
            elif not self._shelf.ledger.has_busy(content.inode):
                self._close(content)

    def _tick_clock(self, now: float) -> None:
        ledger = self._shelf.ledger
        ledger.now = max(ledger.now, now)

    def _measure(self) -> None:
        sent = self._shelf.ledger.sent_bytes
        share = TICK_SECONDS / RATE_SECONDS
        self._rate += share * ((sent - self._rate_sent_bytes) / TICK_SECONDS - self._rate)
        self._rate_sent_bytes = sent
