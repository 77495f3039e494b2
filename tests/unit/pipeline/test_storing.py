from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from layrfs.crypto.keys import tenant_private
from layrfs.errors import Unavailable
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import ShardRecord
from layrfs.pipeline.fetching import download
from layrfs.pipeline.jobs import Attempt, Discard, Done, Download, Place, TopUp, Upload, Wish
from layrfs.pipeline.ports import Cancelled
from layrfs.pipeline.sealing import SealingKeys
from layrfs.pipeline.storing import discard, top_up, upload
from layrfs.pipeline.transfers import Slot, SourcePart, TargetPart
from layrfs.policy import finishing
from tests.unit.pipeline.jobs_in_process import VOLUME_KEYS, Bench, FakeForeman, bench, host, plan

DATA = b"what the file holds, " * 1000


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return str(path)


def store(at: Bench, source: str, foreman: FakeForeman) -> ShardRecord:
    done = upload(at.tools, foreman, Upload(1, (SourcePart(2, 0, source, 0, len(DATA)),), Redundancy(1, 3)))
    assert done.uploaded is not None
    assert done.uploaded.shard is not None
    return done.uploaded.shard


def hosts_of(shard: ShardRecord) -> list[int]:
    return [piece.host[0] for piece in shard.pieces]


def test_three_copies_go_to_three_hosts(source: str) -> None:
    with bench() as at:
        shard = store(at, source, FakeForeman(5))
        assert hosts_of(shard) == [1, 2, 3]
        for piece in shard.pieces:
            assert set(at.shelf(piece.host[0]).pieces) == {piece.id}
            assert at.shelf(piece.host[0]).tenants == {tenant_private(VOLUME_KEYS.mask, piece.host)}


def test_no_host_receives_plaintext(source: str) -> None:
    with bench() as at:
        store(at, source, FakeForeman(5))
        received = b"".join(data for number in (1, 2, 3) for data in at.shelf(number).pieces.values())
    assert b"what the file" not in received
    assert b"LYRS" not in received


@pytest.mark.parametrize(("fault", "outcome"), [("refuse", "refused"), ("cut", "unreachable")])
def test_another_host_takes_what_one_does_not(source: str, fault: str, outcome: str) -> None:
    with bench() as at:
        at.shelf(2).fault = fault
        foreman = FakeForeman(5)
        assert hosts_of(store(at, source, foreman)) == [1, 4, 3]
        assert [(wish.failed, wish.outcome) for wish in foreman.wishes[3:]] == [(host(2).node_id, outcome)]


def test_what_finds_no_host_is_missing_from_a_degraded_shard(source: str) -> None:
    with bench() as at:
        at.shelf(1).fault = "cut"
        shard = store(at, source, FakeForeman(2))
        assert [(piece.position, piece.host[0]) for piece in shard.pieces] == [(1, 2)]


def test_without_any_copy_it_is_unavailable(source: str) -> None:
    with bench(hosts=2) as at:
        at.shelf(1).fault = at.shelf(2).fault = "refuse"
        with pytest.raises(Unavailable):
            store(at, source, FakeForeman(2))


def test_a_cancelled_upload_ends_its_calls(source: str) -> None:
    with bench() as at:
        at.shelf(1).fault = "hang"
        foreman, raised = FakeForeman(5), list[BaseException]()

        def store_it() -> None:
            try:
                store(at, source, foreman)
            except Cancelled as error:
                raised.append(error)

        thread = threading.Thread(target=store_it)
        thread.start()
        foreman.calls.cancel()
        thread.join(10)
        assert len(raised) == 1


def topped_up(at: Bench, shard: ShardRecord, slots: tuple[Slot, ...]) -> Done:
    foreman = FakeForeman(5)
    foreman.free = [host(4), host(5)]
    return top_up(at.tools, foreman, TopUp(1, plan(shard), slots), [])


