"""What is in an envelope, and what a ledger's result says of it: XDR as plain values. Pure.

Owns the reading. Must not know where the bytes came from or what they are for. The invariant: whatever the bytes are,
there is a value or BadMessage, and a hash is always computed from the envelope, never taken from whoever sent it.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec
from stellar_sdk import (
    AccountMerge,
    Asset,
    CreateAccount,
    FeeBumpTransactionEnvelope,
    HashMemo,
    IdMemo,
    Payment,
    ReturnHashMemo,
    StrKey,
    TextMemo,
    TransactionEnvelope,
    xdr,
)
from stellar_sdk.exceptions import SdkError
from stellar_sdk.memo import Memo
from stellar_sdk.operation import Operation
from xdrlib3 import Error as XdrError

from layrfs.errors import BadMessage

BROKEN = (ValueError, EOFError, XdrError, SdkError, TypeError, AttributeError, OverflowError, RecursionError)
"""What the generated decoders raise for bytes that are no XDR."""

_AS_HORIZON_SAYS = {"tx_no_account": "tx_no_source_account", "op_already_exist": "op_already_exists"}


class Submission(msgspec.Struct, frozen=True):
    """A signed transaction, perhaps in a fee-bump: `hash` and `sequence` are the inner one's, `fee_account` pays.

    `latest` is the last second it may be in (0: no such limit); `fee_stroops` the most that it can cost.
    """

    hash: bytes
    source: bytes
    sequence: int
    latest: int
    operations: int
    fee_account: bytes
    fee_stroops: int
    memo: str


class Movement(msgspec.Struct, frozen=True):
    """Lumens that went from one account to another. `kind`: `create`, `payment` or `merge`."""

    kind: str
    source: bytes
    destination: bytes
    stroops: int


def submission_untrusted(envelope: str, passphrase: str) -> Submission:
    """Of a base64 envelope. Raises BadMessage."""
    try:
        bump, inner = _opened(envelope, passphrase)
        transaction = inner.transaction
        bounds = transaction.preconditions.time_bounds if transaction.preconditions else None
        return Submission(
            hash=inner.hash(),
            source=account_key(transaction.source.account_id),
            sequence=transaction.sequence,
            latest=bounds.max_time if bounds else 0,
            operations=len(transaction.operations),
            fee_account=account_key((bump.transaction.fee_source if bump else transaction.source).account_id),
            fee_stroops=bump.transaction.fee if bump else transaction.fee,
            memo=_shown_memo(transaction.memo),
        )
    except BROKEN:
        raise BadMessage("this is no transaction of the ledger") from None


def movements_untrusted(envelope: str, result_xdr: str, passphrase: str) -> tuple[Movement, ...]:
    """What a successful transaction moved, in order; other assets than lumens are left out. Raises BadMessage."""
    try:
        _bump, inner = _opened(envelope, passphrase)
        results = _result(result_xdr).operations
        source = inner.transaction.source.account_id
        pairs = zip(inner.transaction.operations, results, strict=True)
        found = (_movement(operation, result, source) for operation, result in pairs)
        return tuple(each for each in found if each is not None)
    except BROKEN:
        raise BadMessage("the ledger's result is not one of this transaction") from None


def codes_untrusted(result_xdr: str) -> tuple[str, ...]:
    """Why a transaction failed, in Horizon's words, the transaction's code first. Raises BadMessage."""
    try:
        result = _result(result_xdr)
        return (_named(result.code.name, "tx"), *map(_operation_code, result.operations))
    except BROKEN:
        raise BadMessage("the ledger's result cannot be read") from None


def account_key(address: str) -> bytes:
    """The 32 bytes of a G address. ValueError for anything else."""
    return StrKey.decode_ed25519_public_key(address)


def address_of(key: bytes) -> str:
    """The G address of an account's 32 bytes."""
    return StrKey.encode_ed25519_public_key(key)


def stroops_of(amount: str) -> int:
    """``1.5`` XLM in stroops, exactly. ValueError."""
    value = Decimal(amount).scaleb(7) if amount.isascii() and amount.replace(".", "", 1).isdigit() else None
    if value is None or value != value.to_integral_value() or value >= 2**63:
        raise ValueError("this is no amount of lumens")
    return int(value)


def _opened(envelope: str, passphrase: str) -> tuple[FeeBumpTransactionEnvelope | None, TransactionEnvelope]:
    if FeeBumpTransactionEnvelope.is_fee_bump_transaction_envelope(envelope):
        bump = FeeBumpTransactionEnvelope.from_xdr(envelope, passphrase)
        return bump, bump.transaction.inner_transaction_envelope
    return None, TransactionEnvelope.from_xdr(envelope, passphrase)


def _shown_memo(memo: Memo) -> str:
    match memo:
        case TextMemo():
            return memo.memo_text.decode("utf-8", "backslashreplace")
        case IdMemo():
            return str(memo.memo_id)
        case HashMemo():
            return memo.memo_hash.hex()
        case ReturnHashMemo():
            return memo.memo_return.hex()
    return ""


def _movement(operation: Operation, result: xdr.OperationResult, source: str) -> Movement | None:
    start = account_key(operation.source.account_id if operation.source else source)
    match operation:
        case CreateAccount():
            destination = account_key(operation.destination)
            return Movement("create", start, destination, _exact(operation.starting_balance))
        case Payment() if operation.asset == Asset.native():
            destination = account_key(operation.destination.account_id)
            return Movement("payment", start, destination, _exact(operation.amount))
        case AccountMerge():
            return Movement("merge", start, account_key(operation.destination.account_id), _merged_stroops(result))
    return None


def _exact(amount: str | Decimal) -> int:
    """The library writes amounts as ``10.5`` and as ``1E-7``."""
    return int(Decimal(amount).scaleb(7))


def _merged_stroops(result: xdr.OperationResult) -> int:
    merged = result.tr.account_merge_result if result.tr else None
    if merged is None or merged.source_account_balance is None:
        raise ValueError("the result of a merge says how much it was")
    return merged.source_account_balance.int64


class _Result(msgspec.Struct, frozen=True):
    code: xdr.TransactionResultCode
    operations: list[xdr.OperationResult]


def _result(result_xdr: str) -> _Result:
    """Of the transaction that was meant, when a fee-bump carried it."""
    result = xdr.TransactionResult.from_xdr(result_xdr).result
    if result.inner_result_pair is not None:
        inner = result.inner_result_pair.result.result
        return _Result(inner.code, inner.results or [])
    return _Result(result.code, result.results or [])


def _operation_code(result: xdr.OperationResult) -> str:
    if result.tr is None:
        return _named(result.code.name, "op")
    inner = next(part for name, part in vars(result.tr).items() if name != "type" and part is not None)
    name = inner.code.name.removeprefix(result.tr.type.name).removeprefix("_")
    return _named(f"op{name}", "op")


def _named(name: str, kind: str) -> str:
    said = f"{kind}_{name.removeprefix(kind).lower()}"
    return _AS_HORIZON_SAYS.get(said, said)
