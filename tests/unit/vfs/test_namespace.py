"""The volume and its past under one root: the same answers as each gives by itself, under numbers of their own."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio

from layrfs.errors import InvalidArgument, IsADirectory, LayrError, NoAttribute, NotFound, ReadOnly, Unavailable
from layrfs.ids import ROOT_INODE, InodeNumber
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.tree import Tree
from layrfs.storage.versions import Version
from layrfs.vfs.attributes import Owner
from layrfs.vfs.contents import Contents
from layrfs.vfs.filesystem import Filesystem
from layrfs.vfs.inodes import Inode, Inodes
from layrfs.vfs.namespace import DIRECTORY, NAME, SNAPSHOTS, Namespace, is_passing
from layrfs.vfs.statfs import Space
from tests.fakes.snapshots import FakeSnapshots
from tests.fakes.transfers import FakeTransfers

OWNER = Owner(1000, 100)
OLD, NEW = Version(7, 1_700_000_000_000, 0, 0, None, (7,)), Version(9, 1_700_000_010_000, 0, 0, "by hand", (9,))
OLD_NAME = "2023-11-14T22-13-20Z"


async def made(directory: Path, nursery: trio.Nursery, text: bytes) -> Filesystem:
    """A volume with ``directory/file``, a link to it and an attribute."""
    directory.mkdir()
    database = Database(str(directory / "metadata.db"))
    tree = Tree(database)
    inodes = Inodes(tree)
    contents = Contents(
        database=database,
        catalog=Catalog(database),
        cache_directory=str(directory / "cache"),
        transfers=FakeTransfers(),
        block_bytes_of=inodes.block_bytes_of,
    )
    await nursery.start(contents.run)
    filesystem = Filesystem(
        database,
        tree,
        inodes,
        contents,
        space=lambda: Space(10**9, 10**8),
        owner=OWNER,
        virtual_attributes={b"user.layrfs.control": lambda _inode: b"socket"},
    )
    parent = filesystem.make(ROOT_INODE, b"directory", mode=stat.S_IFDIR | 0o750, owner=OWNER)
    inode, handle = filesystem.create(parent.number, b"file", mode=0o640, owner=OWNER)
    await filesystem.write(handle, 0, text)
    filesystem.release(handle)
    filesystem.setxattr(inode.number, b"user.colour", text)
    filesystem.make(ROOT_INODE, b"link", mode=stat.S_IFLNK | 0o777, owner=OWNER, target=b"to " + text)
    database.commit()
    return filesystem


class Below:
    """A namespace, and what is behind it."""

    def __init__(self, live: Filesystem, old: Filesystem, new: Filesystem) -> None:
        self.live = live
        self.snapshots = FakeSnapshots({OLD_NAME: OLD, "by hand": NEW}, {7: old, 9: new})
        self.namespace = Namespace(live, self.snapshots)

    async def find(self, *names: bytes) -> Inode:
        number = ROOT_INODE
        for name in names:
            found = await self.namespace.lookup(number, name)
            if found is None:
                raise NotFound(f"no {name!r}")
            number = found.number
        return await self.namespace.getattr(number)

    async def read(self, *names: bytes) -> bytes:
        handle = await self.namespace.open((await self.find(*names)).number, truncate=False, writing=False)
        try:
            return await self.namespace.read(handle, 0, 1000)
        finally:
            self.namespace.release(handle)

    async def listed(self, number: InodeNumber, position: int = 0) -> list[tuple[bytes, int]]:
        return [(name, inode.number) for name, inode, _next in await self.namespace.listing(number, position)]


@pytest.fixture
async def below(tmp_path: Path) -> AsyncIterator[Below]:
    async with trio.open_nursery() as nursery:
        volumes = [await made(tmp_path / word, nursery, word.encode()) for word in ("live", "old", "new")]
        yield Below(*volumes)
        nursery.cancel_scope.cancel()


async def test_each_version_shows_its_own_bytes_names_and_attributes(below: Below) -> None:
    for before, word in (((), b"live"), ((NAME, OLD_NAME.encode()), b"old"), ((NAME, b"by hand"), b"new")):
        file = await below.find(*before, b"directory", b"file")
        assert await below.read(*before, b"directory", b"file") == word
        assert (file.size, stat.S_IMODE(file.mode), file.uid) == (len(word), 0o640, 1000)
        assert await below.namespace.getxattr(file.number, b"user.colour") == word
        assert await below.namespace.listxattr(file.number, privileged=True) == [b"user.colour"]
        assert await below.namespace.readlink((await below.find(*before, b"link")).number) == b"to " + word
        directory = await below.find(*before, b"directory")
        names = await below.listed(directory.number)
        assert [name for name, _number in names] == [b".", b"..", b"file"]
        assert names[2][1] == file.number
    assert below.snapshots.looks == 0, "everybody has said when they were done"


async def test_numbers_are_never_shared_and_stay(below: Below) -> None:
    places = [(), (NAME, OLD_NAME.encode()), (NAME, b"by hand")]
    numbers = [(await below.find(*before, b"directory", b"file")).number for before in places]
    assert len(set(numbers)) == 3
    assert numbers[0] < SNAPSHOTS < min(numbers[1:])
    del below.snapshots.versions[OLD_NAME]
    del below.snapshots.filesystems[7]
    with pytest.raises(NotFound):
        await below.namespace.getattr(numbers[1])
    with pytest.raises(NotFound):
        await below.find(NAME, OLD_NAME.encode())
    below.snapshots.versions["later"] = NEW._replace(number=11, name="later")
    below.snapshots.filesystems[11] = below.snapshots.filesystems[9]
    assert (await below.find(NAME, b"later", b"directory", b"file")).number not in numbers
    assert (await below.find(NAME, b"by hand", b"directory", b"file")).number == numbers[2]


async def test_the_directory_of_snapshots_opens_nothing(below: Below) -> None:
    directory = await below.find(NAME)
    assert directory.number == DIRECTORY
    assert stat.S_IMODE(directory.mode) == 0o700
    lines = await below.listed(DIRECTORY)
    assert [name for name, _number in lines] == [b".", b"..", OLD_NAME.encode(), b"by hand"]
    position = [following for _name, _inode, following in await below.namespace.listing(DIRECTORY, 0)][2]
    assert await below.listed(DIRECTORY, position) == lines[3:], "a listing goes on where it was"
    for name, number in lines[2:]:
        top = await below.find(NAME, name)
        assert top.number == number
        assert is_passing(number)
        assert await below.namespace.listxattr(number, privileged=True) == []
        assert await below.namespace.getxattr(number, b"user.layrfs.control") == b"socket"
        with pytest.raises(NoAttribute):
            await below.namespace.getxattr(number, b"user.colour")
        with pytest.raises(InvalidArgument):
            await below.namespace.readlink(number)
        with pytest.raises(IsADirectory):
            await below.namespace.open(number, truncate=False, writing=False)
    assert below.snapshots.opened == 0
    assert NAME not in [name for name, _number in await below.listed(ROOT_INODE)]


async def test_the_way_up_leads_out(below: Below) -> None:
    top = await below.find(NAME, b"by hand")
    for up in (
        await below.namespace.lookup(top.number, b".."),
        await below.namespace.lookup(DIRECTORY, b"."),
    ):
        assert up is not None
        assert up.number == DIRECTORY
    assert (await below.find(NAME, b"..")).number == ROOT_INODE
    assert (await below.find(NAME, b"by hand", b"directory", b"..")).number == top.number
    assert dict(await below.listed(top.number))[b".."] == DIRECTORY
    assert dict(await below.listed(top.number))[b"."] == top.number


async def test_nothing_in_the_past_can_be_changed(below: Below) -> None:
    file = await below.find(NAME, b"by hand", b"directory", b"file")
    for number, name in (
        (file.number, b""),
        (DIRECTORY, b"new"),
        (DIRECTORY, OLD_NAME.encode()),
        ((await below.find(NAME, b"by hand")).number, b"new"),
        (ROOT_INODE, NAME),
    ):
        with pytest.raises(ReadOnly):
            below.namespace.live(number, name)
    for how in ({"truncate": True, "writing": False}, {"truncate": False, "writing": True}):
        with pytest.raises(ReadOnly):
            await below.namespace.open(file.number, **how)
    assert below.namespace.live(ROOT_INODE, b"new") is below.live
    assert below.namespace.live((await below.find(b"directory")).number, NAME) is below.live, "only in the root"


async def test_a_snapshot_that_cannot_be_opened_is_an_error_and_nothing_else(below: Below) -> None:
    file = await below.find(NAME, b"by hand", b"directory", b"file")
    below.snapshots.failure = Unavailable("no host")
    ways: list[Callable[[], Awaitable[object]]] = [
        lambda: below.namespace.getattr(file.number),
        lambda: below.namespace.lookup(file.number, b"x"),
        lambda: below.namespace.listing(file.number, 0),
        lambda: below.namespace.readlink(file.number),
        lambda: below.namespace.getxattr(file.number, b"user.a"),
        lambda: below.namespace.listxattr(file.number, privileged=False),
        lambda: below.namespace.open(file.number, truncate=False, writing=False),
    ]
    for way in ways:
        with pytest.raises(Unavailable):
            await way()
    below.snapshots.failure = None
    for wrong in (ways[1], ways[3], ways[4]):
        with pytest.raises(LayrError):
            await wrong()
    directory = await below.find(NAME, b"by hand", b"directory")
    with pytest.raises(IsADirectory):
        await below.namespace.open(directory.number, truncate=False, writing=False)
    assert below.snapshots.looks == 0
    assert await below.read(b"directory", b"file") == b"live"


async def test_an_open_file_keeps_its_snapshot_open(below: Below) -> None:
    file = await below.find(NAME, b"by hand", b"directory", b"file")
    handle = await below.namespace.open(file.number, truncate=False, writing=False)
    assert handle >= SNAPSHOTS
    assert below.snapshots.looks == 1
    await below.namespace.fsync(handle)
    below.namespace.forget([(file.number, 1), ((await below.find(b"directory")).number, 1)])
    assert await below.namespace.read(handle, 1, 5) == b"ew"
    below.namespace.release(handle)
    assert below.snapshots.looks == 0


async def test_a_number_nobody_gave_out_is_not_found(below: Below) -> None:
    with pytest.raises(NotFound):
        await below.namespace.getattr(InodeNumber(77 * SNAPSHOTS + 5))
