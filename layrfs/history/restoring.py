"""A version of the volume from hosts to a database on this disk.

Owns the way from segments to a file. Must not know what the database is for: recovery gives it the volume's name, a
snapshot is looked at and thrown away. Invariant: the file appears complete and checked, or not at all.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from layrfs.crypto.identity import NodeIdentity
from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import CorruptFile
from layrfs.model.history import Segment
from layrfs.pipeline import manifests
from layrfs.pipeline.finding import HostFinder
from layrfs.pipeline.jobs import WorkerKeys
from layrfs.pipeline.pool import WorkerPool
from layrfs.pipeline.pooled import PooledTransfers
from layrfs.pipeline.transfers import Downloads
from layrfs.storage.changes import read_blob, restore
from layrfs.storage.database import Database
from layrfs.storage.kept_changes import KeptChanges


@asynccontextmanager
async def transfers_alone(keys: WorkerKeys, finder: HostFinder, *, workers: int) -> AsyncIterator[PooledTransfers]:
    """Workers for as long as the block lasts, for who has no volume to use them with yet."""
    own_node = NodeIdentity.from_private(keys.node_private).node_id
    transfers = PooledTransfers(
        WorkerPool(keys, workers=workers),
        finder,
        find_content=lambda _digests: {},
        on_bad_piece=lambda *_what: None,
        excluded=lambda: (own_node,),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(transfers.run)
        yield transfers
        nursery.cancel_scope.cancel()


async def fetch_segment(segment: Segment, keys: VolumeKeys, transfers: Downloads, directory: str) -> None:
    """A segment's blob, as a file of its number. Raises ``Unavailable``, ``LocalError``."""
    blob = blob_path(directory, segment.number)
    await manifests.restore(segment.manifest(keys.volume_id), transfers, blob, lambda _done, _total: None)


async def restore_segments(
    segments: Sequence[Segment],
    keys: VolumeKeys,
    transfers: Downloads,
    directory: str,
    *,
    keep_in: KeptChanges | None = None,
) -> str:
    """Make the database of a version in a directory that is empty; its path.

    ``keep_in`` gets the changesets.
    Raises ``Unavailable``, ``CorruptFile``, ``BadMessage``, ``LocalError``; the directory is the caller's to remove.
    """
    for segment in segments:
        await fetch_segment(segment, keys, transfers, directory)
    return await build_database(segments, keys, directory, keep_in=keep_in)


def blob_path(directory: str, number: int) -> str:
    """Where a segment's blob has to be."""
    return os.path.join(directory, str(number))


async def build_database(
    segments: Sequence[Segment], keys: VolumeKeys, directory: str, *, keep_in: KeptChanges | None = None
) -> str:
    """Likewise, when the blobs are in the directory already. Raises ``CorruptFile``, ``BadMessage``, ``LocalError``."""
    path = os.path.join(directory, "metadata.db")
    await trio.to_thread.run_sync(partial(_build, directory, segments, path, keep_in))
    with Database(path) as database:
        if database.value("SELECT value FROM volume WHERE name = 'id'") != keys.volume_id:
            raise CorruptFile("The history found belongs to another volume.")
    return path


def _build(directory: str, segments: Sequence[Segment], path: str, keep_in: KeptChanges | None) -> None:
    """Segments to a database; one changeset in memory at a time, and no blob on the disk for longer than needed."""
    checkpoint: str | None = None
    changes: list[tuple[Segment, str]] = []
    for segment in segments:
        blob, plain = (os.path.join(directory, f"{segment.number}{ending}") for ending in ("", ".plain"))
        read_blob(blob, segment.kind, plain)
        os.unlink(blob)
        if segment.kind == "checkpoint":
            checkpoint, changes = plain, []
        else:
            changes.append((segment, plain))
    restore(path, checkpoint, (_bytes_of(plain) for _segment, plain in changes))
    for segment, plain in changes:
        if keep_in is not None:
            keep_in.keep(segment, _bytes_of(plain))
        os.unlink(plain)
    if checkpoint is not None:
        os.unlink(checkpoint)


def _bytes_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
