from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from layrfs.errors import LocalError, Unavailable, UsageError
from layrfs.ids import BlockNumber, VolumeId
from layrfs.model.manifest import Manifest, ManifestBlock, ManifestShard
from layrfs.model.redundancy import Redundancy
from layrfs.pipeline.manifests import check_volume, restore
from layrfs.pipeline.transfers import SourcePart, Stored
from tests.fakes.transfers import FakeTransfers

VOLUME = VolumeId(b"v" * 32)
BLOCK = 65536


def no_progress(_done: int, _total: int) -> None:
    """Nobody watches."""


async def stored(transfers: FakeTransfers, path: Path, size: int, most: int = BLOCK) -> tuple[ManifestShard, ...]:
    """What a catalog would say after `path` was uploaded, two blocks to a shard, and its blocks cut to `most` bytes."""
    count = -(-size // BLOCK)
    shards = []
    for first in range(0, count, 2):
        parts = [SourcePart(2, n, str(path), n * BLOCK, BLOCK) for n in range(first, min(first + 2, count))]
        uploaded = await transfers.upload(parts, Redundancy(1, 3))
        blocks = [
            ManifestBlock(BlockNumber(part.block), outcome.part.offset, min(outcome.part.length, most))
            for part, outcome in zip(parts, uploaded.outcomes, strict=True)
            if isinstance(outcome, Stored)
        ]
        if uploaded.shard is not None:
            shards.append(ManifestShard(uploaded.shard, tuple(blocks)))
    return tuple(shards)


def manifest_of(size: int, shards: tuple[ManifestShard, ...], name: bytes = b"file") -> Manifest:
    return Manifest(name, size, BLOCK, VOLUME, shards)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(2 * BLOCK) + bytes(2 * BLOCK) + os.urandom(100) + bytes(BLOCK) + b"the end")
    return path


async def test_a_manifest_alone_brings_the_file_back(tmp_path: Path, source: Path) -> None:
    transfers, out = FakeTransfers(), tmp_path / "out"
    rows = await stored(transfers, source, source.stat().st_size)
    manifest = manifest_of(source.stat().st_size, rows, b"file \xff")
    again = Manifest.from_json_untrusted(manifest.to_json())
    assert [block.number for shard in again.shards for block in shard.blocks] == [0, 1, 4, 5]
    seen: list[tuple[int, int]] = []
    await restore(again, transfers, str(out), lambda done, total: seen.append((done, total)))
    assert out.read_bytes() == source.read_bytes()
    assert seen[-1][0] == seen[-1][1] > 0


async def test_a_file_cut_short_since_its_upload_gets_only_what_is_left(tmp_path: Path, source: Path) -> None:
    transfers, out = FakeTransfers(), tmp_path / "out"
    manifest = manifest_of(1000, await stored(transfers, source, BLOCK, most=1000))
    await restore(Manifest.from_json_untrusted(manifest.to_json()), transfers, str(out), no_progress)
    assert out.read_bytes() == source.read_bytes()[:1000]


async def test_a_block_cut_short_and_grown_again_ends_in_zeros(tmp_path: Path, source: Path) -> None:
    transfers, out = FakeTransfers(), tmp_path / "out"
    rows = await stored(transfers, source, BLOCK, most=1000)
    await restore(manifest_of(BLOCK, rows), transfers, str(out), no_progress)
    assert out.read_bytes() == source.read_bytes()[:1000] + bytes(BLOCK - 1000)


async def test_an_empty_file_needs_no_shard(tmp_path: Path) -> None:
    manifest = manifest_of(0, ())
    await restore(manifest, FakeTransfers(), str(tmp_path / "out"), no_progress)
    assert (tmp_path / "out").read_bytes() == b""


async def test_what_cannot_be_fetched_leaves_the_old_file_alone(tmp_path: Path, source: Path) -> None:
    transfers, out = FakeTransfers(), tmp_path / "out"
    out.write_bytes(b"precious")
    rows = await stored(transfers, source, source.stat().st_size)
    transfers.lost = {rows[-1].record.id}
    with pytest.raises(Unavailable):
        await restore(manifest_of(source.stat().st_size, rows), transfers, str(out), no_progress)
    assert sorted(os.listdir(tmp_path)) == ["out", "source"]
    assert out.read_bytes() == b"precious"


async def test_leaving_early_cleans_up(tmp_path: Path, source: Path, autojump_clock: trio.testing.MockClock) -> None:
    transfers = FakeTransfers()
    rows = await stored(transfers, source, source.stat().st_size)
    transfers.hold()
    with trio.move_on_after(1):
        await restore(
            manifest_of(source.stat().st_size, rows),
            transfers,
            str(tmp_path / "o"),
            no_progress,
        )
    assert os.listdir(tmp_path) == ["source"]


async def test_a_place_that_does_not_exist_is_this_machines_fault(tmp_path: Path) -> None:
    with pytest.raises(LocalError):
        await restore(manifest_of(0, ()), FakeTransfers(), str(tmp_path / "no" / "o"), no_progress)


def test_a_manifest_of_another_volume_is_refused() -> None:
    manifest = manifest_of(0, ())
    check_volume(manifest, VOLUME)
    with pytest.raises(UsageError, match="another volume"):
        check_volume(manifest, VolumeId(b"w" * 32))
