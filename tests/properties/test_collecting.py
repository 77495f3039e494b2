"""Whatever happens and whenever it is collected: what the volume or a retained version needs is on hosts, and in the
end nothing else.

Files are made, overwritten, deleted and stored a second time, packed together and apart, and wanted in another
redundancy; versions are published, retained by the schedule and by hand, dropped and expire; the collector runs at any
time, hosts fail, and the process is killed between its steps. The real database, cache, publisher, recoder and
collector over hosts in memory.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import LayrError, Unavailable
from layrfs.history.leasing import Tenure
from layrfs.history.publishing import Publisher
from layrfs.history.restoring import restore_segments
from layrfs.ids import BlockNumber, InodeNumber, NodeId, PieceId
from layrfs.model.redundancy import REDUNDANCY_ATTRIBUTE
from layrfs.policy import collecting as policy
from layrfs.policy import history as history_policy
from layrfs.storage.changes import ChangeLog
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.garbage import Garbage
from layrfs.storage.versions import Versions
from layrfs.upkeep import collector as collector_module
from layrfs.upkeep import dropping, repacking
from layrfs.upkeep.collector import TOGETHER, Collector
from layrfs.upkeep.dropping import Dropper
from layrfs.upkeep.recoding import Recoder
from layrfs.upkeep.repacking import Repacker
from tests.caches import BLOCK, Cache, Killed, running
from tests.fakes.asking import FakeAsker
from tests.fakes.one_record import OneRecord
from tests.fakes.transfers import FakeTransfers

KEYS = VolumeKeys(bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32, bytes([4]) * 32)
Files = dict[int, bytes]
STEPS = {
    "write": 10, "write many": 1, "delete one": 10, "delete many": 2, "publish": 6, "retain": 1, "drop": 3, "wait": 3,
    "collect a little": 10, "collect all": 1, "evict": 1, "fail": 2, "kill": 1, "look": 4,
    "wish": 4, "recode": 4,
}  # fmt: skip


class Crash:
    """The process dies when it gets to a crash point for the so many-th time."""

    def __init__(self) -> None:
        self.left = 0

    def reached(self, _point: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


class World:
    """One volume through several lives."""

    def __init__(self, directory: Path, seed: int, crash: Crash) -> None:
        self.directory = directory
        self.dice = random.Random(seed)
        self.pool = [self.dice.randbytes(self.dice.choice([200, 3000, 20_000])) for _ in range(12)]
        self.crash = crash
        self.transfers = FakeTransfers()
        self.roots = OneRecord()
        self.asker = FakeAsker(self.transfers)
        self.now = 1_700_000_000.0
        self.files: Files = {}
        self.states: dict[int, Files] = {}
        """What the volume was at every version there ever was, by number."""
        self.next_inode = 10
        self.orphans: set[PieceId] = set()
        """Pieces of transfers that a crash cut off: nobody knows them, their leases end."""

    @contextlib.asynccontextmanager
    async def life(self) -> AsyncIterator[Life]:
        async with running(str(self.directory / "volume"), self.transfers) as cache:
            yield Life(self, cache)

    async def live(self, steps: list[str]) -> None:
        while steps:
            async with self.life() as life:
                life.find_orphans()
                while steps:
                    step = steps.pop()
                    if step == "kill":
                        raise Killed
                    await life.take(step)
                    cache = life.cache
                    cache.database.commit()
                    life.note()
                    if step == "look":
                        await life.check()

    async def end(self) -> None:
        """Everything is deleted, no version retained, time enough: hosts keep the newest version's rows alone."""
        async with self.life() as life:
            self.heal()
            life.find_orphans()
            await life.check()
            for inode in list(self.files):
                life.delete(inode)
            for _ in range(3):
                await life.log.flush()
                life.log.drop([version.number for version in life.versions.all()])
                await life.collector.collect(0, lambda _text: None)
            database = life.cache.database
            for table in ("shard", "content", "piece", "dead", "block", "local_retired"):
                assert database.value(f"SELECT count(*) FROM {table}") == 0, table  # noqa: S608 - constants
            assert set(self.transfers.pieces) - self.orphans == life.metadata_pieces()

    def heal(self) -> None:
        self.crash.left, self.roots.hosts, self.transfers.failure = 0, 3, None
        self.asker.silent.clear()


