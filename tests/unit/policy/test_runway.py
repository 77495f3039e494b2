"""How long money lasts: never said too long, and not a stroop too short to be of use."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from layrfs.policy.paymaster import Batch, Contract, Instalment, amounts
from layrfs.policy.pricing import locked_stroops
from layrfs.policy.runway import HORIZON_SECONDS, Running, in_contract, running, shortage
from tests.contract_terms import TERMS

NOW = TERMS.start
TIB = 1 << 40
contracts = st.lists(
    st.builds(
        Running,
        price=st.integers(1, 10**9),
        stored_bytes=st.integers(0, TIB),
        instalments=st.integers(2, 8),
        window_seconds=st.integers(1, 7) .map(lambda days: days * 86_400),
        end=st.integers(0, 60).map(lambda days: NOW + days * 86_400),
        comes_back=st.integers(0, 10**9),
        is_renewed=st.booleans(),
    ),
    max_size=5,
)  # fmt: skip
money = st.integers(0, 10**11)


@given(money, contracts, st.integers(1, 10**9))
def test_more_money_lasts_longer_and_what_was_lacking_is_enough_for_that_renewal(
    spendable: int, found: list[Running], more: int
) -> None:
    end = shortage(spendable, found, NOW)
    if end is None:
        assert shortage(spendable + more, found, NOW) is None
        return
    assert NOW <= end.at <= NOW + HORIZON_SECONDS
    assert end.at < end.kept_until
    later = shortage(spendable + end.lacking, found, NOW)
    assert later is None or later.at > end.at or later.lacking > 0
    if end.lacking > 1:
        short = shortage(spendable + end.lacking - 1, found, NOW)
        assert short is not None
        assert (short.at, short.lacking) == (end.at, 1)


@given(contracts)
def test_without_contracts_that_go_on_nothing_ends(found: list[Running]) -> None:
    assert shortage(0, [msgspec.structs.replace(each, is_renewed=True) for each in found], NOW) is None


def test_contracts_that_last_seconds_are_not_renewed_millions_of_times() -> None:
    brief = [Running(10**7, TIB, 2, 1, NOW + 2, locked_stroops())] * 100
    assert shortage(10**17, brief, NOW) is None


def test_a_wallet_pays_month_by_month() -> None:
    one = Running(10**7, TIB, 4, 7 * 86_400, NOW + 28 * 86_400, locked_stroops())
    months = 6
    spent = one.set_aside - one.next(NOW).comes_back
    end = shortage(one.set_aside + months * spent, [one], NOW)
    assert end is not None
    assert months - 2 <= (end.at - NOW) / (28 * 86_400) <= months + 2


def test_what_comes_back_is_what_no_instalment_can_take() -> None:
    batch = Batch(0, 0, TERMS.start, 1 << 30, (bytes(32),) * 4, covered=True)
    contract = Contract(0, TERMS, "open", (batch,), (Instalment(),) * 4)
    due = sum(amounts(TERMS, (batch,)))
    assert running(contract, 1 << 30).comes_back == locked_stroops() + TERMS.deposit_stroops - due
    first = amounts(TERMS, (batch,))[0]
    paid = msgspec.structs.replace(contract, instalments=(Instalment("claimed", first), *(Instalment(),) * 3))
    assert in_contract(contract) - in_contract(paid) == first
    missed = msgspec.structs.replace(contract, instalments=(Instalment("missed"), *(Instalment(),) * 3))
    assert running(missed, 1 << 30).comes_back == running(contract, 1 << 30).comes_back + first
