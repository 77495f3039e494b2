"""The bytes of a key file: a short secret, checksummed, and wrapped with a passphrase when there is one.

Layout (docs/format.md): magic `LYRK` | version | kind | [scrypt cost, salt] | secret or its AES-256-GCM | checksum.
The checksum tells a damaged file from a wrong passphrase. It is over bytes a thief already has, so it helps nobody
to guess. The scrypt cost is in the file, with upper bounds, so that a hostile file cannot take all memory.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
import unicodedata

import msgspec

from layrfs.crypto import aead, labels
from layrfs.crypto.digests import DIGEST_BYTES, labelled
from layrfs.errors import CorruptFile, NewerFormat, WrongBytes, WrongPassphrase

MAGIC = b"LYRK"
VERSION = 1
SECRET_LIMIT_BYTES = 4096

_PLAIN, _WRAPPED = 0, 1
_HEADER = struct.Struct("<4sBB")
_COST = struct.Struct("<BBB16s")  # log2(N), r, p, salt
_SALT_BYTES = 16
_KEY_BYTES = 32


_MOST_MEMORY_BYTES = 1 << 30
_MOST_R, _MOST_P, _MOST_LOG2_N = 16, 4, 20


class ScryptCost(msgspec.Struct, frozen=True):
    """RFC 7914 parameters; memory is 128 * r * 2^log2_n bytes."""

    log2_n: int
    r: int
    p: int

    @property
    def memory_bytes(self) -> int:
        """What one derivation holds at once."""
        return (128 * self.r) << self.log2_n

    def is_acceptable(self) -> bool:
        """Within what we are willing to spend on a file that may come from anybody: 1 GiB and about 10 s."""
        limits = ((self.log2_n, _MOST_LOG2_N), (self.r, _MOST_R), (self.p, _MOST_P))
        return all(1 <= value <= most for value, most in limits) and self.memory_bytes <= _MOST_MEMORY_BYTES


DEFAULT_COST = ScryptCost(log2_n=17, r=8, p=1)
"""128 MiB and about 0.3 s for each guess (OWASP's recommendation for scrypt)."""


def lock(secret: bytes, passphrase: bytes | None, *, cost: ScryptCost = DEFAULT_COST) -> bytes:
    """The bytes of a key file. An empty passphrase is a passphrase; None is none."""
    if len(secret) > SECRET_LIMIT_BYTES:
        raise ValueError("key files are for short secrets")
    if passphrase is None:
        return _with_checksum(_HEADER.pack(MAGIC, VERSION, _PLAIN) + secret)
    salt = secrets.token_bytes(_SALT_BYTES)
    head = _HEADER.pack(MAGIC, VERSION, _WRAPPED) + _COST.pack(cost.log2_n, cost.r, cost.p, salt)
    return _with_checksum(head + aead.seal(_stretch(passphrase, salt, cost), labels.KEY_FILE_BOX + head, secret))


def needs_passphrase(blob: bytes) -> bool:
    """Whether `unlock` will want a passphrase; raises CorruptFile or NewerFormat."""
    return _checked(blob)[0] == _WRAPPED


def unlock(blob: bytes, passphrase: bytes | None) -> bytes:
    """The secret. Raises CorruptFile, NewerFormat, or WrongPassphrase (also when one is needed and None is given).

    A passphrase given for a file that needs none is ignored.
    """
    kind, body = _checked(blob)
    if kind == _PLAIN:
        return body
    if passphrase is None:
        raise WrongPassphrase("the key file is protected by a passphrase")
    cost, salt, sealed = _parse_wrapped(body)
    head = blob[: _HEADER.size + _COST.size]
    try:
        return aead.open_sealed(_stretch(passphrase, salt, cost), labels.KEY_FILE_BOX + head, sealed)
    except WrongBytes:
        raise WrongPassphrase("the passphrase does not open the key file") from None


def normalized_passphrase(text: str) -> bytes:
    """What a typed passphrase is as bytes: NFKD and UTF-8, the same from every keyboard and system."""
    return unicodedata.normalize("NFKD", text).encode("utf-8", "surrogateescape")


def _checked(blob: bytes) -> tuple[int, bytes]:
    """(kind, what is between header and checksum)."""
    if len(blob) < _HEADER.size or blob[: len(MAGIC)] != MAGIC:
        raise CorruptFile("this is not a LayrFS key file")
    _, version, kind = _HEADER.unpack_from(blob)
    if version > VERSION:
        raise NewerFormat(f"the key file has format {version}; this LayrFS knows {VERSION}: please update")
    checksum = labelled(labels.KEY_FILE_CHECKSUM, blob[:-DIGEST_BYTES])
    whole = _HEADER.size + DIGEST_BYTES <= len(blob) <= SECRET_LIMIT_BYTES + 256
    if not whole or not hmac.compare_digest(checksum, blob[-DIGEST_BYTES:]):
        raise CorruptFile("the key file is damaged")
    if version != VERSION or kind not in {_PLAIN, _WRAPPED}:
        raise CorruptFile("the key file is of a kind that never existed")
    return kind, blob[_HEADER.size : -DIGEST_BYTES]


def _parse_wrapped(body: bytes) -> tuple[ScryptCost, bytes, bytes]:
    if len(body) < _COST.size + aead.TAG_BYTES:
        raise CorruptFile("the key file is damaged")
    log2_n, r, p, salt = _COST.unpack_from(body)
    cost = ScryptCost(log2_n, r, p)
    if not cost.is_acceptable():
        raise CorruptFile("the key file asks for more memory or time than any key file of ours")
    return cost, salt, body[_COST.size :]


def _with_checksum(data: bytes) -> bytes:
    return data + labelled(labels.KEY_FILE_CHECKSUM, data)


def _stretch(passphrase: bytes, salt: bytes, cost: ScryptCost) -> bytes:
    room = cost.memory_bytes + (1 << 20) * (cost.p + 1)
    return hashlib.scrypt(passphrase, salt=salt, n=1 << cost.log2_n, r=cost.r, p=cost.p, maxmem=room, dklen=_KEY_BYTES)