class Life:
    """The volume from one start to the next crash."""

    def __init__(self, world: World, cache: Cache) -> None:
        self.world = world
        self.cache = cache
        database = cache.database
        database.write("INSERT OR IGNORE INTO volume VALUES('id', ?)", (KEYS.volume_id,))
        self.versions = Versions(database)
        self.log = Publisher(
            database=database,
            transfers=world.transfers,
            roots=world.roots,
            keys=KEYS,
            directory=str(world.directory / "history"),
            tenure=Tenure(device=NodeId(bytes(20)), name="test", keys=KEYS, roots=world.roots, now=lambda: world.now),
            now=lambda: world.now,
        )
        garbage = Garbage(database, cache.catalog)
        self.collector = Collector(
            database=database,
            garbage=garbage,
            log=self.log,
            repacker=Repacker(
                catalog=cache.catalog,
                garbage=garbage,
                transfers=world.transfers,
                directory=str(world.directory / "repacking"),
                living_hosts=world.transfers.living_hosts,
                is_gone=lambda _host: False,
            ),
            dropper=Dropper(ChangeLog(database), world.asker, lambda: world.now),
            now=lambda: world.now,
        )
        self.recoder = Recoder(
            database=database,
            catalog=cache.catalog,
            garbage=garbage,
            log=self.log,
            repacker=Repacker(
                catalog=cache.catalog,
                garbage=garbage,
                transfers=world.transfers,
                directory=str(world.directory / "recoding"),
                living_hosts=world.transfers.living_hosts,
                is_gone=lambda _host: False,
            ),
            policy_changes=lambda: 0,
        )

    async def take(self, step: str) -> None:
        with contextlib.suppress(LayrError):
            await getattr(self, step.replace(" ", "_"))()

    # ------------------------------------------------------------------- steps

    async def write(self) -> None:
        """Often bytes that the volume has or had."""
        world, dice = self.world, self.world.dice
        data = dice.choice(world.pool) if dice.random() < 0.6 else dice.randbytes(dice.randrange(1, 5000))
        if dice.random() < 0.1:
            data = data.ljust(BLOCK, b"\1") + dice.choice(world.pool)
        overwritten = bool(world.files) and dice.random() < 0.3
        if overwritten:
            self.delete(dice.choice(list(world.files)))
        inode, world.next_inode = world.next_inode, world.next_inode + 1
        await self.cache.put(InodeNumber(inode), data)
        world.files[inode] = data
        self.cache.database.commit()
        if dice.random() < 0.8 and world.transfers.failure is None:
            await self.cache.contents.flush_to_network(None)

    async def write_many(self) -> None:
        """Small files that are packed together."""
        world, dice = self.world, self.world.dice
        for _ in range(dice.randrange(2, 12)):
            data = dice.randbytes(dice.randrange(50, 3000))
            await self.cache.put(InodeNumber(world.next_inode), data)
            world.files[world.next_inode] = data
            world.next_inode += 1
        self.cache.database.commit()
        if world.transfers.failure is None:
            await self.cache.contents.flush_to_network(None)

    def delete(self, inode: int) -> None:
        self.cache.delete(InodeNumber(inode))
        del self.world.files[inode]

    async def delete_many(self) -> None:
        for inode in list(self.world.files):
            if self.world.dice.random() < 0.8:
                self.delete(inode)

    async def delete_one(self) -> None:
        if self.world.files:
            self.delete(self.world.dice.choice(list(self.world.files)))

    async def publish(self) -> None:
        await self.log.publish()

    async def retain(self) -> None:
        if self.world.roots.hosts and self.world.transfers.failure is None:
            await self.log.retain(None)

    async def drop(self) -> None:
        retained = self.versions.all()
        self.log.drop([version.number for version in retained if self.world.dice.random() < 0.5])

    async def wait(self) -> None:
        self.world.now += self.world.dice.choice([1, 60, 3600, 86_400, 40 * 86_400])

    async def collect_a_little(self) -> None:
        await self.collector._collect_a_little()

    async def collect_all(self) -> None:
        if self.world.roots.hosts and self.world.transfers.failure is None:
            await self.collector.collect(self.world.dice.choice([0, 3600]), lambda _text: None)

    async def wish(self) -> None:
        """Some file shall have another redundancy."""
        if self.world.files:
            inode, wish = (
                self.world.dice.choice(list(self.world.files)),
                self.world.dice.choice([b"mirror:2", b"rs:2/4"]),
            )
            query = "INSERT OR REPLACE INTO attribute VALUES(?, ?, ?)"
            self.cache.database.write(query, (inode, REDUNDANCY_ATTRIBUTE, wish))

    async def recode(self) -> None:
        await self.recoder.recode()

    async def evict(self) -> None:
        await self.cache.contents.drop_clean()

    async def fail(self) -> None:
        """For a while."""
        world, dice = self.world, self.world.dice
        world.heal()
        match dice.randrange(8):
            case 0:
                world.roots.hosts = 0
            case 1:
                world.transfers.failure = Unavailable("no host")
            case 2:
                world.asker.silent = {NodeId(bytes([number + 1]) * 20) for number in range(dice.randrange(6))}
            case 3:
                world.crash.left = dice.randrange(1, 6)

    async def look(self) -> None:
        query = "SELECT shard FROM dead UNION ALL SELECT piece FROM local_retired"
        before = list(self.cache.database.rows(query))
        await self.collector.look()
        assert list(self.cache.database.rows(query)) == before

    # ------------------------------------------------------------------ checks

    def note(self) -> None:
        """Versions that are new are what the files are now: no step changes files after it has published."""
        numbers = [version.number for version in self.versions.all()]
        numbers += [segment.number for segment in self.log.segments[-1:]]
        for number in numbers:
            self.world.states.setdefault(number, dict(self.world.files))

    async def check(self) -> None:
        """All that is retained can be read from hosts."""
        check_files(self.cache.database, self.world.files, self.world.transfers)
        retained = self.versions.all()
        for version in self.world.dice.sample(retained, min(5, len(retained))):
            await self.check_version(version.number, self.versions.segments_of(version))
        if self.log.segments:
            await self.check_version(self.log.segments[-1].number, self.log.segments)

    async def check_version(self, number: int, segments: object) -> None:
        directory = self.world.directory / "restored"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        failure, self.world.transfers.failure = self.world.transfers.failure, None
        path = await restore_segments(segments, KEYS, self.world.transfers, str(directory))
        self.world.transfers.failure = failure
        with Database(path) as database:
            check_files(database, self.world.states[number], self.world.transfers)

    def metadata_pieces(self) -> set[PieceId]:
        segments = [*self.log.segments, *self.versions.segments()]
        return {piece.id for segment in segments for shard in segment.shards for piece in shard.pieces}

    def find_orphans(self) -> None:
        rows = self.cache.database.rows("SELECT id FROM piece UNION ALL SELECT piece FROM local_retired")
        known = {PieceId(row[0]) for row in rows} | self.metadata_pieces()
        self.world.orphans |= set(self.world.transfers.pieces) - known


