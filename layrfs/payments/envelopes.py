"""The transactions of a contract, rebuilt from its terms alone: set-up, instalments, refund, and an end by consent.

Owns what goes onto the ledger, byte by byte, and what an escrow has to look like. Pure: no network, clock or dice. Must
not know when anything is due, or how it is sent.
Invariant: nobody's XDR is ever taken. Whoever has the terms has every hash, and signatures are over those.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct
from stellar_sdk import (
    AccountMerge,
    Asset,
    CreateAccount,
    HashMemo,
    LedgerBounds,
    Payment,
    Preconditions,
    SetOptions,
    Signer,
    SignerKey,
    StrKey,
    TimeBounds,
    Transaction,
)
from stellar_sdk import xdr as stellar_xdr
from stellar_sdk.operation import Operation

from layrfs.crypto.identity import verify_signature
from layrfs.model.contracts import Lock, Terms
from layrfs.model.lumens import ledger_amount
from layrfs.policy.agreeing import SETUP_SECONDS
from layrfs.policy.pricing import FEE_STROOPS, starting_stroops

SEQUENCE_STEP = 1 << 16
"""Between an instalment and the next: room for ends by consent that were tried and failed."""

THRESHOLD = 2
"""Of every kind of operation: the owner's escrow key and the host's have one each, the refund has two."""

_HINT_BYTES = 4
_LEDGER_BITS = 32


class Envelope(Struct, frozen=True):
    """One transaction for the ledger with this network id, as the bytes that are hashed."""

    network: bytes
    transaction: bytes

    @property
    def hash(self) -> bytes:
        """32 bytes: its name on the ledger, also when a fee-bump carries it, and what is signed."""
        kind = stellar_xdr.EnvelopeType.ENVELOPE_TYPE_TX.value.to_bytes(4, "big")
        return hashlib.sha256(self.network + kind + self.transaction).digest()

    def sign(self, private: bytes) -> bytes:
        """The signature, 64 bytes, of the account whose private key this is."""
        return Ed25519PrivateKey.from_private_bytes(private).sign(self.hash)

    def xdr(self, signatures: Mapping[bytes, bytes], preimages: Sequence[bytes] = ()) -> str:
        """What is submitted, in base64: with signatures by account key, and answers to locks."""
        signed = [_decorated(key, signature) for key, signature in signatures.items()]
        signed += [_decorated(hashlib.sha256(preimage).digest(), preimage) for preimage in preimages]
        transaction = stellar_xdr.Transaction.from_xdr_bytes(self.transaction)
        envelope = stellar_xdr.TransactionV1Envelope(transaction, signed)
        kind = stellar_xdr.EnvelopeType.ENVELOPE_TYPE_TX
        return stellar_xdr.TransactionEnvelope(kind, v1=envelope).to_xdr()


def network_id(passphrase: str) -> bytes:
    """32 bytes that stand for a ledger: what terms name, and every hash begins with."""
    return hashlib.sha256(passphrase.encode()).digest()


def signed_by(envelope: Envelope, account: bytes, signature: bytes) -> bool:
    """Whether the signature is this account's own, over this transaction. It may come from a stranger."""
    return verify_signature(account, envelope.hash, signature)


def setup(terms: Terms) -> Envelope:
    """The escrow comes to be, with all its rules, or not at all. Signed by owner and escrow; with collateral, the host.

    After the ledger or the second it is for it can never be in.
    """
    escrow, host = _strkey(terms.escrow), _strkey(terms.host)
    rules = SetOptions(
        master_weight=1,
        low_threshold=THRESHOLD,
        med_threshold=THRESHOLD,
        high_threshold=THRESHOLD,
        signer=Signer.ed25519_public_key(host, 1),
        source=escrow,
    )
    operations: list[Operation] = [
        CreateAccount(escrow, ledger_amount(starting_stroops(terms))),
        rules,
        SetOptions(signer=Signer.pre_auth_tx(refund(terms).hash, THRESHOLD), source=escrow),
    ]
    if terms.collateral_stroops:
        operations.append(_payment(terms.escrow, terms.collateral_stroops, source=host))
    bounds = Preconditions(
        time_bounds=TimeBounds(0, terms.start + SETUP_SECONDS),
        ledger_bounds=LedgerBounds(0, terms.last_setup_ledger + 1),
    )
    return _envelope(terms.network, terms.owner, terms.owner_sequence, operations, bounds, HashMemo(terms.memo))


