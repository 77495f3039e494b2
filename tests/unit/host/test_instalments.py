"""Answers to instalments from a real disk: what the owner knows from the bytes, and no more reading than that takes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from layrfs.crypto import instalments, merkle
from layrfs.errors import MissingPiece
from layrfs.host.instalments import digests_of_some, held_bytes, read_some
from layrfs.ids import PieceId
from layrfs.storage.piece_store import PieceStore

TENANT, SALT, CONTRACT = bytes([3]) * 32, bytes([4]) * 32, bytes([5]) * 32
DATA = [random.Random(number).randbytes(size) for number, size in enumerate((1, 100_000, 1 << 20, 700_000))]
PIECES = [merkle.piece_id(data) for data in DATA]
BATCHES = [PIECES[:3], PIECES[3:]]


@pytest.fixture
def store(tmp_path: Path) -> PieceStore:
    store = PieceStore(str(tmp_path), space_bytes=1 << 30)
    for piece, data in zip(PIECES, DATA, strict=True):
        store.put(piece, data, TENANT)
    return store


def path_of(directory: Path, piece: PieceId) -> Path:
    return directory / "pieces" / piece.hex()[:2] / piece.hex()


def no_rest(_seconds: float) -> None:
    """Tests need none."""


@pytest.mark.parametrize("instalment", [0, 1, 3])
def test_the_host_answers_what_the_owner_knows(store: PieceStore, instalment: int) -> None:
    known = dict(zip(PIECES, DATA, strict=True))
    digests = [
        instalments.batch_digest(
            SALT, [instalments.piece_digest(SALT, instalment, piece, known[piece]) for piece in batch]
        )
        for batch in BATCHES
    ]
    expected = instalments.answer(SALT, CONTRACT, instalment, digests)
    read = [digests_of_some(store, instalment, SALT, batch, 60, no_rest) for batch in BATCHES]
    found = [instalments.batch_digest(SALT, each) for each in read]
    assert instalments.answer(SALT, CONTRACT, instalment, found) == expected


@pytest.mark.parametrize("instalment", [0, 1])
def test_a_piece_that_is_gone_is_missing(store: PieceStore, instalment: int) -> None:
    assert read_some(store, PIECES, 60, no_rest) == [len(data) for data in DATA]
    store.delete(PIECES[3], TENANT)
    with pytest.raises(MissingPiece):
        digests_of_some(store, instalment, SALT, PIECES, 60, no_rest)
    with pytest.raises(MissingPiece):
        read_some(store, PIECES, 60, no_rest)


def test_as_many_are_read_as_there_is_time_for_and_one_at_least(store: PieceStore) -> None:
    assert [len(digests_of_some(store, 1, SALT, PIECES, seconds, no_rest)) for seconds in (0, 60)] == [1, 4]
    assert read_some(store, PIECES[1:], 0, no_rest) == [len(DATA[1])]


def test_leaves_are_read_without_the_rest(store: PieceStore, tmp_path: Path) -> None:
    before = digests_of_some(store, 1, SALT, PIECES[2:3], 60, no_rest)
    other = PieceStore(str(tmp_path), space_bytes=1 << 30)  # it remembers no tree
    chosen = set(merkle_leaves(PIECES[2], len(DATA[2])))
    damaged = next(leaf for leaf in range(merkle.leaf_count(len(DATA[2]))) if leaf not in chosen)
    damage(path_of(tmp_path, PIECES[2]), damaged)
    assert digests_of_some(other, 1, SALT, PIECES[2:3], 60, no_rest) == before
    with pytest.raises(MissingPiece):
        read_some(other, PIECES[2:3], 60, no_rest)


def merkle_leaves(piece: PieceId, size: int) -> tuple[int, ...]:
    from layrfs.crypto.challenges import answer_leaves

    return answer_leaves(SALT, piece, size)


def damage(path: Path, leaf: int) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) - len(DATA[2]) + leaf * merkle.LEAF_BYTES] ^= 1
    path.write_bytes(data)


def test_reading_rests_as_long_as_it_takes(store: PieceStore) -> None:
    rests: list[float] = []
    digests_of_some(store, 0, SALT, PIECES, 60, rests.append)
    assert len(rests) == 4
    assert all(seconds > 0 for seconds in rests)


def test_what_is_covered_has_to_be_here_and_its_owners(store: PieceStore) -> None:
    assert held_bytes(store, TENANT, PIECES) == sum(max(4096, len(data)) for data in DATA)
    for tenant, pieces in ((bytes(32), PIECES[:1]), (TENANT, [*PIECES, PieceId(bytes(32))])):
        with pytest.raises(MissingPiece):
            held_bytes(store, tenant, pieces)
