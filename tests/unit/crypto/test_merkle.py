"""Merkle trees against a naive recursive definition, and against everybody who would lie with a proof."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.crypto import labels, merkle
from layrfs.crypto.digests import labelled
from layrfs.ids import PieceId

LEAF = merkle.LEAF_BYTES


def naive_top(leaves: list[bytes]) -> bytes:
    """RFC 6962's way to say it: the left subtree is the largest power of two smaller than the number of leaves."""
    if len(leaves) == 1:
        return labelled(labels.MERKLE_LEAF, leaves[0])
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return labelled(labels.MERKLE_INNER, naive_top(leaves[:split]) + naive_top(leaves[split:]))


def naive_piece_id(data: bytes) -> bytes:
    leaves = [data[start : start + LEAF] for start in range(0, max(1, len(data)), LEAF)]
    return labelled(labels.MERKLE_ROOT, naive_top(leaves) + struct.pack("<Q", len(data)))


def sample(length: int) -> bytes:
    """Bytes without repetition at the distance of a leaf."""
    return b"".join(struct.pack("<I", number) for number in range(-(-length // 4)))[:length]


lengths = st.one_of(
    st.integers(0, 9 * LEAF),
    st.builds(lambda leaves, delta: max(0, leaves * LEAF + delta), st.integers(0, 20), st.integers(-1, 1)),
)


@given(lengths)
def test_piece_id_is_the_naive_definition(length: int) -> None:
    data = sample(length)
    assert merkle.piece_id(data) == naive_piece_id(data)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_will_do(kind: type[bytes]) -> None:
    assert merkle.piece_id(kind(b"some bytes")) == merkle.piece_id(b"some bytes")


def test_leaf_count() -> None:
    counts = {0: 1, 1: 1, LEAF - 1: 1, LEAF: 1, LEAF + 1: 2, 4 << 20: 256}
    assert {length: merkle.leaf_count(length) for length in counts} == counts


def test_length_is_bound() -> None:
    hashes = merkle.leaf_hashes(b"x" * 10)
    assert merkle.root_of(hashes, 10) != merkle.root_of(hashes, 11)


def test_root_of_wants_the_leaves_of_that_length() -> None:
    with pytest.raises(ValueError, match="leaves"):
        merkle.root_of(merkle.leaf_hashes(b"x"), LEAF + 1)


def test_a_leaf_cannot_pass_for_two_hashes() -> None:
    """The classic second preimage: the concatenated children of a node offered as a leaf."""
    data = sample(2 * LEAF)
    children = b"".join(merkle.leaf_hashes(data))
    assert merkle.piece_id(children) != merkle.piece_id(data)
    assert not merkle.verify(merkle.piece_id(data), len(children), 0, children, [])


@st.composite
def ranges(draw: st.DrawFn) -> tuple[bytes, int, int]:
    data = sample(draw(lengths))
    total = merkle.leaf_count(len(data))
    first = draw(st.integers(0, total - 1))
    return data, first, draw(st.integers(1, total - first))


@given(ranges())
def test_every_range_verifies_with_its_proof(case: tuple[bytes, int, int]) -> None:
    data, first, count = case
    proof = merkle.prove(merkle.leaf_hashes(data), first, count)
    leaves = memoryview(data)[first * LEAF : (first + count) * LEAF]
    assert merkle.verify(merkle.piece_id(data), len(data), first, leaves, proof)


@given(ranges(), st.data())
def test_no_lie_verifies(case: tuple[bytes, int, int], draw: st.DataObject) -> None:
    data, first, count = case
    piece = merkle.piece_id(data)
    proof = merkle.prove(merkle.leaf_hashes(data), first, count)
    leaves = data[first * LEAF : (first + count) * LEAF]
    lie = draw.draw(st.sampled_from(["flip", "cut", "longer", "other place", "length", "proof", "more", "less"]))
    length = len(data)
    if lie == "flip" and leaves:
        at = draw.draw(st.integers(0, len(leaves) - 1))
        leaves = leaves[:at] + bytes([leaves[at] ^ 1 << draw.draw(st.integers(0, 7))]) + leaves[at + 1 :]
    elif lie == "cut" and leaves:
        leaves = leaves[:-1]
    elif lie == "longer":
        leaves += b"\0"
    elif lie == "other place" and leaves:
        first += draw.draw(st.sampled_from([-1, 1, 2**62]))
    elif lie == "length":
        length = draw.draw(st.integers(-1, 2**64).filter(lambda value: value != len(data)))
    elif lie == "proof" and proof:
        at = draw.draw(st.integers(0, len(proof) - 1))
        proof[at] = bytes(32)
    elif lie == "more":
        proof.append(bytes(draw.draw(st.integers(0, 64))))
    elif proof:
        proof.pop()
    else:
        piece = PieceId(bytes(32))
    assert not merkle.verify(piece, length, first, leaves, proof)


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, 0), (0, 3), (2, 1)])
def test_prove_refuses_what_is_not_in_the_piece(first: int, count: int) -> None:
    with pytest.raises(ValueError, match="range"):
        merkle.prove(merkle.leaf_hashes(sample(2 * LEAF)), first, count)


def test_a_proof_is_as_short_as_it_can_be() -> None:
    hashes = merkle.leaf_hashes(sample(256 * LEAF))
    assert len(merkle.prove(hashes, 77, 1)) == 8
    assert merkle.prove(hashes, 0, 256) == []
