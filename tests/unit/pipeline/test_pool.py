"""Worker processes and what can happen to them. Real processes and hosts on loopback, so on the real clock."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
import trio

from layrfs.crypto.challenges import answer_digest
from layrfs.errors import LocalError, Unavailable, WorkerLost
from layrfs.ids import PieceId
from layrfs.model.answers import question
from layrfs.model.notes import Purpose
from layrfs.model.payables import digests_of
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.pipeline import pool as pool_module
from layrfs.pipeline.pool import Lane
from layrfs.pipeline.transfers import SourcePart, TargetPart
from layrfs.policy import backoff
from tests.fakes.loopback import KEYS, RealTransfers, real_transfers
from tests.fakes.market import salts_for
from tests.fakes.transfers import missing_slots

THREE = Redundancy(1, 3)
DATA = os.urandom(100_000)


@pytest.fixture
def source(tmp_path: Path) -> SourcePart:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return SourcePart(2, 0, str(path), 0, len(DATA))


async def any_host_is_asked(real: RealTransfers) -> None:
    assert await trio.to_thread.run_sync(real.asked.wait, 20)


def kill_workers(real: RealTransfers) -> None:
    for process in real.pool.process_ids():
        os.kill(process, signal.SIGKILL)


async def stored(real: RealTransfers, source: SourcePart) -> ShardRecord:
    shard = (await real.transfers.upload([source], THREE)).shard
    assert shard is not None
    return shard


async def test_a_killed_workers_upload_is_done_again_and_leaves_nothing(source: SourcePart) -> None:
    async with real_transfers() as real:
        real.break_hosts("hang stores")
        shards: list[ShardRecord] = []

        async def upload() -> None:
            shards.append(await stored(real, source))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            await any_host_is_asked(real)
            before = real.pool.process_ids()
            kill_workers(real)
            real.mend_hosts()
        assert not set(before) & set(real.pool.process_ids())
        named = {piece.id for shard in shards for piece in shard.pieces}
        assert len(named) == 3
        # The first workers' pieces may have reached hosts as well; they are deleted once the upload has ended.
        for host in real.hosts:
            assert await trio.to_thread.run_sync(host.shelf.wait_until_only, named)
        assert {piece for host in real.hosts for piece in host.shelf.pieces} == named


async def test_a_job_whose_workers_always_die_fails_and_no_other_job_does(source: SourcePart, tmp_path: Path) -> None:
    async with real_transfers() as real:
        good = await stored(real, source)
        real.break_hosts("hang stores")
        killer_failed = trio.Event()

        async def killer() -> None:
            with pytest.raises(WorkerLost):
                await real.transfers.upload([source], THREE)
            killer_failed.set()
            real.asked.set()

        kills = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(killer)
            while not killer_failed.is_set():
                await any_host_is_asked(real)
                real.asked.clear()
                kill_workers(real)
                kills += 1
        assert kills >= pool_module.TRIES
        target = tmp_path / "target"
        await real.transfers.download(good, [TargetPart(str(target), 0, 0, len(DATA))], urgent=True)
        assert target.read_bytes() == DATA


async def test_a_cancelled_transfer_has_ended_when_its_caller_goes_on(source: SourcePart) -> None:
    async with real_transfers() as real:
        real.break_hosts("hang stores")
        before = real.pool.process_ids()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(real.transfers.upload, [source], THREE)
            await any_host_is_asked(real)
            nursery.cancel_scope.cancel()
        assert real.pool.counts()[Lane.UPLOAD] == (0, 0)
        real.mend_hosts()
        assert await stored(real, source)
        assert real.pool.process_ids() == before


async def test_a_cancelled_top_up_takes_no_copy_away(source: SourcePart) -> None:
    async with real_transfers() as real:
        real.use_hosts(1)
        shard = await stored(real, source)
        real.use_hosts(3)
        recorded = await real.transfers.top_up(shard, missing_slots(shard, 1))
        assert len(recorded) == 2
        shelf = real.host(recorded[0].host).shelf
        shelf.arrived = threading.Event()
        real.break_hosts("hang stores")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(real.transfers.top_up, shard, missing_slots(shard, 1))
            assert await trio.to_thread.run_sync(shelf.arrived.wait, 20)
            nursery.cancel_scope.cancel()
        real.mend_hosts()
        await what_is_unwanted_has_gone(real, source, shard)
        for piece in recorded:
            assert piece.id in real.host(piece.host).shelf.pieces


async def test_a_top_up_does_not_insist_as_a_reader_does(source: SourcePart) -> None:
    async with real_transfers(patience_seconds=1e9) as real:
        real.use_hosts(1)
        shard = await stored(real, source)
        real.host(shard.pieces[0].host).stop()
        with trio.fail_after(20), pytest.raises(Unavailable):
            await real.transfers.top_up(shard, missing_slots(shard, 1))


async def what_is_unwanted_has_gone(real: RealTransfers, source: SourcePart, shard: ShardRecord) -> None:
    """Unwanted pieces are deleted in the order in which transfers ended: have one more fail, and see its piece go."""
    real.use_hosts(2)
    host, other = real.hosts[:2]
    other.shelf.fault = "refuse"
    with pytest.raises(Unavailable):
        await real.transfers.upload([source], Redundancy(2, 3))
    other.mend()
    assert await trio.to_thread.run_sync(host.shelf.wait_until_only, {piece.id for piece in shard.pieces})


async def test_hosts_that_were_not_waited_for_are_left_alone_for_a_while(
    source: SourcePart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FIRST_PAUSE_SECONDS", 60.0)  # the machine may be busy
    async with real_transfers() as real:
        real.use_hosts(4)
        stuck = real.hosts[1]
        stuck.shelf.fault = "hang stores"
        with trio.fail_after(25):  # hosts have 30 seconds to answer, were they waited for
            shard = (await real.transfers.upload([source], Redundancy(2, 4))).shard
        assert shard is not None
        assert len(shard.pieces) == 3
        assert real.finder.suspected == [stuck.node_id]
        stuck.shelf.offered = 0
        again = (await real.transfers.upload([source], Redundancy(2, 4))).shard
        assert again is not None
        assert {piece.host for piece in again.pieces} == {piece.host for piece in shard.pieces}
        assert stuck.shelf.offered == 0, "it may be asked to forget what it got in vain"


async def test_a_piece_made_later_is_none_that_an_upload_left_unwanted(source: SourcePart) -> None:
    async with real_transfers() as real:
        real.use_hosts(2)
        shard = await stored(real, source)
        real.use_hosts(3)
        (made,) = await real.transfers.top_up(shard, missing_slots(shard, 1))
        assert made.generation > 0, "an upload that gave up on a host may still ask it to forget generation 0"


async def test_a_stuck_worker_is_replaced_when_a_job_is_cancelled(
    source: SourcePart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "CANCEL_SECONDS", 0.05)
    async with real_transfers(workers=1) as real:
        real.break_hosts("hang stores")
        (stuck,) = real.pool.process_ids()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(real.transfers.upload, [source], THREE)
            await any_host_is_asked(real)
            os.kill(stuck, signal.SIGSTOP)
            nursery.cancel_scope.cancel()
        real.mend_hosts()
        assert await stored(real, source)
        assert stuck not in real.pool.process_ids()


async def test_a_reader_never_waits_behind_uploads(source: SourcePart, tmp_path: Path) -> None:
    async with real_transfers() as real:
        shard = await stored(real, source)
        real.break_hosts("hang stores")
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(real.transfers.upload, [source], THREE)
            await any_host_is_asked(real)
            running, waiting = real.pool.counts()[Lane.UPLOAD]
            assert (running, waiting) == (2 * pool_module.PLACES[Lane.UPLOAD], 30 - running)
            target = tmp_path / "target"
            await real.transfers.download(shard, [TargetPart(str(target), 0, 0, len(DATA))], urgent=True)
            assert target.read_bytes() == DATA
            nursery.cancel_scope.cancel()


async def test_stopping_ends_processes_and_transfers(source: SourcePart) -> None:
    failed: list[BaseException] = []
    async with trio.open_nursery() as nursery, real_transfers() as real:
        real.break_hosts("hang stores")

        async def upload() -> None:
            try:
                await real.transfers.upload([source], THREE)
            except WorkerLost as error:
                failed.append(error)

        nursery.start_soon(upload)
        await any_host_is_asked(real)
        processes = real.pool.process_ids()
    assert len(failed) == 1
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    with pytest.raises(WorkerLost):
        await real.transfers.upload([source], THREE)


async def test_a_question_that_cannot_be_answered_fails_its_job_only(source: SourcePart) -> None:
    def broken(_digests: object) -> dict[bytes, tuple[int, int]]:
        raise LocalError("the catalog cannot be read")

    async with real_transfers(find_content=broken) as real:
        for _ in range(3):
            with pytest.raises(LocalError, match="catalog"):
                await real.transfers.upload([source], THREE)


async def test_keys_are_in_no_workers_arguments_or_environment(source: SourcePart) -> None:
    async with real_transfers() as real:
        await stored(real, source)
        for process in real.pool.process_ids():
            shown = Path(f"/proc/{process}/cmdline").read_bytes() + Path(f"/proc/{process}/environ").read_bytes()
            for key in (KEYS.content, KEYS.mask, KEYS.digest_key):
                assert key not in shown
                assert key.hex().encode() not in shown


PARENT = """
import sys, trio
from layrfs.pipeline.pool import WorkerPool
from tests.fakes.market import salts_for
from tests.fakes.loopback import worker_keys

