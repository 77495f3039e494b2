"""Whole stroops, rounded for the host, and never less than what is due."""

from __future__ import annotations

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.model.contracts import Terms
from layrfs.policy import pricing
from tests.contract_terms import TERMS, all_terms

sizes = st.integers(0, 1 << 50)


def test_a_price_is_for_a_tebibyte_and_thirty_days() -> None:
    assert pricing.due_stroops(2 * 10**7, 1 << 40, 30 * 86_400) == 2 * 10**7
    assert pricing.due_stroops(2 * 10**7, 1 << 39, 15 * 86_400) == 5 * 10**6
    assert pricing.due_stroops(1, 1, 1) == 1
    assert pricing.due_stroops(1, 0, 1) == pricing.due_stroops(1, 1, -5) == 0


@given(st.integers(1, 10**17), sizes, st.integers(0, 10**9))
def test_due_is_rounded_up_by_less_than_a_stroop(price: int, stored: int, seconds: int) -> None:
    exact = Fraction(price * stored * seconds, (1 << 40) * 30 * 86_400)
    assert 0 <= pricing.due_stroops(price, stored, seconds) - exact < 1


@given(all_terms(), sizes, st.data())
def test_a_batch_pays_what_is_due_from_its_start_to_the_end(terms: Terms, added: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(terms.start - 100, terms.end))
    first = data.draw(st.integers(0, terms.instalments - 1))
    left = terms.instalments - first
    paid = left * pricing.increment(terms, added, at, first)
    due = pricing.due_stroops(terms.price, added, terms.end - max(at, terms.start))
    assert due <= paid < due + left


@given(all_terms())
def test_credit_is_worth_one_instalment_at_most(terms: Terms) -> None:
    credit = pricing.credit_bytes(terms)
    assert pricing.due_stroops(terms.price, credit, terms.window_seconds) <= terms.deposit_stroops // terms.instalments
    assert pricing.due_stroops(terms.price, credit + 1, terms.window_seconds) > (
        terms.deposit_stroops // terms.instalments
    )


@given(all_terms())
def test_the_collateral_comes_back_in_full(terms: Terms) -> None:
    shares = pricing.collateral_shares(terms)
    assert len(shares) == terms.instalments
    assert sum(shares) == terms.collateral_stroops
    assert max(shares) - min(shares) < terms.instalments


@given(st.integers(1, 10**12), sizes, st.integers(2, 64), st.integers(1, 10**7))
def test_a_deposit_pays_for_what_it_is_for(price: int, stored: int, instalments: int, window: int) -> None:
    deposit = pricing.deposit_for(price, stored, instalments, window)
    terms = msgspec.structs.replace(
        TERMS, price=price, instalments=instalments, window_seconds=window, deposit_stroops=deposit
    )
    amounts = [pricing.increment(terms, stored, terms.start, 0) or 1] * instalments
    assert sum(amounts) == deposit
    assert pricing.escrow_needs(amounts) == pricing.starting_stroops(terms)
    assert pricing.credit_bytes(terms) >= stored


def test_an_escrow_holds_two_xlm_and_the_fees_beside_its_instalments() -> None:
    assert pricing.escrow_needs([]) == 2 * 10**7 + 100
    assert pricing.escrow_needs([5, 6, 7]) == 18 + 2 * 10**7 + 400
    assert pricing.escrow_needs([5], base_reserve_stroops=6_000_000) == 5 + 24_000_000 + 200


@pytest.mark.parametrize(("first", "expected"), [(0, (3, 4, 5)), (1, (1, 4, 5)), (3, (1, 2, 3))])
def test_a_batch_adds_from_its_first_instalment_on(first: int, expected: tuple[int, ...]) -> None:
    assert pricing.amounts_with((1, 2, 3), first, 2) == expected
