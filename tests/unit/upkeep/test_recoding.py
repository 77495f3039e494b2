"""Files whose redundancy changes get it, whatever happens meanwhile, and can be read all the time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from layrfs.errors import Superseded, Unavailable
from layrfs.ids import InodeNumber, NodeId
from layrfs.model.redundancy import DEFAULT_REDUNDANCY, REDUNDANCY_ATTRIBUTE, Redundancy
from layrfs.storage.changes import ChangeLog
from layrfs.storage.garbage import Garbage
from layrfs.storage.recoding import Recoding
from layrfs.upkeep import recoding, repacking
from layrfs.upkeep.collector import Collector
from layrfs.upkeep.dropping import Dropper
from layrfs.upkeep.recoding import STUCK, Recoder
from layrfs.upkeep.repacking import Repacker
from tests.caches import BLOCK, Cache, Killed, running
from tests.fakes.asking import FakeAsker
from tests.fakes.transfers import FakeTransfers

CODE = Redundancy(4, 8)
FILES = [InodeNumber(number) for number in range(10, 18)]


class Versions:
    """A log of versions that nobody looks at."""

    def __init__(self) -> None:
        self.superseded = False

    @asynccontextmanager
    async def between_versions(self) -> AsyncIterator[int]:
        if self.superseded:
            raise Superseded("Another machine writes the volume.")
        yield 0

    async def flush(self) -> None: ...

    async def confirm(self) -> None: ...

    def expired(self) -> list[int]:
        return []

    def prune(self) -> None: ...


class World:
    """Files of a volume, what they hold, and a recoder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.transfers = FakeTransfers(hosts=10)
        self.living: set[NodeId] = set()
        """Hosts that are there; none: those that take pieces."""
        self.gone: set[NodeId] = set()
        """Hosts that nothing is expected of any more."""
        self.dice = random.Random(5)
        shared = self.dice.randbytes(3000)
        self.files = {file: self.dice.randbytes(self.dice.randrange(500, 5000)) for file in FILES}
        self.files[FILES[0]] = self.dice.randbytes(BLOCK) + shared
        self.files[FILES[1]] = self.files[FILES[2]] = shared
        self.changes = 0
        self.versions = Versions()

    @asynccontextmanager
    async def life(self) -> AsyncIterator[Life]:
        async with running(str(self.directory / "volume"), self.transfers) as cache:
            yield Life(self, cache)


class Life:
    def __init__(self, world: World, cache: Cache) -> None:
        self.world, self.cache = world, cache
        garbage = Garbage(cache.database, cache.catalog)
        self.repacker = Repacker(
            catalog=cache.catalog,
            garbage=garbage,
            transfers=world.transfers,
            directory=str(world.directory / "recoding"),
            living_hosts=lambda: world.living or world.transfers.living_hosts(),
            is_gone=lambda host: host in world.gone,
        )
        self.recoder = Recoder(
            database=cache.database,
            catalog=cache.catalog,
            garbage=garbage,
            log=world.versions,
            repacker=self.repacker,
            policy_changes=lambda: world.changes,
        )
        self.recoding = Recoding(cache.database)

    async def fill(self) -> None:
        for file, data in self.world.files.items():
            await self.cache.put(file, data)
        await self.cache.contents.flush_to_network(None)

    def set(self, file: InodeNumber, redundancy: Redundancy | bytes) -> None:
        value = redundancy if isinstance(redundancy, bytes) else str(redundancy).encode()
        self.cache.database.write(
            "INSERT OR REPLACE INTO attribute VALUES(?, ?, ?)", (file, REDUNDANCY_ATTRIBUTE, value)
        )
        self.world.changes += 1

    def kept_as(self, file: InodeNumber) -> set[Redundancy]:
        return {self.cache.catalog.shard(shard).redundancy for shard in self.cache.catalog.shards_of(file)}

    def check(self) -> None:
        """Hosts have all bytes."""
        for file, data in self.world.files.items():
            for at in range(0, len(data), BLOCK):
                assert self.cache.on_hosts(file, at, min(BLOCK, len(data) - at)) == data[at : at + BLOCK]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_files_get_the_redundancy_that_was_set(world: World) -> None:
    async with world.life() as life:
        await life.fill()
        for file in FILES[3:6]:
            life.set(file, CODE)
        assert life.recoding.otherwise_bytes(FILES[3]) == len(world.files[FILES[3]])
        assert (await life.recoder.recode()).found > 0
        life.check()
        assert [life.kept_as(file) for file in FILES[3:7]] == [{CODE}, {CODE}, {CODE}, {DEFAULT_REDUNDANCY}]
        assert life.recoding.otherwise_bytes(FILES[3]) == 0
        uploads = len(world.transfers.uploads)
        assert await life.recoder.recode() == (0, 0)
        assert len(world.transfers.uploads) == uploads


