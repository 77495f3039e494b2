"""What a host shows the owner of each piece besides its bytes: enough to unmask it when every record is lost.

A note says which shard the piece is of (by the salt), how it was masked, and what the shard is part of: contents of
files, or which place of which segment of metadata. So pieces can be sorted without being fetched. Hosts see 64 bytes of
noise. Fixed length, so that it tells nothing.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec

from layrfs.crypto.piece_note import open_note_untrusted, seal_note
from layrfs.errors import BadMessage
from layrfs.ids import SALT_BYTES, PieceId, Salt
from layrfs.model.redundancy import Redundancy, is_possible

BLOB_TAG_BYTES = 6
"""Of the salt of a blob's first shard: random, and known before the others are sealed."""

NO_BLOB = bytes(BLOB_TAG_BYTES)
NOTE_BYTES = 64

Role = Literal["content", "checkpoint", "changes"]

_ROLES: tuple[Role, ...] = ("content", "checkpoint", "changes")
_NOTE = struct.Struct(f"<{SALT_BYTES}sIBBBBQHH{BLOB_TAG_BYTES}s{BLOB_TAG_BYTES}s")


class Purpose(msgspec.Struct, frozen=True):
    """What a shard is part of. All but `role` belong to segments of metadata.

    `number` is the segment's, `index` the shard's place in the blob of `count` shards. `blob` is the tag of the blob,
    `NO_BLOB` in its first shard, whose own salt it is. `previous` is the tag of the segment which its changes follow,
    `NO_BLOB` when they follow nothing, or it is a checkpoint.
    """

    role: Role = "content"
    number: int = 0
    index: int = 0
    count: int = 0
    blob: bytes = NO_BLOB
    previous: bytes = NO_BLOB


CONTENT = Purpose()


def blob_tag(salt: Salt) -> bytes:
    """The tag of the blob whose first shard has this salt."""
    return salt[:BLOB_TAG_BYTES]


class PieceNote(msgspec.Struct, frozen=True):
    """One piece, as its owner described it."""

    salt: Salt
    position: int
    generation: int
    redundancy: Redundancy
    purpose: Purpose = CONTENT

    def sealed(self, mask: bytes, piece: PieceId) -> bytes:
        """`NOTE_BYTES` for a host to keep."""
        purpose = self.purpose
        plain = _NOTE.pack(
            self.salt,
            self.generation,
            self.position,
            self.redundancy.needed,
            self.redundancy.total,
            _ROLES.index(purpose.role),
            purpose.number,
            purpose.index,
            purpose.count,
            purpose.blob,
            purpose.previous,
        )
        return seal_note(mask, piece, plain)


def opened_untrusted(mask: bytes, piece: PieceId, note: bytes) -> PieceNote:
    """The note of this piece, if we made it; BadMessage otherwise."""
    plain = open_note_untrusted(mask, piece, note)
    if len(plain) != _NOTE.size:
        raise BadMessage("a note has another length than this version writes")
    salt, generation, position, needed, total, role, number, index, count, blob, previous = _NOTE.unpack(plain)
    if role >= len(_ROLES) or not is_possible(needed, total):
        raise BadMessage("a note was written by a newer LayrFS")
    purpose = Purpose(_ROLES[role], number, index, count, blob, previous)
    return PieceNote(Salt(salt), position, generation, Redundancy(needed, total), purpose)