def claim(terms: Terms, instalment: int, lock: Lock) -> Envelope:
    """The instalment's payment to the host, in its window. Signed by escrow and host, opened by the lock's answer."""
    bounds = Preconditions(
        time_bounds=TimeBounds(*terms.window(instalment)),
        min_sequence_number=0,
        extra_signers=[SignerKey.sha256_hash(lock.hash)],
    )
    operation = _payment(terms.host, lock.amount_stroops)
    return _envelope(terms.network, terms.escrow, sequence(terms, instalment + 1), [operation], bounds)


def refund(terms: Terms) -> Envelope:
    """What is left goes back to the owner, after the end. It needs no signature, and anybody may submit it.

    Not in the ledgers in which the escrow may be set up: it would fail there, and be used up.
    """
    bounds = Preconditions(
        time_bounds=TimeBounds(terms.end, 0),
        ledger_bounds=LedgerBounds(terms.last_setup_ledger + 1, 0),
        min_sequence_number=0,
    )
    operation = AccountMerge(_strkey(terms.owner))
    return _envelope(terms.network, terms.escrow, sequence(terms, terms.instalments + 1), [operation], bounds)


def settle(terms: Terms, *, host_stroops: int, sequence_number: int, last_second: int) -> Envelope:
    """An end before the end, by consent: so much for the host, the rest for the owner. Signed by escrow and host.

    Its number is one more than the escrow's account has, and has to be: so it is below that of every instalment still
    to come and of the refund, and should it fail on the ledger, they hold.
    """
    operations: list[Operation] = [_payment(terms.host, host_stroops)] if host_stroops else []
    operations.append(AccountMerge(_strkey(terms.owner)))
    bounds = Preconditions(
        time_bounds=TimeBounds(0, last_second), ledger_bounds=LedgerBounds(terms.last_setup_ledger + 1, 0)
    )
    return _envelope(terms.network, terms.escrow, sequence_number, operations, bounds)


def payment(
    network: bytes, source: bytes, destination: bytes, *, stroops: int, sequence_number: int, last_second: int
) -> Envelope:
    """A payment between accounts that exist, signed by the source: a top-up, when it goes to an escrow."""
    bounds = Preconditions(time_bounds=TimeBounds(0, last_second))
    return _envelope(network, source, sequence_number, [_payment(destination, stroops)], bounds)


def sequence(terms: Terms, step: int) -> int:
    """The escrow's sequence numbers: from step 0, before which it starts, to the refund's, the instalments' + 1."""
    return (terms.last_setup_ledger << _LEDGER_BITS) + step * SEQUENCE_STEP


def _envelope(
    network: bytes,
    source: bytes,
    sequence_number: int,
    operations: Sequence[Operation],
    bounds: Preconditions,
    memo: HashMemo | None = None,
) -> Envelope:
    fee = FEE_STROOPS * len(operations)
    transaction = Transaction(_strkey(source), sequence_number, fee, operations, memo, bounds)
    return Envelope(network, transaction.to_xdr_object().to_xdr_bytes())


def _payment(destination: bytes, stroops: int, source: str | None = None) -> Payment:
    return Payment(_strkey(destination), Asset.native(), ledger_amount(stroops), source)


def _strkey(key: bytes) -> str:
    return StrKey.encode_ed25519_public_key(key)


def _decorated(named: bytes, signature: bytes) -> stellar_xdr.DecoratedSignature:
    """The ledger finds out whose signature it is by the end of the signer's key, or of the lock's hash."""
    hint = stellar_xdr.SignatureHint(named[-_HINT_BYTES:])
    return stellar_xdr.DecoratedSignature(hint, stellar_xdr.Signature(signature))
