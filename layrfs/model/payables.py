"""What ties a piece to the contract with its host: salts to digest it under, and the digests.

Owns the shapes that pass between who agrees with hosts and who has a piece's bytes. Must not know money, or where
digests are kept.
"""

from __future__ import annotations

import msgspec

from layrfs.crypto.digests import Buffer
from layrfs.crypto.instalments import piece_digest
from layrfs.ids import PieceId
from layrfs.model.contracts import paid_bytes


class Salts(msgspec.Struct, frozen=True):
    """Of one contract (by its number in the volume's table): those of instalment ``first`` and of all after it."""

    contract: int
    first: int
    salts: tuple[bytes, ...]


class PieceDigests(msgspec.Struct, frozen=True):
    """Of one piece under such salts, 32 bytes each: what its host has to know to be paid."""

    piece: PieceId
    piece_bytes: int
    """As it counts, not as it is: `paid_bytes`."""

    contract: int
    first: int
    digests: tuple[bytes, ...]


def digests_of(salts: Salts, piece: PieceId, data: Buffer) -> PieceDigests:
    """Of a piece whose (masked) bytes are ``data``."""
    digests = (piece_digest(salt, instalment, piece, data) for instalment, salt in enumerate(salts.salts, salts.first))
    return PieceDigests(piece, paid_bytes(len(data)), salts.contract, salts.first, tuple(digests))
