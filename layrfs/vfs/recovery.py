"""What the cache was when it was last in use: the start of a mount.

Owns the comparison of the database with the cache directory. Must not know hosts.

After a proper stop the rows are the truth, and only the queue of uploads is counted. After ``kill -9`` every write is
in the page cache and every change of a clean block was committed first, but the last second's *other* rows may be
missing: files changed since the last commit are looked through, and what they hold becomes dirty rather than lost or
trusted. After a power cut the page cache is gone too: clean blocks of recently changed files are dropped, hosts have
them (what was fsynced is dirty in the database, because fsync syncs that last).
Invariant: when ``recover`` returns, every place in a cache file whose block is not CLEAN or DIRTY is zeros.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator

import trio

from layrfs.crashpoints import reached
from layrfs.errors import LayrError
from layrfs.ids import BlockNumber, InodeNumber
from layrfs.storage.cache_files import INODES_PER_DIRECTORY
from layrfs.storage.journal import BlockKey, Use
from layrfs.vfs.blocks import on_disk
from layrfs.vfs.shelf import Shelf

logger = logging.getLogger(__name__)

RUNNING = "running"
FOLLOWING = "following"
"""The mark of a run that follows another machine: nothing in its cache is the only copy of anything."""

WRITTEN = "written"

CLOCK_SLACK_SECONDS = 2.0
POWER_CUT_SECONDS = 600.0
"""What was written longer ago than this before the last commit is on the disk."""

SLICE = 256


def boot_id() -> str:
    """Names this run of the machine: after a power cut it is another. Tests of those say ``$LAYRFS_BOOT_ID``."""
    if told := os.environ.get("LAYRFS_BOOT_ID"):
        return told
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "unknown"


class Recovery:
    """Brings ledger, rows and cache files together, once."""

    def __init__(self, shelf: Shelf, boot: str, wall_clock: Callable[[], float], *, follows: bool) -> None:
        """``wall_clock`` is what the kernel stamps cache files with, whoever sets it forward or back."""
        self._shelf = shelf
        self._wall_clock = wall_clock
        self._seen = 0.0
        self._boot = boot
        self._follows = follows

    async def recover(self) -> None:
        """Before anything is opened."""
        journal, ledger = self._shelf.journal, self._shelf.ledger
        ledger.dirty_blocks = ledger.dirty_bytes = 0
        running = journal.mark(RUNNING)
        if running is not None:
            logger.info("the last run did not stop properly; looking through the cache")
            if not self._follows:
                journal.remove_orphans()
            await self._look_through(power_cut=running != self._boot)
            reached("cache examined")
        ledger.clean_bytes = journal.clean_bytes()
        await self._count_dirty()
        await self._find_degraded()
        journal.set_mark(RUNNING, self._boot)
        journal.set_mark(FOLLOWING, 1 if self._follows else None)
        journal.commit()

    def stopped(self) -> None:
        """The rows are the truth now: nothing is written to cache files any more."""
        self._shelf.journal.set_mark(RUNNING, None)

    def stamp(self) -> None:
        """Call before a commit: remembers when rows and cache files last agreed."""
        ledger = self._shelf.ledger
        if ledger.used:
            self._shelf.journal.touch(ledger.used.items())
            ledger.used.clear()
        if ledger.writing:
            self._shelf.journal.set_mark(WRITTEN, int(self._wall_clock()))
            ledger.writing = False

    def watch_clock(self) -> None:
        """Call now and then: once the clock was set back, what is written must not look older than the last commit."""
        before, self._seen = self._seen, self._wall_clock()
        if self._seen < before - CLOCK_SLACK_SECONDS / 2:
            logger.warning("the clock was set back by %d s", before - self._seen)
            self._shelf.journal.set_mark(WRITTEN, int(self._seen))
            self._shelf.journal.commit()

    async def remove_strays(self) -> None:
        """Delete cache files of inodes that do not exist; may run while the volume is in use."""
        files, journal = self._shelf.files, self._shelf.journal
        for group in files.groups():
            await trio.lowlevel.checkpoint()
            present = files.inodes(group)
            journal.commit()  # whoever keeps new inodes in memory writes them now
            first = group * INODES_PER_DIRECTORY
            known = journal.inodes_between(InodeNumber(first), InodeNumber(first + INODES_PER_DIRECTORY))
            for inode in present:
                if inode not in known and inode not in self._shelf.ledger.open:
                    files.remove(inode)

    # ---------------------------------------------------------------- counting

    async def _count_dirty(self) -> None:
        ledger, journal = self._shelf.ledger, self._shelf.journal
        after: BlockKey = (InodeNumber(0), BlockNumber(-1))
        while keys := journal.dirty_after(after, SLICE):
            lost = []
            end, inode = 0, InodeNumber(0)
            for key in keys:
                if key[0] != inode:
                    inode, end = key[0], self._shelf.files.size(key[0])
                charge = self._shelf.charge(inode, key[1], end)
                if charge:
                    ledger.dirty_blocks += 1
                    ledger.dirty_bytes += charge
                else:
                    lost.append(key)
            if lost:
                logger.error("%d blocks were written but never reached the disk; what hosts have is used", len(lost))
                journal.forget(lost)
            after = keys[-1]
            await trio.lowlevel.checkpoint()

    async def _find_degraded(self) -> None:
        after: int | None = 0
        while after is not None:
            degraded, after = self._shelf.catalog.degraded_after(after, SLICE)
            self._shelf.ledger.degraded.update(degraded)
            await trio.lowlevel.checkpoint()

    # ---------------------------------------------------- after an unclean stop

    async def _look_through(self, *, power_cut: bool) -> None:
        await self.remove_strays()
        written = self._shelf.journal.mark(WRITTEN)
        since = float(written or 0) - (POWER_CUT_SECONDS if power_cut else CLOCK_SLACK_SECONDS)
        if self._shelf.journal.mark(FOLLOWING):
            since = 0.0  # what another version has replaced may still lie there, untouched for long
        files = self._shelf.files
        for group in files.groups():
            for inode in files.inodes(group):
                changed = files.changed_seconds(inode)
                if changed is not None and changed >= since:
                    self._examine(inode, power_cut=power_cut)
                    await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        await self._forget_missing()

    async def _forget_missing(self) -> None:
        """Rows of files that are not in the cache directory."""
        journal = self._shelf.journal
        for number, inode in enumerate(list(journal.cached_inodes())):
            if self._shelf.files.changed_seconds(inode) is None:
                self._drop_clean(inode)
            if number % SLICE == 0:
                await trio.lowlevel.checkpoint()

    def _examine(self, inode: InodeNumber, *, power_cut: bool) -> None:
        shelf, journal = self._shelf, self._shelf.journal
        try:
            shelf.files.cut(inode, journal.size_of(inode))
            if power_cut:
                self._drop_clean(inode)
            block_bytes = shelf.block_bytes(inode)
            local, stored = dict(journal.blocks(inode)), set(shelf.catalog.block_numbers(inode))
            dirty: list[BlockKey] = []
            only_copies = bool(journal.mark(FOLLOWING))
            for block in self._blocks_with_data(inode, block_bytes):
                if block in local:
                    if not local[block] and not only_copies:
                        journal.add_use([Use(inode, -on_disk(journal.clean_length(inode, block)), 0)])
                        dirty.append((inode, block))
                elif block in stored or only_copies:
                    shelf.files.punch(inode, [(block * block_bytes, block_bytes)])
                else:
                    dirty.append((inode, block))
            journal.mark_all_dirty(dirty)
        except LayrError as error:
            logger.error("cache file of inode %d could not be examined: %s", inode, error)  # noqa: TRY400

    def _drop_clean(self, inode: InodeNumber) -> None:
        clean = self._shelf.journal.clean_blocks(inode)
        self._shelf.forget_clean(inode, clean)

    def _blocks_with_data(self, inode: InodeNumber, block_bytes: int) -> Iterator[BlockNumber]:
        handle = self._shelf.files.file(inode)
        try:
            last = -1
            for start, end in list(handle.data_ranges()):
                for block in range(max(last + 1, start // block_bytes), (end - 1) // block_bytes + 1):
                    yield BlockNumber(block)
                    last = block
        finally:
            handle.close()
