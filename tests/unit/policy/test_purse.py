"""What is said of money, early, with what is going to happen when."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from layrfs.ids import NodeId
from layrfs.policy.budgeting import Holding, monthly
from layrfs.policy.paymaster import Batch, Contract, Instalment
from layrfs.policy.purse import Facts, purse
from tests.contract_terms import TERMS

XLM = 10**7
NOW, STORED = TERMS.start + 1000, 1 << 38
BATCH = Batch(0, 0, TERMS.start, STORED, (bytes(32),) * 4, covered=True)
OPEN = Contract(1, TERMS, "open", (BATCH,), (Instalment(),) * 4)
HOLDING = Holding(TERMS.node, TERMS.price, STORED, 1)
FACTS = Facts((OPEN,), (HOLDING,), 1000 * XLM, 3 * XLM, None, STORED, 0, NOW)
PER_MONTH = monthly([HOLDING])


def of(**changes: Any) -> Facts:
    return msgspec.structs.replace(FACTS, **changes)


def test_a_full_wallet_is_not_worth_a_word() -> None:
    found = purse(FACTS)
    assert (found.per_month, found.forecast, found.open_contracts, found.warnings) == (PER_MONTH, PER_MONTH, 1, ())
    assert found.in_contracts > TERMS.deposit_stroops


def test_what_waits_is_in_the_forecast_as_far_as_the_budget_allows() -> None:
    assert purse(of(waiting_bytes=STORED)).forecast == 2 * PER_MONTH
    assert purse(of(waiting_bytes=STORED, budget=PER_MONTH + 7)).forecast == PER_MONTH + 7
    assert purse(of(waiting_bytes=STORED, budget=1)).forecast == PER_MONTH


def test_the_end_of_the_money_is_said_before_it_comes() -> None:
    found = purse(of(spendable=XLM))
    assert found.runway_seconds == TERMS.end - TERMS.window_seconds // 2 - NOW
    (warning,) = found.warnings
    assert warning.startswith("the wallet lasts until 2027-02-10 14:00 UTC: then ")
    assert "may let pieces go from 2027-02-21 20:00 UTC on" in warning
    assert "until then all files are served" in warning


@pytest.mark.parametrize("spendable", [None, 10**6 * XLM])
def test_what_is_not_known_or_far_away_is_no_end(spendable: int | None) -> None:
    found = purse(of(spendable=spendable))
    assert (found.runway_seconds, found.warnings) == (None, ())


def test_when_nobody_is_to_be_paid_any_more_it_is_said_until_when_they_are() -> None:
    (warning,) = purse(of(max_price=None)).warnings
    assert "not paid any more when their contracts end, the first at 2027-02-14 08:00 UTC" in warning
    assert purse(of(max_price=None, contracts=(), holdings=())).warnings == ()


def test_a_budget_that_is_nearly_used_is_said_and_what_waits_for_it() -> None:
    assert purse(of(budget=2 * PER_MONTH)).warnings == ()
    (warning,) = purse(of(budget=PER_MONTH, waiting_bytes=5)).warnings
    assert "is used to 100 %" in warning
    assert "what is written waits here" in warning


def test_a_budget_below_what_hosts_have_ends_contracts_and_it_is_said_when() -> None:
    (warning,) = purse(of(budget=PER_MONTH - 1)).warnings
    assert "not renewed, the first ends at 2027-02-14 08:00 UTC" in warning
    assert "from 2027-02-21 20:00 UTC on" in warning
    assert purse(of(budget=0)).warnings


def test_a_contract_that_was_renewed_is_not_renewed_again() -> None:
    later = msgspec.structs.replace(OPEN, number=2, terms=msgspec.structs.replace(TERMS, start=TERMS.start + 10**6))
    found = purse(
        of(contracts=(OPEN, later), holdings=(HOLDING, msgspec.structs.replace(HOLDING, contract=2)), spendable=0)
    )
    assert found.runway_seconds == later.terms.end - TERMS.window_seconds // 2 - NOW
    other = msgspec.structs.replace(later, terms=msgspec.structs.replace(later.terms, node=NodeId(b"x" * 20)))
    found = purse(
        of(contracts=(OPEN, other), holdings=(HOLDING, msgspec.structs.replace(HOLDING, contract=2)), spendable=0)
    )
    assert found.runway_seconds == OPEN.terms.end - TERMS.window_seconds // 2 - NOW


def test_a_contract_that_is_over_and_not_called_so_yet_is_not_renewed() -> None:
    found = purse(of(holdings=(), spendable=0, now=TERMS.end + 5))
    assert (found.runway_seconds, found.warnings, found.open_contracts) == (None, (), 1)
