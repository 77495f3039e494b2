"""What a drive makes of what a host says of itself, beside what is remembered of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from layrfs.app.looking_after import AlsoMyself
from layrfs.app.trusting import Trusting
from layrfs.ids import NodeId
from layrfs.policy.patching import PieceState
from layrfs.policy.trust import Outcome
from layrfs.storage.database import Database
from layrfs.storage.trust import Trusts
from tests.fakes.hosts import FakeFinder
from tests.unit.pipeline.test_placing import record

HOST, OWN = NodeId(bytes([1]) * 20), NodeId(bytes([2]) * 20)
DAY_SECONDS = 86_400.0


@pytest.mark.parametrize(
    ("outcome", "patch_after_seconds", "stays", "leaves"),
    [
        ("passed", 3 * DAY_SECONDS, "good", "leaving"),
        ("failed", 3 * DAY_SECONDS, "doubtful", "leaving"),
        ("passed", 0.0, "gone", "gone"),
    ],
)
def test_who_says_that_it_leaves_is_counted_on_as_long_as_it_is_there(
    tmp_path: Path, outcome: Outcome, patch_after_seconds: float, stays: PieceState, leaves: PieceState
) -> None:
    with Database(str(tmp_path / "metadata.db")) as database:
        said, unpaid = set[NodeId](), set[NodeId]()
        trusting = Trusting(Trusts(database), OWN, patch_after_seconds, said.__contains__, lambda: unpaid)
        trusting.trusts.heard(HOST, outcome)
        assert trusting.state_of(HOST) == stays
        for reason in (said, unpaid):
            reason.add(HOST)
            assert trusting.state_of(HOST) == leaves
            reason.clear()
        assert trusting.state_of(HOST) == stays


def test_a_delegate_that_leaves_counts_on_what_it_has_itself_no_more_than_on_others() -> None:
    own, other, stays = (msgspec.structs.replace(record(number), leaving=number < 3) for number in (1, 2, 3))
    finder = AlsoMyself(FakeFinder([other, stays]), own.node_id, lambda: own)
    assert [finder.is_leaving(host.node_id) for host in (own, other, stays)] == [True, True, False]
