"""The development ledger takes, refuses and charges what Stellar's would, in the order in which Stellar's looks."""

from __future__ import annotations

import hashlib

import pytest
from stellar_sdk import (
    AccountMerge,
    Asset,
    AuthorizationFlag,
    BeginSponsoringFutureReserves,
    BumpSequence,
    CreateAccount,
    Keypair,
    ManageData,
    Operation,
    Payment,
    SetOptions,
    SignerKey,
    TransactionBuilder,
)
from stellar_sdk import Signer as Extra

from layrfs.errors import BadMessage, UsageError
from layrfs.payments.devledger.books import Entry
from layrfs.payments.devledger.ledger import Busy, Rejected, Waiting
from layrfs.payments.devledger.state import TOTAL_STROOPS, genesis
from tests.ledgers import PASSPHRASE, START, Bank, Signer, bump, person, sign, signed

XLM = Asset.native()
SECRET = bytes(range(32))
LOCK = hashlib.sha256(SECRET).digest()
ANN, BOB, OTHER = (person(number).public_key for number in (1, 2, 99))
"""The last has no account."""


@pytest.fixture
def bank() -> Bank:
    return Bank()


@pytest.fixture
def ann(bank: Bank) -> Keypair:
    return bank.person(1)


@pytest.fixture
def bob(bank: Bank) -> Keypair:
    return bank.person(2)


def paying(bank: Bank, source: Keypair, to: Keypair, lumens: str = "1", **settings: int) -> TransactionBuilder:
    return bank.build(source, **settings).append_payment_op(to.public_key, XLM, lumens)


def codes(bank: Bank, builder: TransactionBuilder, *signers: Signer) -> tuple[str, ...]:
    outcome = bank.run(sign(builder, *signers))
    assert bank.ledger.state.total_stroops() == TOTAL_STROOPS
    return (outcome.code, *(done.code for done in outcome.operations))


def test_a_payment_moves_what_it_says_and_costs_its_fee(bank: Bank, ann: Keypair, bob: Keypair) -> None:
    assert codes(bank, paying(bank, ann, bob, "12.5"), ann) == ("tx_success", "op_success")
    assert bank.account(ann).balance_stroops == 987_5000000 - 100
    assert bank.account(bob).balance_stroops == 1012_5000000
    assert bank.ledger.state.header.fee_pool_stroops == 300


def test_a_new_account_begins_with_the_number_of_its_ledger(bank: Bank, ann: Keypair) -> None:
    assert bank.account(ann).sequence == bank.ledger.state.header.sequence << 32
    assert (bank.account(ann).sequence_ledger, bank.account(ann).sequence_time) == (0, 0)


@pytest.mark.parametrize(
    ("condition", "values", "code"),
    [
        ("set_ledger_bounds", (9, 0), "tx_too_early"),
        ("add_time_bounds", (START + 11, 0), "tx_too_early"),
        ("set_ledger_bounds", (0, 4), "tx_too_late"),
        ("add_time_bounds", (0, START + 19), "tx_too_late"),
        ("set_min_sequence_age", (START + 11,), "tx_bad_minseq_age_or_gap"),
        ("set_min_sequence_ledger_gap", (5,), "tx_bad_minseq_age_or_gap"),
        ("set_min_sequence_number", ((2 << 32) + 1,), "tx_bad_seq"),
        ("add_extra_signer", (SignerKey.sha256_hash(LOCK),), "tx_bad_auth"),
        ("append_payment_op", (ANN, XLM, "1", OTHER), "tx_failed"),
    ],
)
def test_what_a_transaction_is_refused_for(
    condition: str, values: tuple[object, ...], code: str, bank: Bank, ann: Keypair, bob: Keypair
) -> None:
    builder = paying(bank, ann, bob)
    before = bank.ledger.state.header.fee_pool_stroops
    assert codes(bank, getattr(builder, condition)(*values), ann)[0] == code
    assert bank.ledger.state.header.fee_pool_stroops == before, "what is refused costs nothing"


def test_bounds_hold_up_to_their_last_second_and_ledger(bank: Bank, ann: Keypair, bob: Keypair) -> None:
    """Two ledgers were closed, five seconds apart: the coming one is the fourth, and ten seconds off at most."""
    fits = paying(bank, ann, bob).set_ledger_bounds(4, 5).add_time_bounds(START + 10, START + 20)
    assert codes(bank, fits, ann)[0] == "tx_success"


