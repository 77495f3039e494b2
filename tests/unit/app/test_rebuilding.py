"""A database made anew, with hosts that are a dictionary: what each source is believed for."""

import os
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
from trio.testing import MockClock

from layrfs.app.rebuilding import Volume, rebuild
from layrfs.config import Paths
from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import NotFound, Unavailable
from layrfs.history.leasing import Tenure
from layrfs.history.publishing import Publisher
from layrfs.history.roots import Kept
from layrfs.ids import InodeNumber, NodeId
from layrfs.model.root_record import RootRecord
from layrfs.storage.database import Database
from layrfs.storage.nameless import Owner
from tests.caches import BLOCK, Cache, running
from tests.fakes.transfers import FakeTransfers

KEYS = VolumeKeys(bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32, bytes([4]) * 32)
HERE, ELSEWHERE = NodeId(b"h" * 20), NodeId(b"e" * 20)
ONE, TWO, NEW = InodeNumber(10), InodeNumber(11), InodeNumber(12)


class Roots:
    """Hosts that keep one record between them; ``silent``: nobody answers."""

    def __init__(self) -> None:
        self.kept: RootRecord | None = None
        self.silent = False

    async def publish(self, record: RootRecord) -> Kept:
        self.kept = record
        return Kept(3, stale=False)

    async def fetch(self) -> RootRecord | None:
        if self.silent:
            raise Unavailable("No host answers.")
        return self.kept


class Hosts(NamedTuple):
    """As much of a ``Network`` as a rebuild uses."""

    transfers: FakeTransfers
    roots: Roots
    device: NodeId = HERE


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths.under(str(tmp_path))
    paths.prepare("volume")
    return paths


@pytest.fixture
def hosts() -> Hosts:
    return Hosts(FakeTransfers(), Roots())


def volume(paths: Paths) -> Volume:
    return Volume(paths=paths, name="volume", keys=KEYS, owner=Owner(1, 2, 3))


async def publish(cache: Cache, paths: Paths, hosts: Hosts, device: NodeId = HERE) -> None:
    """All that is dirty, then the list of files, as this machine's or another's."""
    await cache.contents.flush_to_network(None)
    tenure = Tenure(device=device, name="name", keys=KEYS, roots=hosts.roots)
    await Publisher(
        database=cache.database, transfers=hosts.transfers, roots=hosts.roots, keys=KEYS,
        directory=paths.history_dir("volume"), tenure=tenure,
    ).publish()  # fmt: skip


def begin(database: Database) -> None:
    """A root with two names in it; what they stand for is made later."""
    database.write("INSERT INTO volume VALUES('id', ?), ('next_inode', 100)", (KEYS.volume_id,))
    database.write("INSERT INTO inode VALUES(1,16877,0,0,2,0,65536,0,0,0,0,NULL)")
    for number, name in ((ONE, b"one"), (TWO, b"two")):
        database.write("INSERT INTO entry VALUES(?,1,?,?)", (number, name, number))


async def rebuilt(paths: Paths, hosts: Hosts) -> list[str]:
    """With nothing left of the old database but what the test left."""
    return await rebuild(volume(paths), hosts, "it is missing", lambda _sentence: None)


def lose_database(paths: Paths) -> None:
    for ending in ("", "-wal", "-shm", "-seal", "-room"):
        if os.path.exists(paths.database("volume") + ending):
            os.unlink(paths.database("volume") + ending)


def look(paths: Paths) -> tuple[dict[bytes, int], dict[tuple[int, int], int], dict[int, int]]:
    """Names, blocks in the cache with their dirty marks, sizes."""
    with Database(paths.database("volume")) as database:
        names = dict(database.rows("SELECT name, inode FROM entry ORDER BY cookie"))
        local = {(inode, block): dirty for inode, block, dirty in database.rows("SELECT * FROM local")}
        return names, local, dict(database.rows("SELECT number, size FROM inode"))


async def two_files(paths: Paths, hosts: Hosts, *, device: NodeId = HERE) -> None:
    """Published, and in the cache."""
    async with running(paths.volume_dir("volume"), hosts.transfers) as cache:
        begin(cache.database)
        await cache.put(ONE, b"1" * (2 * BLOCK + 5))
        await cache.put(TWO, b"2" * BLOCK)
        await publish(cache, paths, hosts, device)


async def test_what_is_the_same_is_clean_and_what_is_newer_is_sent(paths: Paths, hosts: Hosts) -> None:
    await two_files(paths, hosts)
    async with running(paths.volume_dir("volume"), hosts.transfers) as cache:
        await cache.put(ONE, b"new" * 1000, offset=BLOCK)
        await cache.put(NEW, b"n" * 7000)
        await cache.put(TWO, b"longer", offset=BLOCK)
    lose_database(paths)
    await rebuilt(paths, hosts)
    names, local, sizes = look(paths)
    assert names == {b"one": 10, b"two": 11, b"lost+found": names[b"lost+found"], b"#12": 12}
    assert local == {(10, 0): 0, (10, 1): 1, (10, 2): 0, (11, 0): 0, (11, 1): 1, (12, 0): 1}
    assert (sizes[10], sizes[11], sizes[12]) == (2 * BLOCK + 5, BLOCK + 6, 7000)
    async with running(paths.volume_dir("volume"), hosts.transfers) as cache:
        assert await cache.get(ONE, BLOCK, 3000) == b"new" * 1000
        assert await cache.get(ONE, 2 * BLOCK, 5) == b"1" * 5
        assert await cache.get(NEW, 0, 7000) == b"n" * 7000


