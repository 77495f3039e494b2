"""What strangers submit, as values: transactions, fee bumps and the operations that this ledger knows.

Owns the decoding of envelopes (base64 XDR) and their hashes. Must not know accounts or rules. Invariant: whatever the
bytes are, there is a value or a `BadMessage`; an operation that is not known is a value too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

import msgspec
from stellar_sdk import xdr
from xdrlib3 import Error as XdrError

from layrfs.errors import BadMessage
from layrfs.payments.devledger.state import SignerKey

ENVELOPE_LIMIT_CHARACTERS = 128 * 1024
"""A hundred operations with twenty signatures are a tenth of it."""

_BROKEN = (ValueError, EOFError, XdrError, TypeError, AttributeError, OverflowError, RecursionError)
"""What the generated decoders raise for bytes that are no XDR."""


class CreateAccount(msgspec.Struct, frozen=True, tag=True):
    """Begin an account with something."""

    source: bytes
    destination: bytes
    stroops: int


class Payment(msgspec.Struct, frozen=True, tag=True):
    """Lumens from here to there."""

    source: bytes
    destination: bytes
    stroops: int


class AccountMerge(msgspec.Struct, frozen=True, tag=True):
    """End an account; what it has goes elsewhere."""

    source: bytes
    destination: bytes


class SetOptions(msgspec.Struct, frozen=True, tag=True):
    """Weights, thresholds, flags, name and one signer of an account; None: as it is. Weight 0 removes a signer."""

    source: bytes
    clear_flags: int | None = None
    set_flags: int | None = None
    master_weight: int | None = None
    low: int | None = None
    medium: int | None = None
    high: int | None = None
    home_domain: str | None = None
    signer: SignerKey | None = None
    signer_weight: int = 0


class BumpSequence(msgspec.Struct, frozen=True, tag=True):
    """Raise an account's sequence number."""

    source: bytes
    to: int


class Unknown(msgspec.Struct, frozen=True, tag=True):
    """An operation, or a form of one, that this ledger does not have."""

    source: bytes
    kind: int


Operation = CreateAccount | Payment | AccountMerge | SetOptions | BumpSequence | Unknown


class Memo(msgspec.Struct, frozen=True):
    """What a transaction says beside what it does; the kinds are Horizon's words."""

    kind: str = "none"
    content: bytes = b""
    """Text, a hash, or a number's decimal digits."""