def check_files(database: Database, files: Files, transfers: FakeTransfers) -> None:
    """Every block that went to hosts is there."""
    catalog = Catalog(database)
    inodes = {row[0] for row in database.rows("SELECT number FROM inode WHERE number >= 10")}
    assert inodes == set(files)
    unsent = set(database.rows("SELECT inode, block FROM unsent"))
    for inode, data in files.items():
        for block in range(-(-len(data) // BLOCK)):
            if (inode, block) in unsent:
                continue
            place = catalog.place(InodeNumber(inode), BlockNumber(block))
            assert place is not None
            payload = transfers._payload(catalog.shard(place.shard))
            found = payload[place.offset : place.offset + place.length]
            assert found == data[block * BLOCK : (block + 1) * BLOCK].rstrip(b"\0"), f"block {block} of {inode}"


@pytest.fixture
def crash(monkeypatch: pytest.MonkeyPatch) -> Crash:
    """Small shards are worth packing anew, checkpoints are frequent, and crash points are the test's."""
    monkeypatch.setattr(policy, "LEAST_FREED_BYTES", 1)
    monkeypatch.setattr(history_policy, "SMALLEST_CHECKPOINT_BYTES", 3000)
    crash = Crash()
    for module in (collector_module, dropping, repacking):
        monkeypatch.setattr(module, "reached", crash.reached)
    return crash


@pytest.mark.parametrize("seed", range(8))
async def test_nothing_needed_is_collected_and_all_else_is(tmp_path: Path, seed: int, crash: Crash, big: bool) -> None:
    world = World(tmp_path, seed, crash)
    kinds = [kind for kind, weight in STEPS.items() for _ in range(weight)]
    await world.live(world.dice.choices(kinds, k=1500 if big else 250))
    await world.end()


async def test_what_dies_while_others_are_marked_is_needed_by_the_version_before(tmp_path: Path, crash: Crash) -> None:
    world = World(tmp_path, 1, crash)
    async with world.life() as life:
        database = life.cache.database
        last = 2 * TOGETHER + 2
        for number in range(1, last + 1):
            await life.cache.put(InodeNumber(100 + number), bytes([number]) * 3000)
            await life.cache.contents.flush_to_network(None)
        for number in range(1, last + 1):
            life.cache.delete(InodeNumber(100 + number))
        found = await life.collector._plan()
        assert found.mark == tuple(range(1, last + 1))
        await life.cache.put(InodeNumber(99), bytes([last]) * 3000)  # stored already
        await life.cache.contents.flush_to_network(None)
        await life.log.publish()
        newest = life.log.segments[-1].number

        async def delete_when_the_first_is_marked() -> None:
            while database.value("SELECT 1 FROM dead WHERE shard = 1") is None:
                await trio.lowlevel.checkpoint()
            life.cache.delete(InodeNumber(99))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(delete_when_the_first_is_marked)
            await life.collector._mark(found)
        since = database.value("SELECT since FROM dead WHERE shard = ?", (last,))
        assert since == newest + 1
