"""Shards of which too few pieces are left: said once, with the files that miss them, and sent again from the cache.

Owns what is said, and the way of bytes that are only here back to hosts. Must not know why a shard is lost. Lost is
what is known now: a host that returns brings its shards back. Invariant: a content moves to the new shard only if its
bytes are those that were lost, whatever happened to the cache file meanwhile.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Set

import trio

from layrfs.errors import LayrError
from layrfs.ids import InodeNumber
from layrfs.pipeline.transfers import SourcePart, Stored, Transfers
from layrfs.storage.content import Catalog, NewContent
from layrfs.storage.lost import CachedContent, Lost, LostRange

MOST_RANGES = 1000
"""Of one shard; it may hold parts of thousands of files."""

MOST_NAMED = 3
MOST_SAID = 100
"""Shards that are looked into for names at a time."""

RETRY_SECONDS = 60.0

_log = logging.getLogger(__name__)


class LostShards:
    """One volume's."""

    def __init__(
        self, *, catalog: Catalog, lost: Lost, transfers: Transfers, path_of: Callable[[InodeNumber], str]
    ) -> None:
        """``path_of`` a file's cache file."""
        self._catalog = catalog
        self._rows = lost
        self._transfers = transfers
        self._path_of = path_of
        self._lost: set[int] = set()
        self._sent_at: dict[int, float] = {}
        self.sentence: str | None = None
        """What is lost and not here either; None when nothing is."""

    def ranges(self, shard: int) -> list[LostRange]:
        """What a shard takes with it."""
        return self._rows.ranges(shard, MOST_RANGES)

    async def are(self, lost: Set[int]) -> None:
        """These are lost and no others. What is here of them goes to hosts again and stays here; the rest is said."""
        self._catalog.reach.lose(lost)
        for shard in sorted(lost):
            if not await self._send_again(shard):
                break
        new, self._lost = lost - self._lost, set(lost)
        self._sent_at = {shard: at for shard, at in self._sent_at.items() if shard in lost}
        if not lost:
            self.sentence = None
        elif new or self.sentence is not None:
            self._say(new)

    async def _send_again(self, shard: int) -> bool:
        """What is here of a shard, now and then; False when hosts take nothing."""
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        parts = self._rows.cached(shard) if now >= self._sent_at.get(shard, now) else []
        self._sent_at.setdefault(shard, now + RETRY_SECONDS)
        if not parts:
            return True
        self._sent_at[shard] = now + RETRY_SECONDS
        try:
            moved = await self._sent(shard, parts)
        except LayrError as error:
            _log.info("shard %d is lost, and its cached parts are not on hosts again: %s", shard, error)
            return False
        _log.warning("shard %d is lost; %d of its %d cached parts went to hosts again", shard, moved, len(parts))
        return True

    async def _sent(self, shard: int, parts: list[CachedContent]) -> int:
        """How many contents are in a shard of their own now."""
        sources = [
            SourcePart(
                part.inode,
                part.block,
                self._path_of(part.inode),
                part.block * part.block_bytes,
                part.length,
                part.block_bytes,
            )
            for part in parts
        ]
        uploaded = await self._transfers.upload(sources, self._catalog.shard(shard).redundancy, deduplicate=False)
        if uploaded.shard is None or not self._catalog.has_shard(shard):
            return 0
        number, moved = self._catalog.add_shard(uploaded.shard), 0
        for part, outcome in zip(parts, uploaded.outcomes, strict=True):
            if isinstance(outcome, Stored):
                stored = outcome.part
                new = NewContent(stored.digest, stored.offset, stored.length)
                moved += self._catalog.repack_content(part.content, shard, number, new)
        return moved

    def _say(self, new: Set[int]) -> None:
        """In the log once; in the sentence as long as it is so."""
        paths: dict[bytes, None] = {}
        for shard in sorted(self._lost)[:MOST_SAID]:
            paths.update((one.path, None) for one in self._rows.ranges(shard, MOST_NAMED + 1))
            if len(paths) > MOST_NAMED:
                break
        if not paths:
            self.sentence = None
            return
        names = ", ".join(os.fsdecode(path) for path in list(paths)[:MOST_NAMED])
        more = " and others" if len(paths) > MOST_NAMED else ""
        self.sentence = f"{len(self._lost)} shards are on no host any more: parts of {names}{more}; see `layrfs patch`"
        if new:
            _log.error("%s", self.sentence)
