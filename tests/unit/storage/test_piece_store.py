"""The store's own promises: what a disk, a crash or a careless hand does to its files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import struct
import threading
from functools import partial
from pathlib import Path

import pytest

from layrfs.crypto import merkle
from layrfs.errors import CorruptFile, LocalError, NewerFormat, NoSpace
from layrfs.ids import PieceId
from layrfs.storage import piece_file
from layrfs.storage.piece_store import PieceStore

TENANT = bytes([7]) * 32
OTHER = bytes([8]) * 32
SPACE_BYTES = 64 << 20


@pytest.fixture
def store(tmp_path: Path) -> PieceStore:
    return opened(tmp_path)


def opened(path: Path, space_bytes: int = SPACE_BYTES) -> PieceStore:
    return PieceStore(str(path), space_bytes=space_bytes, now=lambda: 1_900_000_000.9)


def stored(store: PieceStore, size: int = 100_000, seed: int = 0) -> tuple[PieceId, bytes]:
    data = random.Random(size + seed).randbytes(size)
    piece = merkle.piece_id(data)
    with store.room(size):
        store.put(piece, data, TENANT, b"note")
    return piece, data


def file_of(path: Path, piece: PieceId) -> Path:
    return path / "pieces" / piece.hex()[:2] / piece.hex()


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def test_a_listing_reads_few_heads_however_many_there_are(tmp_path: Path) -> None:
    store = PieceStore(str(tmp_path), space_bytes=SPACE_BYTES, now=lambda: 1_900_000_000.0, heads_per_listing=10)
    pieces = sorted(stored(store, 10, seed)[0] for seed in range(35))
    assert store.inventory(OTHER, PieceId(bytes(32))) == ([], pieces[9])
    found, through = store.inventory(TENANT, pieces[9])
    assert ([one.piece for one in found], through) == (pieces[10:20], pieces[19])
    assert {(one.stored, one.note) for one in found} == {(1_900_000_000, b"note")}
    assert store.inventory(OTHER, pieces[29]) == ([], None)


def test_a_damaged_head_is_no_part_of_the_inventory(store: PieceStore, tmp_path: Path) -> None:
    (good, _), (bad, _) = stored(store), stored(store, seed=1)
    flip(file_of(tmp_path, bad), 70)
    found, through = store.inventory(TENANT, PieceId(bytes(32)))
    assert ([one.piece for one in found], through) == ([good], None)
    assert not store.has(bad)


def test_a_file_is_a_head_and_the_piece(store: PieceStore, tmp_path: Path) -> None:
    piece, data = stored(store)
    content = file_of(tmp_path, piece).read_bytes()
    fields = struct.pack("<4sBB2x32sQQ64s", b"LYRP", 2, 4, TENANT, 1_900_000_000, len(data), b"note")
    assert content[: len(fields)] == fields
    assert content[piece_file.HEAD_BYTES :] == data
    assert file_of(tmp_path, piece).stat().st_mode & 0o077 == 0


def test_nothing_but_pieces_is_left_behind(store: PieceStore, tmp_path: Path) -> None:
    stored(store)
    assert os.listdir(tmp_path / "incoming") == []
    assert sorted(os.listdir(tmp_path)) == ["format", "incoming", "pieces", "quarantine"]


@pytest.mark.parametrize("place", [0, 4, 5, 20, 40, 50, 60, 64, 110, 125, 128, 5_000, 99_999, 100_127])
def test_a_flipped_bit_anywhere_makes_the_piece_missing(store: PieceStore, tmp_path: Path, place: int) -> None:
    piece, _ = stored(store)
    flip(file_of(tmp_path, piece), place)
    assert store.read(piece) is None
    assert not store.has(piece)
    assert os.listdir(tmp_path / "quarantine") == [piece.hex()]
    found = store.statistics()
    assert (found.quarantined, found.pieces, found.used_bytes) == (1, 0, 0)


def test_a_range_read_finds_the_flipped_bit_also_when_the_tree_is_remembered(store: PieceStore, tmp_path: Path) -> None:
    piece, _ = stored(store)
    assert store.read_range(piece, 0, 10) is not None
    flip(file_of(tmp_path, piece), 128 + 50_000)
    assert store.read_range(piece, 0, 10) is not None, "these leaves are still good"
    assert store.read_range(piece, 50_000, 10) is None
    assert not store.has(piece)


@pytest.mark.parametrize("remembered", [False, True])
def test_a_leaf_that_was_chosen_and_is_rotten_is_never_given_out(
    store: PieceStore, tmp_path: Path, *, remembered: bool
) -> None:
    piece, _ = stored(store)
    assert not remembered or store.read_leaves(piece, lambda _: (2,)) is not None
    flip(file_of(tmp_path, piece), 128 + 50_000)
    assert (store.read_leaves(piece, lambda _: (2,)) is not None) == remembered, "unremembered, all of it is looked at"
    assert store.read_leaves(piece, lambda _: (2, 3)) is None
    assert not store.has(piece)


def test_another_file_under_a_remembered_name_is_damage(store: PieceStore, tmp_path: Path) -> None:
    piece, _ = stored(store)
    assert store.read_leaves(piece, lambda _: (0,))
    other, _ = stored(store, 1)
    os.replace(file_of(tmp_path, other), file_of(tmp_path, piece))
    assert store.read_leaves(piece, lambda _: (0, 3)) is None
    assert not store.has(piece)


@pytest.mark.parametrize("size", [0, 10, 127, 128, 4096, 100_127, 100_129])
def test_a_file_of_another_size_is_damage(store: PieceStore, tmp_path: Path, size: int) -> None:
    piece, _ = stored(store)
    os.truncate(file_of(tmp_path, piece), size)
    assert store.read(piece) is None
    assert store.statistics().quarantined == 1


def test_a_damaged_piece_can_be_stored_again(store: PieceStore, tmp_path: Path) -> None:
    piece, data = stored(store)
    flip(file_of(tmp_path, piece), 1000)
    stored(store)
    assert store.read(piece) == data
    assert store.statistics().used_bytes == piece_file.disk_bytes(file_of(tmp_path, piece).stat().st_size)


def test_a_name_that_is_another_pieces_is_damage(store: PieceStore, tmp_path: Path) -> None:
    good, data = stored(store)
    other, _ = stored(store, seed=1)
    file_of(tmp_path, other).write_bytes(file_of(tmp_path, good).read_bytes())
    assert store.read(other) is None
    assert store.read(good) == data


def test_damage_seen_late_does_not_move_the_good_file_that_replaced_it(store: PieceStore, tmp_path: Path) -> None:
    piece, data = stored(store)
    path = file_of(tmp_path, piece)
    flip(path, 1000)
    with open(path, "rb") as reader:
        assert store.read(piece) is None
        stored(store)
        store._set_aside(piece, reader.fileno(), "seen a moment ago")
    assert store.read(piece) == data


def test_verifying_everything_finds_the_bad_ones(store: PieceStore, tmp_path: Path) -> None:
    pieces = [stored(store, seed=seed)[0] for seed in range(12)]
    for piece in pieces[:3]:
        flip(file_of(tmp_path, piece), 70_000)
    again = opened(tmp_path)
    again.verify_all(threading.Event(), share=1.0)
    found = again.statistics()
    assert (found.verified, found.quarantined, found.pieces, found.verifying) == (9, 3, 9, False)
    assert sorted(again.pieces()) == sorted(pieces[3:])


def test_verifying_ends_when_told(store: PieceStore) -> None:
    for seed in range(5):
        stored(store, seed=seed)
    stop = threading.Event()
    stop.set()
    store.verify_all(stop)
    assert store.statistics().verified == 1


def test_the_newest_of_the_quarantine_are_kept_and_no_more(store: PieceStore, tmp_path: Path) -> None:
    for seed in range(70):
        piece, _ = stored(store, size=100, seed=seed)
        flip(file_of(tmp_path, piece), 80)
        assert store.read(piece) is None
    assert len(os.listdir(tmp_path / "quarantine")) == 64
    assert piece.hex() in os.listdir(tmp_path / "quarantine")


def test_reopening_counts_what_is_there_and_removes_what_a_crash_left(store: PieceStore, tmp_path: Path) -> None:
    stored(store)
    stored(store, seed=1)
    (tmp_path / "incoming" / "half").write_bytes(b"half a piece")
    again = opened(tmp_path).statistics()
    assert (again.pieces, again.used_bytes) == (2, store.statistics().used_bytes)
    assert os.listdir(tmp_path / "incoming") == []


def test_a_piece_takes_what_the_disk_gives_it(store: PieceStore, tmp_path: Path) -> None:
    for seed, size in enumerate((1, 3, 3968, 3969, 8064, 100_000)):
        stored(store, size, seed)
    on_disk = sum(file_of(tmp_path, piece).stat().st_blocks * 512 for piece in store.pieces())
    assert store.statistics().used_bytes == on_disk
    small = opened(tmp_path / "small", space_bytes=4096)
    with small.room(3), pytest.raises(NoSpace), small.room(3):
        raise AssertionError


def test_a_disk_that_has_hardly_files_left_is_full(store: PieceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    free = store.free_bytes()
    real = os.statvfs(store._folders.root)

    def statvfs(_path: str, free_files: int, files: int = 1 << 20) -> os.statvfs_result:
        return os.statvfs_result((*real[:5], files, free_files, free_files, *real[8:]))

    monkeypatch.setattr(os, "statvfs", partial(statvfs, free_files=10_000))
    assert store.free_bytes() == 0
    monkeypatch.setattr(os, "statvfs", partial(statvfs, free_files=0, files=0))
    assert store.free_bytes() == free > 0


def test_strange_files_are_not_pieces(store: PieceStore, tmp_path: Path) -> None:
    piece, _ = stored(store)
    (tmp_path / "pieces" / "00" / "README").write_text("hello")
    assert list(store.pieces()) == [piece]


def test_a_smaller_space_than_what_is_stored_means_full(store: PieceStore, tmp_path: Path) -> None:
    piece, data = stored(store)
    small = opened(tmp_path, space_bytes=1000)
    assert small.free_bytes() == 0
    with pytest.raises(NoSpace), small.room(1):
        raise AssertionError
    assert small.read(piece) == data


def test_deleting_forgets_the_remembered_tree(store: PieceStore) -> None:
    piece, _ = stored(store)
    assert store.read_range(piece, 0, 1)
    assert store.delete(piece, TENANT)
    assert store.read_range(piece, 0, 1) is None


def test_a_newer_format_is_left_alone(store: PieceStore, tmp_path: Path) -> None:
    (tmp_path / "format").write_text("2\n")
    (tmp_path / "incoming" / "theirs").write_text("x")
    with pytest.raises(NewerFormat):
        opened(tmp_path)
    assert (tmp_path / "incoming" / "theirs").exists()


def test_a_directory_of_something_else_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "format").write_text("PNG")
    with pytest.raises(CorruptFile):
        opened(tmp_path)


def test_a_place_that_cannot_hold_directories_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "pieces").write_text("a file")
    with pytest.raises(LocalError, match="cannot be used"):
        opened(tmp_path)


def test_want_of_file_descriptors_is_not_damage(store: PieceStore) -> None:
    piece, data = stored(store)
    taken: list[int] = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))
    try:
        with pytest.raises(LocalError):
            store.read(piece)
    finally:
        for descriptor in taken:
            os.close(descriptor)
    assert store.read(piece) == data
    assert store.statistics().quarantined == 0


def test_a_piece_of_a_newer_version_is_not_damage(store: PieceStore, tmp_path: Path) -> None:
    piece, data = stored(store)
    fields = struct.pack("<4sBB2x32sQQ64s", b"LYRP", 3, 0, TENANT, 0, len(data), b"")
    file_of(tmp_path, piece).write_bytes(fields + piece_file._check(fields) + data)
    with pytest.raises(LocalError, match="newer"):
        store.read(piece)
    assert store.has(piece)


@pytest.mark.parametrize(("number", "is_damage"), [(errno.EIO, True), (errno.EUCLEAN, True), (errno.ENOMEM, False)])
def test_which_errors_of_a_disk_are_damage(store: PieceStore, number: int, is_damage: bool) -> None:
    piece, _ = stored(store)
    with contextlib.nullcontext() if is_damage else pytest.raises(LocalError), store._opened(piece):
        raise OSError(number, "while reading")
    assert store.has(piece) is not is_damage


def test_many_threads_storing_the_same_and_other_pieces(store: PieceStore, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for number in range(8):
                piece, data = stored(store, size=30_000, seed=(seed + number) % 10)
                assert store.read(piece) == data
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    on_disk = [piece_file.disk_bytes(file_of(tmp_path, piece).stat().st_size) for piece in store.pieces()]
    found = store.statistics()
    assert (found.pieces, found.used_bytes) == (len(on_disk), sum(on_disk))


def test_file_systems_without_direct_io_work_too(tmp_path: Path) -> None:
    modes: list[bool] = []

    def transfer(descriptor: int) -> str:
        modes.append(bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT))
        if modes[-1]:
            raise OSError(errno.EINVAL, "not here")
        return "done"

    with open(tmp_path / "file", "wb") as file:
        assert piece_file._past_the_cache(file.fileno(), lambda: transfer(file.fileno())) == "done"
    assert modes == [True, False]


class Leases:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.time = 1_000.0

    def now(self) -> float:
        return self.time


def test_what_nobody_renews_expires(tmp_path: Path) -> None:
    leases, stop = Leases(), threading.Event()
    store = PieceStore(str(tmp_path), space_bytes=SPACE_BYTES, lease_now=leases.now)
    (kept, _), (gone, _), (foreign, _) = stored(store, 5000), stored(store, 6000), stored(store, 7000)
    again, data = stored(store, 8000)
    leases.time = 2_000.0
    assert store.renew(kept, TENANT)
    assert not store.renew(foreign, OTHER), "a stranger keeps nothing alive"
    assert not store.renew(PieceId(bytes(32)), TENANT)
    with store.room(len(data)):
        store.put(again, data, TENANT)
    assert store.drop_expired(1_000.0, stop) == 0
    used = store.statistics().used_bytes
    assert store.drop_expired(2_000.0, stop) == 2
    assert [store.has(piece) for piece in (kept, gone, foreign, again)] == [True, False, False, True]
    assert store.read(gone) is None
    assert store.statistics().pieces == 2
    assert used - store.statistics().used_bytes == 2 * 8192


def test_leases_survive_a_restart(tmp_path: Path) -> None:
    leases, stop = Leases(), threading.Event()
    piece, _ = stored(PieceStore(str(tmp_path), space_bytes=SPACE_BYTES, lease_now=leases.now))
    again = PieceStore(str(tmp_path), space_bytes=SPACE_BYTES, lease_now=leases.now)
    assert (again.drop_expired(1_000.0, stop), again.drop_expired(1_000.5, stop)) == (0, 1)
    assert not again.has(piece)


def test_a_host_that_stops_stops_expiring(tmp_path: Path) -> None:
    leases, stop = Leases(), threading.Event()
    store = PieceStore(str(tmp_path), space_bytes=SPACE_BYTES, lease_now=leases.now)
    stored(store, 5000)
    stored(store, 6000)
    stop.set()
    assert store.drop_expired(9_000.0, stop) == 1
