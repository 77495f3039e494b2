"""Strangers' transactions in the owner's own history, whose memos look like those of its set-ups: one in 256 does."""

from __future__ import annotations

import hashlib
import random

import pytest
from stellar_sdk import Account, Keypair, Signer, SignerKey, TransactionBuilder

from layrfs.crypto.wallet_keys import SetupMemo
from layrfs.ids import NODE_ID_BYTES, NodeId
from layrfs.model.ledger import LedgerTransaction
from layrfs.payments.rediscovering import found_terms
from tests.ledgers import PASSPHRASE

OWNER = hashlib.sha256(b"owner").digest()
STRANGER, CREATED = (Keypair.from_raw_ed25519_seed(bytes([number]) * 32) for number in (1, 2))
PAYLOAD = SignerKey.ed25519_signed_payload(
    SignerKey.ed25519_public_key(STRANGER.public_key).signer_key + (4).to_bytes(4, "big") + b"some"
)
PREIMAGE = SignerKey.sha256_hash(hashlib.sha256(b"anything").digest())


def stranger_transaction(memo: SetupMemo, signer: SignerKey, sequence: int = 42) -> LedgerTransaction:
    """It creates an account and gives it a signer, as a set-up does."""
    hidden = memo.hidden(OWNER, CREATED.raw_public_key())
    builder = TransactionBuilder(Account(STRANGER.public_key, sequence - 1), PASSPHRASE, base_fee=100)
    builder.append_create_account_op(CREATED.public_key, "3").append_set_options_op(signer=Signer(signer, 1))
    built = builder.add_hash_memo(hidden).add_time_bounds(0, 0).set_ledger_bounds(0, 100).build()
    return LedgerTransaction(
        hash=built.hash(),
        successful=True,
        ledger=90,
        closed_at=1_800_000_000,
        fee_charged_stroops=200,
        envelope=built.to_xdr(),
    )


@pytest.mark.parametrize("signer", [PAYLOAD, PREIMAGE, SignerKey.ed25519_public_key(STRANGER.public_key)])
def test_a_stranger_transaction_is_no_contract_whatever_its_memo_says(signer: SignerKey) -> None:
    draw = random.Random(1)
    for _ in range(20):
        numbers = [draw.getrandbits(bits) for bits in (16, 32, 32, 8)]
        memo = SetupMemo(NodeId(draw.randbytes(NODE_ID_BYTES)), *numbers)
        assert found_terms(stranger_transaction(memo, signer), PASSPHRASE, OWNER) is None


def test_a_number_that_no_account_has_is_no_contract() -> None:
    memo = SetupMemo(NodeId(bytes(NODE_ID_BYTES)), 0, 1_800_000_000, 600, 4)
    signer = SignerKey.ed25519_public_key(STRANGER.public_key)
    assert found_terms(stranger_transaction(memo, signer, sequence=-1), PASSPHRASE, OWNER) is None
