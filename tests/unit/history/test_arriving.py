"""What the start of a writing mount does to what is here: caught up with the newest version, and nothing lost."""

import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from layrfs.app.recovering import restore_record
from layrfs.config import Paths
from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import LocalError, Unavailable, VolumeHeld
from layrfs.history.arriving import SEEN, Arrival
from layrfs.history.leasing import Tenure
from layrfs.history.publishing import Publisher
from layrfs.history.restoring import restore_segments
from layrfs.ids import ROOT_INODE, InodeNumber, NodeId
from layrfs.model.history import History
from layrfs.policy.leasing import LEASE_SECONDS
from layrfs.storage.changes import REPAIRED
from layrfs.storage.content import Catalog
from layrfs.storage.contracts import LOOKED_FOR, Contracts
from layrfs.storage.database import Database
from layrfs.storage.journal import Journal
from layrfs.storage.tree import Tree
from layrfs.vfs.attributes import Changes, Owner
from layrfs.vfs.contents import Contents
from layrfs.vfs.filesystem import Filesystem
from layrfs.vfs.inodes import Inodes
from layrfs.vfs.recovery import boot_id
from layrfs.vfs.statfs import Space
from tests.fakes.roots import FakeRoots
from tests.fakes.transfers import FakeTransfers
from tests.volumes import rows_of

KEYS = VolumeKeys(bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32, bytes([4]) * 32)
OWNER = Owner(1000, 1000)
BLOCK = 4 << 20


class Mount:
    """What a test does with a volume."""

    def __init__(self, database: Database, transfers: FakeTransfers, publisher: Publisher, paths: Paths) -> None:
        self.database, self.publisher, self.transfers = database, publisher, transfers
        tree = Tree(database)
        inodes = Inodes(tree)
        self.contents = Contents(
            database=database,
            catalog=Catalog(database),
            cache_directory=paths.cache_dir("volume"),
            transfers=transfers,
            block_bytes_of=inodes.block_bytes_of,
            closed_seconds=1e6,
        )
        self.filesystem = Filesystem(
            database, tree, inodes, self.contents, space=lambda: Space(10**9, 10**9), owner=OWNER
        )

    async def write(self, path: bytes, *pieces: tuple[int, bytes]) -> None:
        """Pieces of a file at offsets; it is made when it is not there."""
        directory, name = os.path.split(path)
        parent = self._directory(directory)
        there = self.filesystem.lookup(parent, name)
        if there is None:
            _inode, handle = self.filesystem.create(parent, name, mode=0o644, owner=OWNER)
        else:
            handle = await self.filesystem.open(there.number, truncate=False)
        for offset, data in pieces:
            await self.filesystem.write(handle, offset, data)
        self.filesystem.release(handle)

    def _directory(self, path: bytes) -> InodeNumber:
        number = ROOT_INODE
        for name in filter(None, path.split(b"/")):
            found = self.filesystem.lookup(number, name)
            if found is None:
                found = self.filesystem.make(number, name, mode=stat.S_IFDIR | 0o755, owner=OWNER)
            number = found.number
        return number

    async def read(self, path: bytes) -> bytes:
        inode = self.filesystem.resolve(path)
        handle = await self.filesystem.open(inode.number, truncate=False)
        data = await self.filesystem.read(handle, 0, inode.size)
        self.filesystem.release(handle)
        return data

    async def publish(self) -> None:
        """All of it."""
        await self.contents.flush_to_network(None)
        await self.publisher.publish()


