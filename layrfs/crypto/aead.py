"""Sealing: AES-256-GCM under keys that are used exactly once, so the nonce is twelve zero bytes.

The caller's part of the bargain: a key never seals twice (a fresh random salt for each shard sees to that).
AES comes from OpenSSL: measured 10 GB/s here against pycryptodome's 2 GB/s.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from layrfs.crypto.digests import Buffer
from layrfs.errors import WrongBytes

TAG_BYTES = 16
_NONCE = bytes(12)


def seal(key: bytes, aad: bytes, plaintext: Buffer) -> bytes:
    """Ciphertext with the 16-byte tag appended."""
    return AESGCM(key).encrypt(_NONCE, plaintext, aad)


def seal_into(key: bytes, aad: bytes, plaintext: Buffer, target: bytearray | memoryview) -> None:
    """The same into a writable buffer of exactly `len(plaintext) + TAG_BYTES`, without an allocation."""
    AESGCM(key).encrypt_into(_NONCE, plaintext, aad, target)


def open_sealed(key: bytes, aad: bytes, data: Buffer) -> bytes:
    """The plaintext; WrongBytes unless key, associated data and every bit are those of `seal`."""
    try:
        return AESGCM(key).decrypt(_NONCE, data, aad)
    except (InvalidTag, ValueError):
        raise WrongBytes("a sealed shard does not open: wrong key or altered bytes") from None
