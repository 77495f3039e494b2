"""Manifests followed back to a file.

Must not know the catalog or whether anything is mounted: bytes come through `Downloads`.
Invariant: the file at OUT appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence

import trio

from layrfs.errors import LayrError, UsageError
from layrfs.ids import VolumeId
from layrfs.model.manifest import Manifest, ManifestShard
from layrfs.pipeline.sealing import local_error
from layrfs.pipeline.transfers import Downloads, TargetPart

SHARDS_AT_ONCE = 8
"""More than the workers take, so that none of them ever waits for us."""

Progress = Callable[[int, int], None]
"""Called with (bytes written, bytes in all)."""


def check_volume(manifest: Manifest, volume: VolumeId) -> None:
    """Raises UsageError when the manifest belongs to another volume, whose keys are needed to follow it."""
    if manifest.volume != volume:
        raise UsageError("This manifest belongs to another volume; its recovery phrase is needed to read it.")


async def restore(manifest: Manifest, transfers: Downloads, out: str, progress: Progress) -> None:
    """Download the manifest's file to `out`; raises Unavailable or LocalError, and then leaves nothing behind."""
    partial = f"{out}.layrfs-part"
    try:
        await trio.to_thread.run_sync(_create, partial, manifest.file_size)
        await _fill(manifest, transfers, partial, progress)
        await trio.to_thread.run_sync(_finish, partial, out)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise


async def _fill(manifest: Manifest, transfers: Downloads, path: str, progress: Progress) -> None:
    """Fetch every shard, several at once; the first failure ends all."""
    failures: list[LayrError] = []
    written = 0
    total = sum(block.length for shard in manifest.shards for block in shard.blocks)
    places = trio.CapacityLimiter(SHARDS_AT_ONCE)

    async def fetch(shard: ManifestShard) -> None:
        nonlocal written
        try:
            await transfers.download(shard.record, _targets(manifest, shard, path), urgent=False)
        except LayrError as error:
            failures.append(error)
            nursery.cancel_scope.cancel()
        else:
            written += sum(block.length for block in shard.blocks)
            progress(written, total)
        finally:
            places.release_on_behalf_of(shard)

    async with trio.open_nursery() as nursery:
        for shard in manifest.shards:
            await places.acquire_on_behalf_of(shard)
            nursery.start_soon(fetch, shard)
    if failures:
        raise failures[0]


def _targets(manifest: Manifest, shard: ManifestShard, path: str) -> Sequence[TargetPart]:
    return [TargetPart(path, block.number * manifest.shard_size, block.offset, block.length) for block in shard.blocks]


def _create(path: str, size: int) -> None:
    """An empty file of the right size: what no shard fills reads as zeros."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(file, size)
        finally:
            os.close(file)
    except OSError as error:
        raise local_error(path, error) from None


def _finish(partial: str, out: str) -> None:
    try:
        file = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)
        os.replace(partial, out)
    except OSError as error:
        raise local_error(out, error) from None
