"""What is remembered of hosts survives a restart, never costs one, and is nobody else's business."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layrfs.ids import NodeId
from layrfs.policy.trust import EXCLUSION_SECONDS, NEW_HOST, Outcome
from layrfs.storage.database import Database
from layrfs.storage.trust import Trusts

ONE, OTHER = NodeId(bytes([1]) * 20), NodeId(bytes([2]) * 20)


class Clock:
    def __init__(self) -> None:
        self.now = 1_900_000_000.0

    def __call__(self) -> float:
        self.now += 200
        return self.now


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(str(tmp_path / "metadata.db")) as database:
        yield database


def heard(trusts: Trusts, host: NodeId, outcome: Outcome, times: int) -> None:
    for _ in range(times):
        trusts.heard(host, outcome)


def test_memories_survive_a_restart(database: Database) -> None:
    trusts = Trusts(database, Clock())
    heard(trusts, ONE, "passed", 3)
    heard(trusts, OTHER, "missing", 1)
    again = Trusts(database, Clock())
    assert [again.get(host) for host in (ONE, OTHER)] == [trusts.get(host) for host in (ONE, OTHER)]
    assert again.get(ONE).passed == 3
    assert again.get(NodeId(bytes(20))) == NEW_HOST


def test_a_row_that_cannot_be_read_is_a_new_host(database: Database) -> None:
    heard(Trusts(database, Clock()), ONE, "failed", 2)
    for memory in (b"", b"\xff", b"\xa3abc", b"\x90"):
        database.write("INSERT OR REPLACE INTO local_trust VALUES(?, ?)", (OTHER, memory))
        trusts = Trusts(database, Clock())
        assert trusts.get(OTHER) == NEW_HOST
        assert trusts.get(ONE) != NEW_HOST
        heard(trusts, OTHER, "passed", 1)
        assert Trusts(database, Clock()).get(OTHER).passed == 1


def test_who_is_caught_is_suspended_then_excluded_and_comes_back(database: Database) -> None:
    clock = Clock()
    trusts = Trusts(database, clock)
    heard(trusts, ONE, "passed", 5)
    heard(trusts, OTHER, "failed", 1)
    assert trusts.suspended() == trusts.doubted() == {OTHER}
    assert Trusts(database, clock).suspended() == {OTHER}
    assert trusts.excluded() == set()
    heard(trusts, OTHER, "failed", 5)
    assert trusts.standing(OTHER) == "excluded"
    assert (trusts.suspended(), trusts.excluded()) == (set(), {OTHER})
    clock.now += EXCLUSION_SECONDS
    assert trusts.suspended() == trusts.excluded() == trusts.doubted() == set()


def test_what_silent_hosts_have_is_not_counted_on_until_they_answer(database: Database) -> None:
    clock = Clock()
    trusts = Trusts(database, clock)
    heard(trusts, ONE, "passed", 5)
    heard(trusts, OTHER, "passed", 5)
    heard(trusts, OTHER, "offline", 5)
    assert trusts.doubted() == {OTHER}
    heard(trusts, OTHER, "passed", 1)
    assert trusts.doubted() == set()


def test_reading_well_is_written_down_with_the_next_audit(database: Database) -> None:
    trusts = Trusts(database, Clock())
    for _ in range(5):
        trusts.heard(ONE, "passed", retrieval=True)
    assert trusts.get(ONE).passed == 5
    assert Trusts(database, Clock()).get(ONE) == NEW_HOST
    trusts.heard(ONE, "passed")
    assert Trusts(database, Clock()).get(ONE) == trusts.get(ONE)


def test_opinions_are_not_part_of_the_volume(database: Database) -> None:
    database.commit()
    before = database.value("SELECT count(*) FROM local_change")
    heard(Trusts(database, Clock()), ONE, "failed", 3)
    database.commit()
    assert database.value("SELECT count(*) FROM local_change") == before
