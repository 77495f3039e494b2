"""Whole stroops, rounded for the host, and never less than what is due."""

from __future__ import annotations

from fractions import Fraction

import msgspec
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
def test_a_batch_pays_what_is_due_from_its_start_to_the_end_of_each_window(
    terms: Terms, added: int, data: st.DataObject
) -> None:
    at = data.draw(st.integers(terms.start - 100, terms.end))
    first = data.draw(st.integers(terms.instalment_at(max(at, terms.start)) or 0, terms.instalments - 1))
    amounts = pricing.increments(terms, added, at, first)
    assert len(amounts) == terms.instalments
    assert not any(amounts[:first])
    for last in range(first, terms.instalments):
        seconds = terms.window(last)[1] + 1 - max(at, terms.start)
        paid, due = sum(amounts[: last + 1]), pricing.due_stroops(terms.price, added, seconds)
        assert due <= paid <= due + terms.instalments


def test_an_instalment_pays_for_its_own_window() -> None:
    per_window = pricing.due_stroops(TERMS.price, 1 << 40, TERMS.window_seconds)
    half = TERMS.start + TERMS.window_seconds // 2
    assert pricing.increments(TERMS, 1 << 40, TERMS.start, 0) == (per_window,) * 4
    assert pricing.increments(TERMS, 1 << 40, half, 0) == (per_window // 2, *[per_window] * 3)
    assert pricing.increments(TERMS, 1 << 40, half, 1) == (0, per_window * 3 // 2, per_window, per_window)
    assert pricing.increments(TERMS, 0, TERMS.end, 3) == (0, 0, 0, 1)


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
    amounts = pricing.increments(terms, stored, terms.start, 0)
    assert sum(amounts) == deposit
    assert pricing.escrow_needs(amounts) == pricing.starting_stroops(terms)
    assert pricing.credit_bytes(terms) >= stored


def test_an_escrow_holds_two_xlm_and_the_fees_beside_its_instalments() -> None:
    assert pricing.escrow_needs([]) == 2 * 10**7 + 100
    assert pricing.escrow_needs([5, 6, 7]) == 18 + 2 * 10**7 + 400
    assert pricing.escrow_needs([5], base_reserve_stroops=6_000_000) == 5 + 24_000_000 + 200


def test_a_batch_adds_to_what_instalments_pay() -> None:
    assert pricing.amounts_with((1, 2, 3), (0, 4, 5)) == (1, 6, 8)
