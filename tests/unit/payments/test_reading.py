"""XDR as plain values, against what the ledger's library builds, and against garbage."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stellar_sdk import Account, Asset, Keypair, TransactionBuilder, TransactionEnvelope, xdr

from layrfs.crypto.wallet_keys import account_of
from layrfs.errors import BadMessage
from layrfs.model.lumens import shown_lumens
from layrfs.payments import reading
from layrfs.payments.fees import with_higher_fee

NETWORK = "a network ; of tests"
OWNER, HOST, PAYER = (Keypair.from_raw_ed25519_seed(bytes([number]) * 32) for number in (1, 2, 3))
PAYER_PRIVATE = bytes([3]) * 32
stroops = st.integers(0, 2**63 - 1)


def envelope(*amounts: str, latest: int = 1_000) -> TransactionEnvelope:
    """A creation, then payments."""
    builder = TransactionBuilder(Account(OWNER.public_key, 41), NETWORK, base_fee=100)
    builder.append_create_account_op(HOST.public_key, amounts[0])
    for amount in amounts[1:]:
        builder.append_payment_op(HOST.public_key, Asset.native(), amount, source=PAYER.public_key)
    built = builder.add_text_memo("thanks").add_time_bounds(0, latest).build()
    built.sign(OWNER)
    return built


def result(*inner: xdr.OperationResultTr, code: str = "txSUCCESS") -> str:
    """A ledger's result, of a transaction with these operations."""
    results = [xdr.OperationResult(xdr.OperationResultCode.opINNER, each) for each in inner]
    said = xdr.TransactionResultResult(xdr.TransactionResultCode[code], results=results)
    return xdr.TransactionResult(xdr.Int64(100), said, xdr.TransactionResultExt(0)).to_xdr()


def created(code: str = "SUCCESS") -> xdr.OperationResultTr:
    made = xdr.CreateAccountResult(xdr.CreateAccountResultCode[f"CREATE_ACCOUNT_{code}"])
    return xdr.OperationResultTr(xdr.OperationType.CREATE_ACCOUNT, create_account_result=made)


def paid(code: str = "SUCCESS") -> xdr.OperationResultTr:
    made = xdr.PaymentResult(xdr.PaymentResultCode[f"PAYMENT_{code}"])
    return xdr.OperationResultTr(xdr.OperationType.PAYMENT, payment_result=made)


def test_a_submission_says_what_it_is() -> None:
    built = envelope("10", "0.5")
    found = reading.submission_untrusted(built.to_xdr(), NETWORK)
    assert (found.hash, found.source, found.sequence) == (built.hash(), OWNER.raw_public_key(), 42)
    assert (found.latest, found.operations, found.fee_stroops, found.memo) == (1_000, 2, 200, "thanks")
    assert found.fee_account == OWNER.raw_public_key()


def test_a_higher_fee_leaves_the_hash_and_names_the_payer() -> None:
    built = envelope("10", "0.5")
    bumped = reading.submission_untrusted(with_higher_fee(built.to_xdr(), PAYER_PRIVATE, 1_000, NETWORK), NETWORK)
    assert bumped.hash == built.hash()
    assert (bumped.source, bumped.sequence) == (OWNER.raw_public_key(), 42)
    assert (bumped.fee_account, bumped.fee_stroops) == (account_of(PAYER_PRIVATE), 3_000)


def test_another_network_has_other_hashes() -> None:
    built = envelope("10")
    assert reading.submission_untrusted(built.to_xdr(), "another").hash != built.hash()


def test_movements_are_exact_down_to_one_stroop() -> None:
    built = envelope("922337203685.4775807", "0.0000001")
    moved = reading.movements_untrusted(built.to_xdr(), result(created(), paid()), NETWORK)
    assert [(each.kind, each.stroops) for each in moved] == [("create", 2**63 - 1), ("payment", 1)]
    assert [each.source for each in moved] == [OWNER.raw_public_key(), PAYER.raw_public_key()]
    assert {each.destination for each in moved} == {HOST.raw_public_key()}


def test_a_merge_moved_what_the_result_says() -> None:
    builder = TransactionBuilder(Account(OWNER.public_key, 41), NETWORK, base_fee=100)
    built = builder.append_account_merge_op(HOST.public_key).add_time_bounds(0, 0).build()
    merged = xdr.AccountMergeResult(xdr.AccountMergeResultCode.ACCOUNT_MERGE_SUCCESS, xdr.Int64(123))
    said = result(xdr.OperationResultTr(xdr.OperationType.ACCOUNT_MERGE, account_merge_result=merged))
    (moved,) = reading.movements_untrusted(built.to_xdr(), said, NETWORK)
    assert moved == reading.Movement("merge", OWNER.raw_public_key(), HOST.raw_public_key(), 123)


def test_a_result_of_something_else_is_not_believed() -> None:
    with pytest.raises(BadMessage):
        reading.movements_untrusted(envelope("1", "1").to_xdr(), result(created()), NETWORK)


@pytest.mark.parametrize(
    ("said", "codes"),
    [
        (result(created(), paid("UNDERFUNDED"), code="txFAILED"), ("tx_failed", "op_success", "op_underfunded")),
        (result(created("ALREADY_EXIST"), code="txFAILED"), ("tx_failed", "op_already_exists")),
        (result(code="txFAILED"), ("tx_failed",)),
        ("AAAAAAAAAGT/////AAAAAf/////AAAAAAAAAAA==", None),
    ],
)
def test_codes_are_horizons(said: str, codes: tuple[str, ...] | None) -> None:
    if codes is None:
        with pytest.raises(BadMessage):
            reading.codes_untrusted(said)
    else:
        assert reading.codes_untrusted(said) == codes


@given(st.one_of(st.text(), st.binary(max_size=200).map(lambda data: base64.b64encode(data).decode())))
def test_garbage_is_a_bad_message(text: str) -> None:
    for read in (
        lambda: reading.submission_untrusted(text, NETWORK),
        lambda: reading.movements_untrusted(text, text, NETWORK),
    ):
        with pytest.raises(BadMessage):
            read()


@given(stroops)
def test_amounts_are_read_as_they_are_shown(amount: int) -> None:
    assert reading.stroops_of(shown_lumens(amount)) == amount
    assert shown_lumens(-amount).lstrip("-") == shown_lumens(amount)


@pytest.mark.parametrize(
    "text", ["", ".", "1e3", "-1", "+1", "0.00000001", "1,5", "1.2.3", "٣", "99999999999999", "nan"]
)
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises((ValueError, ArithmeticError)):
        reading.stroops_of(text)