class Machine:
    """A state directory."""

    def __init__(self, home: Path, name: str, roots: FakeRoots, transfers: FakeTransfers) -> None:
        self.name, self.roots, self.transfers = name, roots, transfers
        self.paths = Paths.under(str(home))
        self.paths.prepare("volume")
        self.device = NodeId(name.encode().ljust(20, b"."))
        self.said: list[str] = []
        self.say: Callable[[str], None] = self.said.append
        self.sees_hosts = False

    async def recover(self) -> None:
        """As `layrfs recover` does."""
        assert self.roots.newest is not None
        await restore_record(self.paths, "volume", KEYS, self.transfers, self.roots.newest)

    async def arrive(self, database: Database, *, take_over: bool = False) -> bool:
        async def restore(history: History, directory: str) -> str:
            return await restore_segments(history.segments, KEYS, self.transfers, directory)

        arrival = Arrival(
            paths=self.paths,
            volume="volume",
            keys=KEYS,
            device=self.device,
            database=database,
            roots=self.roots,
            restore=restore,
            say=self.say,
            in_sight=lambda: self.sees_hosts,
        )
        return await arrival.arrive(take_over=take_over)

    @asynccontextmanager
    async def mounted(self, *, take_over: bool = False, released: bool = True) -> AsyncIterator[Mount]:
        """A mount that wants to write; its lease is given back at the end, when ``released``."""
        with Database(self.paths.database("volume")) as database:
            database.write("INSERT OR IGNORE INTO volume VALUES('id', ?)", (KEYS.volume_id,))
            must_claim = await self.arrive(database, take_over=take_over)
            publisher = Publisher(
                database=database,
                transfers=self.transfers,
                roots=self.roots,
                keys=KEYS,
                directory=self.paths.history_dir("volume"),
                tenure=Tenure(device=self.device, name=self.name, keys=KEYS, roots=self.roots),
            )
            if must_claim:
                await publisher.claim()
            self.transfers.find_content = Catalog(database).find_content
            mount = Mount(database, self.transfers, publisher, self.paths)
            async with trio.open_nursery() as nursery:
                await nursery.start(mount.contents.run)
                yield mount
                mount.filesystem.close()
                if released:
                    await publisher.release()
                nursery.cancel_scope.cancel()
            mount.contents.close()

    def asides(self) -> list[Path]:
        return sorted(Path(self.paths.volume_dir("volume")).glob("aside-*"))


@pytest.fixture
def laptop(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "laptop", "laptop", FakeRoots(), FakeTransfers())


@pytest.fixture
def desk(tmp_path: Path, laptop: Machine) -> Machine:
    return Machine(tmp_path / "desk", "desk", laptop.roots, laptop.transfers)


async def both_have_it(laptop: Machine, desk: Machine) -> None:
    """The laptop has written some files, all of them are on hosts, and the desk has recovered the volume."""
    async with laptop.mounted() as mount:
        await mount.write(b"/same", (0, b"same " * 5000))
        await mount.write(b"/changed", (0, b"old " * 5000))
        await mount.write(b"/gone", (0, b"gone " * 5000))
        await mount.write(b"/two", (0, b"first"), (BLOCK, b"second"))
        await mount.publish()
    await desk.recover()


async def test_catching_up_keeps_what_the_cache_has_of_files_that_are_the_same(laptop: Machine, desk: Machine) -> None:
    await both_have_it(laptop, desk)
    async with desk.mounted() as mount:
        await mount.write(b"/changed", (0, b"new"))
        mount.filesystem.unlink(ROOT_INODE, b"gone")
        await mount.write(b"/more", (0, b"more"))
        await mount.publish()
        wanted = rows_of(mount.database)
    with Database(laptop.paths.database("volume")) as database:
        assert await laptop.arrive(database)
        database.commit()
        now = rows_of(database)
        assert {name: rows for name, rows in now.items() if name not in {"version", "segment"}} == {
            name: rows for name, rows in wanted.items() if name not in {"version", "segment"}
        }
    async with laptop.mounted() as mount:
        laptop.transfers.downloads.clear()
        assert await mount.read(b"/same") == b"same " * 5000
        assert laptop.transfers.downloads == [], "it was here, and still is"
        assert await mount.read(b"/changed") == b"new" + (b"old " * 5000)[3:]
        assert await mount.read(b"/more") == b"more"
        assert laptop.transfers.downloads != []
        assert mount.filesystem.lookup(ROOT_INODE, b"gone") is None
    assert laptop.said == []
    assert laptop.asides() == []


async def test_what_was_to_be_paid_for_by_the_version_that_is_replaced_is_forgotten(
    laptop: Machine, desk: Machine
) -> None:
    """Its contracts' numbers may be those of others now, and some of its contracts on the ledger only."""
    await both_have_it(laptop, desk)
    with Database(laptop.paths.database("volume")) as database:
        database.write("INSERT INTO local_payable VALUES(1, ?, 1, 0, ?)", (bytes(32), bytes(32)))
        marks = Journal(database)
        marks.set_mark(f"{LOOKED_FOR}: ledger", "cursor")
        marks.set_mark("another", 1)
    async with desk.mounted() as mount:
        await mount.write(b"/more", (0, b"more"))
        await mount.publish()
    with Database(laptop.paths.database("volume")) as database:
        assert await laptop.arrive(database)
        assert Contracts(database).uncovered(1) == (0, 0)
        assert (Journal(database).mark(f"{LOOKED_FOR}: ledger"), Journal(database).mark("another")) == (None, 1)


