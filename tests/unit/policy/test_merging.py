"""What becomes of pieces that delegates say they made."""

from __future__ import annotations

import itertools
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.policy.merging import Verdict, verdict


def piece(position: int, generation: int, host: int) -> PieceRecord:
    """The same slot is the same piece, whoever makes it."""
    return PieceRecord(position, generation, PieceId(bytes([position, generation]) * 16), NodeId(bytes([host]) * 20))


def shard(*pieces: PieceRecord, total: int = 3) -> ShardRecord:
    return ShardRecord(ShardId(bytes(32)), Salt(bytes(16)), 1, 2, Redundancy(1, total), pieces)


OLD = piece(1, 0, 11)
SHARD = shard(piece(0, 0, 10), OLD)


@pytest.mark.parametrize(
    ("made", "replaced", "known", "expected"),
    [
        (piece(1, 1, 20), OLD.id, SHARD, "worth proving"),
        (piece(1, 1, 11), OLD.id, SHARD, "worth proving"),
        (piece(2, 1, 20), b"", SHARD, "worth proving"),
        (piece(2, 1, 20), bytes(32), SHARD, "worth proving"),
        (OLD, b"", SHARD, "known"),
        (piece(1, 1, 20), OLD.id, None, "garbage"),
        (piece(1, 1, 20), bytes(32), SHARD, "garbage"),
        (piece(1, 1, 10), OLD.id, SHARD, "garbage"),
        (piece(2, 1, 10), b"", SHARD, "garbage"),
        (piece(1, 0, 20), OLD.id, SHARD, "lie"),
        (piece(3, 1, 20), b"", SHARD, "lie"),
        (PieceRecord(1, 1001, PieceId(bytes(32)), NodeId(bytes(20))), OLD.id, SHARD, "lie"),
    ],
    ids=[
        "newer", "newer on the same host", "missing", "meanwhile missing", "merged before", "no such shard",
        "the owner was first", "host has another", "host has another, missing", "no newer", "no such position",
        "far ahead",
    ],
)  # fmt: skip
def test_verdicts(made: PieceRecord, replaced: bytes, known: ShardRecord | None, expected: Verdict) -> None:
    assert verdict(made, replaced, known) == expected


def test_what_a_host_was_just_told_to_drop_is_not_counted_on() -> None:
    assert verdict(piece(1, 1, 20), OLD.id, SHARD, is_retired=True) == "garbage"


POSITIONS, HOSTS = st.integers(0, 2), st.integers(1, 6)
HELD = st.tuples(POSITIONS, st.integers(0, 3), HOSTS)


@given(
    st.lists(HELD, max_size=3, unique_by=(operator.itemgetter(0), operator.itemgetter(2))),
    st.tuples(POSITIONS, st.integers(0, 4), HOSTS),
    st.integers(0, 4),
    st.booleans(),
)
def test_what_is_worth_proving_never_puts_two_pieces_on_one_host_or_goes_back(
    held: list[tuple[int, int, int]], made: tuple[int, int, int], replaced: int, is_retired: bool
) -> None:
    known = shard(*(piece(*row) for row in held))
    new = piece(*made)
    if verdict(new, bytes([made[0], replaced]) * 16, known, is_retired=is_retired) != "worth proving":
        return
    others = [one for one in known.pieces if one.position != new.position]
    assert all(one.host != new.host for one in others)
    for old in known.pieces:
        if old.position == new.position:
            assert new.generation > old.generation
            assert old.id == bytes([made[0], replaced]) * 16


def test_every_word_is_said_of_something() -> None:
    rows = itertools.product(range(4), range(3), (10, 11, 20), (OLD.id, b""), (SHARD, None))
    found = {verdict(piece(*row[:3]), row[3], row[4]) for row in rows}
    assert found == {"worth proving", "known", "garbage", "lie"}
