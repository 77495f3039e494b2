"""The file system without a kernel: who keeps an inode alive, times, sizes, and what a commit holds."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio

from layrfs.errors import InvalidArgument, IsADirectory, NoSpace, NotFound, ReadOnly, Unavailable
from layrfs.ids import ROOT_INODE, InodeNumber
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.tree import Tree
from layrfs.vfs.attributes import Changes, Owner
from layrfs.vfs.contents import Contents
from layrfs.vfs.filesystem import Filesystem
from layrfs.vfs.inodes import Inodes
from layrfs.vfs.statfs import Space
from tests.fakes.transfers import FakeTransfers
from tests.volumes import rows_of

OWNER = Owner(1000, 100)
DAY_NS = 24 * 3600 * 10**9


class Clock:
    """Nanoseconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 10**18

    def __call__(self) -> int:
        return self.now


class Volume:
    """A file system and its parts, on one state directory."""

    def __init__(self, directory: Path) -> None:
        self.database = Database(str(directory / "metadata.db"))
        self.clock = Clock()
        self.tree = Tree(self.database)
        self.inodes = Inodes(self.tree, now_ns=self.clock)
        self.transfers = FakeTransfers()
        catalog = Catalog(self.database)
        self.contents = Contents(
            database=self.database,
            catalog=catalog,
            cache_directory=str(directory / "cache"),
            transfers=self.transfers,
            block_bytes_of=self.inodes.block_bytes_of,
        )
        self.filesystem = Filesystem(
            self.database, self.tree, self.inodes, self.contents, space=lambda: Space(10**9, 10**8), owner=OWNER
        )

    def create(self, name: bytes) -> tuple[InodeNumber, int]:
        inode, handle = self.filesystem.create(ROOT_INODE, name, mode=0o644, owner=OWNER)
        self.database.commit()
        return inode.number, handle

    def inode_rows(self) -> set[int]:
        self.database.commit()
        return {row[0] for row in self.database.rows("SELECT number FROM inode")}


@pytest.fixture
def reopen(tmp_path: Path) -> Callable[[], Volume]:
    return lambda: Volume(tmp_path)


@pytest.fixture
async def volume(reopen: Callable[[], Volume]) -> AsyncIterator[Volume]:
    opened = reopen()
    async with trio.open_nursery() as nursery:
        await nursery.start(opened.contents.run)
        yield opened
        nursery.cancel_scope.cancel()
    opened.database.close()


async def test_a_new_volume_has_a_root_that_belongs_to_its_owner(volume: Volume) -> None:
    root = volume.filesystem.getattr(ROOT_INODE)
    assert (root.mode, root.uid, root.gid, root.nlink) == (stat.S_IFDIR | 0o755, 1000, 100, 2)


async def test_bytes_written_are_read_and_clipped_at_the_end(volume: Volume) -> None:
    filesystem = volume.filesystem
    number, handle = volume.create(b"f")
    assert await filesystem.write(handle, 10, b"hello") == 5
    assert await filesystem.read(handle, 0, 100) == bytes(10) + b"hello"
    assert await filesystem.read(handle, 12, 2) == b"ll"
    assert await filesystem.read(handle, 15, 100) == b""
    assert await filesystem.read(handle, 10**15, 100) == b""
    assert filesystem.getattr(number).size == 15


async def test_an_inode_without_a_name_lives_until_handle_and_references_are_gone(volume: Volume) -> None:
    filesystem = volume.filesystem
    number, handle = volume.create(b"f")
    await filesystem.write(handle, 0, b"x")
    filesystem.unlink(ROOT_INODE, b"f")
    filesystem.forget([(number, 1)])
    assert await filesystem.read(handle, 0, 9) == b"x"
    filesystem.release(handle)
    with pytest.raises(NotFound):
        filesystem.getattr(number)
    assert volume.inode_rows() == {ROOT_INODE}


async def test_references_alone_keep_it_as_well(volume: Volume) -> None:
    filesystem = volume.filesystem
    number, handle = volume.create(b"f")
    filesystem.lookup(ROOT_INODE, b"f")
    filesystem.unlink(ROOT_INODE, b"f")
    filesystem.release(handle)
    filesystem.forget([(number, 1)])
    assert filesystem.getattr(number).nlink == 0
    filesystem.forget([(number, 1)])
    with pytest.raises(NotFound):
        filesystem.getattr(number)


async def test_a_name_keeps_it_when_everybody_forgot(volume: Volume) -> None:
    number, handle = volume.create(b"f")
    volume.filesystem.release(handle)
    volume.filesystem.forget([(number, 1)])
    assert volume.filesystem.getattr(number).nlink == 1


async def test_what_rename_replaces_ends_like_what_is_unlinked(volume: Volume) -> None:
    filesystem = volume.filesystem
    old, handle = volume.create(b"old")
    volume.create(b"new")
    filesystem.release(handle)
    filesystem.rename(ROOT_INODE, b"new", ROOT_INODE, b"old")
    assert filesystem.getattr(old).nlink == 0
    filesystem.forget([(old, 1)])
    with pytest.raises(NotFound):
        filesystem.getattr(old)


