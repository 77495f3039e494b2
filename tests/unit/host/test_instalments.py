"""Answers to instalments from a real disk: what the owner knows from the bytes, and no more reading than that takes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from layrfs.crypto import instalments, merkle
from layrfs.errors import MissingPiece
from layrfs.host.instalments import answer_from_disk, are_whole, held_bytes
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
    assert answer_from_disk(store, CONTRACT, instalment, SALT, BATCHES, no_rest) == expected


@pytest.mark.parametrize("instalment", [0, 1])
def test_a_piece_that_is_gone_is_missing(store: PieceStore, instalment: int) -> None:
    assert are_whole(store, BATCHES, no_rest)
    store.delete(PIECES[3], TENANT)
    with pytest.raises(MissingPiece):
        answer_from_disk(store, CONTRACT, instalment, SALT, BATCHES, no_rest)
    assert not are_whole(store, BATCHES, no_rest)


def test_leaves_are_read_without_the_rest(store: PieceStore, tmp_path: Path) -> None:
    before = answer_from_disk(store, CONTRACT, 1, SALT, [[PIECES[2]]], no_rest)
    other = PieceStore(str(tmp_path), space_bytes=1 << 30)  # it remembers no tree
    chosen = set(merkle_leaves(PIECES[2], len(DATA[2])))
    damaged = next(leaf for leaf in range(merkle.leaf_count(len(DATA[2]))) if leaf not in chosen)
    damage(path_of(tmp_path, PIECES[2]), damaged)
    assert answer_from_disk(other, CONTRACT, 1, SALT, [[PIECES[2]]], no_rest) == before
    assert not are_whole(other, [[PIECES[2]]], no_rest)


def merkle_leaves(piece: PieceId, size: int) -> tuple[int, ...]:
    from layrfs.crypto.challenges import answer_leaves

    return answer_leaves(SALT, piece, size)


def damage(path: Path, leaf: int) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) - len(DATA[2]) + leaf * merkle.LEAF_BYTES] ^= 1
    path.write_bytes(data)


def test_reading_rests_as_long_as_it_takes(store: PieceStore) -> None:
    rests: list[float] = []
    answer_from_disk(store, CONTRACT, 0, SALT, BATCHES, rests.append)
    assert len(rests) == 4
    assert all(seconds > 0 for seconds in rests)


def test_what_is_covered_has_to_be_here_and_its_owners(store: PieceStore) -> None:
    assert held_bytes(store, TENANT, PIECES) == sum(map(len, DATA))
    for tenant, pieces in ((bytes(32), PIECES[:1]), (TENANT, [*PIECES, PieceId(bytes(32))])):
        with pytest.raises(MissingPiece):
            held_bytes(store, tenant, pieces)
