from hypothesis import given
from hypothesis import strategies as st

from layrfs.policy.copies import within_reach

HOSTS = st.binary(min_size=1, max_size=1)


@given(st.integers(1, 4), st.lists(HOSTS, max_size=6, unique=True), st.sets(HOSTS, max_size=6))
def test_within_reach_is_having_enough_pieces_at_hosts_that_answer(
    needed: int, holders: list[bytes], silent: set[bytes]
) -> None:
    assert within_reach(needed, holders, silent) == (len(set(holders) - silent) >= needed)
    assert not within_reach(needed, holders, silent | set(holders))
