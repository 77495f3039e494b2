"""What came of a transaction as Stellar encodes it: `TransactionResult`, base64 XDR. Pure.

Owns the translation of Horizon's codes into those of the ledger's own format. Must not know accounts or HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence

from stellar_sdk import xdr

from layrfs.payments.devledger.operations import SUCCESS, Done
from layrfs.payments.devledger.rules import Outcome
from layrfs.payments.devledger.transactions import (
    AccountMerge,
    BumpSequence,
    CreateAccount,
    FeeBump,
    Operation,
    Payment,
    SetOptions,
    Submission,
    Transaction,
    Unknown,
)

_TRANSACTION = {"tx_no_source_account": "txNO_ACCOUNT", "tx_bad_minseq_age_or_gap": "txBAD_MIN_SEQ_AGE_OR_GAP"}
_EVERYWHERE = {
    "op_bad_auth": "opBAD_AUTH",
    "op_no_source_account": "opNO_ACCOUNT",
    "op_not_supported": "opNOT_SUPPORTED",
}
_SPELLED = {"op_already_exists": "ALREADY_EXIST", "op_seq_num_too_far": "SEQNUM_TOO_FAR"}


def result_xdr(submission: Submission, outcome: Outcome, fee_stroops: int) -> str:
    """Base64 XDR."""
    if isinstance(submission, FeeBump):
        result = _bumped(submission, outcome)
    else:
        result = xdr.TransactionResultResult(_code(outcome.code), results=_results(submission, outcome.operations))
    return xdr.TransactionResult(xdr.Int64(fee_stroops), result, xdr.TransactionResultExt(0)).to_xdr()


def _bumped(bump: FeeBump, outcome: Outcome) -> xdr.TransactionResultResult:
    if outcome.inner is None:
        return xdr.TransactionResultResult(_code(outcome.code))
    inside = xdr.InnerTransactionResultResult(_code(outcome.inner), results=_results(bump.inner, outcome.operations))
    inner = xdr.InnerTransactionResult(xdr.Int64(0), inside, xdr.InnerTransactionResultExt(0))
    pair = xdr.InnerTransactionResultPair(xdr.Hash(bump.inner.hash), inner)
    return xdr.TransactionResultResult(_code(outcome.code), inner_result_pair=pair)


def _code(code: str) -> xdr.TransactionResultCode:
    return xdr.TransactionResultCode[_TRANSACTION.get(code, "tx" + code.removeprefix("tx_").upper())]


def _results(transaction: Transaction, done: Sequence[Done]) -> list[xdr.OperationResult]:
    return [_result(*each) for each in zip(transaction.operations, done, strict=False)]


def _result(operation: Operation, done: Done) -> xdr.OperationResult:
    everywhere = "opNOT_SUPPORTED" if isinstance(operation, Unknown) else _EVERYWHERE.get(done.code)
    if everywhere is not None:
        return xdr.OperationResult(xdr.OperationResultCode[everywhere])
    return xdr.OperationResult(xdr.OperationResultCode.opINNER, _own_result(operation, done))


def _own_result(operation: Operation, done: Done) -> xdr.OperationResultTr:
    name, kinds = _SPELLED.get(done.code, done.code.removeprefix("op_").upper()), xdr.OperationType
    match operation:
        case CreateAccount():
            create = xdr.CreateAccountResult(xdr.CreateAccountResultCode["CREATE_ACCOUNT_" + name])
            return xdr.OperationResultTr(kinds.CREATE_ACCOUNT, create_account_result=create)
        case Payment():
            payment = xdr.PaymentResult(xdr.PaymentResultCode["PAYMENT_" + name])
            return xdr.OperationResultTr(kinds.PAYMENT, payment_result=payment)
        case AccountMerge():
            moved = xdr.Int64(done.merged_stroops) if done.code == SUCCESS else None
            merge = xdr.AccountMergeResult(xdr.AccountMergeResultCode["ACCOUNT_MERGE_" + name], moved)
            return xdr.OperationResultTr(kinds.ACCOUNT_MERGE, account_merge_result=merge)
        case SetOptions():
            options = xdr.SetOptionsResult(xdr.SetOptionsResultCode["SET_OPTIONS_" + name])
            return xdr.OperationResultTr(kinds.SET_OPTIONS, set_options_result=options)
        case BumpSequence():
            bump = xdr.BumpSequenceResult(xdr.BumpSequenceResultCode["BUMP_SEQUENCE_" + name])
            return xdr.OperationResultTr(kinds.BUMP_SEQUENCE, bump_seq_result=bump)
        case Unknown():
            raise AssertionError("has no result of its own")