def test_faults_are_found_in_the_order_of_the_ledger(bank: Bank, ann: Keypair, bob: Keypair) -> None:
    """Each transaction has all of the later faults too."""
    stranger = Keypair.random()
    late = bank.build(ann, sequence=1, fee=1).add_time_bounds(0, START)
    assert codes(bank, late, stranger) == ("tx_missing_operation",)
    assert codes(bank, late.append_payment_op(bob.public_key, XLM, "1"), stranger) == ("tx_too_late",)
    assert codes(bank, paying(bank, ann, bob, sequence=1, fee=99), stranger) == ("tx_insufficient_fee",)
    assert codes(bank, paying(bank, stranger, bob, sequence=1), stranger) == ("tx_no_source_account",)
    assert codes(bank, paying(bank, ann, bob, sequence=1), stranger) == ("tx_bad_seq",)
    assert codes(bank, paying(bank, ann, bob, fee=2**31), stranger) == ("tx_bad_auth",)
    poor = bank.person(3, lumens=1)
    assert codes(bank, paying(bank, poor, bob, "0.1"), poor, stranger) == ("tx_insufficient_balance",)
    foreign = paying(bank, ann, bob).append_payment_op(ann.public_key, XLM, "1", bob.public_key)
    assert codes(bank, foreign, ann, stranger) == ("tx_failed", "op_success", "op_bad_auth")
    assert codes(bank, paying(bank, ann, bob), ann, stranger) == ("tx_bad_auth_extra",)


def test_a_failed_operation_costs_the_fee_and_the_number_and_undoes_the_others(
    bank: Bank, ann: Keypair, bob: Keypair
) -> None:
    number, had = bank.account(ann).sequence, bank.account(ann).balance_stroops
    outcome = codes(bank, paying(bank, ann, bob, "5").append_payment_op(OTHER, XLM, "1"), ann)
    assert outcome == ("tx_failed", "op_success", "op_no_destination")
    assert bank.account(ann).sequence == number + 1
    assert bank.account(ann).balance_stroops == had - 200


@pytest.mark.parametrize(
    ("lumens", "code"), [("998.99999", "op_success"), ("998.9999901", "op_underfunded"), ("5000", "op_underfunded")]
)
def test_a_payment_leaves_the_reserve(lumens: str, code: str, bank: Bank, ann: Keypair, bob: Keypair) -> None:
    assert codes(bank, paying(bank, ann, bob, lumens), ann)[1] == code


def test_the_reserve_grows_with_signers(bank: Bank, bob: Keypair) -> None:
    poor = bank.person(3, lumens=2)
    for number, code in enumerate(["op_success", "op_low_reserve"]):
        extra = Extra(SignerKey.sha256_hash(bytes([number]) * 32), 1)
        assert codes(bank, bank.build(poor).append_set_options_op(signer=extra), poor)[1] == code
    assert codes(bank, paying(bank, poor, bob, "0.5"), poor)[1] == "op_underfunded"


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (CreateAccount(OTHER, "0.9999999"), "op_low_reserve"),
        (CreateAccount(ANN, "1"), "op_malformed"),
        (CreateAccount(BOB, "1"), "op_already_exists"),
        (CreateAccount(OTHER, "9999"), "op_underfunded"),
        (Payment(BOB, XLM, "0"), "op_malformed"),
        (Payment(ANN, XLM, "99999"), "op_success"),
        (Payment(BOB, Asset("EUR", BOB), "1"), "op_not_supported"),
        (AccountMerge(ANN), "op_malformed"),
        (AccountMerge(OTHER), "op_no_account"),
        (AccountMerge(BOB), "op_success"),
        (SetOptions(high_threshold=256), "op_threshold_out_of_range"),
        (SetOptions(signer=Extra.ed25519_public_key(ANN, 1)), "op_bad_signer"),
        (SetOptions(signer=Extra.sha256_hash(LOCK, 256)), "op_bad_signer"),
        (SetOptions(set_flags=AuthorizationFlag(16)), "op_unknown_flag"),
        (SetOptions(set_flags=AuthorizationFlag(1), clear_flags=AuthorizationFlag(1)), "op_bad_flags"),
        (SetOptions(set_flags=AuthorizationFlag(8)), "op_auth_revocable_required"),
        (SetOptions(inflation_dest=BOB), "op_not_supported"),
        (BumpSequence(1), "op_success"),
        (ManageData("a", b"b"), "op_not_supported"),
        (BeginSponsoringFutureReserves(OTHER), "op_not_supported"),
    ],
)
def test_what_operations_answer(operation: Operation, code: str, bank: Bank, ann: Keypair, bob: Keypair) -> None:
    assert codes(bank, bank.build(ann).append_operation(operation), ann)[1] == code


