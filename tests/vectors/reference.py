"""docs/format.md read by somebody who has never seen LayrFS: a second implementation, of reading only.

Imports nothing of layrfs and uses other libraries where there are two (the standard library's HMAC and PBKDF2,
OpenSSL's AES), so that the vectors are not only what our code happens to do.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR


def hkdf(key: bytes, info: bytes, salt: bytes = b"", length: int = 32) -> bytes:
    extracted = hmac.digest(salt or bytes(32), key, "sha256")
    output, last = b"", b""
    while len(output) < length:
        last = hmac.digest(extracted, last + info + bytes([len(output) // 32 + 1]), "sha256")
        output += last
    return output[:length]


def context(label: str, data: bytes) -> bytes:
    return blake3(data, derive_key_context=label).digest()


def public_key(private: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


@dataclass
class Keys:
    content: bytes
    mask: bytes
    root: bytes

    @classmethod
    def of(cls, phrase: str) -> Keys:
        seed = hashlib.pbkdf2_hmac("sha512", phrase.encode(), b"mnemonic", 2048)
        return cls(*(hkdf(seed, b"LayrFS v1 " + name + b" key") for name in (b"content", b"mask", b"root")))

    def piece_mask(self, salt: bytes, position: int, generation: int) -> bytes:
        return hkdf(self.mask, b"LayrFS v1 piece mask" + struct.pack("<HI", position, generation), salt)


def piece_id(data: bytes) -> bytes:
    leaves = [data[at : at + 16384] for at in range(0, len(data), 16384)] or [b""]
    return context("LayrFS v1 merkle root", merkle_top(leaves) + struct.pack("<Q", len(data)))


def merkle_top(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return context("LayrFS v1 merkle leaf", leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return context("LayrFS v1 merkle inner", merkle_top(leaves[:split]) + merkle_top(leaves[split:]))


def chosen_leaves(secret: bytes, piece: bytes, leaves: int, count: int) -> list[int]:
    count = min(count, leaves)
    bound = secret + piece + struct.pack("<QQ", leaves, count)
    stream = blake3(bound, derive_key_context="LayrFS v1 challenged leaves").digest(length=16 * count)
    chosen: list[int] = []
    for number in range(count):
        low, high = struct.unpack_from("<QQ", stream, 16 * number)
        last = leaves - count + number
        drawn = (high << 64 | low) % (last + 1)
        chosen.append(last if drawn in chosen else drawn)
    return sorted(chosen)


def answer(salt: bytes, data: bytes, leaves: list[int] | None) -> bytes:
    selected = data if leaves is None else b"".join(data[16384 * leaf : 16384 * (leaf + 1)] for leaf in leaves)
    return blake3(struct.pack("<Q", len(data)) + selected, key=salt).digest()


def unmask(keys: Keys, piece: bytes, salt: bytes, position: int, generation: int) -> bytes:
    return Cipher(AES256(keys.piece_mask(salt, position, generation)), CTR(bytes(16))).decryptor().update(piece)


def uncode(needed: int, fragments: dict[int, bytes]) -> bytes:
    """The sealed shard from `needed` fragments by position: their equations solved, byte after byte."""
    rows = [
        ([int(at == column) if at < needed else inverse(at ^ column) for column in range(needed)], list(fragment))
        for at, fragment in sorted(fragments.items())[:needed]
    ]
    for column in range(needed):
        pivot = next(row for row in range(column, needed) if rows[row][0][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        factor = inverse(rows[column][0][column])
        rows[column] = tuple([product(factor, value) for value in part] for part in rows[column])
        for row in range(needed):
            if row != column and (factor := rows[row][0][column]):
                rows[row] = tuple(
                    [mine ^ product(factor, other) for mine, other in zip(part, pivot_part, strict=True)]
                    for part, pivot_part in zip(rows[row], rows[column], strict=True)
                )
    padded = bytes(value for _, values in rows for value in values).rstrip(b"\0")
    assert padded[-1] == 0x80
    return padded[:-1]


def product(one: int, other: int) -> int:
    """In GF(256) modulo x^8 + x^4 + x^3 + x^2 + 1."""
    result = 0
    while other:
        result ^= one if other & 1 else 0
        one = one << 1 ^ (0x11D if one & 0x80 else 0)
        other >>= 1
    return result


def inverse(value: int) -> int:
    return next(other for other in range(256) if product(value, other) == 1)


def open_note(
    keys: Keys, piece: bytes, note: bytes
) -> tuple[bytes, int, int, int, int, int, int, int, int, bytes, bytes]:
    """Salt, generation, position, needed, total, role, number, index, count, blob, previous."""
    plain = AESSIV(hkdf(keys.mask, b"LayrFS v1 piece note", length=64)).decrypt(note, [piece])
    return struct.unpack("<16sIBBBBQHH6s6s", plain)


def open_shard(keys: Keys, sealed: bytes) -> bytes:
    """The plaintext, table included."""
    magic, version, codec, salt = struct.unpack_from("<4sBB16s", sealed)
    assert (magic, version) == (b"LYRS", 1)
    key = hkdf(keys.content, b"LayrFS v1 shard sealing", salt)
    packed = AESGCM(key).decrypt(bytes(12), sealed[22:], sealed[:22] + public_key(keys.root))
    return packed if codec == 0 else expand(packed)


def expand(packed: bytes) -> bytes:
    plaintext = b""
    while packed:
        frame = zstandard.ZstdDecompressor().decompressobj()
        plaintext += frame.decompress(packed)
        packed = frame.unused_data
    return plaintext


def parts(plaintext: bytes) -> list[tuple[int, int, int, bytes]]:
    """(inode, block, block size, bytes) of each part."""
    (count,) = struct.unpack_from("<I", plaintext)
    at, found = 4 + 24 * count, []
    for index in range(count):
        inode, block, length, size = struct.unpack_from("<QQII", plaintext, 4 + 24 * index)
        found.append((inode, block, size, plaintext[at : at + length]))
        at += length
    assert at == len(plaintext)
    return found


def slip10(seed: bytes, path: Sequence[int]) -> bytes:
    node = hmac.digest(b"ed25519 seed", seed, "sha512")
    for step in path:
        node = hmac.digest(node[32:], b"\0" + node[:32] + (0x80000000 + step).to_bytes(4, "big"), "sha512")
    return node[:32]


def setup_memo(wallet: bytes, escrow: bytes, memo: bytes) -> tuple[int, bytes, int, int, int, int]:
    pad = hkdf(wallet, b"LayrFS v1 memo of a contract's setup" + escrow)
    plain = (int.from_bytes(memo, "big") ^ int.from_bytes(pad, "big")).to_bytes(32, "big")
    return struct.unpack("<B20sHIIB", plain)


def instalment_answer(salt: bytes, contract: bytes, instalment: int, batches: list[list[bytes]]) -> bytes:
    digests = [
        context("LayrFS v1 instalment batch", salt + struct.pack("<Q", len(pieces)) + b"".join(pieces))
        for pieces in batches
    ]
    bound = salt + contract + struct.pack("<HI", instalment, len(digests))
    return context("LayrFS v1 instalment answer", bound + b"".join(digests))