def test_a_topped_up_copy_is_as_good_as_any(source: str, tmp_path: Path) -> None:
    with bench() as at:
        shard = at.stored(source, len(DATA), copies=1)
        done = topped_up(at, shard, (Slot(1, 0), Slot(0, 1)))
        assert [(piece.position, piece.generation, piece.host[0]) for piece in done.pieces] == [(1, 0, 4), (0, 1, 5)]
        for number, piece in enumerate(done.pieces):
            alone = ShardRecord(shard.id, shard.salt, shard.plain_bytes, shard.sealed_bytes, shard.redundancy, (piece,))
            target = tmp_path / f"target-{number}"
            job = Download(1, plan(alone), (TargetPart(str(target), 0, 0, len(DATA)),))
            download(at.tools, FakeForeman(0), job, [])
            assert target.read_bytes() == DATA


def test_topping_up_never_spreads_a_bad_copy(source: str, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"another file")
    with bench() as at:
        shard, other = at.stored(source, len(DATA)), at.stored(str(tmp_path / "other"), 12)
        mixed = ShardRecord(
            shard.id, shard.salt, shard.plain_bytes, shard.sealed_bytes, shard.redundancy, other.pieces[:1]
        )
        attempts: list[Attempt] = []
        with pytest.raises(Unavailable):
            top_up(at.tools, FakeForeman(5), TopUp(1, plan(mixed), (Slot(1, 0),)), attempts)
        assert [attempt.outcome for attempt in attempts] == ["misfit"]


def test_discarding_reaches_whom_it_can(source: str) -> None:
    with bench() as at:
        shard = at.stored(source, len(DATA))
        at.shelf(2).fault = "cut"
        discard(at.tools, Discard(1, tuple((host(piece.host[0]), piece.id) for piece in shard.pieces)))
        assert [len(at.shelf(number).pieces) for number in (1, 2, 3)] == [0, 1, 0]


CODE = Redundancy(2, 4)


def test_pieces_of_a_code_go_to_as_many_hosts_and_are_smaller(source: str) -> None:
    with bench() as at:
        shard = at.coded(source, len(DATA), CODE)
        assert hosts_of(shard) == [1, 2, 3, 4]
        stored = [data for number in range(1, 5) for data in at.shelf(number).pieces.values()]
        assert {len(data) for data in stored} == {CODE.piece_bytes(shard.sealed_bytes)}


@pytest.mark.parametrize("left", [(0, 1), (0, 3), (2, 3)])
def test_any_pieces_are_enough_to_make_the_others_again(source: str, left: tuple[int, ...]) -> None:
    """Without the content key: what the mask key opens is enough."""
    with bench() as at:
        shard = at.coded(source, len(DATA), CODE)
        pieces = tuple(piece for piece in shard.pieces if piece.position in left)
        lost = [piece for piece in shard.pieces if piece.position not in left]
        damaged = msgspec.structs.replace(shard, pieces=pieces)
        tools = msgspec.structs.replace(at.tools, keys=SealingKeys(bytes(32), bytes(32), VOLUME_KEYS.volume_id))
        foreman = FakeForeman(5)
        foreman.free = [host(4), host(5)]
        job = TopUp(1, plan(damaged), tuple(Slot(piece.position, piece.generation) for piece in lost))
        done = top_up(tools, foreman, job, [])
        assert [piece.id for piece in done.pieces] == [piece.id for piece in lost]


def test_hosts_that_are_much_later_than_the_others_are_not_waited_for(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "LEAST_SECONDS", 0.2)
    with bench(hosts=8) as at:
        at.shelf(2).fault = at.shelf(7).fault = "hang"
        foreman = FakeForeman(8)
        job = Upload(1, (SourcePart(2, 0, source, 0, len(DATA)),), Redundancy(4, 8))
        done = upload(at.tools, foreman, job)
        assert done.uploaded is not None
        assert done.uploaded.shard is not None
        assert hosts_of(done.uploaded.shard) == [1, 3, 4, 5, 6, 8]
        assert at.shelf(2).given_up.wait(10)
        assert at.shelf(7).given_up.wait(10)
        assert [wish.failed for wish in foreman.wishes] == [None] * 8  # nobody is blamed
        assert all(well for _bytes, _seconds, well in foreman.tries)
        assert {(attempt.host[0], attempt.outcome) for attempt in done.attempts} == {(2, "late"), (7, "late")}


