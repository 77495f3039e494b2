"""Cache files on their way to the disk.

Owns who waits for a flush of them, and the rows of ``local_replaced``: blocks that were overwritten whole without their
old bytes having been on this disk. Should the power go before a flush, part of the new bytes is there and none of the
old ones, so the block counts as never written and hosts' bytes are used (``Recovery``). Files that took another's name
come to the disk before the rows that say so, or a power cut could leave neither the old bytes nor the new. Must not
know hosts or names. After a failed flush of all files no later one of all is believed in this run: the kernel does not
say which file it failed for, which may be another program's. Asked for one file, it tells of that one.
Invariant: a row goes when a flush of its file that began after the write has ended well, never before.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator

import trio

from layrfs.errors import LayrError
from layrfs.ids import BlockNumber, InodeNumber
from layrfs.logs import log_failure
from layrfs.storage.cache_files import CacheFiles
from layrfs.storage.journal import BlockKey, Journal

logger = logging.getLogger(__name__)

ROUNDS = 3
MANY = 8
"""More files than this are flushed with all others, in one step."""

FLUSH_SECONDS = 15.0
"""How long what was overwritten may wait for the kernel to write it back by itself."""


Seen = tuple[BlockKey, int]
"""A block that was overwritten, and the number of that write."""


class Flushes:
    """Of one cache."""

    def __init__(
        self,
        journal: Journal,
        files: CacheFiles,
        in_thread: Callable[[Callable[[], None]], Awaitable[None]],
        distrust: Callable[[], None],
    ) -> None:
        """``distrust`` is called when files are not on the disk that nobody will be told of again."""
        self._distrust = distrust
        self._is_unsure = False
        self._journal = journal
        self._files = files
        self._in_thread = in_thread
        self._replaced: dict[InodeNumber, dict[BlockNumber, int]] = {}
        self._renamed: dict[InodeNumber, int] = {}
        self._renaming = trio.Lock()
        self._numbers = itertools.count()

    def load(self) -> None:
        """What an earlier run left, which ended without losing the kernel's memory."""
        for inode, block in self._journal.replaced():
            self._replaced.setdefault(inode, {})[block] = next(self._numbers)

    def overwritten(self, inode: InodeNumber, blocks: Iterable[int]) -> None:
        """Blocks whose old bytes only hosts have are about to be overwritten whole; goes with the next commit."""
        numbered = {BlockNumber(block): next(self._numbers) for block in blocks}
        self._replaced.setdefault(inode, {}).update(numbered)
        self._journal.mark_replaced((inode, block) for block in numbered)

    async def sync(self, inode: InodeNumber | None) -> None:
        """Return when a file's cache file, or every one, is on the disk. Raises ``LocalError``."""
        seen = self._seen([inode] if inode is not None else list(self._replaced))
        files = self._files
        if inode is not None:
            await self._in_thread(lambda: files.sync(inode))
            self._forget(seen)
            return
        on_disk: set[InodeNumber] = set()
        with self._noting(seen, on_disk):
            await self._in_thread(lambda: self._flush_all(seen, on_disk))

    def sync_all(self) -> None:
        """At the end, when nobody else is kept waiting. Raises ``LocalError``."""
        seen, on_disk = self._seen(list(self._replaced)), set[InodeNumber]()
        with self._noting(seen, on_disk):
            self._flush_all(seen, on_disk)
        if self._files.has_unsure:
            self._note_failure()

    @contextlib.contextmanager
    def _noting(self, seen: list[Seen], on_disk: Container[InodeNumber]) -> Iterator[None]:
        try:
            yield
        except LayrError:
            self._note_failure()
            raise
        finally:
            self._forget(each for each in seen if each[0][0] in on_disk)

    def _flush_all(self, seen: list[Seen], on_disk: set[InodeNumber]) -> None:
        """In a thread. ``on_disk`` gets the files of ``seen`` that are known to be there, also when this raises."""
        believed = False
        try:
            self._files.sync_all()
            believed = not (self._is_unsure or self._files.has_unsure)
        finally:
            on_disk.update(inode for inode in {key[0] for key, _number in seen} if believed or self._flush_one(inode))

    def _flush_one(self, inode: InodeNumber) -> bool:
        """Whether the file is on the disk now; one that failed before has to be written again first."""
        try:
            if not self._files.is_unsure(inode):
                self._files.sync(inode)
                return True
        except LayrError as error:
            log_failure(logger, "cache", error)
        return False

    def _note_failure(self) -> None:
        """The kernel says once that it could not write something, not what, and calls it written after that."""
        self._is_unsure = True
        self._distrust()

    def renamed(self, inode: InodeNumber) -> None:
        """A file took another's name; whether somebody has flushed it, its rows do not say."""
        self._renamed[inode] = next(self._numbers)

    async def sync_renamed(self) -> None:
        """Return when all files that took another's name are on the disk; one whose flush fails is not waited for."""
        for _ in range(ROUNDS):  # more are renamed meanwhile, and for ever if programs never pause
            if not self._renamed:
                return
            async with self._renaming:
                taken = dict(self._renamed)
                await self._sync_some([inode for inode in taken if self._journal.has_dirty(inode)])
                for inode, number in taken.items():
                    if self._renamed[inode] == number:
                        del self._renamed[inode]

    async def _sync_some(self, inodes: list[InodeNumber]) -> None:
        for inode in [None] if len(inodes) > MANY else inodes:
            try:
                await self.sync(inode)
            except LayrError as error:
                log_failure(logger, "cache", error)

    async def run(self) -> None:
        """Have overwritten blocks on the disk soon, whoever asks for it, until cancelled."""
        while True:
            await trio.sleep(FLUSH_SECONDS)
            try:
                if self._replaced:
                    await self.sync(None)
            except LayrError as error:
                log_failure(logger, "cache", error)

    def _seen(self, inodes: Iterable[InodeNumber]) -> list[Seen]:
        return [((inode, block), number) for inode in inodes for block, number in self._replaced.get(inode, {}).items()]

    def _forget(self, seen: Iterable[Seen]) -> None:
        """But not what was overwritten again since."""
        gone = [key for key, number in seen if self._replaced.get(key[0], {}).get(key[1]) == number]
        for inode, block in gone:
            blocks = self._replaced[inode]
            del blocks[block]
            if not blocks:
                del self._replaced[inode]
        self._journal.forget_replaced(gone)
