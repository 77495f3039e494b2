"""What a mount finds: after a proper stop, after ``kill -9``, and after the machine lost its page cache."""

from __future__ import annotations

import errno
import os
import shutil
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from layrfs.errors import LocalError
from layrfs.ids import InodeNumber
from layrfs.storage.cache_files import CacheFiles
from layrfs.vfs.cutting import cut
from tests.caches import BLOCK, FILE, Cache, Killed, read, running, write
from tests.fakes.transfers import FakeTransfers

OTHER = InodeNumber(8)
DATA = bytes(range(256)) * (3 * BLOCK // 256)


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return f"{tmp_path}/volume"


@asynccontextmanager
async def killed(directory: str, transfers: FakeTransfers):  # type: ignore[no-untyped-def]
    """Like ``running``, but ends in a kill; after it, transfers wait until they are released."""
    async with running(directory, transfers) as cache:
        yield cache
        raise Killed
    transfers.hold()


async def test_remount_knows_what_is_cached_and_what_has_to_go(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        await cache.put(FILE, DATA)
        await cache.contents.flush_to_network(None)
        await cache.put(OTHER, b"not yet")
        before = cache.contents.stats()
        transfers = cache.transfers
    transfers.hold()
    async with running(directory, transfers) as cache:
        after = cache.contents.stats()
        assert (after.clean_bytes, after.dirty_bytes) == (before.clean_bytes, before.dirty_bytes)
        assert await cache.get(FILE, 0, len(DATA)) == DATA
        assert transfers.downloads == []
        transfers.release()
        await trio.sleep(3)
        assert cache.contents.state(OTHER) == "safe"
        cache.check_sums()


async def test_cache_files_of_no_inode_are_removed(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory) as cache:
        await cache.put(FILE, DATA)
        transfers = cache.transfers
    stray = f"{directory}/cache/0/1f"
    Path(stray).write_bytes(b"left over")
    async with running(directory, transfers) as cache:
        await trio.sleep(1)
        assert not os.path.exists(stray)
        assert await cache.get(FILE, 0, 10) == DATA[:10]


async def test_kill_after_a_clean_block_changed_finds_it_dirty(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    transfers = FakeTransfers()
    async with killed(directory, transfers) as cache:
        await cache.put(FILE, DATA)
        await cache.contents.flush_to_network(None)
        cache.database.commit()
        file = cache.contents.open(FILE)
        await write(file, BLOCK + 5, b"changed")
    async with running(directory, transfers) as cache:
        assert cache.local(FILE)[1] == 1
        transfers.release()
        assert await cache.get(FILE, BLOCK, 20) == DATA[:5] + b"changed" + DATA[12:20]
        cache.check_sums()


async def test_kill_before_a_new_block_was_committed_keeps_it_all_the_same(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    transfers = FakeTransfers()
    async with killed(directory, transfers) as cache:
        cache.make(FILE, 4 * BLOCK)
        cache.database.commit()
        file = cache.contents.open(FILE)
        assert file.write_now(2 * BLOCK, b"never committed")
        assert file.write_now(5 * BLOCK, b"beyond the size that was")
    async with running(directory, transfers) as cache:
        assert cache.local(FILE) == {2: 1}
        transfers.release()
        assert await cache.get(FILE, 2 * BLOCK, 15) == b"never committed"
        await cache.contents.flush_to_network(None)
        await cache.contents.drop_clean()
        assert await cache.get(FILE, 2 * BLOCK, 15) == b"never committed"
        file = cache.contents.open(FILE)
        assert await read(file, 5 * BLOCK, 10) == bytes(10)
        cache.contents.release(file)
        cache.check_sums()


async def test_kill_after_a_whole_overwrite_of_a_block_that_only_hosts_had_keeps_what_was_answered(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    transfers = FakeTransfers()
    async with killed(directory, transfers) as cache:
        await cache.put(FILE, DATA)
        await cache.contents.flush_to_network(None)
        await cache.contents.drop_clean()
        await write(cache.contents.open(FILE), BLOCK, b"n" * BLOCK)
    async with running(directory, transfers) as cache:
        assert cache.local(FILE) == {1: 1}
        transfers.release()
        assert await cache.get(FILE, 0, len(DATA)) == DATA[:BLOCK] + b"n" * BLOCK + DATA[2 * BLOCK :]
        cache.check_sums()


async def test_kill_after_a_truncate_leaves_one_file_here_and_on_hosts(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    transfers = FakeTransfers()
    async with killed(directory, transfers) as cache:
        await cache.put(FILE, DATA)
        await cache.contents.flush_to_network(None)
        cache.database.commit()
        file = cache.contents.open(FILE)
        await file.truncate(len(DATA), BLOCK + 10)
        await file.truncate(BLOCK + 10, len(DATA))
    async with running(directory, transfers) as cache:
        transfers.release()
        here = await cache.get(FILE, 0, len(DATA))
        assert here == DATA[: BLOCK + 10].ljust(len(DATA), b"\0")
        await cache.contents.flush_to_network(None)
        await cache.contents.drop_clean()
        assert await cache.get(FILE, 0, len(DATA)) == here


async def test_kill_in_the_middle_of_a_fetch_leaves_no_garbage(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    transfers = FakeTransfers()
    async with killed(directory, transfers) as cache:
        await cache.put(FILE, b"head".ljust(50_000, b"\0"))
        await cache.contents.flush_to_network(None)
        await cache.contents.drop_clean()
        Path(cache.path(FILE)).write_bytes(b"half fetched" * 1000)
    async with running(directory, transfers) as cache:
        assert cache.local(FILE) == {}
        transfers.release()
        assert await cache.get(FILE, 0, 50_000) == b"head".ljust(50_000, b"\0")


async def test_deletion_that_was_not_committed_still_has_its_bytes(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    transfers = FakeTransfers()
    async with killed(directory, transfers) as cache:
        await cache.put(FILE, DATA)
        cache.database.commit()
        cache.delete(FILE)
    async with running(directory, transfers) as cache:
        assert await cache.get(FILE, 0, len(DATA)) == DATA
        cache.check_sums()


async def test_power_cut_drops_clean_blocks_it_cannot_trust_and_keeps_dirty_ones(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    transfers = FakeTransfers()
    async with killed(directory, transfers) as cache:
        await cache.put(FILE, DATA)
        await cache.put(InodeNumber(9), DATA)
        await cache.contents.flush_to_network(None)
        await cache.put(OTHER, b"fsynced")
        cache.database.commit()
    Path(cache.path(FILE)).write_bytes(bytes(len(DATA)))
    os.unlink(cache.path(InodeNumber(9)))
    async with running(directory, transfers, boot="another") as cache:
        assert cache.local(FILE) == cache.local(InodeNumber(9)) == {}
        assert cache.local(OTHER) == {0: 1}
        transfers.release()
        assert await cache.get(FILE, 0, len(DATA)) == DATA
        assert await cache.get(InodeNumber(9), 0, len(DATA)) == DATA
        assert await cache.get(OTHER, 0, 7) == b"fsynced"
        cache.check_sums()


async def test_clean_blocks_of_old_files_survive_a_power_cut(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    transfers = FakeTransfers()
    async with killed(directory, transfers) as cache:
        await cache.put(FILE, DATA)
        await cache.contents.flush_to_network(None)
        cache.database.write("UPDATE local_use SET used = 1000")
        cache.database.commit()
    os.utime(cache.path(FILE), (1000, 1000))
    async with running(directory, transfers, boot="another") as cache:
        assert len(cache.local(FILE)) == 3


async def test_clean_blocks_are_not_believed_when_only_the_time_of_their_file_is_old(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    transfers = FakeTransfers()
    async with killed(directory, transfers) as cache:
        await cache.put(FILE, DATA)
        await cache.contents.flush_to_network(None)
        cache.database.commit()
    Path(cache.path(FILE)).write_bytes(bytes(len(DATA)))  # what was filled in the last seconds never came to the disk,
    os.utime(cache.path(FILE), (1000, 1000))  # and neither did the time of it
    async with running(directory, transfers, boot="another") as cache:
        transfers.release()
        assert await cache.get(FILE, 0, len(DATA)) == DATA


async def test_rows_of_files_that_are_gone_go(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    transfers = FakeTransfers()
    async with killed(directory, transfers) as cache:
        await cache.put(FILE, DATA)
        cache.database.write("DELETE FROM inode")
        cache.database.commit()
    async with running(directory, transfers) as cache:
        assert cache.local(FILE) == {}
        assert cache.contents.stats().dirty_blocks == 0
        assert not os.path.exists(cache.path(FILE))


async def test_orphans_removed_before_the_start_do_not_upset_the_sums(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        await cache.put(FILE, DATA)
        await cache.put(OTHER, DATA)
        transfers = cache.transfers
    cache = Cache(directory, transfers)
    cache.delete(FILE)
    async with trio.open_nursery() as nursery:
        await nursery.start(cache.contents.run)
        cache.check_sums()
        await trio.sleep(1)
        assert not os.path.exists(cache.path(FILE))
        nursery.cancel_scope.cancel()
    cache.close()


async def test_what_was_written_after_the_clock_was_set_back_is_found_after_a_kill(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    ahead = 3600.0
    transfers = FakeTransfers()
    transfers.hold()
    async with running(directory, transfers, now=lambda: time.time() + ahead) as cache:
        await cache.put(OTHER, b"before")
        cache.database.commit()
        await trio.sleep(2)
        ahead = 0.0
        await trio.sleep(1)
        cache.make(size=len(DATA))
        cache.database.commit()
        file = cache.contents.open(FILE)
        await write(file, 0, DATA)
        raise Killed
    async with running(directory, transfers) as cache:
        assert await cache.get(FILE, 0, len(DATA)) == DATA
        assert cache.contents.stats().dirty_blocks == 4
        transfers.release()


async def test_rows_of_a_whole_directory_that_is_gone_are_dropped_and_others_kept(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    far, farther = InodeNumber(5000), InodeNumber(20000)
    transfers = FakeTransfers()
    async with killed(directory, transfers) as cache:
        for inode in (FILE, far, farther):
            await cache.put(inode, DATA)
        await cache.contents.flush_to_network(None)
        cache.database.commit()
    transfers.release()
    shutil.rmtree(os.path.dirname(cache.path(far)))
    async with running(directory, transfers) as cache:
        assert len(cache.local(FILE)) == len(cache.local(farther)) == 3
        assert not cache.local(far)
        assert await cache.get(far, 0, len(DATA)) == DATA
        cache.check_sums()


async def _overwrite_a_block_that_is_on_hosts(cache: Cache, data: bytes) -> None:
    await cache.put(FILE, DATA)
    await cache.contents.flush_to_network(None)
    await cache.contents.drop_clean()
    cache.transfers.hold()
    file = cache.contents.open(FILE)
    await write(file, BLOCK, data)
    cache.database.commit()


@pytest.mark.parametrize("on_disk", [0, BLOCK // 2])
async def test_a_whole_overwrite_that_a_power_cut_took_leaves_what_hosts_have(
    directory: str, autojump_clock: trio.testing.MockClock, on_disk: int
) -> None:
    transfers = FakeTransfers()
    async with killed(directory, transfers) as cache:
        await _overwrite_a_block_that_is_on_hosts(cache, b"n" * BLOCK)
        cache.contents._shelf.files.punch(FILE, [(BLOCK + on_disk, BLOCK - on_disk)])
    transfers.release()
    async with running(directory, transfers, boot="another") as cache:
        assert await cache.get(FILE, 0, len(DATA)) == DATA
        await cache.contents.flush_to_network(None)
        await cache.contents.drop_clean()
        assert await cache.get(FILE, 0, len(DATA)) == DATA
        cache.check_sums()


@pytest.mark.parametrize("how", ["fsync", "sync", "waiting"])
async def test_a_whole_overwrite_that_is_on_the_disk_survives_a_power_cut_even_if_zeros_took_no_room_there(
    directory: str, autojump_clock: trio.testing.MockClock, how: str
) -> None:
    transfers = FakeTransfers()
    async with killed(directory, transfers) as cache:
        await _overwrite_a_block_that_is_on_hosts(cache, bytes(BLOCK))
        if how == "waiting":
            await trio.sleep(20)
        else:
            await cache.contents.sync(FILE if how == "fsync" else None)
        cache.database.commit()
        cache.contents._shelf.files.punch(FILE, [(BLOCK, BLOCK)])
    transfers.release()
    async with running(directory, transfers, boot="another") as cache:
        assert await cache.get(FILE, 0, len(DATA)) == DATA[:BLOCK] + bytes(BLOCK) + DATA[2 * BLOCK :]
        cache.check_sums()


async def test_a_whole_overwrite_found_after_a_kill_waits_for_the_disk_still(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    transfers = FakeTransfers()
    async with killed(directory, transfers) as cache:
        await _overwrite_a_block_that_is_on_hosts(cache, b"n" * BLOCK)
    transfers.hold()
    async with killed(directory, transfers) as cache:
        assert cache.local(FILE) == {1: 1}
        cache.database.commit()
    Path(cache.path(FILE)).write_bytes(b"")
    transfers.release()
    async with running(directory, transfers, boot="another") as cache:
        assert await cache.get(FILE, 0, len(DATA)) == DATA


async def test_a_clean_block_that_was_not_on_the_disk_when_it_was_overwritten_whole(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    transfers = FakeTransfers()
    async with killed(directory, transfers) as cache:
        await cache.put(FILE, DATA)
        await cache.contents.flush_to_network(None)
        transfers.hold()
        file = cache.contents.open(FILE)
        await write(file, BLOCK, b"n" * BLOCK)
        cache.database.commit()
        cache.contents._shelf.files.punch(FILE, [(BLOCK, BLOCK)])
    transfers.release()
    async with running(directory, transfers, boot="another") as cache:
        assert await cache.get(FILE, 0, len(DATA)) == DATA
        cache.check_sums()


async def test_a_file_whose_cut_was_committed_and_not_done_ends_where_it_should_however_old_it_is(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    transfers = FakeTransfers()
    async with killed(directory, transfers) as cache:
        await cache.put(FILE, DATA)
        await cache.contents.flush_to_network(None)
        cache.make(FILE, BLOCK + 10)
        cut(cache.contents._shelf, cache.contents.open(FILE), BLOCK + 10)
    os.utime(cache.path(FILE), (1000, 1000))
    transfers.release()
    async with running(directory, transfers) as cache:
        cache.make(FILE, len(DATA))
        assert await cache.get(FILE, 0, len(DATA)) == DATA[: BLOCK + 10].ljust(len(DATA), b"\0")
        await cache.put(FILE, b"more", len(DATA))
        await cache.contents.flush_to_network(None)
        await cache.contents.drop_clean()
        assert await cache.get(FILE, 0, len(DATA)) == DATA[: BLOCK + 10].ljust(len(DATA), b"\0")


async def test_a_cut_and_a_growth_that_a_power_cut_took_from_an_old_file(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    transfers = FakeTransfers()
    async with killed(directory, transfers) as cache:
        await cache.put(FILE, DATA)
        await cache.contents.flush_to_network(None)
        cache.database.write("UPDATE local_use SET used = 1000")
        cache.make(FILE, len(DATA))
        file = cache.contents.open(FILE)
        await file.truncate(len(DATA), BLOCK + 10)
        cache.database.commit()
    Path(cache.path(FILE)).write_bytes(DATA)
    os.utime(cache.path(FILE), (1000, 1000))
    transfers.release()
    async with running(directory, transfers, boot="another") as cache:
        assert await cache.get(FILE, 0, len(DATA)) == DATA[: BLOCK + 10].ljust(len(DATA), b"\0")


async def test_what_takes_a_name_is_on_the_disk_before_the_rows_and_before_the_old_bytes_go(
    directory: str, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real_sync, real_unlink = os.fdatasync, os.unlink
    monkeypatch.setattr(os, "fdatasync", lambda fd: done.append(os.readlink(f"/proc/self/fd/{fd}")) or real_sync(fd))
    monkeypatch.setattr(os, "unlink", lambda path: done.append(path) or real_unlink(path))
    async with running(directory) as cache:
        await cache.put(OTHER, b"old")
        await cache.put(FILE, b"new")
        cache.contents.replaces(FILE)
        cache.delete(OTHER)
        done.clear()
        await trio.sleep(1)
        assert done == [cache.path(FILE), cache.path(OTHER)]
        await cache.put(FILE, b"newer")
        cache.contents.replaces(FILE)
        await cache.database.sync()
        assert done[2:] == [cache.path(FILE)]


@pytest.mark.parametrize("ending", ["sync", "umount", "file"])
async def test_after_a_flush_that_failed_the_next_start_believes_nothing_written_in_that_run(
    directory: str, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    transfers = FakeTransfers()
    async with running(directory, transfers, now=lambda: time.time() - 7200) as cache:
        await cache.put(OTHER, DATA)
        await cache.contents.flush_to_network(None)
    os.utime(cache.path(OTHER), (time.time() - 7200,) * 2)
    cache = Cache(directory, transfers, now=lambda: time.time() - 3600)
    async with trio.open_nursery() as nursery:
        await nursery.start(cache.contents.run)
        await cache.put(FILE, DATA)
        await cache.contents.flush_to_network(None)
        with monkeypatch.context() as patch:  # as the kernel does: it says so once
            patch.setattr(CacheFiles, "sync", _fail)
            patch.setattr(CacheFiles, "sync_all", _fail)
            cache.contents._shelf.files._unsure.update([FILE] if ending == "file" else [])
            if ending == "sync":
                with pytest.raises(LocalError):
                    await cache.contents.sync(None)
            if ending == "umount":
                with pytest.raises(LocalError):
                    cache.contents.close()
        nursery.cancel_scope.cancel()
    cache.close()
    with open(cache.path(FILE), "r+b") as file:
        file.write(bytes(BLOCK))  # what did not come to the disk
    os.utime(cache.path(FILE), (time.time() - 3600,) * 2)
    async with running(directory, transfers) as cache:
        assert await cache.get(FILE, 0, len(DATA)) == DATA
        assert len(cache.local(OTHER)) == 3
    async with running(directory, transfers) as cache:
        assert len(cache.local(FILE)) == 3


@pytest.mark.parametrize("failing", ["sync", "umount"])
async def test_a_whole_overwrite_that_is_on_the_disk_stays_though_a_flush_of_other_files_failed(
    directory: str, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    transfers = FakeTransfers()
    cache = Cache(directory, transfers)
    async with trio.open_nursery() as nursery:
        await nursery.start(cache.contents.run)
        await _overwrite_a_block_that_is_on_hosts(cache, b"n" * BLOCK)
        with monkeypatch.context() as patch:
            patch.setattr(CacheFiles, "sync_all", _fail)
            with pytest.raises(LocalError):
                await cache.contents.sync(None) if failing == "sync" else cache.contents.close()
        nursery.cancel_scope.cancel()
    cache.close()
    transfers.release()
    async with running(directory, transfers) as cache:
        assert await cache.get(FILE, BLOCK, BLOCK) == b"n" * BLOCK


async def test_a_whole_overwrite_whose_own_flush_failed_is_not_believed_when_all_files_are_flushed(
    directory: str, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfers = FakeTransfers()
    async with running(directory, transfers) as cache:
        await _overwrite_a_block_that_is_on_hosts(cache, b"n" * BLOCK)
        with monkeypatch.context() as patch:  # the kernel says so once
            patch.setattr(os, "fdatasync", _fail_on_the_disk)
            with pytest.raises(LocalError):
                await cache.contents.sync(FILE)
        await cache.contents.sync(None)
        cache.contents._shelf.files.punch(FILE, [(BLOCK, BLOCK)])  # what did not come to the disk
    transfers.release()
    async with running(directory, transfers) as cache:
        assert await cache.get(FILE, BLOCK, BLOCK) == DATA[BLOCK : 2 * BLOCK]


def _fail_on_the_disk(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _fail(*_: object) -> None:
    raise LocalError("it could not be written")
