"""Sealing of the note that goes with every piece: what the owner needs to know of it when nothing else is left.

AES-SIV (RFC 5297) under one key of the mask key, bound to the piece's id. Not GCM, as everywhere else: a note has no
room for a nonce, and is made anew whenever a piece is; SIV stays safe whatever is sealed under a key how often, and the
same note of the same piece is the same bytes.
"""

from __future__ import annotations

from Crypto.Cipher import AES
from Crypto.Cipher._mode_siv import SivMode

from layrfs.crypto import labels
from layrfs.crypto.aead import TAG_BYTES
from layrfs.crypto.keys import derive
from layrfs.errors import BadMessage
from layrfs.ids import PieceId

_KEY_BYTES = 64
"""AES-256-SIV: one half authenticates, the other encrypts."""


def seal_note(mask: bytes, piece: PieceId, plain: bytes) -> bytes:
    """16 bytes longer than `plain`; only whoever has the mask key can read or make it."""
    cipher = _cipher(mask, piece)
    sealed, tag = cipher.encrypt_and_digest(plain)
    return tag + sealed


def open_note_untrusted(mask: bytes, piece: PieceId, note: bytes) -> bytes:
    """What was sealed for this piece; BadMessage for anything else."""
    try:
        return _cipher(mask, piece).decrypt_and_verify(note[TAG_BYTES:], note[:TAG_BYTES])
    except ValueError:
        raise BadMessage("a note is not of the piece it came with") from None


def _cipher(mask: bytes, piece: PieceId) -> SivMode:
    cipher = AES.new(derive(mask, labels.PIECE_NOTE, length=_KEY_BYTES), AES.MODE_SIV)
    cipher.update(piece)
    return cipher
