"""What a host decides about its contracts."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.model.hosted import Batch, Earnings, Hosted, Owed, Uncovered
from layrfs.policy import earning
from layrfs.policy.contracts import HostEvent, HostState
from layrfs.policy.pricing import credit_bytes, due_stroops
from layrfs.wire.contracts import InstalmentState
from tests.contract_terms import TERMS

WINDOW = TERMS.window_seconds
START, END = TERMS.start, TERMS.end
GIB = 1 << 30
OPEN = Hosted(1, TERMS, "open", START)


def owed(*states: InstalmentState, amount: int = 0) -> list[Owed]:
    states += ("waiting",) * (TERMS.instalments - len(states))
    return [
        Owed(at, amount, salt=None if state in {"waiting", "missed"} else bytes(32), state=state)
        for at, state in enumerate(states)
    ]


def covered(new: Batch, *, amounts: tuple[int, ...] | None = None, now: int, known: list[Owed] | None = None) -> object:
    amounts = earning.amounts_due(TERMS, [new])[new.first :] if amounts is None else amounts
    return earning.cover_fault(OPEN, [], known or owed(), new, amounts, now)


def test_a_cover_pays_for_its_bytes_to_the_end() -> None:
    amounts = earning.amounts_due(TERMS, [Batch(0, START, GIB, 9), Batch(2, START + WINDOW, GIB, 9)])
    assert sum(amounts) >= due_stroops(TERMS.price, GIB, END - START) + due_stroops(TERMS.price, GIB, 3 * WINDOW)
    assert amounts[0] == amounts[1] < amounts[3] < amounts[2]


def test_what_pays_enough_from_the_window_that_is_open_or_the_next_is_covered() -> None:
    assert covered(Batch(0, START, GIB, 9), now=START + 5) is None
    assert covered(Batch(1, START + 5, GIB, 9), now=START + 5) is None
    assert covered(Batch(2, START + 5, GIB, 9), now=START + WINDOW + 5) is None
    assert covered(Batch(0, START + 5, GIB, 9), now=START + 5) is None
    assert covered(Batch(3, END - 5, GIB, 9), now=END - 5) is None


@pytest.mark.parametrize(
    ("first", "at", "now"),
    [
        (2, START, START + 5),
        (3, START + WINDOW, START + WINDOW),
        (0, START, END),
        (0, START + 1000, START + 5),
        (0, START, START + WINDOW),
        (0, START + WINDOW, START + WINDOW),
        (3, START, START + WINDOW),
    ],
)
def test_payment_cannot_be_put_off_nor_dated_ahead(first: int, at: int, now: int) -> None:
    assert covered(Batch(first, at, GIB, 9), now=now) == "wrong window"


def test_what_another_contract_has_paid_for_may_be_dated_until_then() -> None:
    until = START + WINDOW // 2
    for at, fault in ((until, None), (until + 1, "wrong window")):
        new = Batch(0, at, GIB, 9)
        amounts = earning.amounts_due(TERMS, [new])
        for terms_are_late in (False, True):
            hosted = msgspec.structs.replace(OPEN, late=terms_are_late)
            assert earning.cover_fault(hosted, [], owed(), new, amounts, START + 5, until) == fault


def test_a_window_is_paid_for_when_its_instalment_was_claimed() -> None:
    known = owed("claimed", "disclosed", "claimed")
    found = [earning.paid_now(TERMS, known, START + at * WINDOW) for at in range(4)]
    assert found == [0, None, 2, None]
    assert earning.paid_now(TERMS, known, END) is None


def test_covers_of_a_contract_that_is_taken_up_again_count_by_their_own_time() -> None:
    late = msgspec.structs.replace(OPEN, late=True)
    batch = Batch(0, START, GIB, 9)
    amounts = earning.amounts_due(TERMS, [batch])
    known = owed("missed", "missed")
    assert earning.cover_fault(late, [], known, batch, amounts, START + 2 * WINDOW) is None
    assert earning.cover_fault(OPEN, [], known, batch, amounts, START + 2 * WINDOW) == "wrong window"
    later = Batch(0, START + 2 * WINDOW, GIB, 9)
    assert earning.cover_fault(late, [], known, later, amounts, START + 2 * WINDOW) == "wrong window"
    assert earning.cover_fault(late, [], owed("claimed"), batch, amounts, START + 2 * WINDOW) == "wrong window"


def test_an_instalment_whose_salt_is_known_cannot_change() -> None:
    assert covered(Batch(0, START, GIB, 9), now=START + 5, known=owed("disclosed")) == "wrong window"
    assert covered(Batch(1, START, GIB, 9), now=START + 5, known=owed("claimed")) is None


@given(st.integers(0, 3), st.integers(1, 10**6))
def test_a_stroop_less_in_any_instalment_is_too_little(which: int, less: int) -> None:
    amounts = earning.amounts_due(TERMS, [Batch(0, START, GIB, 9)])
    short = tuple(max(0, amount - less) if at == which else amount for at, amount in enumerate(amounts))
    assert covered(Batch(0, START, GIB, 9), amounts=short, now=START) == "bad lock"
    assert covered(Batch(0, START, GIB, 9), amounts=amounts[1:], now=START) == "bad lock"


def test_an_instalment_is_about_the_batches_that_began_with_it_or_before() -> None:
    batches = [Batch(0, START, 1, 1), Batch(2, START, 1, 1), Batch(1, START, 1, 1)]
    assert [earning.batches_of(batches, instalment) for instalment in range(4)] == [(0,), (0, 2), (0, 1, 2), (0, 1, 2)]


def test_the_escrow_has_to_hold_what_can_still_be_claimed() -> None:
    known = owed("claimed", "disclosed")
    assert earning.unclaimed(TERMS, known, START + WINDOW) == {1, 2, 3}
    assert earning.unclaimed(TERMS, known, START + 2 * WINDOW) == {2, 3}
    assert earning.unclaimed(TERMS, owed(), END) == set()
    assert [earning.last_claimed(owed(*states)) for states in ((), ("claimed",), ("missed", "claimed"))] == [0, 1, 2]


def test_credit_ends_where_one_instalment_would() -> None:
    credit = credit_bytes(TERMS)
    assert earning.has_credit(TERMS, 0, credit)
    assert not earning.has_credit(TERMS, 1, credit)


def test_a_window_is_open_to_its_last_second() -> None:
    first, last = TERMS.window(1)
    open_at = [earning.is_window_open(TERMS, 1, now) for now in (first - 1, first, last, last + 1)]
    assert open_at == [False, True, True, False]
    states: list[InstalmentState] = ["waiting", "disclosed", "claimed"]
    assert [one.instalment for one in earning.missed(TERMS, owed(*states), last)] == [0]
    assert [one.instalment for one in earning.missed(TERMS, owed(*states), last + 1)] == [0, 1]


EVENTS: list[tuple[HostState, int, list[Owed], int, int, HostEvent | None]] = [
    ("agreed", START, owed(), TERMS.last_setup_ledger, START + 5, None),
    ("agreed", START, owed(), TERMS.last_setup_ledger + 1, START + 5, "too late"),
    ("open", START, owed(), 9, START + 3 * WINDOW - 1, None),
    ("open", START, owed(), 9, START + 3 * WINDOW, "silent"),
    ("open", START, owed("claimed"), 9, START + 3 * WINDOW, None),
    ("open", START, owed("claimed"), 9, END, "period over"),
    ("notice", START + 3 * WINDOW, owed(), 9, START + 3 * WINDOW, None),
    ("open", START, owed("disclosed"), 9, START + WINDOW, None),
    ("open", START, owed(*["missed"] * 3), 9, START + 3 * WINDOW, "silent"),
    ("notice", START + 3 * WINDOW, owed("claimed"), 9, START + 3 * WINDOW, "heard"),
    ("notice", START, owed(), 9, START + 4 * WINDOW - 1, "released"),
    ("notice", START, owed("missed", "missed", "missed", "disclosed"), 9, START + 4 * WINDOW - 1, None),
    ("ended", START, owed(), 9, END, None),
]


@pytest.mark.parametrize(("state", "since", "known", "ledger", "now", "expected"), EVENTS)
def test_what_time_brings(
    state: HostState, since: int, known: list[Owed], ledger: int, now: int, expected: HostEvent | None
) -> None:
    hosted = Hosted(1, TERMS, state, since)
    assert earning.event(hosted, known, first=0, on_credit=Uncovered(), ledger=ledger, now=now) == expected


def test_who_has_nothing_here_need_not_say_anything() -> None:
    hosted = Hosted(1, TERMS, "open", START)
    assert earning.event(hosted, owed(), first=None, on_credit=Uncovered(), ledger=9, now=END - 1) is None


def test_windows_in_which_nothing_was_here_are_no_silence() -> None:
    hosted, batch = Hosted(1, TERMS, "open", START), Batch(1, START + WINDOW + 5, GIB, 9)
    credit = Uncovered(9, 9, since=START + 2 * WINDOW - 1)
    firsts = [earning.first_in_use(TERMS, *here) for here in (([], credit), ([batch], Uncovered()), ([], Uncovered()))]
    assert firsts == [1, 1, None]
    assert earning.first_in_use(TERMS, [batch], Uncovered(9, 9, since=START - 5)) == 0

    def said(first: int) -> HostEvent | None:
        return earning.event(hosted, owed(), first=first, on_credit=credit, ledger=9, now=START + 3 * WINDOW)

    assert [said(0), said(1)] == ["silent", None]


def test_what_is_on_credit_until_it_is_worth_an_instalment_is_silence() -> None:
    hosted = Hosted(1, TERMS, "open", START)
    credit, heard = credit_bytes(TERMS), owed("claimed", "disclosed")

    def said(seconds: int) -> HostEvent | None:
        on_credit = Uncovered(credit, credit * seconds)
        return earning.event(hosted, heard, first=0, ledger=9, now=START + WINDOW, on_credit=on_credit)

    assert said(WINDOW) is None
    assert said(WINDOW + 60) == "silent"


def test_what_was_owed_on_credit_and_is_covered_ends_a_notice() -> None:
    hosted = Hosted(1, TERMS, "notice", START + WINDOW)
    credit = credit_bytes(TERMS)

    def said(on_credit: Uncovered, *, first: int | None = 0) -> HostEvent | None:
        return earning.event(hosted, owed(), first=first, ledger=9, now=START + WINDOW + 9, on_credit=on_credit)

    assert said(Uncovered(credit, credit * 2 * WINDOW)) is None
    assert said(Uncovered()) == "heard"
    later = msgspec.structs.replace(hosted, since=START + 3 * WINDOW)
    for first, expected in ((0, None), (1, "heard"), (None, "heard")):
        found = earning.event(later, owed(), first=first, ledger=9, now=START + 3 * WINDOW + 9, on_credit=Uncovered())
        assert found == expected


def test_salts_that_come_too_late_to_claim_with_are_silence() -> None:
    late = [msgspec.structs.replace(one, salt=bytes(32)) for one in owed(*["missed"] * 3)]
    hosted = Hosted(1, TERMS, "open", START)
    now = START + 3 * WINDOW
    assert earning.event(hosted, late, first=0, on_credit=Uncovered(), ledger=9, now=now) == "silent"


def test_garbage_for_a_salt_is_silence() -> None:
    garbage = [msgspec.structs.replace(one, salt=bytes(32), problem="lock does not fit") for one in owed()]
    hosted = Hosted(1, TERMS, "open", START)
    assert earning.event(hosted, garbage, first=0, on_credit=Uncovered(), ledger=9, now=START + 3 * WINDOW) == "silent"


def test_pieces_are_kept_for_a_while_after_the_end() -> None:
    assert not earning.is_to_be_released(Hosted(1, TERMS, "open", START), END + WINDOW)
    assert not earning.is_to_be_released(Hosted(1, TERMS, "ended", END), END + WINDOW - 1)
    assert earning.is_to_be_released(Hosted(1, TERMS, "ended", END), END + WINDOW)
    assert earning.is_to_be_released(Hosted(1, TERMS, "ended", END - WINDOW), END - WINDOW)


def test_what_was_kept_and_not_paid_is_at_risk() -> None:
    batch = Batch(0, START, GIB, 9)
    known = owed("claimed", "disclosed", amount=100)
    kept = due_stroops(TERMS.price, GIB, 2 * WINDOW)
    found = earning.earnings(TERMS, [batch], known, Uncovered(), START + 2 * WINDOW)
    assert found == Earnings(100, 100, kept - 200)
    on_credit = earning.earnings(TERMS, [], owed(), Uncovered(GIB, GIB * 1000), START)
    assert on_credit == Earnings(0, 0, due_stroops(TERMS.price, GIB, 1000))
    assert found.plus(on_credit).at_risk_stroops == found.at_risk_stroops + on_credit.at_risk_stroops


def test_for_each_window_that_was_paid_and_one_more_four_may_be_missing() -> None:
    assert not earning.is_in_arrears(Earnings(at_risk_stroops=400), 100)
    assert earning.is_in_arrears(Earnings(pending_stroops=900, at_risk_stroops=401), 100)
    assert not earning.is_in_arrears(Earnings(earned_stroops=200, at_risk_stroops=1200), 100)
    assert earning.is_in_arrears(Earnings(earned_stroops=200, at_risk_stroops=1201), 100)
