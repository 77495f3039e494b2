from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layrfs.crypto.merkle import piece_id
from layrfs.ids import Salt
from layrfs.pipeline.coding import make_piece, unmask
from layrfs.pipeline.transfers import Slot

SALT = Salt(b"s" * 16)
SLOTS = st.builds(Slot, st.integers(0, 15), st.integers(0, 5))


@given(st.binary(max_size=50_000), SLOTS)
def test_a_piece_gives_the_shard_back(sealed: bytes, slot: Slot) -> None:
    piece = make_piece(b"m" * 32, SALT, slot, sealed)
    assert piece.id == piece_id(piece.data)
    unmask(b"m" * 32, SALT, slot, piece.data)
    assert piece.data == sealed


@given(st.binary(min_size=32, max_size=1000), SLOTS, SLOTS)
def test_no_two_slots_hold_the_same_bytes(sealed: bytes, one: Slot, other: Slot) -> None:
    first, second = (make_piece(b"m" * 32, SALT, slot, sealed) for slot in (one, other))
    assert (first.data == second.data) == (one == other)
    assert (first.id == second.id) == (one == other)
    assert first.data != sealed
