"""Merkle trees over pieces: one hash names a piece, checks it whole or by ranges, and audits it for ever.

Leaves are 16 KiB (the last one shorter; an empty piece has one empty leaf). Each level pairs neighbours from the
left, and a node without a neighbour moves up unchanged. The root binds the length in bytes, so the shape of the tree
is never a stranger's choice. Leaf, inner node and root use three BLAKE3 contexts: none can pass for another.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from blake3 import blake3

from layrfs.crypto import labels
from layrfs.crypto.digests import Buffer
from layrfs.ids import PieceId

LEAF_BYTES = 16384
HASH_BYTES = 32
MAX_LENGTH = 2**63 - 1

# Deriving the context's key costs as much as hashing a short message: do it once and copy the primed state.
_LEAF = blake3(derive_key_context=labels.MERKLE_LEAF)
_INNER = blake3(derive_key_context=labels.MERKLE_INNER)
_ROOT = blake3(derive_key_context=labels.MERKLE_ROOT)


def piece_id(data: Buffer) -> PieceId:
    """The id of a whole piece."""
    return root_of(leaf_hashes(data), len(data))


def leaf_count(length: int) -> int:
    """How many leaves a piece of `length` bytes has; at least one."""
    return max(1, -(-length // LEAF_BYTES))


def leaf_hashes(data: Buffer) -> list[bytes]:
    """The hash of every leaf, in order."""
    view = memoryview(data)
    return [_hash_leaf(view[start : start + LEAF_BYTES]) for start in range(0, max(1, len(view)), LEAF_BYTES)]


def root_of(hashes: Sequence[bytes], length: int) -> PieceId:
    """The piece id, from all leaf hashes and the piece's length in bytes."""
    if len(hashes) != leaf_count(length):
        raise ValueError(f"{length} bytes have {leaf_count(length)} leaves, not {len(hashes)}")
    level = list(hashes)
    while len(level) > 1:
        level = _parents(level)
    return _root(level[0], length)


def prove(hashes: Sequence[bytes], first: int, count: int) -> list[bytes]:
    """The sibling hashes that tie leaves `first` to `first + count - 1` to the root.

    Order: level by level from the leaves up; within a level the left sibling before the right one, each only if the
    pairing needs it.
    """
    if first < 0 or count < 1 or first + count > len(hashes):
        raise ValueError("the range is not within the piece")
    level, low, high = list(hashes), first, first + count - 1
    proof: list[bytes] = []
    while len(level) > 1:
        if low % 2:
            proof.append(level[low - 1])
        if high % 2 == 0 and high + 1 < len(level):
            proof.append(level[high + 1])
        level, low, high = _parents(level), low // 2, high // 2
    return proof


def prove_each(hashes: Sequence[bytes], leaves: Sequence[int]) -> list[tuple[bytes, ...]]:
    """For each of some leaves what `prove` says of it alone, for the price of one tree."""
    levels = [list(hashes)]
    while len(levels[-1]) > 1:
        levels.append(_parents(levels[-1]))
    return [tuple(_siblings(levels, leaf)) for leaf in leaves]


def _siblings(levels: Sequence[Sequence[bytes]], leaf: int) -> Iterator[bytes]:
    for height, level in enumerate(levels):
        sibling = (leaf >> height) ^ 1
        if sibling < len(level):
            yield level[sibling]


def verify(piece: PieceId, length: int, first: int, leaves: Buffer, proof: Sequence[bytes]) -> bool:
    """Whether `leaves` are the whole leaves from number `first` on of the piece with this id and length.

    Everything but `piece` may come from a stranger.
    """
    count = leaf_count(len(leaves))
    if not _is_whole_range(length, first, count, len(leaves)) or any(len(node) != HASH_BYTES for node in proof):
        return False
    top = _climb(leaf_hashes(leaves), first, leaf_count(length), proof)
    return top is not None and _root(top, length) == piece


def _is_whole_range(length: int, first: int, count: int, got_bytes: int) -> bool:
    if not 0 <= length <= MAX_LENGTH or first < 0 or first + count > leaf_count(length):
        return False
    return got_bytes == min(length, (first + count) * LEAF_BYTES) - first * LEAF_BYTES


def _climb(level: list[bytes], low: int, width: int, proof: Sequence[bytes]) -> bytes | None:
    """The node above all of `level` (nodes `low`… of a level of `width`); None when the proof is not of that shape."""
    left_over = list(reversed(proof))
    while width > 1:
        high = low + len(level) - 1
        wants_left, wants_right = low % 2 == 1, high % 2 == 0 and high + 1 < width
        if len(left_over) < wants_left + wants_right:
            return None
        if wants_left:
            level = [left_over.pop(), *level]
        if wants_right:
            level = [*level, left_over.pop()]
        level, low, width = _parents(level), low // 2, (width + 1) // 2
    return None if left_over else level[0]


def _parents(level: list[bytes]) -> list[bytes]:
    """The next level up. The first node here has an even number; one without a neighbour moves up as it is."""
    above = [_hash_inner(level[at] + level[at + 1]) for at in range(0, len(level) - 1, 2)]
    if len(level) % 2:
        above.append(level[-1])
    return above


def _hash_leaf(data: memoryview) -> bytes:
    hasher = _LEAF.copy()
    hasher.update(data)
    return hasher.digest()


def _hash_inner(pair: bytes) -> bytes:
    hasher = _INNER.copy()
    hasher.update(pair)
    return hasher.digest()


def _root(top: bytes, length: int) -> PieceId:
    hasher = _ROOT.copy()
    hasher.update(top + struct.pack("<Q", length))
    return PieceId(hasher.digest())
