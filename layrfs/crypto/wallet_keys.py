"""The wallet's key, and what is derived from it for contracts: escrow accounts, salts of instalments, memos of set-ups.

Owns SLIP-0010 for Ed25519 along SEP-0005's path, and the byte layout of a set-up's memo. Must not know transactions.
The invariant: all of it follows from the recovery phrase and what a ledger says in public, so a machine that has only
these two finds every escrow account again and can close it.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from layrfs.crypto import labels
from layrfs.ids import NODE_ID_BYTES, NodeId

STELLAR_PATH = (44, 148, 0)
"""m/44'/148'/0': the first account of a phrase in every Stellar wallet (SEP-0005)."""

MEMO_VERSION = 1
_KEY_BYTES = 32
_HARDENED = 1 << 31
_MASTER = b"ed25519 seed"
_MEMO = struct.Struct(f"<B{NODE_ID_BYTES}sHIIB")


def slip10_private(seed: bytes, path: tuple[int, ...]) -> bytes:
    """SLIP-0010 for Ed25519, where every step is a hardened one: the 32 private bytes at the end of the path."""
    key, chain = _halves(_MASTER, seed)
    for step in path:
        key, chain = _halves(chain, b"\0" + key + struct.pack(">I", step | _HARDENED))
    return key


def wallet_private(seed: bytes) -> bytes:
    """The Ed25519 private key of a volume's Stellar account, from the 64-byte BIP-39 seed."""
    return slip10_private(seed, STELLAR_PATH)


def account_of(private: bytes) -> bytes:
    """The account a private key signs for: its 32-byte public key."""
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def escrow_private(wallet: bytes, node_id: NodeId, number: int, sequence: int) -> bytes:
    """Ed25519 private key of the escrow account of one contract with one host. `number` < 2^16 counts from 0.

    `sequence` is the set-up's: the ledger takes it once, so this is new also when all records of numbers are lost.
    """
    return _derived(wallet, labels.ESCROW_KEY + node_id + struct.pack("<IQ", number, sequence))


def salts_key(wallet: bytes) -> bytes:
    """All that workers need to precompute answers; it cannot spend."""
    return _derived(wallet, labels.INSTALMENT_SALTS)


def instalment_salt(salts: bytes, escrow: bytes, instalment: int) -> bytes:
    """32 bytes nobody knows before the owner discloses them: which answer instalment `instalment` asks for.

    `escrow` is the contract's account, which is no other contract's.
    """
    return _derived(salts, labels.INSTALMENT_SALT + escrow + struct.pack("<H", instalment))


class SetupMemo(msgspec.Struct, frozen=True):
    """What a set-up says of its contract, to its owner alone. Start in Unix seconds; `number` < 2^16."""

    node_id: NodeId
    number: int
    start: int
    window_seconds: int
    instalments: int

    def hidden(self, wallet: bytes, escrow: bytes) -> bytes:
        """The 32 bytes of the memo of the transaction that creates this account, random to everybody else."""
        plain = _MEMO.pack(MEMO_VERSION, self.node_id, self.number, self.start, self.window_seconds, self.instalments)
        return _combined(plain, _memo_pad(wallet, escrow))


def revealed_memo(memo: bytes, wallet: bytes, escrow: bytes) -> SetupMemo | None:
    """The inverse of `hidden`. None for what is none of ours; one in 256 of those passes, its escrow is another."""
    if len(memo) != _MEMO.size:
        return None
    version, node_id, *numbers = _MEMO.unpack(_combined(memo, _memo_pad(wallet, escrow)))
    return SetupMemo(NodeId(node_id), *numbers) if version == MEMO_VERSION else None


def _memo_pad(wallet: bytes, escrow: bytes) -> bytes:
    return _derived(wallet, labels.SETUP_MEMO + escrow)


def _combined(first: bytes, second: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(first, second, strict=True))


def _derived(key: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=b"", info=info).derive(key)


def _halves(key: bytes, data: bytes) -> tuple[bytes, bytes]:
    digest = hmac.digest(key, data, hashlib.sha512)
    return digest[:_KEY_BYTES], digest[_KEY_BYTES:]
