"""Terms of a contract from its set-up on the ledger and the owner's key: all of them but the price, which is not there.

Owns that reading. Pure. Invariant: what is answered builds, byte for byte, the transaction that it was read from; so
the refund that follows from it is the one that the escrow waits for.
"""

from __future__ import annotations

import struct
from decimal import Decimal

from stellar_sdk import CreateAccount, FeeBumpTransactionEnvelope, HashMemo, Payment, SetOptions, TransactionEnvelope

from layrfs.crypto.wallet_keys import account_of, escrow_private, revealed_memo
from layrfs.errors import BadMessage
from layrfs.ids import NodeId
from layrfs.model.contracts import Terms
from layrfs.model.ledger import LedgerTransaction
from layrfs.payments.envelopes import network_id, setup
from layrfs.payments.reading import BROKEN, account_key, stroops_of
from layrfs.policy.paymaster import NO_PRICE
from layrfs.policy.pricing import FEE_STROOPS, locked_stroops


def found_terms(transaction: LedgerTransaction, passphrase: str, wallet_private: bytes) -> Terms | None:
    """None of a transaction that set up no contract of this owner. ``tenant`` is zeros: it is not on the ledger.

    Strangers' transactions are in the account's history too, and of some the memo says anything: no terms come of it.
    """
    if not transaction.successful:
        return None
    try:
        terms = _terms(_inner(transaction.envelope, passphrase), passphrase, wallet_private)
        is_ours = terms is not None and setup(terms).hash == transaction.hash
    except (*BROKEN, BadMessage, struct.error):
        return None
    return terms if is_ours else None


def _inner(envelope: str, passphrase: str) -> TransactionEnvelope:
    if FeeBumpTransactionEnvelope.is_fee_bump_transaction_envelope(envelope):
        return FeeBumpTransactionEnvelope.from_xdr(envelope, passphrase).transaction.inner_transaction_envelope
    return TransactionEnvelope.from_xdr(envelope, passphrase)


def _terms(envelope: TransactionEnvelope, passphrase: str, wallet_private: bytes) -> Terms | None:
    transaction = envelope.transaction
    operations, bounds = transaction.operations, transaction.preconditions
    if not isinstance(transaction.memo, HashMemo) or bounds is None or bounds.ledger_bounds is None:
        return None
    created, rules, *_rest = operations
    if not isinstance(created, CreateAccount) or not isinstance(rules, SetOptions) or rules.signer is None:
        return None
    memo = revealed_memo(transaction.memo.memo_hash, wallet_private, account_key(created.destination))
    if memo is None:
        return None
    return Terms(
        owner=account_of(wallet_private),
        host=rules.signer.signer_key.signer_key,
        escrow=account_of(escrow_private(wallet_private, memo.node_id, memo.number, transaction.sequence)),
        node=NodeId(memo.node_id),
        tenant=bytes(32),
        number=memo.number,
        start=memo.start,
        window_seconds=memo.window_seconds,
        instalments=memo.instalments,
        price=NO_PRICE,
        deposit_stroops=_stroops(created.starting_balance) - locked_stroops() - (memo.instalments + 1) * FEE_STROOPS,
        last_setup_ledger=bounds.ledger_bounds.max_ledger - 1,
        collateral_stroops=sum(_stroops(each.amount) for each in operations if isinstance(each, Payment)),
        memo=transaction.memo.memo_hash,
        owner_sequence=transaction.sequence,
        network=network_id(passphrase),
    )


def _stroops(amount: str | Decimal) -> int:
    return stroops_of(format(Decimal(amount), "f"))
