"""What the cache was when it was last in use: the start of a mount.

Owns the comparison of the database with the cache directory. Must not know hosts.

After a proper stop the rows are the truth, and only the queue of uploads is counted. After ``kill -9`` every write is
in the page cache and every change of a clean block was committed first, but the last second's *other* rows may be
missing: files changed since the last commit, or longer than their rows say, are looked through, and what they hold
becomes dirty rather than lost or trusted. After a power cut the page cache is gone too: clean blocks of recently
changed files are dropped, hosts have them (what was fsynced is dirty in the database, because fsync syncs that last).
When a file changed is said by its own time and by the rows: the time of a change inside a file may come to the disk
long after the change.
Invariant: when ``recover`` returns, every place in a cache file whose block is not CLEAN or DIRTY is zeros.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Mapping

import trio

from layrfs.crashpoints import reached
from layrfs.errors import LayrError
from layrfs.ids import BlockNumber, InodeNumber
from layrfs.logs import log_failure
from layrfs.policy.recovery import CLOCK_SLACK_SECONDS, doubtful_since, look
from layrfs.storage.cache_files import INODES_PER_DIRECTORY, FileFacts
from layrfs.storage.journal import BlockKey, Use
from layrfs.vfs.blocks import on_disk
from layrfs.vfs.shelf import Shelf

logger = logging.getLogger(__name__)

RUNNING = "running"
FOLLOWING = "following"
"""The mark of a run that follows another machine: nothing in its cache is the only copy of anything."""

WRITTEN = "written"
TRUSTED = "trusted"
"""When every cache file was known to be on the disk, in seconds."""

UNSURE = "unsure"
"""A flush of the cache has failed since then."""

SLICE = 256
LAST = InodeNumber(1 << 62)


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

    def __init__(
        self,
        shelf: Shelf,
        sync_rows: Callable[[], Awaitable[None]],
        boot: str,
        wall_clock: Callable[[], float],
        *,
        follows: bool,
    ) -> None:
        """``wall_clock`` is what the kernel stamps cache files with, whoever sets it forward or back."""
        self._shelf = shelf
        self._sync_rows = sync_rows
        self._wall_clock = wall_clock
        self._seen = 0.0
        self._boot = boot
        self._follows = follows

    async def recover(self) -> None:
        """Before anything is opened."""
        journal, ledger = self._shelf.journal, self._shelf.ledger
        ledger.dirty_blocks = ledger.dirty_bytes = 0
        running, unsure = journal.mark(RUNNING), journal.mark(UNSURE) is not None
        if running is not None:
            logger.info("the last run did not stop properly; looking through the cache")
            if not self._follows:
                journal.remove_orphans()
            await self._look_through(power_cut=unsure or running != self._boot, unsure=unsure)
            reached("cache examined")
        else:
            await self._count_dirty(InodeNumber(0), LAST, {})
            journal.set_mark(TRUSTED, int(self._wall_clock()))
        ledger.clean_bytes = journal.clean_bytes()
        await self._find_degraded()
        journal.set_mark(RUNNING, self._boot)
        journal.set_mark(UNSURE, None)
        journal.set_mark(FOLLOWING, 1 if self._follows else None)
        journal.commit()

    def stopped(self) -> None:
        """Nothing is written any more, the rows are true and, but for ``distrust``, every cache file is on the disk."""
        journal = self._shelf.journal
        if journal.mark(UNSURE) is not None:
            return  # the next start looks through the cache, as after a power cut
        journal.forget_replaced(journal.replaced())
        journal.set_mark(RUNNING, None)

    def distrust(self) -> None:
        """Cache files could not be flushed: of what was written in this run, nobody knows what is on the disk."""
        with contextlib.suppress(LayrError):  # then the database is in doubt as well, and says so
            self._shelf.journal.set_mark(UNSURE, 1)
            self._shelf.journal.commit()

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
        """Delete cache files of inodes that do not exist; may run while the volume is in use. Raises ``LocalError``."""
        files = self._shelf.files
        for group in files.groups():
            await trio.lowlevel.checkpoint()
            present = files.inodes(group)
            self._shelf.journal.commit()  # whoever keeps new inodes in memory writes them now
            if strays := self._strays(self._sizes(group), present):
                await self._sync_rows()  # a power cut must not bring back the rows of what is deleted here
            for inode in strays:
                files.remove(inode)

    def _sizes(self, group: int) -> dict[InodeNumber, int]:
        return self._shelf.journal.sizes_between(*_inodes_of(group))

    def _strays(self, known: Container[InodeNumber], present: Iterable[InodeNumber]) -> list[InodeNumber]:
        return [inode for inode in present if inode not in known and inode not in self._shelf.ledger.open]

    # ---------------------------------------------------------------- counting

    async def _count_dirty(self, first: InodeNumber, last: InodeNumber, facts: Mapping[InodeNumber, FileFacts]) -> None:
        """Of the files from ``first`` to before ``last``; ``facts`` are those known already."""
        ledger, journal = self._shelf.ledger, self._shelf.journal
        after: BlockKey = (first, BlockNumber(-1))
        while keys := [key for key in journal.dirty_after(after, SLICE) if key[0] < last]:
            lost = []
            end, inode = 0, InodeNumber(0)
            for key in keys:
                if key[0] != inode:
                    inode = key[0]
                    fact = facts.get(inode)
                    end = self._shelf.files.size(inode) if fact is None else fact.size
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
            after = self._shelf.catalog.pieces.find_degraded(after, SLICE)
            await trio.lowlevel.checkpoint()

    # ---------------------------------------------------- after an unclean stop

    async def _look_through(self, *, power_cut: bool, unsure: bool) -> None:
        """Directory by directory; each file is asked about once."""
        await self._sync_rows()  # what is cleared below, the rows on the disk must not need either
        journal = self._shelf.journal
        since = doubtful_since(
            written=float(journal.mark(WRITTEN) or 0),
            power_cut=power_cut,
            trusted=float(journal.mark(TRUSTED) or 0) if unsure else None,
            other_versions=bool(journal.mark(FOLLOWING)),
        )
        if power_cut:
            self._drop_replaced()
        used = self._shelf.journal.used_since(int(since)) if power_cut else frozenset()
        done = InodeNumber(0)
        for group in self._shelf.files.groups():
            first, end = _inodes_of(group)
            await self._compare(done, first, {})
            facts, sizes = self._shelf.files.facts(group), self._sizes(group)
            for inode in self._strays(sizes, facts):
                self._shelf.files.remove(inode)
                del facts[inode]
            await trio.lowlevel.checkpoint()
            for inode, fact in list(facts.items()):
                verdict = look(
                    changed=fact.changed,
                    since=since,
                    used=inode in used,
                    too_long=fact.size > sizes[inode],
                    power_cut=power_cut,
                )
                if verdict == "no":
                    continue
                self._examine(inode, power_cut=power_cut, keeps_new=verdict == "new bytes are new")
                facts[inode] = FileFacts(self._shelf.files.size(inode), 0.0)
                await trio.lowlevel.checkpoint()
            await self._compare(first, end, facts)
            done = end
        await self._compare(done, LAST, {})

    async def _compare(self, first: InodeNumber, end: InodeNumber, facts: Mapping[InodeNumber, FileFacts]) -> None:
        """Rows of a range of inodes with their files, of which there are no others than these."""
        for inode in [inode for inode in self._shelf.journal.cached_inodes(first, end) if inode not in facts]:
            self._drop_clean(inode)
        await trio.lowlevel.checkpoint()
        await self._count_dirty(first, end, facts)

    def _examine(self, inode: InodeNumber, *, power_cut: bool, keeps_new: bool) -> None:
        shelf, journal = self._shelf, self._shelf.journal
        try:
            shelf.files.cut(inode, journal.size_of(inode))
            if power_cut:
                self._drop_clean(inode)
            block_bytes = shelf.block_bytes(inode)
            local, stored = dict(journal.blocks(inode)), set(shelf.catalog.block_numbers(inode))
            dirty: list[BlockKey] = []
            only_copies = bool(journal.mark(FOLLOWING))
            keeps_new = keeps_new and not only_copies
            for block in self._blocks_with_data(inode, block_bytes):
                if block in local:
                    if not local[block] and not only_copies:
                        journal.add_use([Use(inode, -on_disk(journal.clean_length(inode, block)), 0)])
                        dirty.append((inode, block))
                elif block in stored or not keeps_new:
                    shelf.files.punch(inode, [(block * block_bytes, block_bytes)])
                else:
                    dirty.append((inode, block))
            journal.mark_all_dirty(dirty)
        except LayrError as error:
            log_failure(logger, f"cache file of inode {inode} could not be examined", error)

    def _drop_replaced(self) -> None:
        """Who knows how much of them is on the disk; hosts' bytes count instead."""
        journal = self._shelf.journal
        keys, done = journal.replaced_with_old(), set(journal.replaced())
        for inode, of_one in itertools.groupby(keys, lambda key: key[0]):
            block_bytes, lost = self._shelf.block_bytes(inode), list(of_one)
            try:
                self._shelf.files.punch(inode, [(block * block_bytes, block_bytes) for _inode, block in lost])
                journal.forget(lost)
            except LayrError as error:
                done.difference_update(lost)
                logger.error("%s", error)  # noqa: TRY400 - the sentence says it all
        if keys:
            logger.warning("%d blocks were overwritten and not on the disk yet; what hosts have is used", len(keys))
        journal.forget_replaced(done)

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


def _inodes_of(group: int) -> tuple[InodeNumber, InodeNumber]:
    """The first inode of a directory of the cache, and the first that is not in it."""
    first = group * INODES_PER_DIRECTORY
    return InodeNumber(first), InodeNumber(first + INODES_PER_DIRECTORY)