async def test_what_is_on_no_host_is_set_aside_as_files(laptop: Machine, desk: Machine) -> None:
    await both_have_it(laptop, desk)
    name = b"/d\xff/new\nline/" + b"n" * 255
    async with laptop.mounted(released=False) as mount:
        await mount.contents.drop_clean()
        await mount.write(name, (0, b"start"), (2 * BLOCK + 7, b"end"))
        await mount.write(b"/empty")
        await mount.write(b"/changed", (4, b"mine"))
        await mount.write(b"/uploaded", (0, b"on hosts, and nobody knows"))
        await mount.read(b"/gone")
        await mount.filesystem.setattr(mount.filesystem.resolve(b"/gone").number, Changes(size=4))
        await mount.contents.flush_to_network([mount.filesystem.resolve(b"/uploaded").number])
        await mount.write(b"/two", (0, b"FIRST"))
    async with desk.mounted(take_over=True) as mount:
        await mount.write(b"/theirs", (0, b"theirs"))
        await mount.publish()
    async with laptop.mounted() as mount:
        assert await mount.read(b"/theirs") == b"theirs"
        assert (await mount.read(b"/changed"))[:8] == b"old old "
        assert len(await mount.read(b"/gone")) == 5 * 5000
        assert mount.filesystem.lookup(ROOT_INODE, b"empty") is None
        assert mount.contents.stats().dirty_blocks == 0
        assert mount.contents.state(mount.filesystem.resolve(b"/two").number) == "safe"
    (aside,) = laptop.asides()
    files = os.fsencode(aside / "files")
    assert Path(os.fsdecode(files + name)).read_bytes() == b"start" + bytes(2 * BLOCK + 2) + b"end"
    assert (aside / "files" / "empty").read_bytes() == b""
    assert (aside / "files" / "changed").read_bytes() == (b"old mine" + b"old " * 5000)[: 4 * 5000]
    assert (aside / "files" / "gone").read_bytes() == b"gone"
    assert not (aside / "files" / "same").exists(), "it is where everybody finds it"
    (part,) = (path for path in (aside / "cache").rglob("*") if path.is_file())
    assert part.read_bytes()[:5] == b"FIRST", "not whole here: its second block was dropped"
    for path in aside.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert (aside / "files" / "uploaded").exists()
    with Database(str(aside / "metadata.db")) as database:
        assert database.value("SELECT count(*) FROM entry WHERE name = ?", (b"uploaded",)) == 1
    (sentence,) = laptop.said
    assert str(aside) in sentence
    assert "desk wrote to this volume meanwhile" in sentence
    assert sentence.endswith(": 5 files below files/ and parts of 1 more below cache/")


async def test_what_was_written_before_a_crash_is_set_aside_too(laptop: Machine, desk: Machine, tmp_path: Path) -> None:
    await both_have_it(laptop, desk)
    async with laptop.mounted(released=False) as mount:
        await mount.write(b"/changed", (0, b"mine"))
        mount.database.commit()
        shutil.copytree(laptop.paths.data, tmp_path / "crashed")
    async with desk.mounted(take_over=True) as mount:
        await mount.write(b"/theirs", (0, b"theirs"))
        await mount.publish()
    crashed = Machine(tmp_path / "crashed", "laptop", laptop.roots, laptop.transfers)
    async with crashed.mounted() as mount:
        assert await mount.read(b"/changed") == b"old " * 5000
    (aside,) = crashed.asides()
    assert (aside / "files" / "changed").read_bytes() == b"mine" + (b"old " * 5000)[4:]


@pytest.mark.parametrize("lost", ["it was a checkpoint", "its changeset is gone"])
async def test_what_hosts_have_and_no_version_names_is_set_aside(laptop: Machine, desk: Machine, lost: str) -> None:
    await both_have_it(laptop, desk)
    async with laptop.mounted(released=False) as mount:
        await mount.write(b"/changed", (0, b"mine"))
        await mount.write(b"/mine", (0, b"on hosts, and nobody knows"))
        await mount.contents.flush_to_network(None)
        if lost == "it was a checkpoint":
            Journal(mount.database).set_mark(REPAIRED, 1)
        laptop.roots.silent = {0, 1, 2}
        with pytest.raises(Unavailable):
            await mount.publisher.publish()
        assert mount.contents.stats().dirty_blocks == 0
    shutil.rmtree(laptop.paths.history_dir("volume"))
    laptop.roots.silent = set()
    async with desk.mounted(take_over=True) as mount:
        await mount.write(b"/theirs", (0, b"theirs"))
        await mount.publish()
    async with laptop.mounted() as mount:
        assert await mount.read(b"/theirs") == b"theirs"
        assert mount.filesystem.lookup(ROOT_INODE, b"mine") is None
    (aside,) = laptop.asides()
    assert (aside / "files" / "changed").read_bytes() == b"mine" + (b"old " * 5000)[4:]
    assert (aside / "files" / "mine").read_bytes() == b"on hosts, and nobody knows"
    assert not (aside / "files" / "same").exists()