def test_a_host_that_is_found_when_it_is_too_late_is_not_asked_and_not_blamed(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "LEAST_SECONDS", 0.2)
    with bench(hosts=9) as at:

        class Slow(FakeForeman):
            def find_places(self, wishes: Sequence[Wish]) -> Sequence[Place | None]:
                if wishes[0].failed is not None:
                    assert at.shelf(7).given_up.wait(10)
                return super().find_places(wishes)

        at.shelf(2).fault, at.shelf(7).fault = "refuse", "hang"
        job = Upload(1, (SourcePart(2, 0, source, 0, len(DATA)),), Redundancy(4, 8))
        done = upload(at.tools, Slow(9), job)
        assert done.uploaded is not None
        assert done.uploaded.shard is not None
        assert hosts_of(done.uploaded.shard) == [1, 3, 4, 5, 6, 8]
        assert [(attempt.host[0], attempt.outcome) for attempt in done.attempts] == [(7, "late")]


@pytest.mark.parametrize("redundancy", [Redundancy(1, 3), Redundancy(4, 8)])
def test_too_few_pieces_are_never_enough(source: str, monkeypatch: pytest.MonkeyPatch, redundancy: Redundancy) -> None:
    monkeypatch.setattr(finishing, "LEAST_SECONDS", 0.0)
    with bench(hosts=8) as at:
        for number in (1, 2, 3):
            at.shelf(number).fault = "hang"
        foreman = FakeForeman(8)
        job = Upload(1, (SourcePart(2, 0, source, 0, len(DATA)),), redundancy)
        with ThreadPoolExecutor(1) as thread:
            uploading = thread.submit(upload, at.tools, foreman, job)
            with pytest.raises(TimeoutError):
                uploading.result(0.3)
            foreman.calls.cancel()
            with pytest.raises(Cancelled):
                uploading.result(10)


def test_fewer_pieces_than_are_needed_are_no_shard(source: str) -> None:
    with bench() as at:
        job = Upload(1, (SourcePart(2, 0, source, 0, len(DATA)),), Redundancy(4, 8))
        with pytest.raises(Unavailable, match="Only 3 hosts took a piece; rs:4/8 needs 4"):
            upload(at.tools, FakeForeman(3), job)
        assert not any(at.shelf(number).pieces for number in (1, 2, 3)), "nothing is sent in vain"
        at.shelf(1).fault = at.shelf(2).fault = "refuse"
        with pytest.raises(Unavailable, match="Only 3 hosts took a piece"):
            upload(at.tools, FakeForeman(5), job)
        at.shelf(1).fault = at.shelf(2).fault = ""
        done = upload(at.tools, FakeForeman(5), job)
        assert done.uploaded is not None
        assert done.uploaded.shard is not None
        assert len(done.uploaded.shard.pieces) == 5


class Meetings(FakeForeman):
    """Notices when two pieces are on their way at the same time: each waits a moment for another."""

    def __init__(self) -> None:
        super().__init__(5)
        self.met = False
        self._barrier = threading.Barrier(2)

    def moving(self) -> None:
        try:
            self._barrier.wait(0.2)
            self.met = True
        except threading.BrokenBarrierError:
            self._barrier.reset()


@pytest.mark.parametrize(
    ("piece_bytes", "together", "meet"), [(1 << 20, False, False), (1 << 20, True, True), (1000, False, True)]
)
def test_large_pieces_go_one_after_the_other_where_the_line_is_slow(
    tmp_path: Path, piece_bytes: int, together: bool, meet: bool
) -> None:
    path = tmp_path / "random"
    path.write_bytes(os.urandom(piece_bytes))
    parts = (SourcePart(2, 0, str(path), 0, piece_bytes),)
    with bench() as at:
        foreman = Meetings()
        upload(at.tools, foreman, Upload(1, parts, Redundancy(1, 2), together=together))
        assert foreman.met == meet
        assert [well for _bytes, _seconds, well in foreman.tries] == [True, True]
