"""When dirty blocks go to hosts, what is recorded, and what happens when that fails or is overtaken."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from layrfs.errors import LocalError, Unavailable
from layrfs.ids import InodeNumber
from layrfs.model.notes import CONTENT, Purpose
from layrfs.model.redundancy import Redundancy
from layrfs.pipeline.transfers import SourcePart, Uploaded
from layrfs.storage.garbage import Garbage
from tests.caches import BLOCK, FILE, read, running, write
from tests.fakes.transfers import FakeTransfers

OTHER = InodeNumber(8)


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return f"{tmp_path}/volume"


def parts(transfers: FakeTransfers) -> list[list[tuple[int, int]]]:
    return [[(part.inode, part.block) for part in upload] for upload in transfers.uploads]


async def test_closed_file_goes_after_a_short_rest(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory) as cache:
        await cache.put(FILE, b"x" * 5000)
        await trio.sleep(1.4)
        assert cache.transfers.uploads == []
        await trio.sleep(2)
        assert parts(cache.transfers) == [[(FILE, 0)]]
        assert cache.local(FILE) == {0: 0}
        cache.check_sums()


async def test_file_written_again_and_again_rests_each_time(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        for _ in range(10):
            await cache.put(FILE, b"x" * 5000)
            await trio.sleep(1.4)
        assert cache.transfers.uploads == []


async def test_open_file_goes_block_by_block_when_left_alone(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        cache.make()
        file = cache.contents.open(FILE)
        await write(file, 0, b"first" * (BLOCK // 5 + 1))
        for _ in range(6):
            await trio.sleep(2)
            await write(file, BLOCK + 100, b"still busy")
        assert parts(cache.transfers) == [[(FILE, 0)]]
        await trio.sleep(12)
        assert parts(cache.transfers) == [[(FILE, 0)], [(FILE, 1)]]
        cache.contents.release(file)
        cache.check_sums()


async def test_small_files_travel_together_and_large_blocks_side_by_side(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        for number in range(2500):
            await cache.put(InodeNumber(1000 + number), os.urandom(100))
        cache.block_bytes[FILE] = 4 << 20
        await cache.put(FILE, os.urandom(4 << 20) * 4)
        cache.transfers.delay_seconds = 1
        await cache.contents.flush_to_network(None)
        sizes = sorted(len(upload) for upload in cache.transfers.uploads)
        assert sizes[-2:] == [1024, 1024]
        assert sum(sizes) == 2504
        assert 4 <= cache.transfers.most_running <= 6
        cache.check_sums()
        cache.check_idle()


async def test_block_changed_while_it_travels_stays_dirty_and_goes_again(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        await cache.put(FILE, b"one" * 1000)
        await cache.put(OTHER, b"two" * 1000)
        cache.transfers.hold()
        await trio.sleep(4)
        file = cache.contents.open(FILE)
        await write(file, 0, b"ONE")
        cache.contents.release(file)
        cache.transfers.release()
        await trio.sleep(1)
        assert (cache.local(FILE), cache.local(OTHER)) == ({0: 1}, {0: 0})
        cache.check_sums()
        await trio.sleep(5)
        assert cache.local(FILE) == {0: 0}
        await cache.contents.drop_clean()
        assert await cache.get(FILE, 0, 3000) == b"ONE" + b"one" * 999


@pytest.mark.parametrize("how", ["truncate", "cut", "delete", "rewrite"])
async def test_what_an_upload_finds_gone_is_not_recorded(
    how: str, directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        await cache.put(FILE, b"one" * 1000)
        cache.transfers.hold()
        await trio.sleep(4)
        if how == "delete":
            cache.delete(FILE)
        else:
            file = cache.contents.open(FILE)
            await file.truncate(3000, {"truncate": 0, "cut": 10, "rewrite": 0}[how])
            if how == "rewrite":
                await write(file, 0, b"new")
            cache.contents.release(file)
        cache.transfers.release()
        await trio.sleep(1)
        cache.check_sums()
        assert cache.catalog.block_numbers(FILE) == ([0] if how == "cut" else [])
        assert cache.on_hosts(FILE, 0, 20).rstrip(b"\0") == (b"oneoneoneo" if how == "cut" else b"")
        await cache.contents.flush_to_network(None)
        if how != "delete":
            await cache.contents.drop_clean()
            expected = {"truncate": b"", "cut": b"oneoneoneo", "rewrite": b"new"}[how].ljust(20, b"\0")
            assert await cache.get(FILE, 0, 20) == expected
        cache.check_sums()
        cache.check_idle()


async def test_no_host_means_growing_pauses_and_nothing_lost(
    directory: str, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(directory) as cache:
        cache.transfers.failure = Unavailable("No host takes pieces.")
        await cache.put(FILE, b"x" * 5000)
        await trio.sleep(200)
        assert 5 <= len(cache.transfers.uploads) <= 12
        assert cache.contents.stats().problem == "No host takes pieces."
        assert cache.contents.state(FILE) == "cached"
        cache.check_idle()
        cache.transfers.failure = None
        cache.contents.hosts_appeared()
        await trio.sleep(1)
        assert cache.contents.state(FILE) == "safe"
        assert cache.contents.stats().problem is None


async def test_file_that_cannot_be_read_does_not_hold_up_the_others(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    broken = {InodeNumber(107)}

    class BadSector(FakeTransfers):
        async def upload(
            self, parts: Sequence[SourcePart], redundancy: Redundancy, purpose: Purpose = CONTENT
        ) -> Uploaded:
            if any(part.inode in broken for part in parts):
                self.uploads.append(tuple(parts))
                raise LocalError("Input/output error.")
            return await super().upload(parts, redundancy, purpose)

    async with running(directory, BadSector()) as cache:
        for number in range(20):
            await cache.put(InodeNumber(100 + number), os.urandom(100))
        await trio.sleep(100)
        assert {inode for inode in range(100, 120) if cache.local(InodeNumber(inode)) == {0: 1}} == broken
        assert len(cache.transfers.uploads) < 30
        broken.clear()
        await cache.contents.flush_to_network([InodeNumber(107)])
        assert cache.local(InodeNumber(107)) == {0: 0}


async def test_dirty_block_whose_bytes_are_gone_gives_way_to_what_hosts_have(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        await cache.put(FILE, b"on hosts")
        await cache.contents.flush_to_network(None)
        await cache.put(FILE, b"only here")
        os.unlink(cache.path(FILE))
        await cache.contents.flush_to_network(None)
        cache.check_sums()
        assert await cache.get(FILE, 0, 9) == b"on hosts\0"


async def test_flush_of_one_file_leaves_the_others(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory) as cache:
        await cache.put(FILE, b"x" * 5000)
        await cache.put(OTHER, b"y" * 5000)
        reports: list[tuple[int, int]] = []
        await cache.contents.flush_to_network([OTHER], lambda done, left: reports.append((done, left)))
        assert (cache.local(FILE), cache.local(OTHER)) == ({0: 1}, {0: 0})
        assert reports[-1] == (5000, 8192)


async def test_flush_waits_for_what_already_travels(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory) as cache:
        await cache.put(FILE, b"x" * 5000)
        cache.transfers.delay_seconds = 10
        await trio.sleep(4)
        assert len(cache.transfers.uploads) == 1
        await cache.contents.flush_to_network(None)
        assert cache.local(FILE) == {0: 0}
        assert len(cache.transfers.uploads) == 1


async def test_flush_outlasts_failures(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory) as cache:
        cache.transfers.failure = Unavailable("No host takes pieces.")
        await cache.put(FILE, b"x" * 5000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.contents.flush_to_network, None)
            await trio.sleep(100)
            assert cache.local(FILE) == {0: 1}
            cache.transfers.failure = None
        assert cache.local(FILE) == {0: 0}


async def test_hosts_that_come_back_unnoticed_are_found_soon_by_who_waits(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        cache.transfers.failure = Unavailable("No host takes pieces.")
        await cache.put(FILE, b"x" * 5000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.contents.flush_to_network, None)
            await trio.sleep(600)
            assert len(cache.transfers.uploads) > 600 / 6
            cache.transfers.failure = None
            await trio.sleep(6)
            assert cache.local(FILE) == {0: 0}
            nursery.cancel_scope.cancel()


async def test_flush_ends_while_somebody_keeps_writing(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory) as cache:
        cache.make()
        file = cache.contents.open(FILE)
        cache.transfers.delay_seconds = 0.05

        async def writer() -> None:
            for number in range(100_000):
                await write(file, 0, str(number).encode())
                await trio.sleep(0.03)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer)
            await trio.sleep(0.1)
            at_the_call = int(await read(file, 0, 1))
            with trio.fail_after(1):
                await cache.contents.flush_to_network(None)
            assert int(cache.on_hosts(FILE, 0, 10).rstrip(b"\0")) >= at_the_call
            assert cache.local(FILE) == {0: 1}
            nursery.cancel_scope.cancel()
        cache.contents.release(file)
        cache.check_sums()


async def test_flush_waits_for_a_claim_of_its_own_when_another_was_overtaken(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        await cache.put(FILE, b"old")
        cache.transfers.store_seconds = 5
        await trio.sleep(4)
        await cache.put(FILE, b"new")
        assert len(cache.transfers.uploads) == 1
        await cache.contents.flush_to_network(None)
        assert cache.on_hosts(FILE, 0, 3) == b"new"


async def test_flush_does_not_wait_for_what_is_written_after_the_call(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory, closed_seconds=1000) as cache:
        await cache.put(FILE, b"here at the call")
        cache.transfers.delay_seconds = 2

        async def writer() -> None:
            for number in range(10_000):
                await cache.put(InodeNumber(1000 + number), os.urandom(100))
                await cache.put(FILE, b"appended", (1 + number) * BLOCK)
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer)
            with trio.fail_after(3):
                await cache.contents.flush_to_network(None)
            assert cache.on_hosts(FILE, 0, 16) == b"here at the call"
            nursery.cancel_scope.cancel()


async def test_zeros_that_are_overwritten_meanwhile_go_again(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        await cache.put(FILE, bytes(100))
        cache.transfers.store_seconds = 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.contents.flush_to_network, None)
            await trio.sleep(0.5)
            await cache.put(FILE, b"no zeros")
        assert cache.on_hosts(FILE, 0, 8) == b"no zeros"
        assert cache.local(FILE) == {0: 0}


@pytest.mark.parametrize("how", ["written while open", "closed again and again", "emptied again and again"])
async def test_no_block_waits_for_ever_because_it_is_never_left_alone(
    how: str, directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        cache.make(FILE, 10)
        held = cache.contents.open(FILE) if how == "written while open" else None
        cache.transfers.store_seconds = 0.3
        seen = set()
        for number in range(330):
            file = cache.contents.open(FILE)
            if how == "emptied again and again":
                await file.truncate(10, 0)
            await write(file, 0, str(1000 + number).encode())
            cache.contents.release(file)
            await trio.sleep(1)
            seen.add(cache.on_hosts(FILE, 0, 4))
        newest = max(seen)
        assert seen == {bytes(4), newest}
        assert 1290 <= int(newest) <= 1330
        if held is not None:
            cache.contents.release(held)
        cache.check_sums()


async def test_a_file_is_not_cut_into_other_blocks_under_a_flush(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    sizes = iter([3 * BLOCK, BLOCK])

    def fix(inode: InodeNumber) -> int:
        cache.block_bytes[inode] = next(sizes)
        return cache.block_bytes[inode]

    async with running(directory, fix_block_bytes=fix) as cache:
        cache.transfers.failure = Unavailable("No host takes pieces.")
        await cache.put(FILE, os.urandom(9 * BLOCK))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.contents.flush_to_network, None)
            await trio.sleep(10)
            assert len(cache.local(FILE)) == 3
            cache.contents._writeback._settle_block_bytes(FILE, None)
            assert len(cache.local(FILE)) == 3, "what is owed has other numbers now"
            nursery.cancel_scope.cancel()
        cache.contents._writeback._settle_block_bytes(FILE, None)
        assert len(cache.local(FILE)) == 9


async def test_what_is_cut_off_after_it_was_read_is_recorded_for_no_block(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        await cache.put(FILE, b"one" * 1000)
        cache.transfers.store_seconds = 5
        await trio.sleep(4)
        file = cache.contents.open(FILE)
        await file.truncate(3000, 10)
        cache.contents.release(file)
        cache.make(FILE, 3000)
        await trio.sleep(4)
        assert cache.on_hosts(FILE, 0, 20) == b"oneoneoneo".ljust(20, b"\0")
        assert cache.local(FILE) == {0: 1}
        cache.check_sums()


async def test_cancelled_flush_leaves_everything_to_the_others(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        for number in range(50):
            await cache.put(InodeNumber(100 + number), os.urandom(100_000))
        cache.transfers.delay_seconds = 3
        with trio.move_on_after(1):
            await cache.contents.flush_to_network(None)
        await trio.sleep(30)
        assert cache.contents.stats().dirty_blocks == 0
        cache.check_sums()
        cache.check_idle()


async def test_count_of_shards_fixes_the_block_size_at_the_first_upload(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    fixed: list[int] = []

    def fix(inode: InodeNumber) -> int:
        fixed.append(inode)
        cache.block_bytes[inode] = 3 * BLOCK
        return 3 * BLOCK

    data = os.urandom(7 * BLOCK + 100)
    async with running(directory, fix_block_bytes=fix) as cache:
        await cache.put(FILE, data)
        await cache.put(OTHER, b"small")
        opened = cache.contents.open(FILE)
        await cache.contents.flush_to_network(None)
        cache.check_sums()
        assert set(fixed) == {FILE}
        fixed.clear()
        assert opened.block_bytes == 3 * BLOCK
        assert cache.local(FILE) == {0: 0, 1: 0, 2: 0}
        await write(opened, 3 * BLOCK, b"again")
        await cache.contents.flush_to_network(None)
        assert fixed == []
        cache.contents.release(opened)
        await cache.contents.drop_clean()
        expected = data[: 3 * BLOCK] + b"again" + data[3 * BLOCK + 5 :]
        assert await cache.get(FILE, 0, len(data)) == expected
        cache.check_sums()


async def test_block_size_may_change_after_a_small_first_upload(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    def fix(inode: InodeNumber) -> int:
        cache.block_bytes[inode] = 2 * BLOCK
        return 2 * BLOCK

    async with running(directory, fix_block_bytes=fix) as cache:
        await cache.put(FILE, b"small")
        await cache.contents.flush_to_network(None)
        assert cache.block_bytes == {}
        await cache.put(FILE, b"x" * BLOCK, 3 * BLOCK)
        await cache.contents.flush_to_network(None)
        cache.check_sums()
        assert cache.block_bytes == {FILE: 2 * BLOCK}
        await cache.contents.drop_clean()
        assert await cache.get(FILE, 0, 4 * BLOCK) == b"small".ljust(3 * BLOCK, b"\0") + b"x" * BLOCK


async def test_files_of_different_redundancy_do_not_share_a_shard(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory, redundancy_of=lambda inode: Redundancy(1, 1 + inode % 2)) as cache:
        for number in range(10):
            await cache.put(InodeNumber(100 + number), os.urandom(100))
        await cache.contents.flush_to_network(None)
        assert sorted(len(upload) for upload in cache.transfers.uploads) == [5, 5]
        for number in range(10):
            (run,) = cache.contents.runs(InodeNumber(100 + number), 1)
            assert run.wanted == 1 + number % 2


async def test_degraded_shard_is_completed_when_hosts_appear(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory, FakeTransfers(hosts=1)) as cache:
        await cache.put(FILE, b"x" * 5000)
        await cache.contents.flush_to_network(None)
        assert cache.contents.stats().degraded_shards == 1
    async with running(directory, cache.transfers) as cache:
        assert cache.contents.stats().degraded_shards == 1
        cache.transfers.hosts = 2
        await trio.sleep(70)
        assert cache.contents.runs(FILE, 1)[0].pieces == 2
        cache.transfers.hosts = 5
        await trio.sleep(70)
        assert cache.contents.runs(FILE, 1)[0].pieces == 3
        assert cache.contents.stats().degraded_shards == 0


async def test_recording_a_thousand_files_lets_others_in(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    """No step of any task handles more than a slice of a full shard."""

    class Steps(trio.abc.Instrument):
        most = changes = 0

        def before_task_step(self, _task: trio.lowlevel.Task) -> None:
            self.changes = cache.database._connection.total_changes()

        def after_task_step(self, _task: trio.lowlevel.Task) -> None:
            self.most = max(self.most, cache.database._connection.total_changes() - self.changes)

    async with running(directory) as cache:
        for number in range(1000):
            await cache.put(InodeNumber(1000 + number), number.to_bytes(2, "big") * 100)
        await trio.lowlevel.checkpoint()
        steps = Steps()
        steps.changes = cache.database._connection.total_changes()
        trio.lowlevel.add_instrument(steps)
        await cache.contents.flush_to_network(None)
        await cache.contents.drop_clean()
        await cache.get(InodeNumber(1500), 0, 10)
        trio.lowlevel.remove_instrument(steps)
        assert len(cache.transfers.uploads) == len(cache.transfers.downloads) == 1
        assert steps.most < 600


async def test_read_while_nothing_can_be_sent(directory: str, autojump_clock: trio.testing.MockClock) -> None:
    async with running(directory) as cache:
        cache.transfers.failure = LocalError("The workers are gone.")
        await cache.put(FILE, b"x" * 5000)
        await trio.sleep(20)
        file = cache.contents.open(FILE)
        assert await read(file, 0, 5) == b"xxxxx"
        cache.contents.release(file)
        cache.transfers.failure = None


async def test_equal_bytes_that_were_given_up_meanwhile_are_sent(tmp_path: Path) -> None:
    transfers = FakeTransfers()
    async with running(str(tmp_path / "volume"), transfers) as cache:
        await cache.put(FILE, b"same" * 1000)
        await cache.contents.flush_to_network(None)
        cache.delete(FILE)
        shard = cache.database.value("SELECT number FROM shard")
        other = InodeNumber(FILE + 1)
        await cache.put(other, b"same" * 1000)
        transfers.hold_after_look_up = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.contents.flush_to_network, None)
            while not transfers.waiting:
                await trio.lowlevel.checkpoint()
            cache.database.write("INSERT INTO dead VALUES(?, 1)", (shard,))
            transfers.drop(piece for piece, _host in Garbage(cache.database, cache.catalog).sweep(shard, 1))
            assert cache.database.value("SELECT count(*) FROM content") == 0
            transfers.hold_after_look_up = False
            transfers.release()
        assert cache.contents.state(other) == "safe"
        await cache.contents.drop_clean()
        assert await cache.get(other, 0, 4000) == b"same" * 1000
        cache.check_sums()
        cache.check_idle()


async def test_a_shard_is_topped_up_once_at_a_time_whoever_gives_up(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory, FakeTransfers(hosts=1)) as cache:
        await cache.put(FILE, b"x" * 5000)
        await cache.contents.flush_to_network(None)
        cache.transfers.hosts, cache.transfers.most_running = 5, 0
        cache.transfers.delay_seconds = 10
        cache.patcher.hosts_appeared()
        with trio.move_on_after(5):
            await cache.patcher.finish()
        await cache.patcher.finish()
        assert cache.contents.runs(FILE, 1)[0].pieces == 3
        assert cache.transfers.most_running == 1


async def test_a_host_that_is_gone_costs_its_silence_once_not_for_every_shard(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory, FakeTransfers(hosts=1)) as cache:
        for number in range(50):
            await cache.put(InodeNumber(100 + number), os.urandom(5000))
            await cache.contents.flush_to_network(None)
        assert cache.contents.stats().degraded_shards == 50
        cache.transfers.lost = set(cache.transfers.payloads)
        cache.transfers.delay_seconds = 20
        started = trio.current_time()
        await cache.patcher.finish()
        assert trio.current_time() - started < 41, "two passes at most, one silence each"
        cache.transfers.lost.clear()
        cache.transfers.delay_seconds, cache.transfers.hosts = 0, 3
        await cache.patcher.finish()
        assert cache.contents.stats().degraded_shards == 0


async def test_copied_once_more_a_file_whose_hosts_are_all_gone_is_sent_once_more(
    directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(directory) as cache:
        data = os.urandom(5000)
        await cache.put(FILE, data)
        await cache.contents.flush_to_network(None)
        cache.transfers.lose_hosts()
        await cache.put(OTHER, data)
        await cache.contents.flush_to_network(None)
        await cache.contents.drop_clean()
        assert await cache.get(OTHER, 0, len(data)) == data
        assert await cache.get(FILE, 0, len(data)) == data, "the old name is healed, too"