async def main():
    pool = WorkerPool(worker_keys())
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        while len(pool.process_ids()) < 2:
            await trio.sleep(0.01)
        print(*pool.process_ids(), flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def test_workers_end_when_their_parent_is_killed() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        workers = [os.pidfd_open(int(process)) for process in parent.stdout.readline().split()]
        parent.kill()
    assert len(workers) == 2
    for worker in workers:
        assert select.select([worker], [], [], 20)[0] == [worker]
        os.close(worker)


async def test_unreachable_hosts_are_reported_and_others_used(source: SourcePart, tmp_path: Path) -> None:
    async with real_transfers() as real:
        shard = await stored(real, source)
        bad = shard.pieces[:2]
        real.host(bad[0].host).shelf.fault = "wrong"
        real.host(bad[1].host).stop()
        for number in range(6):
            target = tmp_path / f"target-{number}"
            await real.transfers.download(shard, [TargetPart(str(target), 0, 0, len(DATA))], urgent=True)
            assert target.read_bytes() == DATA
        assert set(real.bad) == {
            (shard.id, bad[0].id, bad[0].host, "wrong"),
            (shard.id, bad[1].id, bad[1].host, "unreachable"),
        }
        memories = real.transfers._memories
        assert [memories[piece.host].failures.in_a_row for piece in shard.pieces] == [1, 1, 0]


async def test_a_piece_that_does_not_fit_is_a_bad_one_when_others_fit_and_never_its_hosts_fault(
    source: SourcePart, tmp_path: Path
) -> None:
    targets = [TargetPart(str(tmp_path / "target"), 0, 0, len(DATA))]
    async with real_transfers() as real:
        shard, other = await stored(real, source), await stored(real, source)
        foreign = other.pieces[0]
        mixed = msgspec.structs.replace(shard, pieces=(foreign, *shard.pieces[1:]))
        while not real.bad:
            await real.transfers.download(mixed, targets, urgent=True)
        assert real.bad == [(shard.id, foreign.id, foreign.host, "misfit")]
        real.bad.clear()
        with pytest.raises(Unavailable):
            await real.transfers.download(msgspec.structs.replace(shard, salt=other.salt), targets, urgent=True)
        assert real.bad == [], "the owner's record is damaged, and no piece is"
        assert {outcome for _host, outcome in real.attempts} <= {"good", "late", "misfit"}
        assert not any(memory.failures.in_a_row for memory in real.transfers._memories.values())


async def test_a_host_that_moved_is_found_again(source: SourcePart, tmp_path: Path) -> None:
    async with real_transfers() as real:
        shard = await stored(real, source)
        for host in real.hosts:
            host.stop()
            host.start()
        real.use_hosts(5)
        target = tmp_path / "target"
        await real.transfers.download(shard, [TargetPart(str(target), 0, 0, len(DATA))], urgent=True)
        assert target.read_bytes() == DATA


async def test_when_all_hosts_are_gone_it_is_unavailable_and_heals(source: SourcePart, tmp_path: Path) -> None:
    async with real_transfers() as real:
        shard = await stored(real, source)
        targets = [TargetPart(str(tmp_path / "target"), 0, 0, len(DATA))]
        for host in real.hosts:
            host.stop()
        with pytest.raises(Unavailable):
            await real.transfers.download(shard, targets, urgent=True)
        for host in real.hosts:
            host.start()
        real.use_hosts(5)
        await real.transfers.download(shard, targets, urgent=True)
        assert (tmp_path / "target").read_bytes() == DATA


async def test_hosts_that_are_suspended_get_nothing_and_are_read_from_when_no_other_is_left(
    source: SourcePart, tmp_path: Path
) -> None:
    async with real_transfers() as real:
        first = await stored(real, source)
        await real.transfers.download(first, [TargetPart(str(tmp_path / "any"), 0, 0, len(DATA))], urgent=True)
        quickest = real.attempts.pop(0)[0]
        bad = [quickest, *(piece.host for piece in first.pieces if piece.host != quickest)][:2]
        good = next(piece.host for piece in first.pieces if piece.host not in bad)
        real.suspended.update(bad)
        assert not {piece.host for piece in (await stored(real, source)).pieces} & set(bad)
        for _ in range(3):
            await real.transfers.download(first, [TargetPart(str(tmp_path / "a"), 0, 0, len(DATA))], urgent=True)
        assert real.attempts == [(good, "good")] * 3
        real.host(good).shelf.fault = "lose"
        real.attempts.clear()
        await real.transfers.download(first, [TargetPart(str(tmp_path / "b"), 0, 0, len(DATA))], urgent=True)
        assert (tmp_path / "b").read_bytes() == DATA
        assert real.attempts[0] == (good, "missing")
        assert real.attempts[1][0] in bad
        assert real.attempts[1][1] == "good"


def tell_right_answers(real: RealTransfers, pieces: Iterable[PieceRecord]) -> list[int]:
    """Whether all answers that were kept are what the hosts of these pieces would say; how many each piece has."""
    for piece in pieces:
        data = real.host(piece.host).shelf.pieces[piece.id]
        for answer in real.answers.kept.get(piece.id, []):
            asked = question(KEYS.mask, answer)
            assert asked.is_met_by(answer_digest(asked.salt, piece.id, data, asked.kind))
    return [len(real.answers.kept.get(piece.id, ())) for piece in pieces]


async def test_answers_are_made_of_what_is_stored_topped_up_and_fetched(source: SourcePart, tmp_path: Path) -> None:
    targets = [TargetPart(str(tmp_path / "target"), 0, 0, len(DATA))]
    async with real_transfers() as real:
        real.answers.per_piece = 2
        real.use_hosts(2)
        shard = await stored(real, source)
        assert tell_right_answers(real, shard.pieces) == [2, 2]
        real.answers.known.add(shard.id)
        real.use_hosts(5)
        more = await real.transfers.top_up(shard, missing_slots(shard, 1))
        assert tell_right_answers(real, more) == [2]
        await real.transfers.download(shard, targets, urgent=True)
        assert tell_right_answers(real, shard.pieces) == [2, 2], "nothing was lacking"
        real.answers.kept.clear()
        await real.transfers.download(shard, targets, urgent=True)
        assert sorted(tell_right_answers(real, shard.pieces)) == [0, 2], "of the piece that came"


def tell_right_digests(real: RealTransfers) -> list[PieceId]:
    """The pieces of which digests were kept, each being what its host will make of it under the same salts."""
    for kept in real.market.kept:
        host = next(host for host in real.hosts if kept.piece in host.shelf.pieces)
        assert kept == digests_of(salts_for(host.node_id), kept.piece, host.shelf.pieces[kept.piece])
    pieces = [kept.piece for kept in real.market.kept]
    real.market.kept.clear()
    return sorted(pieces)


async def test_pieces_of_paid_hosts_are_digested_when_stored_topped_up_and_fetched(
    source: SourcePart, tmp_path: Path
) -> None:
    targets = [TargetPart(str(tmp_path / "target"), 0, 0, len(DATA))]
    async with real_transfers() as real:
        paid = {host.node_id for host in real.hosts[1:3]}
        real.finder.records = [host.record(price=5 if host.node_id in paid else 0) for host in real.hosts[:2]]
        shard = await stored(real, source)
        assert tell_right_digests(real) == [piece.id for piece in shard.pieces if piece.host in paid] != []
        real.finder.records = [host.record(price=5 if host.node_id in paid else 0) for host in real.hosts[:3]]
        more = await real.transfers.top_up(shard, missing_slots(shard, 1))
        assert tell_right_digests(real) == [piece.id for piece in more] != []
        await real.transfers.download(shard, targets, urgent=True)
        assert tell_right_digests(real) == [], "nothing was lacking"
        real.market.wanted = {piece.id: salts_for(piece.host) for piece in shard.pieces}
        await real.transfers.download(shard, targets, urgent=True)
        assert len(tell_right_digests(real)) == 1, "of the piece that came"
        real.market.wanted.clear()
        await real.transfers.digest(shard, [(piece, salts_for(piece.host)) for piece in shard.pieces])
        assert tell_right_digests(real) == sorted(piece.id for piece in shard.pieces), "all are made of one"
        other = msgspec.structs.replace(shard.pieces[0], generation=7)
        await real.transfers.digest(shard, [(other, salts_for(other.host))])
        assert tell_right_digests(real) == [], "what is not the recorded piece pays for nothing"


async def test_no_answers_are_made_of_the_volumes_history_or_where_none_are_wanted(source: SourcePart) -> None:
    async with real_transfers() as real:
        await stored(real, source)
        real.answers.per_piece = 2
        await real.transfers.upload([source], THREE, Purpose("checkpoint"))
        assert real.answers.kept == {}
