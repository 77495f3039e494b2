"""From 24 words to every key of a volume (BIP-39, then HKDF-SHA256 with labels), and the keys derived per shard.

The tree: phrase -> seed -> content (reads), mask (finds, checks and repairs pieces, cannot read), root (signs),
wallet (pays; SLIP-0010, so that every Stellar wallet finds the same account: `layrfs.crypto.wallet_keys`).
Nothing here is stored; `layrfs.storage.keyring` does that.
"""

from __future__ import annotations

import hashlib
import struct
from functools import cached_property

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from mnemonic import Mnemonic

from layrfs.crypto import labels, wallet_keys
from layrfs.errors import WrongPhrase
from layrfs.ids import NodeId, PieceId, Salt, VolumeId

KEY_BYTES = 32
ENTROPY_BYTES = 32
PHRASE_WORDS = 24
_ENTROPY_BITS = 256


def new_phrase() -> str:
    """24 fresh words: 256 bits from the system's random source."""
    return str(_words().generate(strength=_ENTROPY_BITS))


def phrase_to_entropy(phrase: str) -> bytes:
    """The 32 bytes a phrase stands for; raises WrongPhrase with what is wrong (never with the words themselves)."""
    book = _words()
    words = Mnemonic.normalize_string(phrase).lower().split()
    if len(words) != PHRASE_WORDS:
        raise WrongPhrase(f"a recovery phrase has {PHRASE_WORDS} words; this has {len(words)}")
    for position, word in enumerate(words, start=1):
        if word not in book.wordlist:
            raise WrongPhrase(f"word {position} of the recovery phrase is not in the English BIP-39 list")
    try:
        return bytes(book.to_entropy(words))
    except ValueError:
        raise WrongPhrase("the words of the recovery phrase do not fit together: one is wrong or misplaced") from None


def entropy_to_phrase(entropy: bytes) -> str:
    """The inverse of `phrase_to_entropy`; ValueError unless 32 bytes."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError("the entropy of a recovery phrase has 32 bytes")
    return str(_words().to_mnemonic(entropy))


def phrase_to_seed(phrase: str) -> bytes:
    """The 64-byte BIP-39 seed (no BIP-39 passphrase); raises WrongPhrase."""
    canonical = entropy_to_phrase(phrase_to_entropy(phrase))
    return hashlib.pbkdf2_hmac("sha512", canonical.encode(), b"mnemonic", 2048)


def derive(key: bytes, info: bytes, *, salt: bytes = b"", length: int = KEY_BYTES) -> bytes:
    """HKDF-SHA256 (RFC 5869), 32 bytes unless another `length` is asked for."""
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(key)


def mask_key(mask: bytes, salt: Salt, position: int, generation: int) -> bytes:
    """The key whose stream masks one piece. `position` < 2^16 within the shard, `generation` < 2^32 grows at repair."""
    return derive(mask, labels.PIECE_MASK + struct.pack("<HI", position, generation), salt=salt)


def tenant_private(mask: bytes, node_id: NodeId) -> bytes:
    """Ed25519 private key shown to one host as the owner of pieces there: another host sees an unrelated one."""
    return derive(mask, labels.TENANT_KEY + node_id)


def answer_salt(mask: bytes, piece: PieceId, number: int) -> bytes:
    """The salt of one answer about a piece, unknown to its host until it is asked. `number` < 2^63."""
    return derive(mask, labels.ANSWER_SALT + struct.pack("<Q", number), salt=piece)


class VolumeKeys(msgspec.Struct, frozen=True, dict=True):
    """The keys of a volume, 32 bytes each. Printing it shows the volume's id, never a key."""

    content: bytes
    mask: bytes
    root_private: bytes
    wallet_private: bytes

    @classmethod
    def from_phrase(cls, phrase: str) -> VolumeKeys:
        """Raises WrongPhrase."""
        seed = phrase_to_seed(phrase)
        return cls(
            content=derive(seed, labels.CONTENT_KEY),
            mask=derive(seed, labels.MASK_KEY),
            root_private=derive(seed, labels.ROOT_KEY),
            wallet_private=wallet_keys.wallet_private(seed),
        )

    @cached_property
    def volume_id(self) -> VolumeId:
        """The public key that verifies the volume's root records."""
        return VolumeId(Ed25519PrivateKey.from_private_bytes(self.root_private).public_key().public_bytes_raw())

    @cached_property
    def digest_key(self) -> bytes:
        """Key of `BlockDigester`."""
        return derive(self.content, labels.DIGEST_KEY)

    def shard_key(self, salt: Salt) -> bytes:
        """AES-256-GCM key of the one shard that was sealed with this salt."""
        return derive(self.content, labels.SHARD_KEY, salt=salt)

    def __repr__(self) -> str:
        return f"VolumeKeys(volume_id={self.volume_id.hex()})"


def _words() -> Mnemonic:
    return Mnemonic("english")