def test_an_account_whose_number_is_too_far_cannot_be_merged(bank: Bank, ann: Keypair, bob: Keypair) -> None:
    far = (bank.ledger.state.header.sequence + 3) << 32
    assert codes(bank, bank.build(ann).append_bump_sequence_op(far), ann)[1] == "op_success"
    merging = bank.build(ann).append_account_merge_op(bob.public_key)
    assert codes(bank, merging, ann)[1] == "op_seq_num_too_far"
    bank.close()
    assert codes(bank, bank.build(ann).append_account_merge_op(bob.public_key), ann)[1] == "op_success"
    assert bank.ledger.account(ann.raw_public_key()) is None


def test_immutable_accounts_stay(bank: Bank, ann: Keypair, bob: Keypair) -> None:
    assert codes(bank, bank.build(ann).append_set_options_op(set_flags=AuthorizationFlag(4)), ann)[1] == "op_success"
    assert (
        codes(bank, bank.build(ann).append_set_options_op(clear_flags=AuthorizationFlag(4)), ann)[1] == "op_cant_change"
    )
    assert codes(bank, bank.build(ann).append_account_merge_op(bob.public_key), ann)[1] == "op_immutable_set"


def test_signers_are_changed_and_removed_and_twenty_at_most(bank: Bank, ann: Keypair) -> None:
    def put(number: int, weight: int) -> str:
        extra = Extra.sha256_hash(number.to_bytes(32, "big"), weight)
        return codes(bank, bank.build(ann).append_set_options_op(signer=extra), ann)[1]

    assert {put(number, 1) for number in range(20)} == {"op_success"}
    assert (put(20, 1), put(3, 7), put(4, 0), put(4, 0), put(20, 1)) == ("op_too_many_signers", *["op_success"] * 4)
    assert len(bank.account(ann).signers) == 20
    assert sorted(each.weight for each in bank.account(ann).signers)[-2:] == [1, 7]


def test_thresholds_ask_for_weight_by_what_is_done(bank: Bank, ann: Keypair, bob: Keypair) -> None:
    friend = Extra.ed25519_public_key(bob.public_key, 1)
    both = bank.build(ann).append_set_options_op(
        master_weight=1, low_threshold=1, med_threshold=2, high_threshold=2, signer=friend
    )
    assert codes(bank, both, ann)[1] == "op_success"
    assert codes(bank, paying(bank, ann, bob), ann)[1] == "op_bad_auth"
    assert codes(bank, paying(bank, ann, bob), ann, bob)[1] == "op_success"
    assert codes(bank, bank.build(ann).append_bump_sequence_op(0), bob)[1] == "op_success"
    assert codes(bank, bank.build(ann).append_bump_sequence_op(0), ann, bob)[0] == "tx_bad_auth_extra"


def test_without_its_own_weight_an_account_is_its_signers(bank: Bank, ann: Keypair, bob: Keypair) -> None:
    handed = bank.build(ann).append_set_options_op(master_weight=0, signer=Extra.ed25519_public_key(bob.public_key, 1))
    assert codes(bank, handed, ann)[1] == "op_success"
    assert codes(bank, paying(bank, ann, bob), ann) == ("tx_bad_auth",)
    assert codes(bank, paying(bank, ann, bob), bob)[1] == "op_success"


def test_a_secret_opens_only_what_is_locked_with_it(bank: Bank, ann: Keypair, bob: Keypair) -> None:
    def locked() -> TransactionBuilder:
        return paying(bank, ann, bob).add_extra_signer(SignerKey.sha256_hash(LOCK))

    assert codes(bank, locked(), ann, b"guess") == ("tx_bad_auth",)
    assert codes(bank, locked(), SECRET) == ("tx_bad_auth",), "the secret alone is nobody's signature"
    assert codes(bank, locked(), ann, SECRET)[0] == "tx_success"
    assert codes(bank, paying(bank, ann, bob), ann, SECRET) == ("tx_bad_auth_extra",)


def test_numbers_may_be_skipped_where_that_is_said(bank: Bank, ann: Keypair, bob: Keypair) -> None:
    number = bank.account(ann).sequence
    assert codes(bank, paying(bank, ann, bob, sequence=number + 50), ann) == ("tx_bad_seq",)
    skipping = paying(bank, ann, bob, sequence=number + 50).set_min_sequence_number(0)
    assert codes(bank, skipping, ann)[0] == "tx_success"
    assert codes(bank, paying(bank, ann, bob, sequence=number + 40).set_min_sequence_number(0), ann) == ("tx_bad_seq",)


