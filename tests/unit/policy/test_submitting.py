"""When a transaction can never come, and what is bid for it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.model.ledger import Fate, LedgerAccount, LedgerHead, LedgerTransaction
from layrfs.policy import submitting as policy

DONE = LedgerTransaction(bytes(32), successful=True, ledger=1, closed_at=1, fee_charged_stroops=100, envelope="")


def fate(
    *, at: int = 1_000, ledger: int = 7, used: int | None = 41, done: LedgerTransaction | None = None, lag: int = 0
) -> Fate:
    source = None if used is None else LedgerAccount(bytes(32), used, 0, (0, 0, 0), ())
    return Fate(LedgerHead(ledger, at, 1, 100), source, done, lag)


@pytest.mark.parametrize(
    ("found", "used"),
    [
        (fate(), False),
        (fate(used=42), True),
        (fate(used=43), True),
        (fate(used=None, ledger=0), False),  # the account may still begin, below the number
        (fate(used=None, ledger=1), True),
    ],
)
def test_a_number_is_used_when_the_account_is_past_it(found: Fate, used: bool) -> None:
    assert policy.is_number_used(found, 42) is used


@pytest.mark.parametrize(
    ("found", "used_since", "never"),
    [
        (fate(), None, False),
        (fate(at=2_000), None, False),  # a ledger that closes in the same second may still take it
        (fate(at=2_001), None, True),
        (fate(at=2_001, lag=120), None, False),
        (fate(at=2_121, lag=120), None, True),
        (fate(used=42), None, True),
        (fate(used=42), 1_000, True),
        (fate(used=42, lag=120), None, False),  # whoever was asked for the transaction may not be there yet
        (fate(used=42, lag=120), 881, False),
        (fate(used=42, lag=120), 880, True),
        (fate(used=41, lag=120), 1, False),
        (fate(at=9_999, used=42, done=DONE), 1, False),
    ],
)
def test_never_is_what_the_ledger_proves(found: Fate, used_since: int | None, never: bool) -> None:
    assert policy.can_never_come(found, 42, 2_000, used_since) is never


def test_without_a_limit_time_proves_nothing() -> None:
    assert not policy.can_never_come(fate(at=2**40), 42, 0)


@given(st.integers(1, 10**7))
def test_bids_rise_enough_to_replace_and_end_somewhere(bid: int) -> None:
    bids = [bid]
    while (raised := policy.next_bid(bids[-1])) is not None:
        bids.append(raised)
    assert all(later >= 10 * earlier for earlier, later in pairwise(bids))
    assert len(bids) == 1 or bids[-1] <= policy.MOST_FEE_STROOPS


def test_a_transaction_is_stuck_when_ledgers_pass_it_by() -> None:
    assert not policy.is_stuck(10, 12)
    assert policy.is_stuck(10, 13)


def test_pauses_grow_up_to_a_minute() -> None:
    pauses = [policy.pause_seconds(attempt) for attempt in range(100)]
    assert pauses[:3] == [1, 2, 4]
    assert pauses == sorted(pauses)
    assert max(pauses) == 60
