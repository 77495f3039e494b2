"""What an audit asks of a host and what the right reply is: which leaves of a piece, and digests under a salt.

Pure arithmetic that owner and host share. Must not know who asks whom, or when.
Invariant: which leaves are asked for follows from the challenger's random bytes and from the piece alone, so that a
host can neither choose them nor know them before; and an answer's digest cannot be begun before the salt is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from blake3 import blake3

from layrfs.crypto import labels, merkle
from layrfs.crypto.digests import Buffer
from layrfs.ids import PieceId

NONCE_BYTES = 32
SALT_BYTES = 32
ANSWER_SHARE, FEWEST_ANSWER_LEAVES = 16, 4
"""An answer of the kind `leaves` is made of one in so many of a piece's leaves, and of so many at least."""

AnswerKind = Literal["whole", "leaves"]
"""What an answer is a digest of: all bytes of the piece, or those of the leaves that its salt selects."""

_DRAW_BYTES = 16
"""For each leaf drawn. So much more than the number of leaves needs that the remainder is uniform to one in 2^64."""


def chosen_leaves(nonce: bytes, piece: PieceId, leaf_count: int, count: int) -> tuple[int, ...]:
    """`count` different leaves of a piece that has `leaf_count` (all, when it has no more), ascending.

    Every set of so many leaves is equally likely: this is Floyd's method, which needs one draw for each.
    """
    count = min(count, leaf_count)
    context = nonce + piece + leaf_count.to_bytes(8, "little") + count.to_bytes(8, "little")
    dice = blake3(context, derive_key_context=labels.CHALLENGED_LEAVES).digest(length=_DRAW_BYTES * count)
    chosen: set[int] = set()
    for at, highest in enumerate(range(leaf_count - count, leaf_count)):
        drawn = int.from_bytes(dice[_DRAW_BYTES * at : _DRAW_BYTES * (at + 1)], "little") % (highest + 1)
        chosen.add(highest if drawn in chosen else drawn)
    return tuple(sorted(chosen))


def chosen_bytes(piece_bytes: int, chosen: Iterable[int]) -> int:
    """How many bytes these leaves of a piece have together."""
    return sum(_leaf_bytes(piece_bytes, leaf) for leaf in chosen)


def are_proven(
    piece: PieceId, piece_bytes: int, chosen: Sequence[int], leaves: Buffer, proofs: Sequence[Sequence[bytes]]
) -> bool:
    """Whether `leaves` are the chosen ones of the piece, one behind the other, each tied to its id by its proof.

    `leaves` and `proofs` may come from a stranger.
    """
    if len(leaves) != chosen_bytes(piece_bytes, chosen) or len(proofs) != len(chosen):
        return False
    view, at = memoryview(leaves), 0
    for leaf, proof in zip(chosen, proofs, strict=True):
        data = view[at : at + _leaf_bytes(piece_bytes, leaf)]
        if not merkle.verify(piece, piece_bytes, leaf, data, proof):
            return False
        at += len(data)
    return True


def _leaf_bytes(piece_bytes: int, leaf: int) -> int:
    return min(merkle.LEAF_BYTES, piece_bytes - leaf * merkle.LEAF_BYTES)


def answer_leaves(salt: bytes, piece: PieceId, piece_bytes: int) -> tuple[int, ...]:
    """The leaves that an answer of the kind `leaves` is made of."""
    leaves = merkle.leaf_count(piece_bytes)
    return chosen_leaves(salt, piece, leaves, max(FEWEST_ANSWER_LEAVES, -(-leaves // ANSWER_SHARE)))


def answer_digest(salt: bytes, piece: PieceId, data: Buffer, kind: AnswerKind) -> bytes:
    """32 bytes: the answer of whoever has the piece, whose bytes are `data`."""
    if kind == "whole":
        return digest_of_selected(salt, len(data), data)
    view = memoryview(data)
    starts = [leaf * merkle.LEAF_BYTES for leaf in answer_leaves(salt, piece, len(data))]
    selected = b"".join([view[start : start + merkle.LEAF_BYTES] for start in starts])
    return digest_of_selected(salt, len(data), selected)


def digest_of_selected(salt: bytes, piece_bytes: int, selected: Buffer) -> bytes:
    """The same from the piece's length and its selected bytes, in one: hashing leaf by leaf takes twice as long.

    Keyed with the salt: what was hashed before it was known is of no use, so the bytes have to be there.
    """
    hasher = blake3(piece_bytes.to_bytes(8, "little"), key=salt)
    hasher.update(selected)
    return hasher.digest()
