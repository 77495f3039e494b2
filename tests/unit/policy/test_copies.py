from hypothesis import given
from hypothesis import strategies as st

from layrfs.policy.copies import to_forget, within_reach

HOSTS = st.binary(min_size=1, max_size=1)


@given(st.integers(1, 4), st.lists(HOSTS, max_size=6, unique=True), st.sets(HOSTS, max_size=6))
def test_within_reach_is_having_enough_pieces_at_hosts_that_answer(
    needed: int, holders: list[bytes], silent: set[bytes]
) -> None:
    assert within_reach(needed, holders, silent) == (len(set(holders) - silent) >= needed)
    assert not within_reach(needed, holders, silent | set(holders))


@given(st.integers(1, 4), st.sets(HOSTS, max_size=6), st.sets(HOSTS, max_size=6), st.sets(HOSTS, max_size=6))
def test_what_a_host_says_it_has_not_is_forgotten_only_while_others_show_enough(
    needed: int, recorded: set[bytes], held: set[bytes], missing: set[bytes]
) -> None:
    missing -= held
    forgotten = to_forget(needed, recorded, held, missing)
    assert forgotten in (set(), recorded & missing)
    assert not forgotten or len((recorded - forgotten) & held) >= needed
    assert forgotten or not recorded & missing or len(recorded & held) < needed