def test_the_age_of_a_number_begins_when_it_is_set(bank: Bank, ann: Keypair, bob: Keypair) -> None:
    """That is why a condition on the age holds at once for an account that never did anything."""
    assert codes(bank, paying(bank, ann, bob).set_min_sequence_age(1000), ann)[0] == "tx_success"
    assert codes(bank, paying(bank, ann, bob).set_min_sequence_age(6), ann)[0] == "tx_bad_minseq_age_or_gap"
    bank.close(seconds=6)
    assert codes(bank, paying(bank, ann, bob).set_min_sequence_age(6), ann)[0] == "tx_success"


def test_a_transaction_authorized_in_advance_needs_no_signature_and_works_once(
    bank: Bank, ann: Keypair, bob: Keypair
) -> None:
    number = bank.account(ann).sequence
    later = signed(paying(bank, ann, bob, sequence=number + 2))
    allow = bank.build(ann).append_set_options_op(signer=Extra.pre_auth_tx(later.hash(), 1))
    assert codes(bank, allow, ann)[1] == "op_success"
    assert bank.run(later.to_xdr()).is_success
    assert bank.account(ann).signers == ()
    assert isinstance(bank.ledger.submit(later.to_xdr()), Entry)


def test_it_is_used_up_also_when_the_transaction_fails(bank: Bank, ann: Keypair) -> None:
    number = bank.account(ann).sequence
    later = signed(bank.build(ann, sequence=number + 2).append_payment_op(OTHER, XLM, "1"))
    allow = bank.build(ann).append_set_options_op(signer=Extra.pre_auth_tx(later.hash(), 1))
    assert codes(bank, allow, ann)[1] == "op_success"
    assert bank.run(later.to_xdr()).operations[0].code == "op_no_destination"
    assert bank.account(ann).signers == ()


def test_signatures_are_checked_before_the_first_operation(bank: Bank, ann: Keypair, bob: Keypair) -> None:
    """A signer added by the first cannot sign the second."""

    def adding() -> TransactionBuilder:
        friend = Extra.ed25519_public_key(bob.public_key, 1)
        first = bank.build(ann).append_set_options_op(signer=friend, high_threshold=2, med_threshold=2)
        return first.append_payment_op(bob.public_key, XLM, "1")

    assert codes(bank, adding(), ann, bob) == ("tx_bad_auth_extra",)
    assert codes(bank, adding(), ann) == ("tx_success", "op_success", "op_success")


def test_an_account_made_by_the_transaction_may_act_in_it(bank: Bank, ann: Keypair) -> None:
    new = person(50)

    def both() -> TransactionBuilder:
        first = bank.build(ann).append_create_account_op(new.public_key, "5")
        return first.append_set_options_op(home_domain="example.org", source=new.public_key)

    assert codes(bank, both(), ann) == ("tx_failed", "op_success", "op_bad_auth")
    assert codes(bank, both(), ann, new) == ("tx_success", "op_success", "op_success")
    assert bank.account(new).home_domain == "example.org"


def test_somebody_else_pays_the_fee(bank: Bank, ann: Keypair, bob: Keypair) -> None:
    inner = signed(paying(bank, ann, bob), ann)
    before = bank.account(ann).balance_stroops, bank.account(bob).balance_stroops
    outer = bump(inner, bob)
    outcome = bank.run(outer.to_xdr())
    assert (outcome.code, outcome.inner) == ("tx_fee_bump_inner_success", "tx_success")
    after = bank.account(ann).balance_stroops, bank.account(bob).balance_stroops
    assert (after[0] - before[0], after[1] - before[1]) == (-1_0000000, 1_0000000 - 200)
    found = {bank.ledger.books.entry(each.hash()) for each in (inner, outer)}
    assert len(found) == 1
    assert None not in found


