"""What every piece store promises: the one on disk and the one in memory."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from layrfs.crypto import merkle
from layrfs.errors import NoSpace, NotPermitted, WrongBytes
from layrfs.ids import PieceId
from layrfs.storage.piece_store import PieceStore
from tests.fakes.pieces import MemoryPieces

ALICE, BOB = bytes([1]) * 32, bytes([2]) * 32
SPACE_BYTES = 32 << 20
ABSENT = PieceId(bytes(32))
SIZES = [0, 1, 4031, 4032, 4033, 16384, 16385, 100_000, (4 << 20) + 123]

Store = PieceStore | MemoryPieces


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    make: dict[str, Callable[[], Store]] = {
        "disk": lambda: PieceStore(str(tmp_path), space_bytes=SPACE_BYTES, heads_per_listing=7),
        "memory": lambda: MemoryPieces(SPACE_BYTES),
    }
    return make[request.param]()


def some_piece(size: int, seed: int = 0) -> tuple[PieceId, bytes]:
    data = random.Random(size * 1000 + seed).randbytes(size)
    return merkle.piece_id(data), data


def put(store: Store, piece: PieceId, data: bytes, tenant: bytes = ALICE, note: bytes = b"") -> None:
    with store.room(len(data)):
        store.put(piece, memoryview(data), tenant, note)


def inventory(store: Store, tenant: bytes) -> dict[PieceId, bytes]:
    """All of it, page by page; ids ascend."""
    listed: dict[PieceId, bytes] = {}
    after: PieceId | None = PieceId(bytes(32))
    while after is not None:
        found, through = store.inventory(tenant, after)
        assert [piece.piece for piece in found] == sorted(piece.piece for piece in found if piece.piece > after)
        assert through is None or through >= max([after, *(piece.piece for piece in found)])
        assert through != after
        listed |= {piece.piece: piece.note for piece in found}
        after = through
    return listed


def test_the_inventory_of_a_tenant_is_its_pieces_with_their_notes(store: Store) -> None:
    expected: dict[bytes, dict[PieceId, bytes]] = {ALICE: {}, BOB: {}}
    for number in range(40):
        piece, data = some_piece(10, number)
        tenant, note = (ALICE, BOB)[number % 2], bytes([number]) * (number % 3 * 32)
        put(store, piece, data, tenant, note)
        expected[tenant][piece] = note
    assert inventory(store, ALICE) == expected[ALICE]
    assert inventory(store, BOB) == expected[BOB]
    assert inventory(store, bytes(32)) == {}
    gone = max(expected[ALICE])
    store.delete(gone, ALICE)
    del expected[ALICE][gone]
    assert inventory(store, ALICE) == expected[ALICE]


def test_a_piece_stored_again_keeps_its_note(store: Store) -> None:
    piece, data = some_piece(10)
    put(store, piece, data, note=b"first")
    put(store, piece, data, note=b"again")
    assert inventory(store, ALICE) == {piece: b"first"}


@pytest.mark.parametrize("size", SIZES)
def test_what_was_put_is_read(store: Store, size: int) -> None:
    piece, data = some_piece(size)
    assert not store.has(piece)
    put(store, piece, data)
    assert store.has(piece)
    assert store.read(piece) == data


@pytest.mark.parametrize("size", SIZES)
def test_ranges_are_proven_and_cover_what_was_asked(store: Store, size: int) -> None:
    piece, data = some_piece(size)
    put(store, piece, data)
    dice = random.Random(size)
    anywhere = (dice.randrange(size + 1), dice.randrange(1, size + 2))
    asked = [(0, None), (0, 1), (size // 2, 1), (max(0, size - 1), 1), anywhere]
    for offset, length in asked:
        found = store.read_range(piece, offset, length)
        assert found is not None
        assert found.piece_bytes == size
        assert merkle.verify(piece, size, found.first_leaf, found.leaves, found.proof)
        end = size if length is None else min(size, offset + length)
        start = found.first_leaf * merkle.LEAF_BYTES
        assert start <= offset or offset >= size
        assert start + len(found.leaves) >= end


def test_a_range_beyond_the_end_still_proves_the_length(store: Store) -> None:
    piece, data = some_piece(40_000)
    put(store, piece, data)
    found = store.read_range(piece, 1 << 40, 5)
    assert found is not None
    assert merkle.verify(piece, 40_000, found.first_leaf, found.leaves, found.proof)


def test_a_missing_piece_is_none_everywhere(store: Store) -> None:
    assert store.read(ABSENT) is None
    assert store.read_range(ABSENT, 0, 1) is None
    assert store.read_leaves(ABSENT, lambda _: (0,)) is None
    assert not store.delete(ABSENT, ALICE)


def test_bytes_that_are_not_the_piece_are_never_stored(store: Store) -> None:
    piece, data = some_piece(50_000)
    with pytest.raises(WrongBytes):
        put(store, piece, data[:-1] + bytes([data[-1] ^ 1]))
    assert not store.has(piece)
    assert store.free_bytes() == SPACE_BYTES


def test_storing_again_changes_nothing(store: Store) -> None:
    piece, data = some_piece(50_000)
    put(store, piece, data)
    free = store.free_bytes()
    put(store, piece, data)
    assert store.free_bytes() == free
    assert store.read(piece) == data


def test_a_piece_belongs_to_who_stored_it_first(store: Store) -> None:
    piece, data = some_piece(50_000)
    put(store, piece, data)
    with pytest.raises(NotPermitted):
        put(store, piece, data, BOB)
    assert not store.delete(piece, BOB)
    assert store.read(piece) == data
    assert store.delete(piece, ALICE)
    assert not store.has(piece)
    assert store.free_bytes() == SPACE_BYTES
    put(store, piece, data, BOB)
    assert store.read(piece) == data


def test_room_is_refused_before_the_bytes_come(store: Store) -> None:
    with store.room(SPACE_BYTES - 1000), pytest.raises(NoSpace), store.room(2000):
        raise AssertionError
    with store.room(2000):
        pass


def test_room_comes_back_when_storing_fails(store: Store) -> None:
    with contextlib.suppress(ValueError), store.room(SPACE_BYTES // 2):
        raise ValueError
    assert store.free_bytes() == SPACE_BYTES


def test_it_fills_up_to_its_space_and_no_further(store: Store) -> None:
    for seed in range(31):
        put(store, *some_piece(1 << 20, seed))
    with pytest.raises(NoSpace):
        put(store, *some_piece(1 << 20, 32) if store.free_bytes() < 1 << 20 else some_piece(2 << 20, 32))


@pytest.mark.parametrize("size", SIZES)
def test_chosen_leaves_come_with_the_hashes_of_all(store: Store, size: int) -> None:
    piece, data = some_piece(size)
    put(store, piece, data)
    last = merkle.leaf_count(size) - 1
    asked: list[int] = []

    def choose(piece_bytes: int) -> tuple[int, ...]:
        asked.append(piece_bytes)
        return tuple({0, last // 2, last})

    found = store.read_leaves(piece, choose)
    assert found is not None
    assert asked == [size] == [found.piece_bytes]
    assert found.hashes == merkle.leaf_hashes(data)
    assert found.leaves == tuple(data[number * 16384 : (number + 1) * 16384] for number in found.numbers)