async def test_what_is_kept_well_is_not_given_up_for_what_too_few_hosts_took(world: World) -> None:
    async with world.life() as life:
        await life.fill()
        life.set(FILES[3], Redundancy(1, 5))
        kept = set(world.transfers.pieces)
        world.living, world.transfers.hosts = world.transfers.living_hosts(), 1
        assert await life.recoder.recode() == (1, 0)
        assert life.kept_as(FILES[3]) == {DEFAULT_REDUNDANCY}
        assert set(world.transfers.pieces) == kept, "pieces that nothing needs are left on hosts"
        world.transfers.hosts = 3
        await life.recoder.recode()
        assert life.kept_as(FILES[3]) == {Redundancy(1, 5)}
        life.set(FILES[3], Redundancy(1, 1))
        await life.recoder.recode()
        assert life.kept_as(FILES[3]) == {Redundancy(1, 1)}, "fewer are as wanted"


async def test_copies_on_hosts_that_are_gone_keep_nothing_where_it_is(world: World) -> None:
    async with world.life() as life:
        await life.fill()
        world.transfers.hosts = 2
        (shard, *_) = life.cache.catalog.shards_of(FILES[3])
        fetched = len(world.transfers.downloads)
        assert await life.repacker.repack([shard]) == 0, "the third may only be asleep"
        assert len(world.transfers.downloads) == fetched
        world.gone = {piece.host for piece in life.cache.catalog.shard(shard).pieces} - world.transfers.living_hosts()
        assert len(world.gone) == 1
        assert await life.repacker.repack([shard]) > 0
        assert shard not in life.cache.catalog.shards_of(FILES[3])
        life.check()


async def test_what_no_host_takes_is_packed_anew_less_and_less_often(world: World) -> None:
    async with world.life() as life:
        for file in range(100, 108):
            await life.cache.put(InodeNumber(file), world.dice.randbytes(30_000))
        await life.cache.contents.flush_to_network(None)
        before = set(life.cache.catalog.shards_of(InodeNumber(100)))
        for file in range(101, 108):
            life.cache.delete(InodeNumber(file))
        database, changes = life.cache.database, ChangeLog(life.cache.database)
        collector = Collector(
            database=database,
            garbage=Garbage(database, life.cache.catalog),
            log=world.versions,
            repacker=life.repacker,
            dropper=Dropper(changes, FakeAsker(world.transfers)),
        )
        world.living, world.transfers.hosts = world.transfers.living_hosts(), 1
        for _ in range(48):
            await collector._collect_a_little()
        assert len(world.transfers.downloads) == 5, "after 1, 3, 7 and 15 runs"
        world.transfers.hosts = 10
        for _ in range(32):
            await collector._collect_a_little()
        assert len(world.transfers.downloads) == 6
        assert before.isdisjoint(life.cache.catalog.shards_of(InodeNumber(100)))


async def test_nothing_is_fetched_for_a_redundancy_that_there_are_too_few_hosts_for(world: World) -> None:
    async with world.life() as life:
        await life.fill()
        life.set(FILES[3], CODE)
        life.set(FILES[4], Redundancy(1, 2))
        world.transfers.hosts = 5
        assert (await life.recoder.recode()).found == 1
        assert life.kept_as(FILES[3]) == {DEFAULT_REDUNDANCY}
        assert life.kept_as(FILES[4]) == {Redundancy(1, 2)}
        fetched = len(world.transfers.downloads)
        assert await life.recoder.recode() == (0, 0)
        assert len(world.transfers.downloads) == fetched
        world.transfers.hosts = 8
        assert (await life.recoder.recode()).found == 1
        assert life.kept_as(FILES[3]) == {CODE}


