"""Notes that hosts keep with pieces: what the owner reads in them, and that nobody else can write or swap them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.errors import BadMessage
from layrfs.ids import PieceId, Salt
from layrfs.model.notes import CONTENT, NOTE_BYTES, PieceNote, Purpose, opened_untrusted
from layrfs.model.redundancy import Redundancy
from layrfs.wire.messages import NOTE_LIMIT

MASK, PIECE, OTHER = bytes([1]) * 32, PieceId(bytes([2]) * 32), PieceId(bytes([3]) * 32)

tags = st.binary(min_size=6, max_size=6)
purposes = st.just(CONTENT) | st.builds(
    Purpose,
    st.sampled_from(["checkpoint", "changes"]),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**16 - 1),
    tags,
    tags,
)
notes = st.builds(
    PieceNote,
    st.binary(min_size=16, max_size=16).map(Salt),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    st.sampled_from([Redundancy(1, 1), Redundancy(1, 3), Redundancy(1, 255), Redundancy(31, 32)]),
    purposes,
)


@given(notes)
def test_there_and_back(note: PieceNote) -> None:
    sealed = note.sealed(MASK, PIECE)
    assert len(sealed) == NOTE_BYTES <= NOTE_LIMIT
    assert opened_untrusted(MASK, PIECE, sealed) == note
    assert note.sealed(MASK, PIECE) == sealed, "made anew it is the same"


@given(notes, st.integers(0, NOTE_BYTES - 1), st.integers(1, 255))
def test_a_note_is_good_for_one_piece_and_unchanged(note: PieceNote, at: int, flip: int) -> None:
    sealed = note.sealed(MASK, PIECE)
    damaged = bytearray(sealed)
    damaged[at] ^= flip
    for mask, piece, data in ((MASK, PIECE, bytes(damaged)), (MASK, OTHER, sealed), (bytes(32), PIECE, sealed)):
        with pytest.raises(BadMessage):
            opened_untrusted(mask, piece, data)


def test_notes_of_copies_of_one_shard_have_nothing_in_common() -> None:
    note = PieceNote(Salt(bytes(16)), 0, 0, Redundancy(1, 3))
    one, two = note.sealed(MASK, PIECE), note.sealed(MASK, OTHER)
    assert sum(a == b for a, b in zip(one, two, strict=True)) < 8


@given(st.binary(max_size=80))
def test_anything_else_is_a_bad_message(data: bytes) -> None:
    with contextlib.suppress(BadMessage):
        opened_untrusted(MASK, PIECE, data)
        raise AssertionError("nobody guesses a note")
