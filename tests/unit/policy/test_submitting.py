"""When a transaction can never come, and what is bid for it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.model.ledger import Fate, LedgerAccount, LedgerHead, LedgerTransaction
from layrfs.policy import submitting as policy

DONE = LedgerTransaction(bytes(32), successful=True, ledger=1, closed_at=1, fee_charged_stroops=100, envelope="")


def fate(*, at: int = 1_000, ledger: int = 7, used: int | None = 41, done: LedgerTransaction | None = None) -> Fate:
    source = None if used is None else LedgerAccount(bytes(32), used, 0, (0, 0, 0), ())
    return Fate(LedgerHead(ledger, at, 1, 100), source, done)


@pytest.mark.parametrize(
    ("found", "never"),
    [
        (fate(), False),
        (fate(at=2_000), False),  # a ledger that closes in the same second may still take it
        (fate(at=2_001), True),
        (fate(used=42), True),
        (fate(used=43), True),
        (fate(used=None, ledger=0), False),  # the account may still begin, below the number
        (fate(used=None, ledger=1), True),
        (fate(at=9_999, used=99, done=DONE), False),
    ],
)
def test_never_is_what_the_ledger_proves(found: Fate, never: bool) -> None:
    assert policy.can_never_come(found, sequence=42, latest=2_000) is never


def test_without_a_limit_time_proves_nothing() -> None:
    assert not policy.can_never_come(fate(at=2**40), sequence=42, latest=0)


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