async def test_what_was_set_aside_is_not_set_aside_as_zeros_by_the_next_start(laptop: Machine, desk: Machine) -> None:
    await both_have_it(laptop, desk)
    async with laptop.mounted(released=False) as mount:
        await mount.write(b"/never sent", (0, b"mine"))
    async with desk.mounted(take_over=True) as mount:
        await mount.write(b"/theirs", (0, b"theirs"))
        await mount.publish()
    newer = Path(laptop.paths.volume_dir("volume"), "catching-up")
    with Database(laptop.paths.database("volume")) as database:
        laptop.say = lambda _sentence: shutil.rmtree(newer)  # it ends between the two transactions
        with pytest.raises(LocalError):
            await laptop.arrive(database)
        laptop.say = laptop.said.append
        await laptop.arrive(database)
    first, _second = laptop.asides()
    found = list(first.parent.glob("aside-*/files/*"))
    assert found == [first / "files" / "never sent"]
    assert found[0].read_bytes() == b"mine"


async def test_what_cannot_be_caught_up_with_leaves_everything_as_it_was(laptop: Machine, desk: Machine) -> None:
    await both_have_it(laptop, desk)
    async with laptop.mounted(released=False) as mount:
        await mount.write(b"/changed", (0, b"mine"))
        before = rows_of(mount.database)
    async with desk.mounted(take_over=True) as mount:
        await mount.write(b"/theirs", (0, b"theirs"))
        await mount.publish()
    laptop.transfers.failure = Unavailable("no host has it")
    with Database(laptop.paths.database("volume")) as database:
        with pytest.raises(Unavailable):
            await laptop.arrive(database)
        assert rows_of(database)["block"] == before["block"]
    assert laptop.asides() == []
    laptop.transfers.failure = None
    async with laptop.mounted() as mount:
        assert await mount.read(b"/theirs") == b"theirs"
    assert len(laptop.asides()) == 1


async def test_a_holder_that_stays_silent_for_its_lease_holds_nothing_any_more(laptop: Machine, desk: Machine) -> None:
    await both_have_it(laptop, desk)
    async with laptop.mounted(released=False) as mount:
        await mount.write(b"/changed", (0, b"mine"))
        await mount.publish()
    with Database(desk.paths.database("volume")) as database:
        with pytest.raises(VolumeHeld, match="laptop writes to volume volume"):
            await desk.arrive(database)
        marks = Journal(database)
        seen = marks.mark(SEEN)
        assert isinstance(seen, bytes), "from now on the holder is watched"
        signature, boot, since = msgspec.msgpack.decode(seen, type=tuple[bytes, str, float])
        assert boot == boot_id()
        marks.set_mark(SEEN, msgspec.msgpack.encode((signature, boot, since - LEASE_SECONDS)))
        assert await desk.arrive(database)
    async with desk.mounted() as mount:
        assert (await mount.read(b"/changed"))[:4] == b"mine"


@pytest.mark.parametrize("sees_hosts", [False, True])
async def test_hosts_that_are_in_sight_and_slow_are_waited_for(
    laptop: Machine, desk: Machine, autojump_clock: object, *, sees_hosts: bool
) -> None:
    await both_have_it(laptop, desk)
    async with desk.mounted() as mount:
        await mount.write(b"/more", (0, b"more"))
        await mount.publish()
    laptop.roots.pause, laptop.sees_hosts = partial(trio.sleep, 2), sees_hosts
    with Database(laptop.paths.database("volume")) as database:
        assert await laptop.arrive(database) == sees_hosts, "what the desk wrote is here"


async def test_without_hosts_only_who_wrote_last_goes_on(
    laptop: Machine, desk: Machine, autojump_clock: object
) -> None:
    await both_have_it(laptop, desk)
    laptop.roots.silent = {0, 1, 2}
    with Database(laptop.paths.database("volume")) as database:
        assert not await laptop.arrive(database)
    with Database(desk.paths.database("volume")) as database:
        with pytest.raises(Unavailable, match="laptop wrote to volume volume last"):
            await desk.arrive(database)
        assert not await desk.arrive(database, take_over=True)
