"""What a host is due when a contract ends by consent, and when it signs."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.model.hosted import Batch, Ending, Hosted, Owed
from layrfs.model.ledger import LedgerAccount
from layrfs.policy import ending
from layrfs.policy.earning import amounts_due
from layrfs.policy.ending import Cover, host_due_stroops
from layrfs.policy.pricing import due_stroops, escrow_needs
from tests.contract_terms import TERMS

GIB = 1 << 30
START, WINDOW, ALL = TERMS.start, TERMS.window_seconds, range(TERMS.instalments)


def test_each_second_that_nobody_paid_for_is_due() -> None:
    covers = [Cover(0, START, GIB), Cover(1, START + WINDOW // 2, GIB)]
    half = due_stroops(TERMS.price, GIB, WINDOW // 2)
    assert host_due_stroops(TERMS, covers, ALL, START) == TERMS.collateral_stroops
    free = msgspec.structs.replace(TERMS, collateral_stroops=0)
    assert host_due_stroops(free, covers, ALL, START + WINDOW // 2) == half
    whole = due_stroops(TERMS.price, GIB, WINDOW)
    assert host_due_stroops(free, covers, ALL, START + WINDOW) == whole + half
    assert host_due_stroops(free, covers, {1, 2, 3}, START + WINDOW) == half, "the first was claimed, or missed"
    assert host_due_stroops(free, covers, set(), START + 3 * WINDOW) == 0


def test_collateral_comes_back_for_what_was_neither_claimed_nor_missed() -> None:
    terms = msgspec.structs.replace(TERMS, collateral_stroops=4 * 10**6 + 3, instalments=4)
    assert host_due_stroops(terms, [], {0, 1, 2, 3}, START) == 4 * 10**6 + 3
    assert host_due_stroops(terms, [], {2, 3}, START) == 2 * 10**6 + 3


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, WINDOW - 1), st.integers(1, 1 << 42))),
    st.integers(0, 4 * WINDOW),
)
def test_an_end_costs_no_more_than_all_instalments_and_no_less_than_what_was_kept(
    covered: list[tuple[int, int, int]], seconds: int
) -> None:
    terms = msgspec.structs.replace(TERMS, instalments=4, collateral_stroops=0)
    batches = [Batch(first, terms.window(first)[0] + at, size, 1) for first, at, size in covered]
    covers = ending.covers_of(batches)
    due = host_due_stroops(terms, covers, range(4), terms.start + seconds)
    assert due <= sum(amounts_due(terms, batches))
    kept = sum(due_stroops(terms.price, one.bytes, terms.start + seconds - one.at) for one in batches)
    assert 0 <= due - kept <= 4 * len(batches), "but for what is rounded up"


HOSTED = Hosted(1, msgspec.structs.replace(TERMS, instalments=4, collateral_stroops=0), "open", START)
NOW = START + WINDOW + 100
OWED = [Owed(0, 1000, state="claimed"), *(Owed(at, 1000) for at in (1, 2, 3))]
COVERS = [Cover(0, START, GIB)]
DUE = host_due_stroops(HOSTED.terms, COVERS, {1, 2, 3}, NOW + 600)
GOOD = Ending(DUE, 78, NOW + 600)


def account(balance: int = escrow_needs([1000] * 3) + 200) -> LedgerAccount:
    from tests.unit.payments.test_escrow import GOOD as FOUND

    return msgspec.structs.replace(FOUND, sequence=77, balance_stroops=balance)


def fault(
    asked: Ending = GOOD,
    *,
    hosted: Hosted = HOSTED,
    owed: list[Owed] = OWED,
    credit: int = 0,
    balance: int | None = None,
) -> str | None:
    found = account() if balance is None else account(balance)
    return ending.end_fault(hosted, COVERS, owed, asked, account=found, on_credit_bytes=credit, now=NOW)


def test_a_host_signs_what_pays_it_soon() -> None:
    assert fault() is None


WRONG: list[tuple[Ending, str]] = [
    (Ending(DUE, 78, 0), "wrong window"),
    (Ending(DUE, 78, NOW), "wrong window"),
    (Ending(DUE, 78, NOW + 601), "wrong window"),
    (Ending(DUE, 77, NOW + 600), "bad terms"),
    (Ending(DUE, 79, NOW + 600), "bad terms"),
    (Ending(DUE - 1, 78, NOW + 600), "wrong price"),
]


@pytest.mark.parametrize(("asked", "reason"), WRONG)
def test_a_host_signs_nothing_else(asked: Ending, reason: str) -> None:
    assert fault(asked) == reason


def test_a_host_signs_one_at_a_time_and_nothing_while_something_is_open() -> None:
    assert fault(hosted=msgspec.structs.replace(HOSTED, ending=Ending(DUE, 78, NOW + 5))) == "ending"
    disclosed = [OWED[0], Owed(1, 1000, salt=bytes(32), state="disclosed"), *OWED[2:]]
    assert fault(owed=disclosed) == "wrong window"
    assert fault(credit=1) == "no credit"
    assert fault(balance=escrow_needs([1000] * 3) + 199) == "no funds", "a failure would take it from an instalment"


def test_an_owner_asks_for_it_to_be_soon_and_not_when_the_period_is_nearly_over() -> None:
    latest = ending.last_second(TERMS, START)
    assert latest is not None
    assert START < latest <= START + ending.LONGEST_SECONDS
    assert ending.last_second(TERMS, TERMS.end - 1) is None