async def test_closing_drops_what_has_no_name(volume: Volume) -> None:
    volume.create(b"f")
    volume.filesystem.unlink(ROOT_INODE, b"f")
    volume.filesystem.close()
    assert volume.inode_rows() == {ROOT_INODE}


async def test_after_a_crash_the_next_mount_does(volume: Volume, reopen: Callable[[], Volume]) -> None:
    volume.create(b"f")
    volume.filesystem.unlink(ROOT_INODE, b"f")
    assert len(volume.inode_rows()) == 2
    again = reopen()
    again.filesystem.remove_orphans()
    assert again.inode_rows() == {ROOT_INODE}
    again.database.close()


async def test_a_commit_holds_everything_that_was_answered(volume: Volume, reopen: Callable[[], Volume]) -> None:
    filesystem = volume.filesystem
    number, handle = volume.create(b"f")
    await filesystem.write(handle, 0, b"x" * 1000)
    directory = filesystem.make(ROOT_INODE, b"d", mode=stat.S_IFDIR | 0o755, owner=OWNER)
    filesystem.rename(ROOT_INODE, b"f", directory.number, b"g")
    await filesystem.setattr(number, Changes(mode=0o600, mtime_ns=5))
    volume.database.commit()
    again = reopen()
    found = again.filesystem.resolve(b"/d/g")
    assert (found.number, found.size, stat.S_IMODE(found.mode), found.mtime_ns, found.nlink) == (
        number,
        1000,
        0o600,
        5,
        1,
    )
    assert again.filesystem.path_of(number) == b"/d/g"
    assert again.filesystem.getattr(ROOT_INODE).nlink == 3
    again.database.close()


