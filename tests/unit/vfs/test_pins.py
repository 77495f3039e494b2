"""Pins: what stays whatever else needs room, how a pin spreads, and how what is missing comes here."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import trio
import trio.testing

from layrfs.errors import NoSpace, Unavailable
from layrfs.ids import ROOT_INODE, InodeNumber
from layrfs.storage.tree import Tree
from layrfs.vfs.attributes import Owner
from layrfs.vfs.filesystem import Filesystem
from layrfs.vfs.inodes import Inodes
from layrfs.vfs.statfs import Space
from tests.caches import BLOCK, FILE, Cache, running, write

LIMIT = 20 * BLOCK
OWNER = Owner(1000, 100)
OTHER = InodeNumber(8)


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return f"{tmp_path}/volume"


def ignore(_here: int, _missing: int) -> None:
    """Progress nobody looks at."""


async def store(cache: Cache, inode: InodeNumber, blocks: int) -> bytes:
    data = os.urandom(blocks * BLOCK)
    await cache.put(inode, data)
    await cache.contents.flush_to_network(None)
    await trio.sleep(2)
    cache.database.commit()
    return data


def filesystem_of(cache: Cache) -> Filesystem:
    tree = Tree(cache.database)
    inodes = Inodes(tree)
    space = Space(10**9, 10**8)
    return Filesystem(cache.database, tree, inodes, cache.contents, space=lambda: space, owner=OWNER)


def make(filesystem: Filesystem, parent: InodeNumber, name: bytes, kind: int = stat.S_IFDIR) -> InodeNumber:
    return filesystem.make(parent, name, mode=kind | 0o755, owner=OWNER).number


# ---- staying


async def test_pinned_blocks_stay_under_pressure_and_when_the_cache_is_dropped(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory, cache_bytes=LIMIT) as cache:
        pinned = await store(cache, FILE, 10)
        cache.contents.pins.pin(FILE)
        for number in range(100, 110):
            await store(cache, InodeNumber(number), 5)
        assert cache.local(FILE) == dict.fromkeys(range(10), 0)
        assert cache.contents.stats().cached_bytes <= LIMIT
        await cache.contents.drop_clean()
        assert cache.local(FILE) == dict.fromkeys(range(10), 0)
        assert not cache.local(InodeNumber(109))
        cache.transfers.failure = Unavailable("No host.")
        assert await cache.get(FILE, 0, len(pinned)) == pinned
        cache.check_sums()


async def test_blocks_of_an_open_pinned_file_stay(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory, cache_bytes=LIMIT) as cache:
        await store(cache, FILE, 10)
        cache.contents.pins.pin(FILE)
        file = cache.contents.open(FILE)
        await store(cache, OTHER, 15)
        await cache.contents.drop_clean()
        assert cache.local(FILE) == dict.fromkeys(range(10), 0)
        cache.contents.release(file)


async def test_unpinned_again_it_leaves(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory, cache_bytes=LIMIT) as cache:
        await store(cache, FILE, 10)
        cache.contents.pins.pin(FILE)
        cache.contents.pins.unpin(FILE)
        assert not cache.contents.pins.any
        await cache.contents.drop_clean()
        assert not cache.local(FILE)


async def test_pins_beyond_the_limit_stay_and_leave_writers_a_minimum(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    limit = 32 * BLOCK
    async with running(directory, cache_bytes=limit) as cache:
        cache.contents.pins.pin(cache.make())
        pinned = await store(cache, FILE, 50)
        assert len(cache.local(FILE)) == 50
        others = [await store(cache, InodeNumber(100 + number), 3) for number in range(10)]
        assert len(cache.local(FILE)) == 50
        assert cache.contents.stats().cached_bytes <= (50 + 4) * BLOCK
        cache.transfers.failure = Unavailable("No host.")
        await cache.put(OTHER, b"x" * (4 * BLOCK))  # an eighth of the limit, whatever is pinned
        cache.make(InodeNumber(9))
        file = cache.contents.open(InodeNumber(9))
        with pytest.raises(NoSpace):
            await write(file, 0, b"x" * BLOCK)
        cache.contents.release(file)
        cache.transfers.failure = None
        cache.contents.hosts_appeared()
        assert await cache.get(FILE, 0, len(pinned)) == pinned
        assert await cache.get(InodeNumber(103), 0, 3 * BLOCK) == others[3]
        cache.check_sums()


# ---- fetching


async def test_what_is_missing_is_fetched_and_waited_for(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        data = {InodeNumber(number): await store(cache, InodeNumber(number), 9) for number in range(100, 110)}
        await cache.contents.drop_clean()
        cache.transfers.delay_seconds = 1
        seen: list[int] = []
        for inode in data:
            cache.contents.pins.pin(inode)
        await cache.contents.pins.wait(lambda _here, missing: seen.append(missing))
        assert all(cache.local(inode) == dict.fromkeys(range(9), 0) for inode in data)
        assert max(seen) > 89 * BLOCK
        assert len(set(seen)) >= 3, "progress is told"
        assert cache.contents.pins.stats().here_bytes == 90 * BLOCK
        assert not any(urgent for _shard, urgent in cache.transfers.downloads)
        cache.check_sums()
        cache.check_idle()


async def test_a_pin_outlives_the_mount_and_is_fetched_after_it(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        data, transfers = await store(cache, FILE, 5), cache.transfers
        await cache.contents.drop_clean()
        cache.transfers.failure = Unavailable("No host.")
        cache.contents.pins.pin(FILE)
        await trio.sleep(1)
        assert "No host" in (cache.contents.pins.stats().problem or "")
        assert cache.contents.pins.stats().missing_bytes == len(data)
    transfers.failure = None
    async with running(directory, transfers) as cache:
        await cache.contents.pins.wait(ignore)
        assert cache.local(FILE) == dict.fromkeys(range(5), 0)


async def test_hosts_that_come_back_end_the_pause(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory) as cache:
        await store(cache, FILE, 5)
        await cache.contents.drop_clean()
        cache.transfers.failure = Unavailable("No host.")
        cache.contents.pins.pin(FILE)
        await trio.sleep(100)
        cache.transfers.failure = None
        cache.contents.hosts_appeared()
        before = trio.current_time()
        await cache.contents.pins.wait(ignore)
        assert trio.current_time() - before < 1
        assert cache.contents.pins.stats().problem is None


async def test_fetching_for_pins_leaves_the_disk_its_free_space(
    directory: str, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(directory, keep_free_bytes=100 * BLOCK) as cache:
        await store(cache, FILE, 8)
        await cache.contents.drop_clean()
        monkeypatch.setattr(cache.contents._shelf.files, "free_bytes", lambda: 101 * BLOCK)
        cache.contents.pins.pin(FILE)
        await trio.sleep(10)
        assert not cache.local(FILE)
        assert "too full" in (cache.contents.pins.stats().problem or "")


async def test_a_pinned_file_deleted_on_its_way_here_is_nobodys_problem(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        await store(cache, FILE, 5)
        await store(cache, OTHER, 5)
        await cache.contents.drop_clean()
        cache.transfers.hold()
        cache.contents.pins.pin(FILE)
        cache.contents.pins.pin(OTHER)
        await trio.sleep(1)
        cache.delete(FILE)
        cache.transfers.release()
        await cache.contents.pins.wait(ignore)
        assert not cache.local(FILE)
        assert not cache.contents.pins.is_pinned(FILE)
        assert cache.local(OTHER) == dict.fromkeys(range(5), 0)
        cache.check_sums()


# ---- spreading


async def test_a_pinned_directory_is_all_that_is_or_comes_below(directory: str) -> None:
    async with running(directory) as cache:
        filesystem, pins = filesystem_of(cache), cache.contents.pins
        top = make(filesystem, ROOT_INODE, b"top")
        below = make(filesystem, top, b"below")
        old = make(filesystem, below, b"old", stat.S_IFREG)
        aside = make(filesystem, ROOT_INODE, b"aside")
        pins.pin(top)
        new = make(filesystem, below, b"new", stat.S_IFREG)
        newer = make(filesystem, make(filesystem, below, b"more"), b"newer", stat.S_IFREG)
        assert all(pins.is_pinned(number) for number in (top, below, old, new, newer))
        assert not pins.is_pinned(aside)
        assert not pins.is_pinned(ROOT_INODE)
        assert await pins.topmost() == [top]
        pins.unpin(top)
        assert not any(pins.is_pinned(number) for number in (top, below, old, new, newer))
        assert await pins.topmost() == []


async def test_moving_in_pins_and_moving_out_does_not_unpin(directory: str) -> None:
    async with running(directory) as cache:
        filesystem, pins = filesystem_of(cache), cache.contents.pins
        kept = make(filesystem, ROOT_INODE, b"kept")
        moved = make(filesystem, ROOT_INODE, b"moved")
        inside = make(filesystem, moved, b"inside", stat.S_IFREG)
        linked = make(filesystem, ROOT_INODE, b"linked", stat.S_IFREG)
        pins.pin(kept)
        filesystem.rename(ROOT_INODE, b"moved", kept, b"moved")
        filesystem.link(linked, kept, b"linked")
        assert all(pins.is_pinned(number) for number in (moved, inside, linked))
        filesystem.rename(kept, b"moved", ROOT_INODE, b"moved")
        assert pins.is_pinned(moved)
        assert pins.is_pinned(inside)
        assert await pins.topmost() == [kept, moved]


async def test_what_takes_the_place_of_a_pinned_file_is_pinned(directory: str) -> None:
    async with running(directory) as cache:
        filesystem, pins = filesystem_of(cache), cache.contents.pins
        old = make(filesystem, ROOT_INODE, b"letter", stat.S_IFREG)
        pins.pin(old)
        saved = make(filesystem, ROOT_INODE, b"letter.new", stat.S_IFREG)
        other = make(filesystem, ROOT_INODE, b"other", stat.S_IFREG)
        filesystem.rename(ROOT_INODE, b"letter.new", ROOT_INODE, b"letter")
        assert pins.is_pinned(saved)
        assert not pins.is_pinned(other)


async def test_exchanged_names_take_the_pin_of_their_directory(directory: str) -> None:
    async with running(directory) as cache:
        filesystem, pins = filesystem_of(cache), cache.contents.pins
        kept = make(filesystem, ROOT_INODE, b"kept")
        one, two = make(filesystem, kept, b"one", stat.S_IFREG), make(filesystem, ROOT_INODE, b"two", stat.S_IFREG)
        pins.pin(kept)
        filesystem.exchange(kept, b"one", ROOT_INODE, b"two")
        assert pins.is_pinned(one)
        assert pins.is_pinned(two)


async def test_removed_directories_leave_no_rows(directory: str) -> None:
    async with running(directory) as cache:
        filesystem, pins = filesystem_of(cache), cache.contents.pins
        kept = make(filesystem, ROOT_INODE, b"kept")
        pins.pin(kept)
        below = make(filesystem, kept, b"below")
        filesystem.rmdir(kept, b"below")
        filesystem.forget([(below, 1)])
        assert cache.database.value("SELECT count(*) FROM local_use") == 1
