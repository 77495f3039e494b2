"""What every `Transfers` promises, run on the fake and on the real one (worker processes, TLS, hosts in memory)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import trio

from layrfs.errors import LocalError, Unavailable
from layrfs.ids import ShardId
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import ShardRecord
from layrfs.pipeline.pooled import PooledTransfers
from layrfs.pipeline.transfers import (
    Duplicate,
    SourcePart,
    Stored,
    StoredPart,
    TargetPart,
    Uploaded,
    Zero,
)
from tests.fakes.loopback import real_transfers
from tests.fakes.transfers import FakeTransfers, missing_slots

THREE = Redundancy(1, 3)
CODE = Redundancy(2, 4)


@dataclass
class World:
    """A `Transfers`, what it is told, and a switch for how many hosts there are."""

    transfers: FakeTransfers | PooledTransfers
    use_hosts: Callable[[int], None]
    known: dict[bytes, tuple[int, int]]


@asynccontextmanager
async def fake_world() -> AsyncIterator[World]:
    known: dict[bytes, tuple[int, int]] = {}
    fake = FakeTransfers(find_content=lambda digests: lookup(known, digests))

    def use_hosts(count: int) -> None:
        fake.hosts = count

    yield World(fake, use_hosts, known)


@asynccontextmanager
async def real_world() -> AsyncIterator[World]:
    known: dict[bytes, tuple[int, int]] = {}
    async with real_transfers(find_content=lambda digests: lookup(known, digests)) as real:
        yield World(real.transfers, real.use_hosts, known)


def lookup(known: Mapping[bytes, tuple[int, int]], digests: Sequence[bytes]) -> Mapping[bytes, tuple[int, int]]:
    return {digest: known[digest] for digest in digests if digest in known}


WorldMaker = Callable[[], AbstractAsyncContextManager[World]]


@pytest.fixture(params=[fake_world, real_world], ids=["fake", "real"])
def make_world(request: pytest.FixtureRequest) -> WorldMaker:
    maker: WorldMaker = request.param
    return maker


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


def write_parts(directory: Path, *contents: bytes) -> list[SourcePart]:
    """Files of one block each."""
    parts = []
    for number, content in enumerate(contents):
        path = directory / f"source-{number}"
        path.write_bytes(content)
        parts.append(SourcePart(number + 2, 0, str(path), 0, len(content)))
    return parts


def targets_of(directory: Path, uploaded: Uploaded) -> list[TargetPart]:
    """One file for each stored part."""
    return [
        TargetPart(str(directory / f"target-{number}"), 0, outcome.part.offset, outcome.part.length)
        for number, outcome in enumerate(uploaded.outcomes)
        if isinstance(outcome, Stored)
    ]


async def test_what_was_uploaded_comes_back(make_world: WorldMaker, directory: Path) -> None:
    contents = [os.urandom(300_000), b"text " * 1000, b"\0\0leading zeros stay"]
    async with make_world() as world:
        uploaded = await world.transfers.upload(write_parts(directory, *contents), THREE)
        assert uploaded.shard is not None
        assert uploaded.shard.plain_bytes == sum(map(len, contents))
        assert len({piece.host for piece in uploaded.shard.pieces}) == 3
        assert [piece.position for piece in uploaded.shard.pieces] == [0, 1, 2]
        await world.transfers.download(uploaded.shard, targets_of(directory, uploaded), urgent=True)
    for number, content in enumerate(contents):
        assert (directory / f"target-{number}").read_bytes() == content


async def test_a_part_may_come_from_and_go_to_the_middle_of_a_file(make_world: WorldMaker, directory: Path) -> None:
    source, target = directory / "source", directory / "target"
    source.write_bytes(b"before|the part|after")
    target.write_bytes(b"." * 30)
    async with make_world() as world:
        uploaded = await world.transfers.upload([SourcePart(2, 7, str(source), 7, 8)], THREE)
        assert uploaded.shard is not None
        await world.transfers.download(uploaded.shard, [TargetPart(str(target), 10, 4, 4)], urgent=False)
    assert target.read_bytes() == b"." * 10 + b"part" + b"." * 16


async def test_zeros_are_holes_and_equal_parts_share_a_place(make_world: WorldMaker, directory: Path) -> None:
    async with make_world() as world:
        parts = write_parts(directory, bytes(200_000), b"twice", b"", b"twice", b"end in zeros" + bytes(70_000))
        uploaded = await world.transfers.upload(parts, THREE)
        first, twice, empty, again, tail = uploaded.outcomes
        assert (first, empty) == (Zero(), Zero())
        assert isinstance(twice, Stored)
        assert again == twice
        assert isinstance(tail, Stored)
        assert tail.part.length == len(b"end in zeros")
        assert uploaded.shard is not None
        assert uploaded.shard.plain_bytes == len(b"twice") + len(b"end in zeros")


async def test_a_shard_tells_what_it_is_when_only_its_salt_is_known(make_world: WorldMaker, directory: Path) -> None:
    contents = [b"one" * 100, b"two" * 200, b"one" * 100, bytes(10)]
    target = directory / "target"
    target.write_bytes(b"0123456789")
    async with make_world() as world:
        parts = write_parts(directory, *contents)
        parts[1] = msgspec.structs.replace(parts[1], block=7, block_bytes=65536)
        uploaded = await world.transfers.upload(parts, THREE)
        shard = uploaded.shard
        assert shard is not None
        bare = ShardRecord(ShardId(bytes(32)), shard.salt, 0, 4 << 20, THREE, shard.pieces)
        found = await world.transfers.examine(bare, str(target), 5)
        assert (found.id, found.plain_bytes, found.sealed_bytes) == (shard.id, shard.plain_bytes, shard.sealed_bytes)
        places = [outcome.part for outcome in uploaded.outcomes[:2] if isinstance(outcome, Stored)]
        assert [StoredPart(part.digest, part.offset, part.length) for part in found.parts] == places
        assert [(part.inode, part.block, part.block_bytes) for part in found.parts] == [(2, 0, 4 << 20), (3, 7, 65536)]
        assert await world.transfers.examine(bare) == found
    assert target.read_bytes() == b"01234" + contents[0] + contents[1]


async def test_a_source_that_ends_early_reads_as_zeros(make_world: WorldMaker, directory: Path) -> None:
    (part,) = write_parts(directory, b"short")
    async with make_world() as world:
        uploaded = await world.transfers.upload([SourcePart(2, 0, part.path, 0, 4096)], THREE)
        (outcome,) = uploaded.outcomes
        assert isinstance(outcome, Stored)
        assert outcome.part.length == 5


async def test_what_the_volume_stores_already_is_not_stored_again(make_world: WorldMaker, directory: Path) -> None:
    async with make_world() as world:
        parts = write_parts(directory, b"known", b"new")
        before = await world.transfers.upload(parts[:1], THREE)
        (outcome,) = before.outcomes
        assert isinstance(outcome, Stored)
        world.known[outcome.part.digest] = (77, 5)
        after = await world.transfers.upload(parts, THREE)
        assert after.outcomes[0] == Duplicate(77, 5)
        assert isinstance(after.outcomes[1], Stored)
        assert after.outcomes[1].part.offset == 0
        assert await world.transfers.upload(parts[:1], THREE) == Uploaded((Duplicate(77, 5),), None)


async def test_equal_data_never_makes_an_equal_shard(make_world: WorldMaker, directory: Path) -> None:
    async with make_world() as world:
        parts = write_parts(directory, b"the same")
        first, second = [(await world.transfers.upload(parts, THREE)).shard for _ in range(2)]
        assert first is not None
        assert second is not None
        assert first.id != second.id
        assert first.salt != second.salt
        assert not {piece.id for piece in first.pieces} & {piece.id for piece in second.pieces}


async def test_few_hosts_make_a_degraded_shard_that_is_topped_up_later(make_world: WorldMaker, directory: Path) -> None:
    async with make_world() as world:
        world.use_hosts(1)
        shard = (await world.transfers.upload(write_parts(directory, b"precious"), THREE)).shard
        assert shard is not None
        assert len(shard.pieces) == 1
        world.use_hosts(5)
        more = await world.transfers.top_up(shard, missing_slots(shard, 1))
        assert {piece.position for piece in more} == {0, 1, 2} - {piece.position for piece in shard.pieces}
        assert len({piece.host for piece in (*shard.pieces, *more)}) == 3
        assert len({piece.id for piece in (*shard.pieces, *more)}) == 3


async def test_without_any_host_an_upload_is_unavailable(make_world: WorldMaker, directory: Path) -> None:
    async with make_world() as world:
        world.use_hosts(0)
        with pytest.raises(Unavailable):
            await world.transfers.upload(write_parts(directory, b"data"), THREE)


async def test_files_that_cannot_be_used_are_this_machines_fault(make_world: WorldMaker, directory: Path) -> None:
    async with make_world() as world:
        with pytest.raises(LocalError):
            await world.transfers.upload([SourcePart(2, 0, str(directory / "none"), 0, 10)], THREE)
        shard = (await world.transfers.upload(write_parts(directory, b"data"), THREE)).shard
        assert shard is not None
        target = TargetPart(str(directory / "no" / "directory"), 0, 0, 4)
        with pytest.raises(LocalError):
            await world.transfers.download(shard, [target], urgent=True)


async def test_many_at_once_all_succeed(make_world: WorldMaker, directory: Path) -> None:
    async with make_world() as world:
        parts = write_parts(directory, *[os.urandom(1000) for _ in range(30)])
        done: list[Uploaded] = []

        async def one(part: SourcePart) -> None:
            done.append(await world.transfers.upload([part], THREE))

        async with trio.open_nursery() as nursery:
            for part in parts:
                nursery.start_soon(one, part)
        assert len({uploaded.shard.id for uploaded in done if uploaded.shard}) == 30


async def test_any_pieces_of_a_code_bring_a_shard_back(make_world: WorldMaker, directory: Path) -> None:
    content = os.urandom(300_001)
    async with make_world() as world:
        uploaded = await world.transfers.upload(write_parts(directory, content), CODE)
        shard = uploaded.shard
        assert shard is not None
        assert [piece.position for piece in shard.pieces] == [0, 1, 2, 3]
        for chosen in ((0, 1), (1, 2), (3, 0), (2, 3)):
            left = msgspec.structs.replace(shard, pieces=tuple(shard.pieces[position] for position in chosen))
            await world.transfers.download(left, targets_of(directory, uploaded), urgent=True)
            assert (directory / "target-0").read_bytes() == content
            (directory / "target-0").unlink()
        bare = ShardRecord(ShardId(bytes(32)), shard.salt, 0, 4 << 20, CODE, shard.pieces[1:])
        assert (await world.transfers.examine(bare)).id == shard.id
        left = msgspec.structs.replace(shard, pieces=shard.pieces[:1])
        with pytest.raises(Unavailable):
            await world.transfers.download(left, targets_of(directory, uploaded), urgent=True)


async def test_lost_pieces_of_a_code_are_made_again(make_world: WorldMaker, directory: Path) -> None:
    async with make_world() as world:
        world.use_hosts(3)
        uploaded = await world.transfers.upload(write_parts(directory, b"precious" * 500), CODE)
        shard = uploaded.shard
        assert shard is not None
        assert len(shard.pieces) == 3
        world.use_hosts(5)
        more = await world.transfers.top_up(shard, missing_slots(shard, 1))
        assert len({piece.host for piece in (*shard.pieces, *more)}) == 4
        (new,) = more
        left = msgspec.structs.replace(shard, pieces=(shard.pieces[2], new))
        await world.transfers.download(left, targets_of(directory, uploaded), urgent=True)
        assert (directory / "target-0").read_bytes() == b"precious" * 500


async def test_with_fewer_hosts_than_pieces_are_needed_nothing_is_stored(
    make_world: WorldMaker, directory: Path
) -> None:
    async with make_world() as world:
        world.use_hosts(1)
        with pytest.raises(Unavailable):
            await world.transfers.upload(write_parts(directory, b"data"), CODE)
