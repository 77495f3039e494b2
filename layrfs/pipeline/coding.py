"""A sealed shard <-> the pieces that hosts keep. Today every code is mirroring: a piece is the shard under a mask.

Owns redundancy's arithmetic on bytes. Must not know plaintext or hosts. Whoever holds the mask key can do all of this
and read nothing: it is what repair needs.
"""

from __future__ import annotations

import msgspec

from layrfs.crypto.digests import Buffer
from layrfs.crypto.keys import mask_key
from layrfs.crypto.mask import apply_mask_into
from layrfs.crypto.merkle import piece_id
from layrfs.ids import PieceId, Salt
from layrfs.pipeline.transfers import Slot


class Piece(msgspec.Struct, frozen=True):
    """One piece in memory, ready for a host; `note` is what the host shows with it."""

    slot: Slot
    id: PieceId
    data: bytearray
    note: bytes = b""


def make_piece(mask: bytes, salt: Salt, slot: Slot, sealed: Buffer) -> Piece:
    """The piece for `slot`: under a mask of its own, so that no two hosts hold the same bytes."""
    data = bytearray(len(sealed))
    apply_mask_into(mask_key(mask, salt, slot.position, slot.generation), sealed, data)
    return Piece(slot, piece_id(data), data)


def unmask(mask: bytes, salt: Salt, slot: Slot, data: bytearray) -> None:
    """Turn a (verified) piece for `slot` into the sealed shard it was made of, in its own place."""
    apply_mask_into(mask_key(mask, salt, slot.position, slot.generation), data, data)
