"""What is on record after others have made pieces, whoever they are and in whatever order they come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layrfs.ids import NodeId, PieceId
from layrfs.model.shards import PieceRecord
from layrfs.policy.replacing import replacement


def piece(position: int, generation: int, at: int) -> PieceRecord:
    return PieceRecord(position, generation, PieceId(bytes([position, generation]) * 16), NodeId(bytes([at]) * 20))


RECORDED = (piece(0, 0, 10), piece(1, 1, 11), piece(2, 0, 12))


def test_a_newer_piece_replaces_the_old_one_and_fills_a_gap() -> None:
    made = (piece(1, 2, 20), piece(3, 2, 21))
    assert replacement(RECORDED, made) == ((RECORDED[0], made[0], RECORDED[2], made[1]), made, (RECORDED[1],))


def test_of_no_use_is_what_is_known_or_no_newer_or_on_a_host_that_has_another() -> None:
    stale, twice = piece(1, 1, 20), piece(0, 2, 12)
    assert replacement(RECORDED, (RECORDED[0], stale, twice)) == (RECORDED, (), (stale, twice))


def test_a_host_may_take_the_place_of_its_own_piece() -> None:
    again = piece(1, 2, 11)
    assert replacement(RECORDED, (again,)).new == (again,)


PIECES = st.lists(st.builds(piece, st.integers(0, 3), st.integers(0, 3), st.integers(1, 5)), max_size=8)


@given(PIECES, PIECES)
def test_hosts_have_one_piece_each_nothing_gets_older_and_every_piece_is_accounted_for(
    first: list[PieceRecord], made: list[PieceRecord]
) -> None:
    recorded = replacement((), first).pieces
    pieces, new, needless = replacement(recorded, made)
    assert len({one.host for one in pieces}) == len({one.position for one in pieces}) == len(pieces)
    now = {one.position: one for one in pieces}
    assert all(now[old.position].generation >= old.generation for old in recorded)
    assert set(new) == set(pieces) - set(recorded)
    assert {*recorded, *made} == {*pieces, *needless}
    assert not set(new) & set(recorded)
