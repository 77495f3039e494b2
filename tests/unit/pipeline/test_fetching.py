from __future__ import annotations

import threading
from pathlib import Path

import pytest

from layrfs.errors import LocalError, Unavailable
from layrfs.model.shards import ShardRecord
from layrfs.pipeline.fetching import download
from layrfs.pipeline.jobs import Attempt, Download
from layrfs.pipeline.ports import Cancelled
from layrfs.pipeline.transfers import TargetPart
from layrfs.policy.hedging import Hedge
from tests.unit.pipeline.jobs_in_process import PATIENT, Bench, FakeForeman, bench, host, plan

DATA = b"what the file holds, " * 1000


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return str(path)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def fetch_to(
    target: Path,
    at: Bench,
    shard: ShardRecord,
    *,
    hedge: Hedge = PATIENT,
    deadline_seconds: float = 30.0,
    foreman: FakeForeman | None = None,
) -> list[tuple[int, str]]:
    """Download to `target`; (host number, outcome) of each attempt."""
    attempts: list[Attempt] = []
    job = Download(
        1,
        plan(shard, hedge=hedge, deadline_seconds=deadline_seconds),
        (TargetPart(str(target), 0, 0, len(DATA)),),
    )
    try:
        done = download(at.tools, foreman or FakeForeman(0), job, attempts)
        assert done.attempts == tuple(attempts)
    finally:
        seen = [(attempt.host[0], str(attempt.outcome)) for attempt in attempts]
    return seen


def test_a_good_first_host_is_enough(source: str, target: Path) -> None:
    with bench() as at:
        shard = at.stored(source, len(DATA))
        assert fetch_to(target, at, shard) == [(1, "good")]
    assert target.read_bytes() == DATA


@pytest.mark.parametrize(("fault", "outcome"), [("wrong", "wrong"), ("lose", "missing"), ("cut", "unreachable")])
def test_after_a_failure_the_next_copy_is_used_at_once(source: str, target: Path, fault: str, outcome: str) -> None:
    with bench() as at:
        shard = at.stored(source, len(DATA))
        at.shelf(1).fault = at.shelf(2).fault = fault
        assert fetch_to(target, at, shard) == [(1, outcome), (2, outcome), (3, "good")]
    assert target.read_bytes() == DATA


def test_a_late_host_is_overtaken_and_hung_up_on(source: str, target: Path) -> None:
    with bench() as at:
        shard = at.stored(source, len(DATA))
        at.shelf(1).fault = "hang"
        assert fetch_to(target, at, shard, hedge=Hedge(30.0, 0.01)) == [(2, "good"), (1, "late")]
        assert at.shelf(1).given_up.wait(10)
    assert target.read_bytes() == DATA


def test_a_host_that_sends_is_not_late(source: str, target: Path) -> None:
    with bench() as at:
        shard = at.stored(source, len(DATA))
        at.shelf(1).fault = "slow"
        assert fetch_to(target, at, shard, hedge=Hedge(30.0, 0.2)) == [(1, "good")]
    assert target.read_bytes() == DATA


def test_a_host_that_sends_for_too_long_is_late(source: str, target: Path) -> None:
    with bench() as at:
        shard = at.stored(source, len(DATA))
        at.shelf(1).fault = "slow"
        assert fetch_to(target, at, shard, hedge=Hedge(0.2, 0.2)) == [(2, "good"), (1, "late")]
    assert target.read_bytes() == DATA


def test_a_copy_that_is_not_of_the_shard_is_wrong_though_its_id_fits(source: str, target: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"another file")
    with bench() as at:
        shard, other = at.stored(source, len(DATA)), at.stored(str(tmp_path / "other"), 12)
        mixed = ShardRecord(
            shard.id,
            shard.salt,
            shard.plain_bytes,
            shard.sealed_bytes,
            shard.redundancy,
            (other.pieces[0], *shard.pieces[1:]),
        )
        assert fetch_to(target, at, mixed) == [(1, "wrong"), (2, "good")]


def test_when_all_fail_it_is_unavailable_and_nothing_is_written(source: str, target: Path) -> None:
    with bench() as at:
        shard = at.stored(source, len(DATA))
        for number, fault in ((1, "wrong"), (2, "lose"), (3, "cut")):
            at.shelf(number).fault = fault
        with pytest.raises(Unavailable):
            fetch_to(target, at, shard)
    assert not target.exists()


def test_the_deadline_ends_hosts_that_never_answer(source: str, target: Path) -> None:
    with bench() as at:
        shard = at.stored(source, len(DATA))
        for number in (1, 2, 3):
            at.shelf(number).fault = "hang"
        with pytest.raises(Unavailable):
            fetch_to(target, at, shard, hedge=Hedge(30.0, 0.01), deadline_seconds=0.1)
        assert all(at.shelf(number).given_up.wait(10) for number in (1, 2, 3))


def test_cancelling_hangs_up(source: str, target: Path) -> None:
    with bench() as at:
        shard, foreman = at.stored(source, len(DATA)), FakeForeman(0)
        at.shelf(1).fault = "hang"
        raised: list[BaseException] = []

        def fetch_it() -> None:
            try:
                fetch_to(target, at, shard, foreman=foreman)
            except Cancelled as error:
                raised.append(error)

        thread = threading.Thread(target=fetch_it)
        thread.start()
        foreman.calls.cancel()
        thread.join(10)
        assert len(raised) == 1
    assert not target.exists()


def test_a_target_that_cannot_be_written_is_not_a_hosts_fault(source: str, target: Path) -> None:
    with bench() as at:
        shard = at.stored(source, len(DATA))
        with pytest.raises(LocalError):
            fetch_to(target / "none" / "file", at, shard)


def test_candidates_are_asked_where_the_plan_says(source: str, target: Path) -> None:
    with bench() as at:
        shard = at.stored(source, len(DATA), copies=1)
        at.shelf(4).pieces.update(at.shelf(1).pieces)
        (candidate,) = plan(shard).candidates
        elsewhere = plan(shard).__class__(shard, (candidate.__class__(candidate.piece, host(4)),), 30.0, 30.0)
        attempts: list[Attempt] = []
        download(at.tools, FakeForeman(0), Download(1, elsewhere, ()), attempts)
        assert [(attempt.host, attempt.outcome) for attempt in attempts] == [(host(4).node_id, "good")]
