"""Sealing: AES-256-GCM under keys that are used exactly once, so the nonce is twelve zero bytes.

The caller's part of the bargain: a key never seals twice (a fresh random salt for each shard sees to that).
"""

from __future__ import annotations

from Crypto.Cipher import AES

from layrfs.crypto.digests import Buffer
from layrfs.errors import WrongBytes

TAG_BYTES = 16
_NONCE = bytes(12)


def seal(key: bytes, aad: bytes, plaintext: Buffer) -> bytes:
    """Ciphertext with the 16-byte tag appended."""
    target = bytearray(len(plaintext) + TAG_BYTES)
    seal_into(key, aad, plaintext, target)
    return bytes(target)


def seal_into(key: bytes, aad: bytes, plaintext: Buffer, target: bytearray | memoryview) -> None:
    """The same into a writable buffer of exactly `len(plaintext) + TAG_BYTES`, without an allocation."""
    if len(target) != len(plaintext) + TAG_BYTES:
        raise ValueError("the target of sealing has the plaintext's length and 16 bytes")
    cipher = AES.new(key, AES.MODE_GCM, nonce=_NONCE)
    cipher.update(aad)
    view = memoryview(target)
    cipher.encrypt(plaintext, output=view[:-TAG_BYTES])
    view[-TAG_BYTES:] = cipher.digest()


def open_sealed(key: bytes, aad: bytes, data: Buffer) -> bytes:
    """The plaintext; WrongBytes unless key, associated data and every bit are those of `seal`."""
    view = memoryview(data)
    cipher = AES.new(key, AES.MODE_GCM, nonce=_NONCE)
    cipher.update(aad)
    try:
        return cipher.decrypt_and_verify(view[:-TAG_BYTES], view[-TAG_BYTES:])
    except ValueError:
        raise WrongBytes("a sealed shard does not open: wrong key or altered bytes") from None
