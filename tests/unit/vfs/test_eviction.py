"""The limit of the cache: what leaves, what never does, and who waits or is told that there is no room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
import trio.testing

from layrfs.errors import NoSpace, Unavailable
from layrfs.ids import InodeNumber
from layrfs.vfs.blocks import ABSENT, CLEAN
from layrfs.vfs.eviction import LONGEST_STALL_SECONDS, STALL_SECONDS
from tests.caches import BLOCK, FILE, Cache, read, running, write

LIMIT = 20 * BLOCK


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return f"{tmp_path}/volume"


async def store(cache: Cache, inode: InodeNumber, blocks: int) -> bytes:
    data = os.urandom(blocks * BLOCK)
    await cache.put(inode, data)
    await cache.contents.flush_to_network(None)
    await trio.sleep(2)
    cache.database.commit()
    return data


def in_cache(cache: Cache) -> set[int]:
    return {row[0] for row in cache.database.rows("SELECT DISTINCT inode FROM local")}


async def test_least_recently_used_file_leaves_first(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory, cache_bytes=LIMIT) as cache:
        one, two, three = (InodeNumber(number) for number in (1, 2, 3))
        await store(cache, one, 7)
        await store(cache, two, 7)
        await cache.get(one, 0, 10)
        await trio.sleep(2)
        cache.database.commit()
        await store(cache, three, 7)
        assert one in in_cache(cache)
        assert three in in_cache(cache)
        assert len(cache.local(two)) < 7
        assert cache.contents.stats().cached_bytes <= LIMIT
        cache.check_sums()


async def test_limit_holds_whatever_is_read(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory, cache_bytes=LIMIT) as cache:
        data = [await store(cache, InodeNumber(100 + n), 5) for n in range(10)]
        for n in (*range(10), 3, 7, 1):
            assert await cache.get(InodeNumber(100 + n), 0, 5 * BLOCK) == data[n]
            assert cache.contents.stats().cached_bytes <= LIMIT + 5 * BLOCK
            cache.check_sums()
        used = sum(os.stat(cache.path(InodeNumber(100 + n))).st_blocks * 512 for n in range(10) if cache.local(100 + n))
        assert used <= LIMIT + 5 * BLOCK
        assert all(os.path.exists(cache.path(inode)) == bool(cache.local(inode)) for inode in range(100, 110))


async def test_blocks_of_a_huge_open_file_leave_oldest_first(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory, cache_bytes=LIMIT) as cache:
        await store(cache, FILE, 15)
        file = cache.contents.open(FILE)
        for block in (*range(14, 4, -1), *range(5)):
            await read(file, block * BLOCK, 100)
            await trio.sleep(1)
        await store(cache, InodeNumber(8), 9)
        assert [file.states[block] for block in (14, 13, 12, 11)] == [ABSENT] * 4
        assert [file.states[block] for block in range(5)] == [CLEAN] * 5
        assert os.stat(cache.path(FILE)).st_blocks * 512 <= 11 * BLOCK
        cache.contents.release(file)
        cache.check_sums()


async def test_dirty_blocks_never_leave(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory) as cache:
        cache.transfers.failure = Unavailable("No host.")
        data = os.urandom(5 * BLOCK)
        await cache.put(FILE, data)
        assert await cache.contents.drop_clean() == 0
        assert await cache.get(FILE, 0, len(data)) == data
        cache.check_sums()


async def test_writer_waits_while_uploads_make_room(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory, cache_bytes=LIMIT) as cache:
        cache.transfers.delay_seconds = 3
        data = os.urandom(100 * BLOCK)
        cache.make()
        file = cache.contents.open(FILE)
        for offset in range(0, len(data), BLOCK):
            await write(file, offset, data[offset : offset + BLOCK])
            assert cache.contents.stats().cached_bytes <= LIMIT
        cache.contents.release(file)
        await cache.contents.flush_to_network(None)
        assert await cache.get(FILE, 0, len(data)) == data
        cache.check_sums()


async def test_no_room_when_uploads_make_no_progress_and_again_at_once(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory, cache_bytes=LIMIT) as cache:
        cache.transfers.failure = Unavailable("No host.")
        await cache.put(FILE, os.urandom(20 * BLOCK))
        cache.make(InodeNumber(8))
        file = cache.contents.open(InodeNumber(8))
        started = trio.current_time()
        with pytest.raises(NoSpace):
            await write(file, 0, b"x" * BLOCK)
        assert 29 <= trio.current_time() - started <= 32
        with pytest.raises(NoSpace):
            await write(file, 0, b"x" * BLOCK)
        assert trio.current_time() - started <= 32
        assert file.states == {}
        cache.transfers.failure = None
        cache.contents.hosts_appeared()
        await trio.sleep(1)
        await write(file, 0, b"x" * BLOCK)
        cache.contents.release(file)
        assert cache.contents.stats().cached_bytes <= LIMIT
        cache.check_sums()


async def test_limit_holds_when_the_ends_of_many_blocks_are_written_first(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory, cache_bytes=LIMIT) as cache:
        cache.transfers.failure = Unavailable("No host.")
        cache.make()
        file = cache.contents.open(FILE)
        ends = iter(range(1, 1000))
        while file.write_now(next(ends) * BLOCK - 4096, b"x" * 4096):
            pass
        assert LIMIT - BLOCK <= cache.contents.stats().cached_bytes <= LIMIT + 2 * BLOCK
        cache.contents.release(file)


@pytest.mark.parametrize("ended_by", ["uploads", "deletion"])
async def test_a_stall_that_is_over_is_not_held_against_later_writers(
    directory: str, autojump_clock: trio.testing.MockClock, ended_by: str
) -> None:
    async with running(directory, cache_bytes=LIMIT) as cache:
        cache.transfers.failure = Unavailable("No host answers.")
        await cache.put(FILE, os.urandom(LIMIT))
        with pytest.raises(NoSpace):
            await cache.put(InodeNumber(8), b"x" * BLOCK)
        if ended_by == "uploads":
            cache.transfers.failure = None
            cache.contents.hosts_appeared()
            await cache.contents.flush_to_network(None)
            await cache.contents.drop_clean()
        else:
            cache.delete(FILE)
        await trio.sleep(120)
        cache.transfers.failure = Unavailable("No host answers.")
        await cache.put(InodeNumber(9), os.urandom(LIMIT))
        started = trio.current_time()
        with pytest.raises(NoSpace):
            await cache.put(InodeNumber(10), b"x" * BLOCK)
        assert trio.current_time() - started >= STALL_SECONDS - 1


async def test_free_space_on_the_disk_is_kept(
    directory: str, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(directory, keep_free_bytes=1000 * BLOCK, stall_seconds=5) as cache:
        await store(cache, FILE, 10)
        free_bytes = 1005 * BLOCK
        monkeypatch.setattr(cache.contents._shelf.files, "free_bytes", lambda: free_bytes)
        cache.transfers.failure = Unavailable("No host.")
        await trio.sleep(1)
        assert cache.contents.stats().room_bytes == 5 * BLOCK
        free_bytes = 995 * BLOCK
        await trio.sleep(1)
        assert in_cache(cache) == set()
        cache.make(InodeNumber(8))
        file = cache.contents.open(InodeNumber(8))
        with pytest.raises(NoSpace):
            await write(file, 0, b"x" * BLOCK)
        cache.contents.release(file)


async def test_no_room_for_metadata_is_no_room(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory, stall_seconds=5) as cache:
        cache.make()
        file = cache.contents.open(FILE)
        cache.database.has_room = False
        await trio.sleep(1)
        with pytest.raises(NoSpace):
            await write(file, 0, b"x")
        cache.contents.release(file)


async def test_write_larger_than_the_cache_still_goes(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory, cache_bytes=BLOCK) as cache:
        await cache.put(FILE, b"x" * (3 * BLOCK))
        await cache.contents.flush_to_network(None)
        assert await cache.get(FILE, 0, 3 * BLOCK) == b"x" * (3 * BLOCK)


async def test_file_opened_and_extended_while_it_leaves_keeps_its_bytes(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    """The cache file is deleted in a thread: what is written meanwhile must not go into the deleted one."""
    gate = trio.Event()
    slow = False

    async def thread(work):  # type: ignore[no-untyped-def]
        if slow:
            await gate.wait()
        work()

    async with running(directory, in_thread=thread) as cache:
        data = await store(cache, FILE, 2)
        async with trio.open_nursery() as nursery:
            slow = True
            nursery.start_soon(cache.contents.drop_clean)
            await trio.sleep(1)
            file = cache.contents.open(FILE)
            assert file.read_now(2 * BLOCK, 5) == bytes(5)
            assert not file.write_now(2 * BLOCK, b"extended")
            nursery.start_soon(file.write, 2 * BLOCK, b"extended")
            await trio.sleep(1)
            gate.set()
        assert await read(file, 0, 2 * BLOCK + 8) == data + b"extended"
        cache.contents.release(file)
        assert await cache.get(FILE, 2 * BLOCK, 8) == b"extended"
        cache.check_sums()
        cache.check_idle()


async def test_a_last_copy_never_leaves_and_what_hosts_have_too_few_of_leaves_last(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    last, few, safe, more = (InodeNumber(number) for number in range(10, 14))
    async with running(directory, cache_bytes=LIMIT) as cache:
        hosts, data = cache.transfers, await store(cache, last, 7)
        hosts.gone = hosts.living_hosts()
        for shard in cache.catalog.shards_of(last):
            cache.catalog.reach.distrust(shard)
        hosts.hosts = 1
        await store(cache, few, 6)
        hosts.hosts = 5
        await store(cache, safe, 6)
        await store(cache, more, 6)
        assert len(cache.local(last)) == 7
        assert len(cache.local(few)) == 6
        assert len(cache.local(safe)) < 6
        await cache.contents.drop_clean()
        assert in_cache(cache) == {last}
        assert await cache.get(last, 0, 7 * BLOCK) == data
        cache.check_sums()
        hosts.gone.clear()
        await cache.contents.drop_clean()
        assert in_cache(cache) == set()


async def test_writers_wait_while_bytes_move_however_slowly_but_not_for_ever(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory, cache_bytes=LIMIT) as cache:
        cache.transfers.hold()
        await cache.put(FILE, os.urandom(20 * BLOCK))
        cache.make(InodeNumber(8))
        file = cache.contents.open(InodeNumber(8))
        started = trio.current_time()

        async def move() -> None:
            while True:
                cache.transfers.last_moved = trio.current_time()
                await trio.sleep(10)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(move)
            with pytest.raises(NoSpace):
                await write(file, 0, b"x" * BLOCK)
            nursery.cancel_scope.cancel()
        assert trio.current_time() - started == pytest.approx(LONGEST_STALL_SECONDS + STALL_SECONDS, abs=15)
        cache.transfers.release()
        cache.contents.release(file)
