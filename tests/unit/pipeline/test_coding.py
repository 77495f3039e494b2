from __future__ import annotations

import contextlib
import functools
import os
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.crypto.merkle import piece_id
from layrfs.errors import WrongBytes
from layrfs.ids import Salt
from layrfs.model.redundancy import MAX_CODED_PIECES, Redundancy
from layrfs.pipeline.coding import disagreeing, make_pieces, sealed_of, unmask
from layrfs.pipeline.transfers import Slot
from tests.vectors.reference import inverse, product

MASK = b"m" * 32
SALT = Salt(b"s" * 16)
SLOTS = st.builds(Slot, st.integers(0, 15), st.integers(0, 5))
MIRROR = Redundancy(1, 16)
CODES = st.builds(
    lambda needed, more: Redundancy(needed, min(needed + more, MAX_CODED_PIECES)),
    st.integers(2, MAX_CODED_PIECES - 1),
    st.integers(1, 16),
)


def pieces_of(redundancy: Redundancy, sealed: bytes, generation: int = 0) -> dict[int, bytes]:
    """All pieces, as they are on hosts."""
    slots = [Slot(position, generation) for position in range(redundancy.total)]
    return {piece.slot.position: bytes(piece.data) for piece in make_pieces(MASK, SALT, redundancy, slots, sealed)}


def fragments_of(pieces: dict[int, bytes], generation: int = 0) -> dict[int, bytearray]:
    fragments = {position: bytearray(data) for position, data in pieces.items()}
    for position, data in fragments.items():
        unmask(MASK, SALT, Slot(position, generation), data)
    return fragments


@given(st.binary(max_size=50_000), SLOTS)
def test_a_copy_gives_the_shard_back(sealed: bytes, slot: Slot) -> None:
    (piece,) = make_pieces(MASK, SALT, MIRROR, [slot], sealed)
    assert piece.id == piece_id(piece.data)
    assert sealed_of(MIRROR, fragments_of({slot.position: piece.data}, slot.generation)) == sealed


@given(st.binary(min_size=32, max_size=1000), SLOTS, SLOTS, st.sampled_from([MIRROR, Redundancy(4, 16)]))
def test_no_two_slots_hold_the_same_bytes(sealed: bytes, one: Slot, other: Slot, redundancy: Redundancy) -> None:
    first, second = make_pieces(MASK, SALT, redundancy, [one, other], sealed)
    assert (first.data == second.data) == (one == other)
    assert (first.id == second.id) == (one == other)
    assert first.data != sealed


@given(CODES, st.binary(max_size=3000), st.randoms(use_true_random=False))
def test_any_pieces_of_a_code_give_the_shard_back(code: Redundancy, sealed: bytes, dice: random.Random) -> None:
    pieces = pieces_of(code, sealed)
    assert {len(piece) for piece in pieces.values()} == {code.piece_bytes(len(sealed))}
    for _ in range(3):
        chosen = dice.sample(sorted(pieces), code.needed)
        assert sealed_of(code, fragments_of({position: pieces[position] for position in chosen})) == sealed


@pytest.mark.parametrize("code", [Redundancy(2, 3), Redundancy(4, 8), Redundancy(3, 9)])
@pytest.mark.parametrize("tail", [b"", b"\0" * 40, b"\x80", b"\x80" + b"\0" * 63])
def test_every_choice_of_pieces_whatever_the_end(code: Redundancy, tail: bytes) -> None:
    sealed = os.urandom(500) + tail
    fragments = fragments_of(pieces_of(code, sealed))
    for chosen in combinations(range(code.total), code.needed):
        assert sealed_of(code, {position: fragments[position] for position in chosen}) == sealed


@given(CODES, st.binary(max_size=2000), st.randoms(use_true_random=False))
def test_a_piece_made_anew_is_the_same_piece(code: Redundancy, sealed: bytes, dice: random.Random) -> None:
    pieces = pieces_of(code, sealed, generation=1)
    chosen = dice.sample(sorted(pieces), code.needed)
    again = sealed_of(code, fragments_of({position: pieces[position] for position in chosen}, generation=1))
    assert pieces_of(code, bytes(again), generation=1) == pieces


def test_a_fragment_is_what_the_format_says() -> None:
    """Position i: the shard's i-th part, or the sum of all parts j, each times 1 / (i xor j) in GF(256) mod 0x11d."""
    code, sealed = Redundancy(3, 7), os.urandom(100)
    fragments = fragments_of(pieces_of(code, sealed))
    padded = sealed + b"\x80" + bytes(144 - 101)
    parts = [padded[at : at + 48] for at in range(0, 144, 48)]
    assert [bytes(fragments[position]) for position in range(3)] == parts
    for position in range(3, 7):
        coefficients = [inverse(position ^ column) for column in range(3)]
        sums = [
            functools.reduce(int.__xor__, map(product, coefficients, column)) for column in zip(*parts, strict=True)
        ]
        assert bytes(fragments[position]) == bytes(sums)


@pytest.mark.parametrize("code", [Redundancy(2, 4), Redundancy(3, 5)])
@given(lengths=st.lists(st.integers(0, 80), min_size=5, max_size=5), first=st.integers(0, 1))
def test_any_bytes_are_a_shard_or_refused(code: Redundancy, lengths: list[int], first: int) -> None:
    """Nothing that hosts say reaches the library but bytes of the right length."""
    wrong = {position: os.urandom(lengths[position]) for position in range(first, first + code.needed)}
    with contextlib.suppress(WrongBytes):
        assert len(sealed_of(code, wrong)) < code.needed * min(lengths)


def test_fragments_without_an_end_are_of_no_shard() -> None:
    with pytest.raises(WrongBytes, match="no end"):
        sealed_of(Redundancy(2, 4), {0: bytes(16), 1: bytes(16)})
    with pytest.raises(WrongBytes, match="no end"):
        sealed_of(Redundancy(2, 4), {2: bytes(16), 3: bytes(16)})


def test_which_pieces_are_of_another_shard() -> None:
    code, sealed = Redundancy(2, 5), os.urandom(300)
    fragments = fragments_of(pieces_of(code, sealed))
    fragments[1][7] ^= 1
    fragments[4] = bytearray(16)
    assert disagreeing(code, fragments, sealed) == {1, 4}


def test_several_threads_code_at_once() -> None:
    code = Redundancy(4, 8)

    def there_and_back(number: int) -> bool:
        sealed = os.urandom(100_000 + number)
        fragments = fragments_of(pieces_of(code, sealed))
        return sealed_of(code, {position: fragments[position] for position in range(4, 8)}) == sealed

    with ThreadPoolExecutor(4) as hands:
        assert all(hands.map(there_and_back, range(40)))
