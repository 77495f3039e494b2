"""What must hold of a contract's transactions whatever its terms are: their order, and whose signature is whose."""

from __future__ import annotations

from decimal import Decimal

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from stellar_sdk import CreateAccount, TransactionEnvelope

from layrfs.crypto.wallet_keys import account_of
from layrfs.model.contracts import MOST_STROOPS, Lock, Terms
from layrfs.payments import envelopes
from layrfs.payments.envelopes import Envelope
from tests.contract_terms import LEDGER_NAME, TERMS, all_terms

LOCK = Lock(1234, bytes(range(32)))


def all_of(terms: Terms) -> list[Envelope]:
    claims = [envelopes.claim(terms, number, LOCK) for number in range(terms.instalments)]
    return [envelopes.setup(terms), *claims, envelopes.refund(terms)]


def decoded(envelope: Envelope) -> TransactionEnvelope:
    return TransactionEnvelope.from_xdr(envelope.xdr({}), LEDGER_NAME)


@given(all_terms())
@settings(max_examples=25)
def test_sequence_numbers_rise_from_claim_to_claim_to_refund(terms: Terms) -> None:
    escrow = [decoded(each).transaction for each in all_of(terms)[1:]]
    numbers = [each.sequence for each in escrow]
    latest_start = terms.last_setup_ledger << 32
    assert [latest_start, *numbers] == sorted({latest_start, *numbers})
    assert numbers[-1] < (terms.last_setup_ledger + 1) << 32, (
        "the ledger refuses a merge after which it could start anew"
    )
    assert all(each.preconditions and each.preconditions.min_sequence_number == 0 for each in escrow)


@given(all_terms())
@settings(max_examples=25)
def test_the_escrow_starts_with_what_all_its_transactions_need(terms: Terms) -> None:
    transaction = decoded(envelopes.setup(terms)).transaction
    assert transaction.fee == 100 * len(transaction.operations)
    fees = sum(decoded(each).transaction.fee for each in all_of(terms)[1:])
    created = transaction.operations[0]
    assert isinstance(created, CreateAccount)
    assert Decimal(created.starting_balance) * 10**7 == terms.deposit_stroops + 20_000_000 + fees
    assert len(transaction.operations) == (4 if terms.collateral_stroops else 3)


def test_the_ledger_knows_our_transactions_by_the_same_names() -> None:
    for envelope in all_of(TERMS):
        assert decoded(envelope).hash() == envelope.hash


def test_every_field_that_a_transaction_depends_on_changes_it() -> None:
    changes = {"owner", "escrow", "host", "start", "window_seconds", "instalments", "last_setup_ledger", "network"}
    for field in [*changes, "deposit_stroops", "collateral_stroops", "memo", "owner_sequence"]:
        value = getattr(TERMS, field)
        changed = value + 1 if isinstance(value, int) else bytes([value[0] ^ 1]) + value[1:]
        other = msgspec.structs.replace(TERMS, **{field: changed})
        assert envelopes.setup(other).hash != envelopes.setup(TERMS).hash, field


def test_no_two_transactions_of_a_contract_are_the_same() -> None:
    others = [envelopes.claim(TERMS, 0, Lock(1235, LOCK.hash)), envelopes.claim(TERMS, 0, Lock(1234, bytes(32)))]
    found = {each.hash for each in [*all_of(TERMS), *others]}
    assert len(found) == TERMS.instalments + 4


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_a_signature_is_one_accounts_over_one_transaction(private: bytes, other: bytes) -> None:
    refund, setup = envelopes.refund(TERMS), envelopes.setup(TERMS)
    signature = refund.sign(private)
    assert envelopes.signed_by(refund, account_of(private), signature)
    assert not envelopes.signed_by(setup, account_of(private), signature)
    assert envelopes.signed_by(refund, account_of(other), signature) == (private == other)
    assert not envelopes.signed_by(refund, account_of(private), signature[:-1])
    assert not envelopes.signed_by(refund, account_of(private), bytes(64))


def test_the_largest_sums_fit_into_the_ledgers_numbers() -> None:
    most = msgspec.structs.replace(TERMS, deposit_stroops=MOST_STROOPS, collateral_stroops=MOST_STROOPS)
    assert decoded(envelopes.setup(most)).hash() == envelopes.setup(most).hash
    assert decoded(envelopes.claim(most, 0, Lock(MOST_STROOPS, bytes(32)))).transaction.fee == 100