def test_what_is_wrong_with_a_fee_bump(bank: Bank, ann: Keypair, bob: Keypair) -> None:
    inner = signed(paying(bank, ann, bob, fee=300), ann)
    assert bank.run(
        bump(
            inner,
            bob,
            base_fee=300,
        ).to_xdr()
    ).is_success
    unsigned = signed(paying(bank, ann, bob), bob)
    outcome = bank.run(bump(unsigned, bob).to_xdr())
    assert (outcome.code, outcome.inner) == ("tx_fee_bump_inner_failed", "tx_bad_auth")
    good = signed(paying(bank, ann, bob), ann)
    assert bank.run(bump(good, bob, ann).to_xdr()).code == "tx_bad_auth"
    assert bank.run(bump(good, bob, bob, ann).to_xdr()).code == "tx_bad_auth_extra"
    assert bank.run(bump(good, Keypair.random()).to_xdr()).code == "tx_no_source_account"
    poor = bank.person(3, lumens=1)
    assert bank.run(bump(good, poor).to_xdr()).code == "tx_insufficient_balance"


def test_a_raised_base_fee_refuses_what_waits_and_a_fee_bump_helps(bank: Bank, ann: Keypair, bob: Keypair) -> None:
    stuck = signed(paying(bank, ann, bob), ann)
    assert isinstance(bank.ledger.submit(stuck.to_xdr()), Waiting)
    (dropped,) = bank.ledger.close(bank.now, base_fee_stroops=150)
    assert isinstance(dropped, Rejected)
    assert dropped.outcome.code == "tx_insufficient_fee"
    assert bank.run(bump(stuck, bob, base_fee=150).to_xdr()).is_success


def test_a_raised_reserve_makes_accounts_unable_to_pay_fees_until_they_are_topped_up(
    bank: Bank, ann: Keypair, bob: Keypair
) -> None:
    poor = bank.person(3, lumens=2)
    bank.ledger.close(bank.now, base_reserve_stroops=10_000_000)
    assert codes(bank, paying(bank, poor, ann, "0.1"), poor) == ("tx_insufficient_balance",)
    assert codes(bank, paying(bank, ann, poor), ann)[0] == "tx_success"
    assert codes(bank, paying(bank, poor, ann, "0.1"), poor)[0] == "tx_success"


def test_what_was_taken_is_answered_the_same_for_ever(bank: Bank, ann: Keypair, bob: Keypair) -> None:
    envelope = sign(paying(bank, ann, bob), ann)
    assert isinstance(bank.ledger.submit(envelope), Waiting)
    assert isinstance(bank.ledger.submit(envelope), Waiting)
    assert isinstance(bank.ledger.submit(sign(paying(bank, ann, bob, "2"), ann)), Busy)
    (entry,) = bank.close()
    had = bank.account(ann)
    assert bank.ledger.submit(envelope) == entry
    bank.close()
    assert bank.account(ann) == had


def test_what_comes_too_late_for_its_ledger_is_dropped_and_costs_nothing(
    bank: Bank, ann: Keypair, bob: Keypair
) -> None:
    had = bank.account(ann)
    hasty = paying(bank, ann, bob).add_time_bounds(0, bank.now + 10)
    assert bank.run(sign(hasty, ann), seconds=11).code == "tx_too_late"
    assert bank.account(ann) == had


def test_two_merges_into_each_other_leave_one_account(bank: Bank, ann: Keypair, bob: Keypair) -> None:
    for one, other in ((ann, bob), (bob, ann)):
        merging = bank.build(one).append_account_merge_op(other.public_key)
        assert isinstance(bank.ledger.submit(sign(merging, one)), Waiting)
    outcomes = sorted(each.outcome.code for each in bank.close())
    assert outcomes == ["tx_failed", "tx_success"], "the second has nowhere to go"
    assert bank.ledger.state.total_stroops() == TOTAL_STROOPS


@pytest.mark.parametrize(
    "passphrase", ["Public Global Stellar Network ; September 2015", "Test SDF Network ; September 2015"]
)
def test_ledgers_of_others_are_refused(passphrase: str) -> None:
    with pytest.raises(UsageError, match="development ledger"):
        genesis(passphrase, bytes(32), START)


def test_what_is_signed_for_another_network_is_not_signed_here(bank: Bank, ann: Keypair, bob: Keypair) -> None:
    builder = paying(bank, ann, bob)
    builder.network_passphrase = PASSPHRASE + "!"
    assert codes(bank, builder, ann) == ("tx_bad_auth",)


@pytest.mark.parametrize(("cut", "added"), [(-8, ""), (None, "AAAA"), (0, ""), (None, "!"), (None, "\u00e9")])
def test_bytes_that_are_no_envelope(cut: int | None, added: str, bank: Bank, ann: Keypair, bob: Keypair) -> None:
    with pytest.raises(BadMessage):
        bank.ledger.submit(sign(paying(bank, ann, bob), ann)[:cut] + added)
