"""What moves when files want another redundancy, and that moving ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.model.redundancy import Redundancy
from layrfs.policy.recoding import batches, is_as_safe, leaving, wanted

REDUNDANCIES = st.sampled_from(
    [Redundancy(1, 2), Redundancy(1, 3), Redundancy(4, 8), Redundancy(2, 6), Redundancy(1, 5)]
)
WISHES = st.dictionaries(st.integers(1, 9), st.sets(REDUNDANCIES, max_size=3), max_size=6)


def test_the_file_that_asks_for_most_is_heard() -> None:
    assert wanted([Redundancy(1, 3), Redundancy(4, 8)]) == Redundancy(4, 8)  # survives four lost hosts, not two
    assert wanted([Redundancy(1, 5), Redundancy(4, 8)]) == Redundancy(1, 5)  # as many, and more is stored


@pytest.mark.parametrize(
    ("pieces", "redundancy", "spare_before", "expected"),
    [
        (3, Redundancy(1, 3), 2, True),
        (1, Redundancy(1, 3), 2, False),
        (2, Redundancy(1, 3), 1, True),
        (5, Redundancy(4, 8), 2, False),
        (6, Redundancy(4, 8), 2, True),
        (1, Redundancy(1, 1), 4, True),
        (1, Redundancy(1, 3), 0, True),
    ],
)
def test_bytes_go_where_they_are_as_safe_or_as_safe_as_is_wanted(
    pieces: int, redundancy: Redundancy, spare_before: int, *, expected: bool
) -> None:
    assert is_as_safe(pieces, redundancy, spare_before) is expected


@given(REDUNDANCIES, WISHES)
def test_what_has_moved_does_not_move_again(current: Redundancy, wishes: dict[int, set[Redundancy]]) -> None:
    targets = leaving(current, wishes)
    assert current not in targets.values()
    for content, several in wishes.items():
        now = targets.get(content, current)
        if several:
            assert now == wanted(several)
        else:
            assert now == current  # nobody needs it
        assert not leaving(now, {content: several})


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 40)), max_size=30, unique_by=lambda pair: pair[0]))
def test_batches_hold_every_shard_once_and_not_too_much(shards: list[tuple[int, int]]) -> None:
    made, sizes = list(batches(shards, 64)), dict(shards)
    assert [number for batch in made for number in batch] == [number for number, _bytes in shards]
    assert all(sum(sizes[number] for number in batch) <= 64 for batch in made)
    assert all(made)
