"""Reading, writing and truncating one file: what needs whom, and what is on hosts and on the disk after."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from layrfs.errors import LocalError, NoSpace, Unavailable
from layrfs.ids import InodeNumber
from layrfs.model.shards import ShardRecord
from layrfs.pipeline.transfers import TargetPart
from layrfs.vfs.blocks import ABSENT, CLEAN, DIRTY
from layrfs.vfs.contents import Contents
from layrfs.vfs.fetching import FAILED_SECONDS
from tests.caches import BLOCK, FILE, Cache, read, running, write
from tests.fakes.transfers import FakeTransfers

DATA = bytes(range(256)) * (3 * BLOCK // 256)


async def put_away(cache: Cache, data: bytes = DATA, inode: InodeNumber = FILE) -> None:
    """A file that is on hosts and not here."""
    await cache.put(inode, data)
    await cache.contents.flush_to_network(None)
    await cache.contents.drop_clean()
    cache.transfers.downloads.clear()
    cache.transfers.uploads.clear()


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return f"{tmp_path}/volume"


async def test_hot_paths_do_without_the_database(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory) as cache:
        cache.make()
        file = cache.contents.open(FILE)
        assert file.write_now(0, b"first")
        statements: list[str] = []
        cache.database._connection.exec_trace = lambda _cursor, sql, _bindings: bool(statements.append(sql)) or True
        assert file.write_now(5, b" and second")
        assert file.read_now(0, 20) == b"first and second".ljust(20, b"\0")
        cache.database._connection.exec_trace = None
        assert statements == []
        cache.contents.release(file)


async def test_absent_block_is_fetched_once_for_many_readers(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        await put_away(cache)
        file = cache.contents.open(FILE)
        assert file.read_now(0, 10) is None
        cache.transfers.delay_seconds = 1
        answers: list[bytes] = []

        async def reader(offset: int) -> None:
            answers.append(await file.read(offset, 100))

        async with trio.open_nursery() as nursery:
            for offset in (0, 50, BLOCK - 50, 2 * BLOCK):
                nursery.start_soon(reader, offset)
        assert sorted(answers) == sorted(DATA[o : o + 100] for o in (0, 50, BLOCK - 50, 2 * BLOCK))
        assert len(cache.transfers.downloads) == 1
        assert file.read_now(0, len(DATA)) == DATA
        cache.contents.release(file)


async def test_neighbours_in_a_shard_come_along(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory) as cache:
        small = {InodeNumber(100 + n): os.urandom(3000) for n in range(300)}
        for inode, data in small.items():
            await cache.put(inode, data)
        await cache.contents.flush_to_network(None)
        assert len(cache.transfers.uploads) == 1
        await cache.contents.drop_clean()
        assert not os.path.exists(cache.path(InodeNumber(100)))
        for inode, data in small.items():
            assert await cache.get(inode, 0, 3000) == data
        assert len(cache.transfers.downloads) == 1
        cache.check_sums()


async def test_write_to_a_neighbour_on_its_way_waits_and_wins(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        one, two = InodeNumber(100), InodeNumber(101)
        await cache.put(one, b"one" * 1000)
        await cache.put(two, b"two" * 1000)
        await cache.contents.flush_to_network(None)
        await cache.contents.drop_clean()
        other = cache.contents.open(two)
        cache.transfers.delay_seconds = 5
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.get, one, 0, 10)
            await trio.sleep(1)
            assert not other.write_now(0, b"new" * 1000)
            await other.write(0, b"new" * 1000)
        assert await read(other, 0, 3000) == b"new" * 1000
        assert cache.local(two) == {0: 1}
        cache.contents.release(other)
        cache.check_sums()


async def test_deleted_neighbour_leaves_nothing_behind(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory) as cache:
        one, two = InodeNumber(100), InodeNumber(101)
        await cache.put(one, b"one" * 1000)
        await cache.put(two, b"two" * 1000)
        await cache.contents.flush_to_network(None)
        await cache.contents.drop_clean()
        cache.transfers.delay_seconds = 5
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.get, one, 0, 10)
            await trio.sleep(1)
            cache.delete(two)
        await trio.sleep(5)
        assert not os.path.exists(cache.path(two))
        assert cache.local(two) == {}
        cache.check_sums()
        cache.check_idle()


async def test_partial_write_fetches_and_full_overwrite_does_not(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        await put_away(cache, DATA[: 2 * BLOCK + 500])
        file = cache.contents.open(FILE)
        await write(file, 0, b"y" * BLOCK)
        await write(file, 2 * BLOCK, b"z" * 500)
        assert cache.transfers.downloads == []
        assert [file.states[block] for block in range(3)] == [DIRTY, ABSENT, DIRTY]
        await write(file, BLOCK + 10, b"!")
        assert len(cache.transfers.downloads) == 1
        expected = bytearray(b"y" * BLOCK + DATA[BLOCK : 2 * BLOCK] + b"z" * 500)
        assert cache.local(FILE) == {0: 1, 1: 1, 2: 1}
        expected[BLOCK + 10] = ord("!")
        assert await read(file, 0, len(expected)) == expected
        cache.contents.release(file)
        cache.check_sums()


async def test_write_at_the_front_of_an_absent_block_keeps_the_rest(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        await put_away(cache)
        file = cache.contents.open(FILE)
        await write(file, 0, b"!" * 20)
        assert await read(file, 0, len(DATA)) == b"!" * 20 + DATA[20:]
        cache.contents.release(file)


async def test_truncating_an_absent_block_needs_no_fetch_and_extending_reads_zeros(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        await put_away(cache)
        cut = BLOCK + 1000
        file = cache.contents.open(FILE)
        await file.truncate(len(DATA), cut)
        await file.truncate(cut, len(DATA))
        assert cache.transfers.downloads == []
        assert await read(file, 0, len(DATA)) == DATA[:cut] + bytes(len(DATA) - cut)
        cache.contents.release(file)
        assert cache.contents.state(FILE) == "safe"
        cache.check_sums()


async def test_truncating_a_clean_block_keeps_it_clean(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory) as cache:
        await cache.put(FILE, DATA)
        await cache.contents.flush_to_network(None)
        file = cache.contents.open(FILE)
        await file.truncate(len(DATA), 1000)
        assert file.states == {0: CLEAN}
        assert await read(file, 0, 2000) == DATA[:1000] + bytes(1000)
        cache.contents.release(file)
        cache.check_sums()
        await cache.contents.drop_clean()
        assert await cache.get(FILE, 0, 2000) == DATA[:1000] + bytes(1000)


async def test_zeros_become_holes(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory) as cache:
        await cache.put(FILE, DATA[:BLOCK] + bytes(BLOCK) + DATA[:BLOCK])
        await cache.contents.flush_to_network(None)
        assert cache.local(FILE) == {0: 0, 2: 0}
        assert [(run.first, run.local) for run in cache.contents.runs(FILE, 4)] == [
            (0, "clean"),
            (1, "hole"),
            (2, "clean"),
            (3, "hole"),
        ]
        assert os.stat(cache.path(FILE)).st_blocks <= (2 * BLOCK + 65536) // 512
        cache.check_sums()


async def test_equal_blocks_are_stored_once(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory) as cache:
        await cache.put(FILE, DATA)
        await cache.contents.flush_to_network(None)
        stored = len(cache.transfers.payloads)
        await cache.put(InodeNumber(8), DATA)
        await cache.contents.flush_to_network(None)
        assert len(cache.transfers.payloads) == stored
        await cache.contents.drop_clean()
        assert await cache.get(InodeNumber(8), 0, len(DATA)) == DATA


async def test_sequential_reader_is_fetched_ahead_of_and_random_is_not(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    block = 4 << 20
    async with running(directory) as cache:
        cache.block_bytes[FILE] = block
        for number in range(12):
            await cache.put(FILE, (number + 1).to_bytes(2, "big") * (block // 2), number * block)
        await cache.contents.flush_to_network(None)
        await cache.contents.drop_clean()
        cache.transfers.downloads.clear()
        for offset in (3 * block, 9 * block, 6 * block):
            assert await cache.get(FILE, offset, 2) == (offset // block + 1).to_bytes(2, "big")
        await trio.sleep(1)
        assert len(cache.transfers.downloads) == 3
        await cache.contents.drop_clean()
        cache.transfers.downloads.clear()
        file = cache.contents.open(FILE)
        for offset in range(0, 2 * block, 1 << 20):
            await read(file, offset, 1 << 20)
        await trio.sleep(1)
        assert [urgent for _shard, urgent in cache.transfers.downloads].count(True) == 1
        assert [file.states[number] for number in range(12)] == [CLEAN] * 4 + [ABSENT] * 8
        cache.contents.release(file)


async def test_unreachable_shard_fails_its_range_only_and_heals(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        await put_away(cache)
        await cache.put(InodeNumber(8), b"elsewhere" * 5000)
        await cache.contents.flush_to_network(None)
        cache.transfers.failure = Unavailable("Nobody answers.")
        with pytest.raises(Unavailable, match="Nobody answers"):
            await cache.get(FILE, 0, 10)
        assert cache.contents.state(FILE) == "lost"
        assert cache.contents.state(InodeNumber(8)) == "safe"
        assert await cache.get(InodeNumber(8), 0, 9) == b"elsewhere"
        cache.check_idle()
        cache.transfers.failure = None
        asked = len(cache.transfers.downloads)
        with pytest.raises(Unavailable, match="Nobody answers"):
            await cache.get(FILE, 0, 10)
        assert len(cache.transfers.downloads) == asked, "who asks again at once waits for no host again"
        await trio.sleep(FAILED_SECONDS)
        assert await cache.get(FILE, 0, len(DATA)) == DATA
        assert cache.contents.state(FILE) == "safe"
        cache.check_sums()


async def test_failed_fetch_leaves_nothing_behind(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    class HalfWritten(FakeTransfers):
        async def download(self, shard: ShardRecord, targets: Sequence[TargetPart], *, urgent: bool) -> None:
            await super().download(shard, [], urgent=urgent)
            for target in targets:
                Path(target.path).write_bytes(b"garbage")
            raise LocalError("The disk broke.")

    async with running(directory, HalfWritten()) as cache:
        await put_away(cache, b"small" * 100)
        with pytest.raises(LocalError):
            await cache.get(FILE, 0, 10)
        assert os.stat(cache.path(FILE)).st_blocks == 0
        cache.check_idle()


async def test_removed_file_goes_when_released(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory) as cache:
        await cache.put(FILE, DATA)
        file = cache.contents.open(FILE)
        cache.delete(FILE)
        assert await read(file, 0, 10) == DATA[:10]
        cache.contents.release(file)
        assert cache.local(FILE) == {}
        assert cache.contents.stats().dirty_bytes == cache.contents.stats().dirty_blocks == 0
        await trio.sleep(1)
        assert not os.path.exists(cache.path(FILE))


async def test_file_opened_again_while_its_first_close_waited_is_closed_once(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache, trio.open_nursery() as nursery:
        await put_away(cache)
        file = cache.contents.open(FILE)
        cache.transfers.hold()
        nursery.start_soon(read, file, BLOCK, 10)
        await trio.testing.wait_all_tasks_blocked()
        await write(file, 4 * BLOCK, b"x")
        cache.contents.release(file)  # waits: a block is on its way into its cache file
        again = cache.contents.open(FILE)
        assert again is file
        cache.transfers.release()
        await trio.testing.wait_all_tasks_blocked()
        cache.contents.release(again)
        await trio.sleep(2)  # the housekeeper comes by
        assert await cache.get(FILE, 4 * BLOCK, 1) == b"x"


async def test_huge_file_is_removed_in_steps(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory) as cache:
        cache.database.write_many("INSERT INTO block VALUES(7, ?, 1, 5)", [(block,) for block in range(5000)])
        cache.database.write_many("INSERT INTO local VALUES(7, ?, 0)", [(block,) for block in range(5000)])
        cache.contents.remove(FILE)
        assert len(cache.local(FILE)) == 5000 - 1024
        await trio.sleep(1)
        assert cache.local(FILE) == {}
        assert cache.database.value("SELECT count(*) FROM block") == 0


async def test_states_tell_the_worst_of_a_file(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory, FakeTransfers(hosts=2)) as cache:
        await cache.put(FILE, DATA)
        assert cache.contents.state(FILE) == "cached"
        assert cache.contents.usage(FILE) == (len(DATA), len(DATA))
        cache.transfers.hold()
        await trio.sleep(5)
        assert cache.contents.state(FILE) == "uploading"
        assert cache.contents.stats().uploading_bytes == len(DATA)
        cache.transfers.release()
        await trio.sleep(1)
        assert cache.contents.state(FILE) == "degraded"
        assert cache.contents.stats().degraded_shards == 1
        assert cache.contents.usage(FILE) == (len(DATA), 0)
        cache.transfers.hosts = 3
        cache.patcher.hosts_appeared()
        await trio.sleep(1)
        assert cache.contents.state(FILE) == "safe"
        assert [(run.count, run.pieces, run.wanted) for run in cache.contents.runs(FILE, 3)] == [(3, 3, 3)]


async def test_sync_puts_a_file_and_its_name_on_the_disk(
    directory: str, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    for call in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, call, lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    async with running(directory) as cache:
        await cache.put(FILE, DATA)
        synced.clear()
        await cache.contents.sync(FILE)
        assert synced == [cache.path(FILE), os.path.dirname(cache.path(FILE)), f"{directory}/cache"]
        synced.clear()
        await cache.contents.sync(FILE)
        assert synced == [cache.path(FILE)]
        await cache.contents.sync(None)


async def test_first_change_of_a_clean_block_syncs_the_rest_of_it_and_commits(
    directory: str, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(directory) as cache:
        await cache.put(FILE, DATA)
        await cache.contents.flush_to_network(None)
        synced: list[int] = []
        monkeypatch.setattr(os, "fdatasync", synced.append)
        file = cache.contents.open(FILE)
        assert not file.write_now(5, b"x")
        await file.write(5, b"x")
        assert len(synced) == 1
        commits = cache.database._commits
        assert file.write_now(BLOCK, b"x")
        assert (len(synced), cache.database._commits) == (1, commits + 1)
        assert file.write_now(BLOCK, b"y")
        assert cache.database._commits == commits + 1
        cache.contents.release(file)


def test_every_part_is_reachable_without_hosts(directory: str) -> None:
    """`cache drop` on a volume that is not mounted."""

    async def drop() -> int:
        cache = Cache(directory, FakeTransfers())
        freed = await cache.contents.drop_clean()
        cache.contents.close()
        cache.database.close()
        return freed

    async def fill() -> None:
        async with running(directory) as cache:
            await cache.put(FILE, DATA)
            await cache.contents.flush_to_network(None)
            await cache.put(InodeNumber(8), b"dirty")

    trio.run(fill, clock=trio.testing.MockClock(autojump_threshold=0))
    assert trio.run(drop) == len(DATA)
    assert Contents.__doc__
    assert os.listdir(f"{directory}/cache/0") == ["8"]


async def test_file_closed_while_it_is_being_filled_and_again_afterwards_is_closed_once(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        await put_away(cache)
        cache.transfers.hold()
        file = cache.contents.open(FILE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, file, 0, 10)
            await trio.sleep(0.01)
            assert file.write_now(len(DATA) + BLOCK, b"dirty")
            nursery.cancel_scope.cancel()
        cache.contents.release(file)
        assert cache.contents.open(FILE) is file, "its cache file still grows"
        cache.transfers.release()
        await trio.sleep(0.1)
        cache.contents.release(file)
        await trio.sleep(2)
        assert await cache.get(FILE, 0, len(DATA)) == DATA


@pytest.mark.parametrize("at", [BLOCK, 2 * BLOCK])
async def test_a_write_that_fails_midway_leaves_nothing_where_nothing_is_here(
    directory: str, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    real, data = os.pwrite, b"x" * (BLOCK + 100)

    def fill(fd: int, data: bytes, offset: int) -> int:
        if offset % BLOCK:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data[: BLOCK // 2], offset)

    async with running(directory) as cache:
        await cache.put(FILE, data)
        await cache.contents.flush_to_network(None)
        await cache.contents.drop_clean()
        file = cache.contents.open(FILE)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", fill)
            with pytest.raises(NoSpace):
                await write(file, at, b"n" * BLOCK)
        assert await read(file, 0, 3 * BLOCK) == data.ljust(3 * BLOCK, b"\0")
        assert cache.local(FILE) == {0: 0, 1: 0}
        assert os.stat(cache.path(FILE)).st_size <= file.end
        cache.contents.release(file)


async def test_a_clean_block_is_not_changed_while_the_flush_it_needs_is_under_way(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    flushed = trio.Event()

    async def slowly(work: Callable[[], None]) -> None:
        await flushed.wait()
        work()

    async with running(directory, in_thread=slowly) as cache:
        await cache.put(FILE, DATA)
        await cache.contents.flush_to_network(None)
        file = cache.contents.open(FILE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.write, 5, b"first")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(file.write, BLOCK + 5, b"second")
            await trio.testing.wait_all_tasks_blocked()
            assert cache.local(FILE) == {0: 0, 1: 0, 2: 0}
            flushed.set()
        assert cache.local(FILE) == {0: 1, 1: 1, 2: 0}
        cache.contents.release(file)
