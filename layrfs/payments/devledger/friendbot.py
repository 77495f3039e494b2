"""Who gives lumens away: the account that has had everything from the beginning, whose key anybody can derive.

Owns that account's transactions. Must not know when accounts are wanted. The key follows from the passphrase, as that
of Stellar's own networks of one machine does: it opens nothing but the ledger of that passphrase.
"""

from __future__ import annotations

from collections.abc import Sequence

from stellar_sdk import Account, Keypair, TransactionBuilder

from layrfs.payments.devledger.state import BASE_FEE_STROOPS, network_id

GIFT_LUMENS = 10_000


def root_keypair(passphrase: str) -> Keypair:
    """Of the account that begins with everything."""
    return Keypair.from_raw_ed25519_seed(network_id(passphrase))


def gifts(passphrase: str, sequence: int, to: Sequence[bytes], fee_stroops: int = BASE_FEE_STROOPS) -> str:
    """An envelope (base64 XDR) that begins accounts. `sequence` is the root account's now."""
    root = root_keypair(passphrase)
    builder = TransactionBuilder(Account(root.public_key, sequence), passphrase, base_fee=fee_stroops)
    builder.add_time_bounds(0, 0)
    for key in to:
        builder.append_create_account_op(_address(key), str(GIFT_LUMENS))
    envelope = builder.build()
    envelope.sign(root)
    return envelope.to_xdr()


def _address(key: bytes) -> str:
    return Keypair.from_raw_ed25519_public_key(key).public_key
