"""Which server is asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layrfs.policy.endpoints import FRESH, LONGEST_REST_SECONDS, EndpointRecord, in_order, rest_seconds

FAILED = FRESH.after_failure(100.0)


def test_fresh_ones_are_asked_as_they_were_listed() -> None:
    assert in_order([FRESH, FRESH, FRESH], 0.0) == [0, 1, 2]


def test_one_that_failed_rests_and_comes_last_afterwards() -> None:
    assert in_order([FAILED, FRESH], 101.0) == [1]
    assert in_order([FAILED, FRESH], 102.0) == [1, 0]
    assert rest_seconds([FAILED], 101.0) == 1.0


def test_a_wish_for_rest_is_granted_within_reason() -> None:
    assert in_order([FRESH.after_failure(100.0, 60.0)], 159.0) == []
    assert in_order([FRESH.after_failure(100.0, 60.0)], 160.0) == [0]
    assert in_order([FRESH.after_failure(100.0, 1e9)], 100.0 + LONGEST_REST_SECONDS) == [0]


@given(st.lists(st.floats(0, 1e6), max_size=20), st.floats(0, 1e6))
def test_none_is_given_up(failures: list[float], rest: float) -> None:
    record = EndpointRecord()
    for moment in sorted(failures):
        record = record.after_failure(moment, rest)
    assert in_order([record], max(failures, default=0.0) + LONGEST_REST_SECONDS + 300.0) == [0]
