"""Masks: XOR with an AES-256-CTR key stream, which makes every copy of a shard different data.

Masking is not what keeps content secret (sealing is); it keeps hosts from recognising copies of one shard. The
counter block is 128 bits, big-endian, and starts at zero: a mask key (`keys.mask_key`) belongs to one piece.
"""

from __future__ import annotations

from Crypto.Cipher import AES

from layrfs.crypto.digests import Buffer

_COUNTER_BYTES = 16


def apply_mask(key: bytes, data: Buffer, *, offset: int = 0) -> bytes:
    """Mask or unmask bytes that begin at `offset` of their piece (a multiple of 16); its own inverse."""
    if offset < 0 or offset % _COUNTER_BYTES:
        raise ValueError("a mask starts at a multiple of 16 bytes")
    return AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=offset // _COUNTER_BYTES).encrypt(data)


def apply_mask_into(key: bytes, data: Buffer, target: bytearray | memoryview) -> None:
    """Mask a whole piece into a writable buffer of the same length (which may be `data` itself)."""
    AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=0).encrypt(data, output=target)
