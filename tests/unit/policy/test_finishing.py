"""An upload never stops with too little, never because of what is normal, and stops when a host is hopelessly late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layrfs.model.redundancy import Redundancy
from layrfs.policy.finishing import LATE_FACTOR, LEAST_SECONDS, enough, stops_in

CODES = st.builds(lambda needed, more: Redundancy(needed, needed + more), st.integers(2, 16), st.integers(1, 16))
TIMES = st.lists(st.floats(0, 1000), max_size=32).map(sorted)


def test_half_of_what_may_be_lost_is_there() -> None:
    assert [enough(Redundancy.parse(text)) for text in ("rs:4/8", "rs:2/3", "rs:10/30", "mirror:3")] == [6, 3, 20, 3]


@given(CODES | st.builds(Redundancy, st.just(1), st.integers(1, 16)), TIMES, st.floats(0, 10_000))
def test_never_with_too_little_and_never_early(redundancy: Redundancy, arrived: list[float], elapsed: float) -> None:
    arrived = arrived[: redundancy.total]
    left = stops_in(redundancy, arrived, elapsed)
    if left is None:
        assert redundancy.mirrors or len(arrived) < enough(redundancy) or enough(redundancy) == redundancy.total
        return
    assert redundancy.needed < enough(redundancy) <= len(arrived)
    stops_at = elapsed + left
    assert stops_at >= LEAST_SECONDS
    assert stops_at * (1 + 1e-9) >= LATE_FACTOR * arrived[enough(redundancy) - 1]
    # Who comes after those that are enough changes nothing, and waiting brings the end nearer.
    assert stops_in(redundancy, arrived[: enough(redundancy)], elapsed) == left
    assert stops_in(redundancy, arrived, elapsed + left) == 0


@given(CODES.filter(lambda code: enough(code) < code.total), st.floats(0, 100))
def test_it_ends(code: Redundancy, quick: float) -> None:
    assert stops_in(code, [quick] * enough(code), LEAST_SECONDS + LATE_FACTOR * quick) == 0