async def test_what_no_host_takes_is_fetched_less_and_less_often_until_hosts_appear(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    async with world.life() as life:
        await life.fill()
        life.set(FILES[3], CODE)
        world.living, world.transfers.hosts = world.transfers.living_hosts(), 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(life.recoder.run)
            await trio.sleep(3800)
            in_an_hour = len(world.transfers.downloads)
            assert 4 <= in_an_hour <= 8
            world.transfers.hosts = 10
            life.recoder.hosts_appeared()
            for _ in range(3000):  # less than until the next time; a thread's time is many seconds of this clock
                await trio.sleep(1)
                if life.kept_as(FILES[3]) == {CODE}:
                    break
            assert life.kept_as(FILES[3]) == {CODE}
            nursery.cancel_scope.cancel()


async def test_without_any_wish_nothing_is_looked_at_or_moved(world: World) -> None:
    async with world.life() as life:
        await life.fill()
        uploads = len(world.transfers.uploads)
        assert await life.recoder.recode() == (0, 0)
        life.set(FILES[0], b"no redundancy at all")
        assert await life.recoder.recode() == (0, 0)
        assert len(world.transfers.uploads) == uploads


async def test_equal_blocks_are_kept_as_the_file_wants_that_asks_for_most(world: World) -> None:
    async with world.life() as life:
        await life.fill()
        life.set(FILES[1], CODE)
        await life.recoder.recode()
        assert life.kept_as(FILES[1]) == life.kept_as(FILES[2]) == {CODE}
        assert life.kept_as(FILES[0]) == {DEFAULT_REDUNDANCY, CODE}
        life.set(FILES[1], Redundancy(1, 2))
        await life.recoder.recode()
        assert life.kept_as(FILES[1]) == {DEFAULT_REDUNDANCY}
        assert await life.recoder.recode() == (0, 0)
        life.check()


async def test_what_cannot_be_fetched_or_stored_waits(world: World) -> None:
    async with world.life() as life:
        await life.fill()
        for file in FILES:
            life.set(file, CODE)
        world.transfers.uploads_left = 0
        assert (await life.recoder.recode()).found > 0
        life.check()
        world.transfers.uploads_left = None
        world.transfers.failure = Unavailable("all hosts are away")
        assert (await life.recoder.recode()).found > 0
        world.transfers.failure = None
        world.living, world.transfers.hosts = world.transfers.living_hosts(), 3
        assert (await life.recoder.recode()).found > 0
        assert life.kept_as(FILES[3]) == {DEFAULT_REDUNDANCY}
        world.transfers.hosts = 10
        await life.recoder.recode()
        assert all(life.kept_as(file) == {CODE} for file in FILES)
        life.check()


async def fill_one_by_one(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file a shard of its own, and each shard a batch."""
    monkeypatch.setattr("layrfs.upkeep.recoding.batches", lambda shards: ([number] for number, _bytes in shards))
    for file, data in life.world.files.items():
        await life.cache.put(file, data)
        await life.cache.contents.flush_to_network(None)


async def test_shards_that_cannot_be_fetched_keep_no_others_from_moving(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.life() as life:
        await fill_one_by_one(life, monkeypatch)
        for file in FILES[3:]:
            life.set(file, CODE)
        shards = [shard for file in FILES[3:] for shard in life.cache.catalog.shards_of(file)]
        world.transfers.lost = {life.cache.catalog.shard(shard).id for shard in shards[: STUCK + 1]}
        await life.recoder.recode()
        assert [life.kept_as(file) for file in FILES[3:]] == [{DEFAULT_REDUNDANCY}] * len(FILES[3:])
        await life.recoder.recode()
        moved = [life.kept_as(file) == {CODE} for file in FILES[3:]]
        assert moved == [False] * (STUCK + 1) + [True] * (len(FILES[3:]) - STUCK - 1)
        world.transfers.lost.clear()
        await life.recoder.recode()
        assert all(life.kept_as(file) == {CODE} for file in FILES[3:])
        life.check()


async def test_a_redundancy_for_which_there_are_too_few_hosts_keeps_no_other_waiting(world: World) -> None:
    async with world.life() as life:
        await life.fill()
        life.set(FILES[3], Redundancy(10, 12))
        life.set(FILES[4], Redundancy(2, 3))
        world.transfers.hosts = 3
        await life.recoder.recode()
        assert life.kept_as(FILES[3]) == {DEFAULT_REDUNDANCY}
        assert life.kept_as(FILES[4]) == {Redundancy(2, 3)}


async def test_what_a_killed_run_has_left_in_clear_goes_at_the_next_start(world: World) -> None:
    left = world.directory / "recoding" / "12"
    left.parent.mkdir()
    left.write_bytes(b"of a file")
    async with world.life():
        assert not left.exists()


async def test_a_machine_that_was_superseded_moves_nothing(world: World) -> None:
    async with world.life() as life:
        await life.fill()
        life.set(FILES[3], CODE)
        world.versions.superseded = True
        with pytest.raises(Superseded):
            await life.recoder.recode()
        assert life.kept_as(FILES[3]) == {DEFAULT_REDUNDANCY}


@pytest.mark.parametrize("committed", [False, True])
async def test_killed_in_the_middle_it_goes_on_at_the_next_start(
    world: World, monkeypatch: pytest.MonkeyPatch, *, committed: bool
) -> None:
    async with world.life() as life:
        await fill_one_by_one(life, monkeypatch)
        for file in FILES:
            life.set(file, CODE)
    for turn in range(1, 4):
        left = turn

        def die(_point: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                if committed:
                    life.cache.database.commit()
                raise Killed

        monkeypatch.setattr(repacking, "reached", die)
        async with world.life() as life:
            life.check()
            await life.recoder.recode()
        assert left == 0
    monkeypatch.undo()
    async with world.life() as life:
        life.check()
        await life.recoder.recode()
        assert all(life.kept_as(file) == {CODE} for file in FILES)
        life.check()


async def test_it_starts_soon_after_a_change(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = trio.Event()
    monkeypatch.setattr(recoding, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(repacking, "reached", lambda _point: moved.set())
    async with world.life() as life, trio.open_nursery() as nursery:
        await life.fill()
        await nursery.start(_started, life.recoder)
        await trio.sleep(0.1)
        assert life.kept_as(FILES[4]) == {DEFAULT_REDUNDANCY}
        life.set(FILES[4], CODE)
        with trio.fail_after(10):
            await moved.wait()
        assert life.kept_as(FILES[4]) == {CODE}
        nursery.cancel_scope.cancel()


async def _started(recoder: Recoder, *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await recoder.run()
