"""Parts of a piece: leaves that cover a range of bytes, or were chosen, read and proven without the rest.

Owns that arithmetic; `layrfs.storage.piece_store` knows where pieces are and keeps the leaf hashes it has verified.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import msgspec

from layrfs.crypto import merkle
from layrfs.errors import CorruptFile
from layrfs.storage.piece_file import HEAD_BYTES, read_head


class RangeRead(msgspec.Struct, frozen=True):
    """Whole leaves of a piece, from number `first_leaf` on, and what ties them to its id."""

    piece_bytes: int
    first_leaf: int
    leaves: bytes
    proof: tuple[bytes, ...]


class LeafReads(msgspec.Struct, frozen=True):
    """Some leaves of a piece, in the order chosen, and the hashes of all it has."""

    piece_bytes: int
    numbers: tuple[int, ...]
    leaves: tuple[bytes, ...]
    hashes: Sequence[bytes]


def read_chosen(descriptor: int, hashes: Sequence[bytes], choose: Callable[[int], Sequence[int]]) -> LeafReads:
    """The leaves that `choose` chooses by the piece's length, verified like `read_proven`'s."""
    size = _length(descriptor, hashes)
    numbers = tuple(choose(size))
    leaves = tuple(_read_leaf(descriptor, size, number) for number in numbers)
    if any(merkle.leaf_hashes(leaf) != [hashes[number]] for leaf, number in zip(leaves, numbers, strict=True)):
        raise CorruptFile("the bytes are not the piece any more")
    return LeafReads(size, numbers, leaves, hashes)


def read_as_is(descriptor: int, choose: Callable[[int], Sequence[int]]) -> tuple[int, bytes]:
    """The piece's length by its head, and the chosen leaves one behind the other, unverified."""
    size = read_head(descriptor).length
    return size, b"".join(_read_leaf(descriptor, size, number) for number in choose(size))


def _read_leaf(descriptor: int, size: int, number: int) -> bytes:
    start = number * merkle.LEAF_BYTES
    return os.pread(descriptor, min(size - start, merkle.LEAF_BYTES), HEAD_BYTES + start)


def read_proven(descriptor: int, hashes: Sequence[bytes], offset: int, length: int | None) -> RangeRead:
    """The leaves that cover the range, verified against `hashes`, all of the piece's; CorruptFile when they differ."""
    size = _length(descriptor, hashes)
    first, count = _leaves_covering(size, offset, length)
    start = first * merkle.LEAF_BYTES
    leaves = os.pread(descriptor, min(size - start, count * merkle.LEAF_BYTES), HEAD_BYTES + start)
    if merkle.leaf_hashes(leaves) != hashes[first : first + count]:
        raise CorruptFile("the bytes are not the piece any more")
    return RangeRead(size, first, leaves, tuple(merkle.prove(hashes, first, count)))


def _length(descriptor: int, hashes: Sequence[bytes]) -> int:
    size = read_head(descriptor).length
    if merkle.leaf_count(size) != len(hashes):
        raise CorruptFile("the head of a piece's file says another length than the piece has")
    return size


def _leaves_covering(size: int, offset: int, length: int | None) -> tuple[int, int]:
    """(first leaf, number of leaves); at least one leaf, so that even an empty answer is proven."""
    last_byte = max(0, size - 1)
    start = min(offset, last_byte)
    end = last_byte if length is None else min(last_byte, offset + max(1, length) - 1)
    first = start // merkle.LEAF_BYTES
    return first, max(first, end // merkle.LEAF_BYTES) - first + 1
