"""Contents that no list of files names: fetched, asked what they are, and put into ``lost+found``.

Owns the order: a shard and its pieces are recorded as they are found, so nothing is uploaded again; files are made when
all shards were asked. Must not know how pieces were found. A shard that cannot be fetched is counted, not waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
import trio

from layrfs.errors import Unavailable, WorkerLost
from layrfs.ids import Salt
from layrfs.model.history import METADATA_INODE
from layrfs.model.shards import ShardRecord
from layrfs.pipeline.transfers import Examined
from layrfs.policy.rescuing import FoundPart, rescued_files
from layrfs.storage.content import Catalog, NewContent
from layrfs.storage.database import Database
from layrfs.storage.lost_found import LostFound
from layrfs.storage.sightings import Sightings, one_piece_each

SHARDS_AT_ONCE = 8
PAGE = 256


class Examiner(Protocol):
    """``layrfs.pipeline.pooled.PooledTransfers``, or a fake."""

    async def examine(self, shard: ShardRecord, path: str | None = None, offset: int = 0) -> Examined: ...


class Rescued(msgspec.Struct, frozen=True):
    """How many files came back under which directory, and how many shards could not be fetched."""

    files: int = 0
    directory: str = ""
    lost_shards: int = 0


NOTHING_RESCUED = Rescued()


class Rescuer:
    """Once for one database, which must know none of the sightings' shards."""

    def __init__(
        self, database: Database, examiner: Examiner, sightings: Sightings, progress: Callable[[str], None]
    ) -> None:
        self._database = database
        self._catalog = Catalog(database)
        self._examiner = examiner
        self._sightings = sightings
        self._progress = progress
        self._done = self._lost = 0

    async def run(self, stored_after: int = 0) -> Rescued:
        """Shards stored after a time (Unix seconds). Raises ``LocalError``."""
        total, after = self._sightings.content_count(), Salt(b"")
        while page := self._sightings.contents(after, PAGE):
            async with trio.open_nursery() as nursery:
                places = trio.CapacityLimiter(SHARDS_AT_ONCE)
                for salt in page:
                    nursery.start_soon(self._examine, salt, stored_after, total, places)
            self._database.commit()
            after = page[-1]
        return self._make_files()

    async def _examine(self, salt: Salt, stored_after: int, total: int, places: trio.CapacityLimiter) -> None:
        async with places:
            shard, stored = self._sightings.shard(salt)
            if stored > stored_after:
                try:
                    self._record(shard, stored, await self._examiner.examine(shard))
                except (Unavailable, WorkerLost):
                    self._lost += 1
            self._done += 1
            self._progress(f"{self._done} of {total} shards examined")

    def _record(self, shard: ShardRecord, stored: int, examined: Examined) -> None:
        number = self._catalog.add_shard(completed(shard, examined))
        new = [NewContent(part.digest, part.offset, part.length) for part in examined.parts]
        for part, content in zip(examined.parts, self._catalog.add_content(number, new), strict=True):
            if part.inode != METADATA_INODE:
                found = FoundPart(part.block_bytes, part.block, stored, content, part.length)
                self._sightings.add_parts(part.inode, found)

    def _make_files(self) -> Rescued:
        files, directory = 0, None
        for inode in self._sightings.inodes():
            directory = directory or LostFound(self._database)
            for file in rescued_files(inode, self._sightings.parts(inode)):
                directory.add(file)
                files += 1
            if files % PAGE == 0:
                self._database.commit()
        self._database.commit()
        return Rescued(files, "" if directory is None else directory.name.decode(), self._lost)


def completed(shard: ShardRecord, examined: Examined) -> ShardRecord:
    """The record of a shard that was examined: what is kept of it."""
    return ShardRecord(
        id=examined.id,
        salt=shard.salt,
        plain_bytes=examined.plain_bytes,
        sealed_bytes=examined.sealed_bytes,
        redundancy=shard.redundancy,
        pieces=one_piece_each(shard.pieces),
    )
