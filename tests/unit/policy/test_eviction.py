from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layrfs.policy.eviction import Candidate, choose, limit_with_pins, room, to_free

CANDIDATES = st.lists(
    st.builds(Candidate, st.integers(1, 50), st.none() | st.integers(0, 9), st.integers(1, 1000), st.floats(0, 100))
)


def test_least_recently_used_leave_first_and_no_more_than_needed() -> None:
    old, new, newest = (Candidate(inode, None, 100, used) for inode, used in ((1, 5.0), (2, 6.0), (3, 7.0)))
    assert choose([newest, old, new], 150) == [old, new]
    assert choose([newest, old, new], 0) == []
    assert choose([newest, old, new], 1000) == [old, new, newest]


@given(CANDIDATES, st.integers(0, 5000))
def test_choice_is_enough_without_its_last(candidates: list[Candidate], needed: int) -> None:
    chosen = choose(candidates, needed)
    freed = sum(one.clean_bytes for one in chosen)
    assert freed >= needed or len(chosen) == len(candidates)
    assert not chosen or freed - chosen[-1].clean_bytes < needed
    rest = [one for one in candidates if one not in chosen]
    assert not chosen or not rest or max(one.used for one in chosen) <= min(one.used for one in rest)


def test_room_is_the_smaller_of_limit_and_disk() -> None:
    assert room(limit_bytes=100, cached_bytes=30, free_bytes=1000, keep_free_bytes=10) == 70
    assert room(limit_bytes=100, cached_bytes=30, free_bytes=50, keep_free_bytes=10) == 40
    assert room(limit_bytes=100, cached_bytes=30, free_bytes=5, keep_free_bytes=10) == -5


def test_some_more_is_freed_than_needed_but_nothing_while_there_is_room() -> None:
    assert to_free(room_bytes=10, wanted_bytes=10, limit_bytes=1000) == 0
    assert to_free(room_bytes=-10, wanted_bytes=10, limit_bytes=1000) == 70


@given(st.integers(1, 10**12), st.integers(0, 10**12))
def test_pins_raise_the_limit_only_where_they_leave_the_rest_too_little(limit: int, pinned: int) -> None:
    raised = limit_with_pins(limit_bytes=limit, pinned_bytes=pinned)
    assert raised >= limit
    assert raised - pinned >= limit // 8
    assert raised == limit or raised - pinned == limit // 8
