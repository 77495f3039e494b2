"""What is pinned and not here is fetched in the background, again and again until it is.

Owns when that is tried. Must not know who pins, or how bytes travel. A pass looks through the pinned files and fetches
what they lack, a few files at a time and behind every reader; it begins at the start, when something was pinned, and
when hosts have come, and begins again with growing pauses while something is missing.
Invariant: fetching for pins never takes the free space that the disk is to keep.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import trio

from layrfs.errors import FileError, LayrError, LocalError
from layrfs.ids import InodeNumber
from layrfs.storage.pins import AbsentBlock, PinTable
from layrfs.vfs.eviction import Evictor
from layrfs.vfs.fetching import Fetcher
from layrfs.vfs.file_content import FileContent
from layrfs.vfs.shelf import Shelf

logger = logging.getLogger(__name__)

FILES_TOGETHER = 4
BLOCKS_TOGETHER = 4
"""Of each: with the files, half of what the fetcher does at once, so that readers find a turn."""

SLICE = 64
"""Pinned files looked at between two looks at what else there is to do."""

MOST_FAILURES = 8
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


class Keeper:
    """Fetches for pins while ``run`` runs."""

    def __init__(
        self,
        shelf: Shelf,
        pins: PinTable,
        evictor: Evictor,
        fetcher: Fetcher,
        open_file: Callable[[InodeNumber], FileContent],
        release: Callable[[FileContent], None],
    ) -> None:
        self._shelf = shelf
        self._pins = pins
        self._evictor = evictor
        self._fetcher = fetcher
        self._open = open_file
        self._release = release
        self._at_once = trio.CapacityLimiter(FILES_TOGETHER)
        self._wake, self._changed = trio.Event(), trio.Event()
        self._again = True
        self._complete = False
        self._after = InodeNumber(0)
        self.missing_bytes = 0
        """Of pinned files, on hosts but not here, as far as is known."""
        self.problem: str | None = None
        """Why something stays missing, in a sentence."""

    def look_again(self) -> None:
        """Begin a pass as soon as may be."""
        self._again, self._complete = True, False
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            self._wake, self._again = trio.Event(), False
            await self._pass()
            self._complete = not (self.missing_bytes or self._again)
            self._notify()
            with trio.move_on_after(math.inf if self._complete else pause_seconds):
                await self._wake.wait()
            pause_seconds = FIRST_PAUSE_SECONDS if self._again else min(LONGEST_PAUSE_SECONDS, 2 * pause_seconds)

    async def wait(self, progress: Callable[[int, int], None]) -> None:
        """Return when all that is pinned is here."""
        while not self._complete:
            progress(self._shelf.ledger.pinned_bytes, self.missing_bytes)
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # ---------------------------------------------------------------- one pass

    async def _pass(self) -> None:
        """Count what is missing, then fetch it."""
        await self.count()
        self._measure()
        if not self.missing_bytes:
            self.problem = None
            return
        failed: list[LayrError] = []
        while (inodes := self._pins.inodes(self._after, SLICE)) and not self._is_over(failed):
            await self._fetch_all(inodes, failed)
            self._measure()
        if not inodes:
            self._after = InodeNumber(0)
        self.problem = None if not failed else f"Pinned files are not all here: {failed[0]}"
        if failed:
            logger.warning("%s (and %d more)", self.problem, len(failed) - 1)

    def _is_over(self, failed: Sequence[LayrError]) -> bool:
        """Where so much fails the network is probably gone; the next pass goes on with the files after these."""
        return self._again or len(failed) >= MOST_FAILURES

    async def _fetch_all(self, inodes: Sequence[InodeNumber], failed: list[LayrError]) -> None:
        async with trio.open_nursery() as nursery:
            for inode in inodes:
                if self._is_over(failed):
                    break
                self._after = inode
                if absent := self._pins.absent(inode):
                    await self._at_once.acquire_on_behalf_of(inode)
                    nursery.start_soon(self._fetch, inode, absent, failed)
        await trio.lowlevel.checkpoint()

    async def count(self) -> None:
        """Have ``missing_bytes`` right at this moment."""
        missing, after = 0, InodeNumber(0)
        while inodes := self._pins.inodes(after, SLICE):
            missing += sum(block.length for inode in inodes for block in self._pins.absent(inode))
            after = inodes[-1]
            await trio.lowlevel.checkpoint()
        self.missing_bytes = missing

    def _measure(self) -> None:
        self._shelf.ledger.pinned_bytes = self._pins.bytes_here()
        self._evictor.refresh()
        self._notify()

    async def _fetch(self, inode: InodeNumber, absent: Sequence[AbsentBlock], failed: list[LayrError]) -> None:
        """One file; what cannot be had is left for the next pass."""
        try:
            await self._fetch_blocks(inode, absent)
        except FileError:
            pass  # deleted meanwhile
        except LayrError as error:
            failed.append(error)
        else:
            self.missing_bytes = max(0, self.missing_bytes - sum(block.length for block in absent))
        finally:
            self._at_once.release_on_behalf_of(inode)
        self._notify()

    async def _fetch_blocks(self, inode: InodeNumber, absent: Sequence[AbsentBlock]) -> None:
        file = self._open(inode)
        try:
            for first in range(0, len(absent), BLOCKS_TOGETHER):
                some = absent[first : first + BLOCKS_TOGETHER]
                if not await self._evictor.room_on_disk(sum(block.length for block in some)):
                    raise LocalError("the disk is too full for them.")
                await self._fetcher.fetch(file, [block.block for block in some], urgent=False)
        finally:
            self._release(file)