class Signature(msgspec.Struct, frozen=True):
    """The hint is the end of the key it belongs to; of a hash's preimage it is the preimage."""

    hint: bytes
    signature: bytes


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction as it was signed. Bounds of 0 do not bind."""

    hash: bytes
    source: bytes
    fee_stroops: int
    sequence: int
    operations: tuple[Operation, ...]
    signatures: tuple[Signature, ...]
    own_source: tuple[bool, ...] = ()
    """For each operation: whether it names its account itself."""
    min_time: int = 0
    max_time: int = 0
    min_ledger: int = 0
    max_ledger: int = 0
    min_sequence: int | None = None
    min_age_seconds: int = 0
    min_ledger_gap: int = 0
    extra_signers: tuple[SignerKey, ...] = ()
    memo: Memo = Memo()
    is_supported: bool = True
    """Whether all of it has a form that this ledger knows (no contracts' data, no signed payloads)."""

    @property
    def fee_source(self) -> bytes:
        """Who pays the fee."""
        return self.source

    @property
    def inner(self) -> Transaction:
        """What is carried out."""
        return self


class FeeBump(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody pays the fee of a transaction that is signed already."""

    hash: bytes
    fee_source: bytes
    fee_stroops: int
    inner: Transaction
    signatures: tuple[Signature, ...]


Submission = Transaction | FeeBump


def submission_untrusted(envelope: str, network_id: bytes) -> Submission:
    """Decode base64 XDR of an envelope; BadMessage for whatever is none, or has anything before or after."""
    if len(envelope) > ENVELOPE_LIMIT_CHARACTERS:
        raise BadMessage("the envelope is too large")
    try:
        data = base64.b64decode(envelope, validate=True)
        found = xdr.TransactionEnvelope.from_xdr_bytes(data)
        if found.to_xdr_bytes() != data:
            raise BadMessage("the envelope is not in its one encoding")
        return _submission(found, network_id)
    except binascii.Error:
        raise BadMessage("the envelope is not base64") from None
    except _BROKEN as error:
        raise BadMessage(f"the envelope is not XDR: {error}") from None


def _submission(found: xdr.TransactionEnvelope, network_id: bytes) -> Submission:
    if found.v1 is not None:
        return _transaction(found.v1, network_id)
    if found.fee_bump is not None and found.fee_bump.tx.inner_tx.v1 is not None:
        return FeeBump(
            hash=_hash(network_id, found.type, found.fee_bump.tx.to_xdr_bytes()),
            fee_source=_account(found.fee_bump.tx.fee_source),
            fee_stroops=found.fee_bump.tx.fee.int64,
            inner=_transaction(found.fee_bump.tx.inner_tx.v1, network_id),
            signatures=_signatures(found.fee_bump.signatures),
        )
    raise BadMessage("envelopes of the first version are not taken any more")


def _hash(network_id: bytes, kind: xdr.EnvelopeType, body: bytes) -> bytes:
    return hashlib.sha256(network_id + kind.to_xdr_bytes() + body).digest()


def _transaction(envelope: xdr.TransactionV1Envelope, network_id: bytes) -> Transaction:
    body = envelope.tx
    source = _account(body.source_account)
    conditions, supported = _conditions(body.cond)
    return msgspec.structs.replace(
        conditions,
        hash=_hash(network_id, xdr.EnvelopeType.ENVELOPE_TYPE_TX, body.to_xdr_bytes()),
        source=source,
        fee_stroops=body.fee.uint32,
        sequence=body.seq_num.sequence_number.int64,
        operations=tuple(_operation(each, source) for each in body.operations),
        own_source=tuple(each.source_account is not None for each in body.operations),
        signatures=_signatures(envelope.signatures),
        memo=_memo(body.memo),
        is_supported=supported and body.ext.v == 0,
    )


def _conditions(found: xdr.Preconditions) -> tuple[Transaction, bool]:
    """A transaction that has nothing but its conditions, and whether all of them are known here."""
    empty = Transaction(hash=b"", source=b"", fee_stroops=0, sequence=0, operations=(), signatures=())
    if found.v2 is None:
        return _timed(empty, found.time_bounds), True
    rest, signers = found.v2, [_signer_key(each) for each in found.v2.extra_signers]
    return msgspec.structs.replace(
        _timed(empty, rest.time_bounds),
        min_ledger=rest.ledger_bounds.min_ledger.uint32 if rest.ledger_bounds else 0,
        max_ledger=rest.ledger_bounds.max_ledger.uint32 if rest.ledger_bounds else 0,
        min_sequence=rest.min_seq_num.sequence_number.int64 if rest.min_seq_num else None,
        min_age_seconds=rest.min_seq_age.duration.uint64,
        min_ledger_gap=rest.min_seq_ledger_gap.uint32,
        extra_signers=tuple(each for each in signers if each is not None),
    ), None not in signers


def _timed(transaction: Transaction, bounds: xdr.TimeBounds | None) -> Transaction:
    if bounds is None:
        return transaction
    earliest, latest = bounds.min_time.time_point.uint64, bounds.max_time.time_point.uint64
    return msgspec.structs.replace(transaction, min_time=earliest, max_time=latest)


def _account(found: xdr.MuxedAccount) -> bytes:
    """Several names for one account (M...) are that account here."""
    if found.ed25519 is not None:
        return found.ed25519.uint256
    if found.med25519 is None:
        raise AssertionError("the decoder has read one or the other")
    return found.med25519.ed25519.uint256


def _account_id(found: xdr.AccountID) -> bytes:
    if found.account_id.ed25519 is None:
        raise AssertionError("there is no other kind of account")
    return found.account_id.ed25519.uint256


def _memo(found: xdr.Memo) -> Memo:
    if found.text is not None:
        return Memo("text", found.text)
    if found.id is not None:
        return Memo("id", str(found.id.uint64).encode())
    if found.hash is not None:
        return Memo("hash", found.hash.hash)
    return Memo("return", found.ret_hash.hash) if found.ret_hash is not None else Memo()


def _signatures(found: list[xdr.DecoratedSignature]) -> tuple[Signature, ...]:
    return tuple(Signature(each.hint.signature_hint, each.signature.signature) for each in found)


def _signer_key(found: xdr.SignerKey) -> SignerKey | None:
    """None for signed payloads."""
    if found.ed25519 is not None:
        return SignerKey("ed25519_public_key", found.ed25519.uint256)
    if found.hash_x is not None:
        return SignerKey("sha256_hash", found.hash_x.uint256)
    if found.pre_auth_tx is not None:
        return SignerKey("preauth_tx", found.pre_auth_tx.uint256)
    return None


def _operation(found: xdr.Operation, source: bytes) -> Operation:
    source, body = _account(found.source_account) if found.source_account else source, found.body
    if body.create_account_op is not None:
        create = body.create_account_op
        return CreateAccount(source, _account_id(create.destination), create.starting_balance.int64)
    if body.payment_op is not None and body.payment_op.asset.type == xdr.AssetType.ASSET_TYPE_NATIVE:
        return Payment(source, _account(body.payment_op.destination), body.payment_op.amount.int64)
    if body.bump_sequence_op is not None:
        return BumpSequence(source, body.bump_sequence_op.bump_to.sequence_number.int64)
    if body.set_options_op is not None:
        return _set_options(body.set_options_op, source)
    if body.type == xdr.OperationType.ACCOUNT_MERGE and body.destination is not None:
        return AccountMerge(source, _account(body.destination))
    return Unknown(source, int(body.type))


def _set_options(found: xdr.SetOptionsOp, source: bytes) -> SetOptions | Unknown:
    signer = _signer_key(found.signer.key) if found.signer else None
    if found.inflation_dest is not None or (found.signer is not None and signer is None):
        return Unknown(source, int(xdr.OperationType.SET_OPTIONS))
    return SetOptions(
        source,
        clear_flags=_number(found.clear_flags),
        set_flags=_number(found.set_flags),
        master_weight=_number(found.master_weight),
        low=_number(found.low_threshold),
        medium=_number(found.med_threshold),
        high=_number(found.high_threshold),
        home_domain=found.home_domain.string32.decode("ascii") if found.home_domain else None,
        signer=signer,
        signer_weight=found.signer.weight.uint32 if found.signer else 0,
    )


def _number(found: xdr.Uint32 | None) -> int | None:
    return None if found is None else found.uint32
