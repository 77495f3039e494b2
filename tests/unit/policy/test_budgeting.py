"""The budget holds whatever is asked for in whatever order, and what hosts have is renewed before anything grows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layrfs.ids import NodeId
from layrfs.policy.budgeting import Holding, fits, kept_bytes, left_for, monthly
from layrfs.policy.paymaster import FEWEST_BYTES, deposit
from layrfs.policy.pricing import PRICED_SECONDS, due_stroops

GIB = 1 << 30
HOSTS = [NodeId(bytes([number]) * 20) for number in range(4)]
PRICES = dict(zip(HOSTS, (10**7, 3 * 10**7, 7, 10**9), strict=True))
WINDOW = PRICED_SECONDS // 4

events = st.lists(
    st.one_of(
        st.tuples(st.just("store"), st.sampled_from(HOSTS), st.integers(1, 64 * GIB)),
        st.tuples(st.just("renew"), st.sampled_from(HOSTS), st.just(0)),
        st.tuples(st.just("budget"), st.just(HOSTS[0]), st.integers(0, 10**8)),
    ),
    max_size=40,
)


def renewal(budget: int, holdings: list[Holding], host: NodeId) -> int | None:
    return deposit(
        PRICES[host],
        left_per_month=left_for(budget, holdings, host),
        instalments=4,
        window_seconds=WINDOW,
        kept_bytes=kept_bytes(holdings, host),
    )


@given(events)
def test_nothing_that_is_let_in_takes_the_sum_above_the_budget(history: list[tuple[str, NodeId, int]]) -> None:
    budget, stored = 10**7, dict.fromkeys(HOSTS, 0)
    for event, host, number in history:
        holdings = [Holding(each, PRICES[each], stored[each]) for each in HOSTS if stored[each]]
        before = monthly(holdings)
        if event == "budget":
            budget = number
        elif event == "store" and fits(budget, holdings, [Holding(host, PRICES[host], number)]):
            stored[host] += number
            assert before + due_stroops(PRICES[host], number, PRICED_SECONDS) <= budget
        elif event == "renew" and stored[host]:
            is_renewed = renewal(budget, holdings, host) is not None
            assert is_renewed or before > budget
            stored[host] *= is_renewed
            others = [each for each in holdings if each.host != host]
            assert not is_renewed or monthly(others) + due_stroops(PRICES[host], stored[host], PRICED_SECONDS) <= budget


def test_what_a_new_host_would_get_too_little_of_is_not_begun_and_what_one_has_goes_on() -> None:
    host, other = HOSTS[0], HOSTS[1]
    small = [Holding(host, PRICES[host], 1 << 20), Holding(other, PRICES[other], 40 * GIB)]
    budget = monthly(small)
    assert renewal(budget, small, host) is not None
    assert renewal(budget, small, HOSTS[3]) is None
    assert renewal(budget - 1, small, host) is None


def test_without_a_budget_anything_fits() -> None:
    holdings = [Holding(HOSTS[0], 10**15, 1 << 60)]
    assert fits(None, holdings, holdings)
    assert left_for(None, holdings, HOSTS[1]) is None


def test_a_contract_is_begun_for_what_is_left() -> None:
    left = due_stroops(PRICES[HOSTS[0]], FEWEST_BYTES, PRICED_SECONDS)
    assert left_for(left + 5, [Holding(HOSTS[1], PRICES[HOSTS[1]], 1)], HOSTS[0]) == left + 4
