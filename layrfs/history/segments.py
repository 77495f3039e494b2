"""Segments of the volume's history: pending changes, or all of the volume, made into a blob and sent to hosts.

Owns what is merged with what, and the files that are on their way. Must not know root records. Invariant: a segment is
answered only when all its shards are on hosts, and holds all that the segments held which it replaces.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence

import trio

from layrfs.durable import make_directory
from layrfs.errors import LocalError
from layrfs.model.history import METADATA_INODE, Kind, Segment
from layrfs.model.notes import NO_BLOB, Purpose, blob_tag
from layrfs.model.redundancy import Redundancy
from layrfs.model.shard_format import MAX_PAYLOAD_BYTES
from layrfs.model.shards import ShardRecord
from layrfs.pipeline.transfers import SourcePart, Stored, Transfers
from layrfs.policy.history import checkpoint_due, first_merged, fits
from layrfs.storage.cache_files import failed
from layrfs.storage.changes import ChangeLog, Cut, combined, write_blob, write_checkpoint
from layrfs.storage.database import Database
from layrfs.storage.kept_changes import KeptChanges

_log = logging.getLogger(__name__)

METADATA_REDUNDANCY = Redundancy(1, 5)
"""Small, and everything depends on it."""


class SegmentMaker:
    """Of one volume. Whoever calls sees to it that one segment is made at a time."""

    def __init__(self, database: Database, transfers: Transfers, directory: str) -> None:
        """Make the directory when it is missing. Raises ``LocalError``."""
        self._database = database
        self._changes = ChangeLog(database)
        self._transfers = transfers
        self._directory = directory
        self.kept = KeptChanges(directory)
        """The changesets of published segments, which the next ones are merged with."""
        try:
            make_directory(directory)
        except OSError as error:
            raise failed(error, directory) from error

    async def checkpoint(self, version: int) -> tuple[Cut, Segment, list[Segment]]:
        """All of the volume as it was last committed; what was true then, and no older segments.

        Raises what uploading raises, and ``LocalError`` when no root record could name so much.
        """
        copy, path = self._path("checkpoint"), self._path("blob")
        try:
            cut = await trio.to_thread.run_sync(write_checkpoint, self._database.path, copy)
            blob_bytes = await trio.to_thread.run_sync(write_blob, path, "checkpoint", copy)
            if not fits(_shards(blob_bytes)):
                raise LocalError("The list of files is so long that no root record can name all its parts.")
            return cut, await self._upload("checkpoint", version, path, blob_bytes, NO_BLOB), []
        finally:
            for name in (copy, path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)

    async def merge(self, version: int, segments: Sequence[Segment]) -> tuple[Cut, Segment, list[Segment]]:
        """The pending changes, with those of the last segments when these are not much larger.

        What was true then, the segment, and the older ones it does not replace. A checkpoint, when no root record
        could name them all.
        """
        cut, (_last, pending) = self._changes.cut(), self._changes.pending()
        first, changes = await trio.to_thread.run_sync(self._merged, segments, pending)
        path, previous = self._path("blob"), segments[first - 1].tag if first else NO_BLOB
        try:
            blob_bytes = await trio.to_thread.run_sync(write_blob, path, "changes", changes)
            if not fits(_shards(blob_bytes) + sum(len(one.shards) for one in segments[:first])):
                return await self.checkpoint(version)
            segment = await self._upload("changes", version, path, blob_bytes, previous)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        try:
            await trio.to_thread.run_sync(self.kept.keep, segment, changes)
        except LocalError as error:
            _log.warning("segment %d will not be merged with later ones: %s", version, error)
        return cut, segment, list(segments[:first])

    def _merged(self, segments: Sequence[Segment], pending: bytes) -> tuple[int, bytes]:
        """From which of the segments on they are merged with the pending changes, and all of these in one changeset."""
        sizes = [self.kept.size(segment) if segment.kind == "changes" else None for segment in segments]
        first = _after_missing(sizes)
        first += first_merged([size or 0 for size in sizes[first:]], len(pending))
        older = [self.kept.read(segment) for segment in segments[first:]]
        readable = _after_missing(older)
        return first + readable, combined([*(changes or b"" for changes in older[readable:]), pending])

    async def _upload(self, kind: Kind, number: int, path: str, blob_bytes: int, previous: bytes) -> Segment:
        """``previous``: the tag of the segment whose state the changes follow. All of the blob, or hosts drop it."""
        shards: list[ShardRecord] = []
        try:
            for block in range(count := _shards(blob_bytes)):
                offset = block * MAX_PAYLOAD_BYTES
                part = SourcePart(METADATA_INODE, block, path, offset, min(MAX_PAYLOAD_BYTES, blob_bytes - offset))
                blob = blob_tag(shards[0].salt) if shards else NO_BLOB
                purpose = Purpose(kind, number, block, count, blob, previous)
                shards.append(await self._upload_part(part, purpose))
        except BaseException:
            self._transfers.discard([piece for shard in shards for piece in shard.pieces])
            raise
        return Segment(kind, number, blob_bytes, tuple(shards))

    async def _upload_part(self, part: SourcePart, purpose: Purpose) -> ShardRecord:
        uploaded = await self._transfers.upload([part], METADATA_REDUNDANCY, purpose)
        if uploaded.shard is None or not isinstance(uploaded.outcomes[0], Stored):
            raise LocalError("A segment of metadata was taken for something else.")
        return uploaded.shard

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)


def fewest_copies(segments: Sequence[Segment]) -> int:
    """Of the shard that is on the fewest hosts; of no segments, more than anybody asks for."""
    shards = (shard for segment in segments for shard in segment.shards)
    return min((len(shard.pieces) for shard in shards), default=METADATA_REDUNDANCY.total)


def is_outgrown(segments: Sequence[Segment]) -> bool:
    """Whether the changes should give way to a checkpoint."""
    checkpoint_bytes = sum(segment.blob_bytes for segment in segments if segment.kind == "checkpoint")
    changes_bytes = sum(segment.blob_bytes for segment in segments if segment.kind == "changes")
    return checkpoint_due(checkpoint_bytes, changes_bytes)


def _shards(blob_bytes: int) -> int:
    return -(-blob_bytes // MAX_PAYLOAD_BYTES)


def _after_missing(found: Sequence[int | bytes | None]) -> int:
    """Where the part begins in which nothing is None."""
    return max((at + 1 for at, one in enumerate(found) if one is None), default=0)
