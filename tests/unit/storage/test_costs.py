"""What directories cost: pieces at the price of their hosts' contracts, by what each has of a shard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from layrfs.ids import ROOT_INODE, InodeNumber, NodeId
from layrfs.storage.contracts import Contracts
from layrfs.storage.costs import read_costs
from layrfs.storage.database import Database
from tests.contract_terms import TERMS

FREE, PAID = 1, 2
PRICE, MIB = 1 << 20, 1 << 20
FILE, DIRECTORY = 0o100644, 0o040755


class Volume:
    """Made by hand: files of one shard or more, with a piece at each host."""

    def __init__(self, database: Database) -> None:
        self.database = database
        for number in (FREE, PAID):
            database.write("INSERT INTO host VALUES(?, ?, NULL)", (number, bytes([number]) * 20))
        terms = msgspec.structs.replace(TERMS, node=NodeId(bytes([PAID]) * 20), price=PRICE)
        Contracts(database).add(terms, "open")

    def add(self, inode: int, parent: int, name: bytes, *shards: int, mode: int = FILE) -> None:
        self.database.write(
            "INSERT OR IGNORE INTO inode VALUES(?, ?, 0, 0, 1, 1, 4096, 0, 0, 0, 0, NULL)", (inode, mode)
        )
        self.database.write("INSERT INTO entry(parent, name, inode) VALUES(?, ?, ?)", (parent, name, inode))
        for block, shard in enumerate(shards):
            content = inode * 100 + block
            self.database.write("INSERT INTO block VALUES(?, ?, ?, 1)", (inode, block, content))
            row = (content, content.to_bytes(4, "big"), shard)
            self.database.write("INSERT INTO content VALUES(?, ?, ?, 0, 1)", row)
            shape = (shard, bytes([shard]), bytes(16), 2 * MIB, 2 * MIB)
            self.database.write("INSERT OR IGNORE INTO shard VALUES(?, ?, ?, ?, ?, 1, 2, 0)", shape)
            for position, host in enumerate((FREE, PAID)):
                piece = bytes([shard, position])
                self.database.write("INSERT OR IGNORE INTO piece VALUES(?, ?, 0, ?, ?)", (shard, position, piece, host))

    def costs(self, inode: int, path: bytes, depth: int) -> dict[bytes, tuple[int, int]]:
        self.database.commit()
        found = read_costs(self.database.path, InodeNumber(inode), path, depth)
        assert len({each.path for each in found}) == len(found)
        assert all(each.stored_bytes == 2 * each.paid_bytes for each in found)
        return {each.path: (each.paid_bytes // MIB, each.stroops) for each in found}


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    with Database(str(tmp_path / "metadata.db")) as database:
        yield Volume(database)


def test_parts_add_up_and_what_is_shared_counts_once(volume: Volume) -> None:
    volume.add(10, ROOT_INODE, b"a", mode=DIRECTORY)
    volume.add(11, ROOT_INODE, b"b", mode=DIRECTORY)
    volume.add(12, 11, b"deep", mode=DIRECTORY)
    volume.add(20, 10, b"one", 1, 2)
    volume.add(21, 11, b"two", 2, 3)
    volume.add(22, 12, b"three", 4)
    volume.add(20, 12, b"one again")
    volume.add(23, ROOT_INODE, b"four", 5, 5)
    assert volume.costs(ROOT_INODE, b"/", 0) == {b"/": (10, 10)}
    assert volume.costs(ROOT_INODE, b"/", 1) == {b"/a": (3, 3), b"/b": (5, 5), b"/": (10, 10)}
    deep = volume.costs(ROOT_INODE, b"/", 9)
    assert list(deep) == [b"/a", b"/b/deep", b"/b", b"/"]
    assert deep == {b"/a": (3, 3), b"/b/deep": (2, 2), b"/b": (5, 5), b"/": (10, 10)}
    assert volume.costs(11, b"/b", 0) == {b"/b": (8, 8)}, "alone, all that it has: /a's file has a name there too"
    assert volume.costs(21, b"/b/two", 1) == {b"/b/two": (3, 3)}, "half of the shard that /a has a part of"


def test_what_small_files_are_packed_in_is_divided_among_them(volume: Volume) -> None:
    for inode, name in ((10, b"a"), (11, b"b"), (12, b"gone")):
        volume.add(inode, ROOT_INODE, name, mode=DIRECTORY)
    volume.add(20, 10, b"one", 1)
    volume.add(21, 11, b"two", 1, 1, 1)
    volume.add(22, 12, b"dead", 1, 1)
    volume.database.write("DELETE FROM block WHERE inode = 22")
    whole = 4 * MIB
    volume.database.write("UPDATE shard SET sealed_bytes = ?", (whole,))
    assert volume.costs(ROOT_INODE, b"/", 1) == {b"/a": (1, 1), b"/b": (3, 3), b"/gone": (0, 0), b"/": (4, 4)}
    assert volume.costs(11, b"/b", 0) == {b"/b": (3, 3)}, "and as much when it is asked for alone"


def test_a_volume_may_be_deep(volume: Volume) -> None:
    for inode in range(100, 2100):
        volume.add(inode, inode - 1 if inode > 100 else ROOT_INODE, b"d", mode=DIRECTORY)
    volume.add(5000, 2099, b"file", 1)
    assert volume.costs(ROOT_INODE, b"/", 1)[b"/"] == (2, 2)
