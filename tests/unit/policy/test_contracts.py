"""The life cycles: everything is decided, the ledger's word is final, and everybody gets to an end."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.policy import contracts
from tests.contract_terms import TERMS

OWNER_EVENTS = get_args(contracts.OwnerEvent)
HOST_EVENTS = get_args(contracts.HostEvent)
INSTALMENT_EVENTS = get_args(contracts.InstalmentEvent)
TABLES = [
    (contracts.OWNER, contracts.OwnerState, contracts.OwnerEvent),
    (contracts.HOST, contracts.HostState, contracts.HostEvent),
    (contracts.INSTALMENT, contracts.InstalmentState, contracts.InstalmentEvent),
]


@pytest.mark.parametrize(("table", "state", "event"), TABLES, ids=["owner", "host", "instalment"])
def test_every_state_and_event_is_decided(table: dict[str, tuple[str, ...]], state: object, event: object) -> None:
    states, events = get_args(state), get_args(event)
    assert set(table) == set(states)
    assert all(len(row) == len(events) and set(row) <= set(states) for row in table.values())


@pytest.mark.parametrize(("table", "state", "event"), TABLES, ids=["owner", "host", "instalment"])
def test_an_event_that_is_told_twice_changes_nothing_more(
    table: dict[str, tuple[str, ...]], state: object, event: object
) -> None:
    for now, at in product(table, range(len(get_args(event)))):
        then = table[now][at]
        assert table[then][at] == then


@given(st.lists(st.sampled_from(OWNER_EVENTS)), st.lists(st.sampled_from(OWNER_EVENTS)))
def test_the_owner_believes_the_ledger_in_the_end(
    before: list[contracts.OwnerEvent], after: list[contracts.OwnerEvent]
) -> None:
    state: contracts.OwnerState = "agreed"
    for event in [*before, "merged", *after]:
        state = contracts.owner_after(state, event)
    assert state == "merged"


@given(st.lists(st.sampled_from(OWNER_EVENTS)))
def test_an_escrow_with_money_is_never_given_up(events: list[contracts.OwnerEvent]) -> None:
    state: contracts.OwnerState = "agreed"
    for event in events:
        state = contracts.owner_after(state, event)
    if "set up" in events and "merged" not in events:
        assert state in {"open", "settling", "broken", "ended"}


@given(st.lists(st.sampled_from(INSTALMENT_EVENTS)))
def test_an_instalment_is_claimed_when_the_ledger_says_so_once(events: list[contracts.InstalmentEvent]) -> None:
    state: contracts.InstalmentState = "waiting"
    for event in events:
        state = contracts.instalment_after(state, event)
    assert (state == "claimed") == ("claimed" in events)
    assert (state == "missed") == ("window over" in events and "claimed" not in events)


@given(st.lists(st.sampled_from(HOST_EVENTS)))
def test_a_host_lets_go_after_notice_or_at_an_end_only(events: list[contracts.HostEvent]) -> None:
    state: contracts.HostState = "agreed"
    for event in events:
        before, state = state, contracts.host_after(state, event)
        if state == "ended" != before:
            assert event in {"period over", "merged"} or (before, event) in {
                ("notice", "released"),
                ("agreed", "too late"),
            }
        assert state != "notice" or before == "notice" or event == "silent"


@pytest.mark.parametrize(
    ("disclosed", "windows", "silent"),
    [((), 0.5, 0), ((), 1, 1), ((), 3.9, 3), ((0,), 1, 0), ((0,), 2, 1), ((0, 1, 2), 4, 1), ((3,), 9, 0), ((), 9, 4)],
)
def test_windows_without_a_salt_are_counted_when_they_ended(
    disclosed: tuple[int, ...], windows: float, silent: int
) -> None:
    now = TERMS.start + windows * TERMS.window_seconds
    assert contracts.silent_windows(TERMS, disclosed, now) == silent
    assert contracts.silent_windows(TERMS, disclosed, TERMS.start - 5) == 0