async def test_a_cut_and_the_smaller_size_are_one_commit(volume: Volume, reopen: Callable[[], Volume]) -> None:
    """Truncation commits on the way: no commit may show the old size over blocks that are gone."""
    filesystem = volume.filesystem
    number, handle = volume.create(b"f")
    await filesystem.write(handle, 0, b"x" * (9 << 20))
    volume.database.commit()
    sizes: list[tuple[int, int]] = []

    def look() -> None:
        volume.inodes.flush()
        (size,) = volume.database.row("SELECT size FROM inode WHERE number = ?", (number,)) or (0,)
        (blocks,) = volume.database.row("SELECT count(*) FROM local WHERE inode = ?", (number,)) or (0,)
        sizes.append((size, blocks))

    volume.database.before_commit(look)
    await filesystem.setattr(number, Changes(size=100))
    volume.database.commit()
    assert all(blocks >= -(-size // (4 << 20)) for size, blocks in sizes)
    assert sizes[-1] == (100, 1)


async def test_reading_updates_the_access_time_as_relatime_does(volume: Volume) -> None:
    filesystem, clock = volume.filesystem, volume.clock
    number, handle = volume.create(b"f")
    await filesystem.write(handle, 0, b"x")
    clock.now += 5
    await filesystem.read(handle, 0, 1)
    assert filesystem.getattr(number).atime_ns == clock.now
    first = clock.now
    clock.now += 1000
    await filesystem.read(handle, 0, 1)
    assert filesystem.getattr(number).atime_ns == first
    clock.now += DAY_NS
    await filesystem.read(handle, 0, 1)
    assert filesystem.getattr(number).atime_ns == clock.now


async def test_times_of_a_late_write_are_left_to_the_caller(volume: Volume) -> None:
    filesystem, clock = volume.filesystem, volume.clock
    number, handle = volume.create(b"f")
    await filesystem.setattr(number, Changes(mtime_ns=5))
    clock.now += 100
    await filesystem.write(handle, 0, b"x", touch=False)
    assert filesystem.getattr(number).mtime_ns == 5
    await filesystem.write(handle, 0, b"x", touch=True)
    assert filesystem.getattr(number).mtime_ns == clock.now


async def test_a_kernels_change_time_is_taken(volume: Volume) -> None:
    number, _handle = volume.create(b"f")
    await volume.filesystem.setattr(number, Changes(mtime_ns=5, ctime_ns=6))
    assert volume.filesystem.getattr(number).ctime_ns == 6


async def test_stored_bytes_leave_holes_out(volume: Volume) -> None:
    filesystem = volume.filesystem
    number, handle = volume.create(b"f")
    assert filesystem.stored_bytes(filesystem.getattr(number)) == 0
    await filesystem.setattr(number, Changes(size=1 << 40))
    assert filesystem.stored_bytes(filesystem.getattr(number)) == 0
    await filesystem.write(handle, 1 << 39, b"x")
    assert filesystem.stored_bytes(filesystem.getattr(number)) == 4 << 20
    await filesystem.setattr(number, Changes(size=0))
    assert filesystem.stored_bytes(filesystem.getattr(number)) == 0


async def test_a_disk_without_room_takes_nothing_new(volume: Volume) -> None:
    volume.create(b"f")
    volume.database.has_room = False
    for call in (
        lambda: volume.filesystem.create(ROOT_INODE, b"g", mode=0o644, owner=OWNER),
        lambda: volume.filesystem.setxattr(ROOT_INODE, b"user.a", b""),
        lambda: volume.filesystem.link(InodeNumber(2), ROOT_INODE, b"g"),
    ):
        with pytest.raises(NoSpace):
            call()
    volume.filesystem.unlink(ROOT_INODE, b"f")


async def test_what_hosts_do_not_have_now_is_an_error_for_that_file_only(volume: Volume) -> None:
    filesystem = volume.filesystem
    number, handle = volume.create(b"f")
    await filesystem.write(handle, 0, b"x" * 1000)
    _, other = volume.create(b"g")
    await filesystem.write(other, 0, b"fine")
    await volume.contents.flush_to_network([number])
    await volume.contents.drop_clean()
    volume.transfers.failure = Unavailable("nobody is there")
    with pytest.raises(Unavailable):
        await filesystem.read(handle, 0, 10)
    assert await filesystem.read(other, 0, 10) == b"fine"
    volume.transfers.failure = None
    volume.contents.hosts_appeared()
    assert await filesystem.read(handle, 0, 10) == b"x" * 10


async def test_only_files_have_a_length_to_change(volume: Volume) -> None:
    link = volume.filesystem.make(ROOT_INODE, b"l", mode=stat.S_IFLNK | 0o777, owner=OWNER, target=b"x")
    with pytest.raises(InvalidArgument):
        await volume.filesystem.setattr(link.number, Changes(size=5))
    with pytest.raises(IsADirectory):
        await volume.filesystem.setattr(ROOT_INODE, Changes(size=5))
    with pytest.raises(IsADirectory):
        await volume.filesystem.open(ROOT_INODE, truncate=False)
    with pytest.raises(InvalidArgument):
        volume.filesystem.readlink(ROOT_INODE)
    assert volume.filesystem.readlink(link.number) == b"x"


async def test_what_does_not_exist_cannot_be_resolved(volume: Volume) -> None:
    with pytest.raises(NotFound, match="/a/b"):
        volume.filesystem.resolve(b"/a/b")
    assert volume.filesystem.resolve(b"/").number == ROOT_INODE


CHANGES: dict[str, Callable[[Filesystem, InodeNumber, int], object]] = {
    "make": lambda fs, _inode, _handle: fs.make(ROOT_INODE, b"new", mode=stat.S_IFDIR | 0o755, owner=OWNER),
    "create": lambda fs, _inode, _handle: fs.create(ROOT_INODE, b"new", mode=0o644, owner=OWNER),
    "link": lambda fs, inode, _handle: fs.link(inode, ROOT_INODE, b"new"),
    "unlink": lambda fs, _inode, _handle: fs.unlink(ROOT_INODE, b"f"),
    "rmdir": lambda fs, _inode, _handle: fs.rmdir(ROOT_INODE, b"d"),
    "rename": lambda fs, _inode, _handle: fs.rename(ROOT_INODE, b"f", ROOT_INODE, b"new"),
    "exchange": lambda fs, _inode, _handle: fs.exchange(ROOT_INODE, b"f", ROOT_INODE, b"d"),
    "setattr": lambda fs, inode, _handle: fs.setattr(inode, Changes(mode=0o600)),
    "cut": lambda fs, inode, _handle: fs.setattr(inode, Changes(size=1)),
    "setxattr": lambda fs, inode, _handle: fs.setxattr(inode, b"user.new", b"1"),
    "removexattr": lambda fs, inode, _handle: fs.removexattr(inode, b"user.a"),
    "open to cut": lambda fs, inode, _handle: fs.open(inode, truncate=True),
    "open to write": lambda fs, inode, _handle: fs.open(inode, truncate=False, writing=True),
    "write": lambda fs, _inode, handle: fs.write(handle, 0, b"other"),
}


async def finished(
    change: Callable[[Filesystem, InodeNumber, int], object], filesystem: Filesystem, inode: InodeNumber, handle: int
) -> None:
    """Carry a change out, also when it has to be awaited."""
    answer = change(filesystem, inode, handle)
    if isinstance(answer, Awaitable):
        await answer


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_what_turned_read_only_is_read_and_not_changed(
    volume: Volume, change: Callable[[Filesystem, InodeNumber, int], object]
) -> None:
    filesystem = volume.filesystem
    number, handle = volume.create(b"f")
    filesystem.make(ROOT_INODE, b"d", mode=stat.S_IFDIR | 0o755, owner=OWNER)
    filesystem.setxattr(number, b"user.a", b"1")
    await filesystem.write(handle, 0, b"hello")
    volume.database.commit()
    before = rows_of(volume.database)
    filesystem.turn_read_only("the desk has taken over")
    volume.clock.now += 2 * DAY_NS
    with pytest.raises(ReadOnly, match="the desk has taken over"):
        await finished(change, filesystem, number, handle)
    assert await filesystem.read(await filesystem.open(number, truncate=False), 0, 9) == b"hello"
    assert [line.name for line in filesystem.listing(ROOT_INODE, 0)] == [b".", b"..", b"f", b"d"]
    volume.database.commit()
    assert rows_of(volume.database) == before
