"""Raising the fee of a transaction that is signed already: a fee-bump around it, whose own hash it keeps. Pure."""

from __future__ import annotations

from stellar_sdk import Keypair, TransactionBuilder, TransactionEnvelope


def with_higher_fee(xdr: str, payer: bytes, bid_stroops: int, passphrase: str) -> str:
    """The same transaction, in an envelope for which the payer's account (its private key) bids for each operation."""
    inner = TransactionEnvelope.from_xdr(xdr, passphrase)
    key = Keypair.from_raw_ed25519_seed(payer)
    bump = TransactionBuilder.build_fee_bump_transaction(key, bid_stroops, inner, passphrase)
    bump.sign(key)
    return bump.to_xdr()
