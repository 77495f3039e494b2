from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest

from layrfs.errors import LocalError, Unavailable
from layrfs.ids import ShardId
from layrfs.model.redundancy import Redundancy
from layrfs.model.shard_format import MAX_SEALED_BYTES
from layrfs.model.shards import ShardRecord
from layrfs.pipeline.fetching import download, examine
from layrfs.pipeline.jobs import Attempt, Download, Examine, TargetFile
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


def test_a_copy_that_is_what_was_asked_for_and_not_of_the_shard_is_no_fault_of_its_host(
    source: str, target: Path, tmp_path: Path
) -> None:
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
        assert fetch_to(target, at, mixed) == [(1, "misfit"), (2, "good")]


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
            fetch_to(target, at, shard, hedge=Hedge(30.0, 0.01), deadline_seconds=1.5)
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


# ------------------------------------------------------------- several pieces

CODE = Redundancy(3, 6)


def test_as_many_hosts_are_asked_as_are_needed(source: str, target: Path) -> None:
    with bench(hosts=6) as at:
        shard = at.coded(source, len(DATA), CODE)
        assert sorted(fetch_to(target, at, shard)) == [(1, "good"), (2, "good"), (3, "good")]
        assert [at.shelf(number).asked for number in (4, 5, 6)] == [1, 1, 1]  # for storing
    assert target.read_bytes() == DATA


@pytest.mark.parametrize(("fault", "outcome"), [("wrong", "wrong"), ("lose", "missing"), ("cut", "unreachable")])
def test_another_host_is_asked_for_each_that_fails(source: str, target: Path, fault: str, outcome: str) -> None:
    with bench(hosts=6) as at:
        shard = at.coded(source, len(DATA), CODE)
        for number in (1, 3, 4):
            at.shelf(number).fault = fault
        good = [(number, "good") for number in (2, 5, 6)]
        assert sorted(fetch_to(target, at, shard)) == sorted([*good, *((number, outcome) for number in (1, 3, 4))])
    assert target.read_bytes() == DATA


def test_another_host_is_asked_for_each_that_is_late(source: str, target: Path) -> None:
    with bench(hosts=6) as at:
        shard = at.coded(source, len(DATA), CODE)
        at.shelf(1).fault = at.shelf(3).fault = "hang"
        seen = fetch_to(target, at, shard, hedge=Hedge(30.0, 0.05))
        assert sorted(seen) == [(1, "late"), (2, "good"), (3, "late"), (4, "good"), (5, "good")]
        assert at.shelf(6).asked == 1
    assert target.read_bytes() == DATA


def test_too_few_good_pieces_are_none(source: str, target: Path) -> None:
    with bench(hosts=6) as at:
        shard = at.coded(source, len(DATA), CODE)
        for number, fault in ((1, "wrong"), (2, "lose"), (3, "cut"), (6, "cut")):
            at.shelf(number).fault = fault
        with pytest.raises(Unavailable):
            fetch_to(target, at, shard)
    assert not target.exists()


def mixed(at: Bench, source: str, tmp_path: Path, foreign: set[int]) -> ShardRecord:
    """A shard of which pieces at these positions are, by its record, those of another one."""
    (tmp_path / "other").write_bytes(DATA[::-1])
    shard, other = (at.coded(path, len(DATA), CODE) for path in (source, str(tmp_path / "other")))
    pieces = [(other if piece.position in foreign else shard).pieces[piece.position] for piece in shard.pieces]
    return msgspec.structs.replace(shard, pieces=tuple(pieces))


@pytest.mark.parametrize("foreign", [{0}, {2}, {0, 1}, {1, 3, 5}])
def test_pieces_that_do_not_fit_are_found_out(source: str, target: Path, tmp_path: Path, foreign: set[int]) -> None:
    with bench(hosts=6) as at:
        seen = fetch_to(target, at, mixed(at, source, tmp_path, foreign))
        asked_in_vain = {number for number, outcome in seen if outcome == "misfit"}
        assert asked_in_vain == {position + 1 for position in foreign if position + 1 <= max(seen)[0]}
        assert sum(outcome == "good" for _number, outcome in seen) >= CODE.needed
    assert target.read_bytes() == DATA


def test_when_no_company_fits_nobody_is_blamed(source: str, target: Path, tmp_path: Path) -> None:
    with bench(hosts=6) as at:
        shard = mixed(at, source, tmp_path, {0, 2, 4})
        shard = msgspec.structs.replace(shard, pieces=shard.pieces[:5])
        with pytest.raises(Unavailable):
            fetch_to(target, at, shard)
        attempts: list[Attempt] = []
        with pytest.raises(Unavailable):
            download(at.tools, FakeForeman(0), Download(1, plan(shard), ()), attempts)
        assert {attempt.outcome for attempt in attempts} == {"good"}


def test_two_places_of_one_piece_are_one_piece(source: str, target: Path) -> None:
    """The host of the records is gone, the piece is found elsewhere: a stray, behind all others."""
    with bench(hosts=8) as at:
        shard = at.coded(source, len(DATA), Redundancy(3, 4))
        at.shelf(7).pieces.update(at.shelf(2).pieces)
        for number in (2, 4):
            at.shelf(number).fault = "cut"
        planned = plan(shard)
        stray = planned.candidates[1].__class__(planned.candidates[1].piece, host(7))
        job = Download(
            1,
            msgspec.structs.replace(planned, candidates=(*planned.candidates, stray)),
            (TargetPart(str(target), 0, 0, len(DATA)),),
        )
        attempts: list[Attempt] = []
        download(at.tools, FakeForeman(0), job, attempts)
        assert (host(7).node_id, "good") in [(attempt.host, attempt.outcome) for attempt in attempts]
    assert target.read_bytes() == DATA


def test_a_shard_of_which_only_the_salt_is_known(source: str, target: Path) -> None:
    with bench(hosts=6) as at:
        shard = at.coded(source, len(DATA), CODE)
        bare = ShardRecord(ShardId(bytes(32)), shard.salt, 0, MAX_SEALED_BYTES, CODE, shard.pieces[2:])
        done = examine(at.tools, FakeForeman(0), Examine(1, plan(bare), TargetFile(str(target), 0)), [])
        assert done.examined is not None
        assert (done.examined.id, done.examined.sealed_bytes) == (shard.id, shard.sealed_bytes)
    assert target.read_bytes() == DATA
