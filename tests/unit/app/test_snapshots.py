"""Opening and closing what is looked at: once for all who ask, a few at a time, never while it is in use."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from layrfs.app.snapshots import IDLE_SECONDS, LOOK_SECONDS, OPEN_AT_ONCE, Snapshots
from layrfs.errors import BadMessage, LocalError, NotFound, Unavailable
from layrfs.history.leasing import Tenure
from layrfs.history.publishing import Publisher
from layrfs.ids import ROOT_INODE, NodeId
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.versions import Version, Versions
from tests.fakes.one_record import OneRecord
from tests.fakes.transfers import FakeTransfers
from tests.unit.history.test_publishing import KEYS, Clock, opened

COUNT = OPEN_AT_ONCE + 2
YEARS_SECONDS = 20 * 365 * 86400.0


class Past:
    """A volume with some snapshots; of each the root has the number as its owner."""

    def __init__(self, database: Database, directory: Path) -> None:
        self.database = database
        self.clock = Clock()
        self.transfers = FakeTransfers()
        self.directory = directory / "snapshots"
        self.snapshots = Snapshots(
            database=database,
            catalog=Catalog(database),
            transfers=self.transfers,
            keys=KEYS,
            directory=str(self.directory),
            cache_bytes=1 << 30,
            virtual_attributes={},
        )
        roots = OneRecord()
        self.publisher = Publisher(
            database=database,
            transfers=self.transfers,
            roots=roots,
            keys=KEYS,
            directory=str(directory / "history"),
            tenure=Tenure(device=NodeId(bytes(20)), name="test", keys=KEYS, roots=roots, now=self.clock),
            in_use=self.snapshots.in_use,
            now=self.clock,
        )

    async def keep(self, owner: int, name: str | None = None) -> Version:
        """A version in which the root belongs to somebody; kept by its name or by the schedule."""
        self.clock.now += 10
        self.database.write(
            "INSERT OR REPLACE INTO inode VALUES(1, 16877, ?, 0, 2, 0, 4194304, 0, 0, 0, 0, NULL)", (owner,)
        )
        if name is not None:
            return await self.publisher.retain(name)
        await self.publisher.publish()
        self.database.write("INSERT OR REPLACE INTO volume VALUES('step', ?)", (owner,))
        await self.publisher.publish()
        return Versions(self.database).all()[-1]

    async def owner(self, version: Version) -> int:
        """What a look at a version shows."""
        look = await self.snapshots.acquire(version.number)
        try:
            return look.filesystem.getattr(ROOT_INODE).uid
        finally:
            look.release()

    async def until_removed(self, count: int) -> None:
        """So many directories are left."""
        await until(lambda: len(os.listdir(self.directory)) <= count)


async def until(condition: Callable[[], bool]) -> None:
    """Threads have made it true: the virtual clock does not wait for them, so we ask in one."""
    deadline = time.monotonic() + 30
    while not await trio.to_thread.run_sync(condition):
        assert time.monotonic() < deadline


@pytest.fixture
async def past(tmp_path: Path) -> AsyncIterator[Past]:
    with opened(tmp_path / "metadata.db") as database:
        made = Past(database, tmp_path)
        (tmp_path / "snapshots" / "left over").mkdir(parents=True)
        async with trio.open_nursery() as nursery:
            await nursery.start(made.snapshots.run)
            yield made
            nursery.cancel_scope.cancel()


async def test_each_shows_what_was_then_and_what_was_left_over_is_gone(past: Past) -> None:
    assert os.listdir(past.directory) == []
    versions = [await past.keep(number, f"kept {number}") for number in range(1, COUNT + 1)]
    for _ in range(2):
        assert [await past.owner(version) for version in versions] == list(range(1, COUNT + 1))
    assert len(past.snapshots.in_use()) == OPEN_AT_ONCE
    await past.until_removed(OPEN_AT_ONCE)


async def test_many_at_once_open_it_once(past: Past) -> None:
    version = await past.keep(5, "kept")
    past.transfers.downloads.clear()
    past.transfers.hold()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(past.owner, version)
        await until(lambda: past.transfers.waiting > 0)
        past.transfers.release()
    assert len(past.transfers.downloads) == len(version.segments)


async def test_what_is_in_use_stays_open_however_many_there_are(past: Past) -> None:
    versions = [await past.keep(number, f"kept {number}") for number in range(COUNT)]
    looks = [await past.snapshots.acquire(version.number) for version in versions]
    assert [look.filesystem.getattr(ROOT_INODE).uid for look in looks] == list(range(COUNT))
    for look in looks:
        look.release()


async def test_it_is_closed_when_nobody_came_for_a_while(past: Past, autojump_clock: object) -> None:
    version = await past.keep(5, "kept")
    look = await past.snapshots.acquire(version.number)
    await trio.sleep(3 * IDLE_SECONDS)
    assert past.snapshots.in_use() == [version.number]
    look.release()
    await trio.sleep(IDLE_SECONDS + 2 * LOOK_SECONDS)
    assert past.snapshots.in_use() == []
    await past.until_removed(0)
    assert await past.owner(version) == 5


async def test_hosts_that_are_away_are_an_error_that_heals(past: Past) -> None:
    version = await past.keep(5, "kept")
    past.transfers.failure = Unavailable("no host")
    for _ in range(2):
        with pytest.raises(Unavailable):
            await past.owner(version)
    assert past.snapshots.in_use() == []
    await past.until_removed(0)
    past.transfers.failure = None
    assert await past.owner(version) == 5


async def test_damaged_metadata_is_an_error_of_this_snapshot_only(past: Past) -> None:
    version, other = await past.keep(5, "kept"), await past.keep(6, "other")
    (segment,) = Versions(past.database).segments_of(version)[-1:]
    for shard in segment.shards:
        past.transfers.payloads[shard.id] = b"\1" * shard.plain_bytes
    with pytest.raises(BadMessage):
        await past.owner(version)
    past.database.write("DELETE FROM segment WHERE number = ?", (segment.number,))
    with pytest.raises(LocalError):
        await past.owner(version)
    assert await past.owner(other) == 6


async def test_who_gives_up_waiting_is_no_user(past: Past) -> None:
    version = await past.keep(5, "kept")
    past.transfers.hold()
    with trio.move_on_after(0.05):
        await past.owner(version)
    past.transfers.release()
    look = await past.snapshots.acquire(version.number)
    look.release()
    for number in range(COUNT):
        assert await past.owner(await past.keep(number, f"kept {number}")) == number
    assert version.number not in past.snapshots.in_use(), "it was closed for the others, so nobody used it"


async def test_a_version_that_is_looked_at_is_not_pruned(past: Past) -> None:
    version = await past.keep(5)
    look = await past.snapshots.acquire(version.number)
    past.clock.now += YEARS_SECONDS
    for number in range(30):
        past.clock.now += 86400.0 * 31
        await past.keep(number)
    assert version in Versions(past.database).all()
    look.release()
    for number in range(COUNT):
        assert await past.owner(await past.keep(number)) == number
    await past.keep(0)
    assert version not in Versions(past.database).all()
    with pytest.raises(NotFound):
        await past.owner(version)