async def test_what_an_interrupted_fetch_left_never_replaces_what_hosts_have(paths: Paths, hosts: Hosts) -> None:
    await two_files(paths, hosts)
    with open(os.path.join(paths.cache_dir("volume"), "0", "a"), "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 3 * BLOCK)
        file.seek(4096)
        file.write(bytes(8192))
    lose_database(paths)
    await rebuilt(paths, hosts)
    assert look(paths)[1] == {(10, 1): 0, (10, 2): 0, (11, 0): 0}
    async with running(paths.volume_dir("volume"), hosts.transfers) as cache:
        assert await cache.get(ONE, 0, 2 * BLOCK + 5) == b"1" * (2 * BLOCK + 5)


async def test_against_a_newer_version_of_another_machine_both_are_kept(paths: Paths, hosts: Hosts) -> None:
    await two_files(paths, hosts)
    async with running(paths.volume_dir("volume"), hosts.transfers) as cache:
        await cache.put(ONE, b"theirs" * 100)
        await publish(cache, paths, hosts, ELSEWHERE)
    with open(os.path.join(paths.cache_dir("volume"), "0", "a"), "r+b") as file:
        file.write(b"ours!!" * 100)
    lose_database(paths)
    await rebuilt(paths, hosts)
    names, local, _sizes = look(paths)
    (copy,) = [number for name, number in names.items() if name.startswith(b"#")]
    assert (10, 0) not in local
    assert local[copy, 0] == 1
    async with running(paths.volume_dir("volume"), hosts.transfers) as cache:
        assert await cache.get(ONE, 0, 600) == b"theirs" * 100
        assert await cache.get(InodeNumber(copy), 0, 600) == b"ours!!" * 100


async def test_what_cannot_be_compared_is_kept_twice(paths: Paths, hosts: Hosts) -> None:
    await two_files(paths, hosts)
    with open(os.path.join(paths.cache_dir("volume"), "0", "a"), "r+b") as file:
        file.write(b"which?" * 100)
    with Database(paths.database("volume")) as database:
        shards = [row[0] for row in database.rows("SELECT id FROM shard")]
    lose_database(paths)
    hosts.transfers.lost.update(shards)
    await rebuilt(paths, hosts)
    names, local, _sizes = look(paths)
    copies = [number for name, number in names.items() if name.startswith(b"#")]
    assert len(copies) == 2
    assert all(dirty for (inode, _block), dirty in local.items() if inode in copies)


async def test_changes_since_the_version_are_applied_when_they_fit(paths: Paths, hosts: Hosts) -> None:
    await two_files(paths, hosts)
    async with running(paths.volume_dir("volume"), hosts.transfers) as cache:
        cache.database.write("UPDATE entry SET name = ? WHERE inode = 10", (b"renamed",))
        cache.database.commit()
        await cache.put(NEW, b"n" * 7000)
        cache.database.write("INSERT INTO entry VALUES(12, 1, ?, 12)", (b"new",))
    said = await rebuilt(paths, hosts)
    assert any("changes since then were applied" in sentence for sentence in said)
    names, local, _sizes = look(paths)
    assert names == {b"renamed": 10, b"two": 11, b"new": 12}
    assert local[12, 0] == 1
    assert os.listdir(os.path.join(paths.volume_dir("volume"), aside_of(paths)))


def aside_of(paths: Paths) -> str:
    (name,) = [name for name in os.listdir(paths.volume_dir("volume")) if name.startswith("damaged-")]
    return name


async def test_a_volume_that_was_never_published_comes_from_its_remains(
    paths: Paths, hosts: Hosts, mock_clock: MockClock
) -> None:
    async with running(paths.volume_dir("volume"), hosts.transfers) as cache:
        begin(cache.database)
        await cache.put(ONE, b"1" * 700)
        await cache.put(TWO, b"2" * 700)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(skip_time)
        said = await rebuilt(paths, hosts)
        nursery.cancel_scope.cancel()
    assert "never published" in said[0]
    names, local, _sizes = look(paths)
    assert names == {b"one": 10, b"two": 11}
    assert local == {(10, 0): 1, (11, 0): 1}


@pytest.mark.parametrize("silent", [True, False])
async def test_without_a_version_nothing_is_touched(
    paths: Paths, hosts: Hosts, mock_clock: MockClock, *, silent: bool
) -> None:
    await two_files(paths, hosts)
    lose_database(paths)
    hosts.roots.kept, hosts.roots.silent = None, silent
    before = sorted(os.listdir(paths.volume_dir("volume")))
    with pytest.RaisesGroup(Unavailable if silent else NotFound, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(skip_time)
            await rebuilt(paths, hosts)
    assert sorted(os.listdir(paths.volume_dir("volume"))) == before


async def skip_time() -> None:
    """Thirty seconds of waiting for hosts, at once."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    while True:
        await trio.lowlevel.checkpoint()
        clock.jump(1.0)
