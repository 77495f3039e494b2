"""A shard goes only when nothing needs it: each guard alone, in the transaction that would remove it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layrfs.ids import BlockNumber, InodeNumber, NodeId, PieceId, Salt, ShardId
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.policy.collecting import ShardUse
from layrfs.storage.content import Catalog, NewContent
from layrfs.storage.database import Database
from layrfs.storage.garbage import Garbage, survey
from layrfs.storage.totals import count_totals

HOST = NodeId(bytes([9]) * 20)
FILE = InodeNumber(5)


class Volume:
    """One shard of two contents, each used by a block."""

    def __init__(self, path: Path) -> None:
        self.database = Database(str(path / "metadata.db"))
        self.catalog = Catalog(self.database)
        self.garbage = Garbage(self.database, self.catalog)
        self.database.write("INSERT INTO inode VALUES(?,33188,0,0,1,100,65536,0,0,0,0,NULL)", (FILE,))
        self.shard = self.add(1)

    def add(self, seed: int) -> int:
        name = bytes([seed]) * 32
        piece = PieceRecord(0, 0, PieceId(name), HOST)
        record = ShardRecord(ShardId(name), Salt(bytes(16)), 100, 150, Redundancy(1, 3), (piece,))
        shard = self.catalog.add_shard(record)
        digests = [bytes([seed, part]) * 16 for part in range(2)]
        numbers = self.catalog.add_content(
            shard, [NewContent(digest, 10 * part, 10 + 80 * part) for part, digest in enumerate(digests)]
        )
        self.catalog.put_blocks((FILE, BlockNumber(10 * seed + part), numbers[part], 10) for part in range(2))
        return shard

    def use(self) -> list[ShardUse]:
        self.database.commit()
        return survey(self.database.path)

    def die(self) -> None:
        self.catalog.remove_blocks(FILE, BlockNumber(0), BlockNumber(100))
        self.garbage.mark(self.shard, 7)

    def retain(self, number: int, last_shard: int) -> None:
        self.database.write("INSERT INTO version VALUES(?, 0, ?, 0, NULL, x'90')", (number, last_shard))


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    volume = Volume(tmp_path)
    yield volume
    volume.database.close()


def test_a_shard_of_which_something_is_needed_is_not_marked(volume: Volume) -> None:
    assert volume.use() == []
    volume.garbage.mark(volume.shard, 7)
    assert volume.database.value("SELECT count(*) FROM dead") == 0
    volume.catalog.remove_block(FILE, BlockNumber(11))
    assert volume.use() == [ShardUse(volume.shard, 150, 100, 10, None)], "nearly empty"
    volume.garbage.mark(volume.shard, 7)
    assert volume.database.value("SELECT count(*) FROM dead") == 0


def test_a_mark_stays_as_it_was_first(volume: Volume) -> None:
    volume.die()
    volume.garbage.mark(volume.shard, 9)
    volume.garbage.mark(77, 9)
    assert list(volume.database.rows("SELECT * FROM dead")) == [(volume.shard, 7)]
    assert volume.use() == [ShardUse(volume.shard, 150, 100, 0, 7)]


def test_a_dead_shard_goes_with_all_that_is_known_of_it(volume: Volume) -> None:
    other = volume.add(2)
    volume.die()
    volume.catalog.reach.distrust(volume.shard)
    assert volume.garbage.sweep(volume.shard, 7) == [(PieceId(bytes([1]) * 32), HOST)]
    assert volume.garbage.sweep(volume.shard, 7) == []
    for table in ("shard", "piece"):
        assert volume.database.value(f"SELECT count(*) FROM {table}") == 1  # noqa: S608 - constants
    assert [row[0] for row in volume.database.rows("SELECT DISTINCT shard FROM content")] == [other]
    assert not volume.catalog.reach.distrusted
    assert volume.database.value("SELECT count(*) FROM dead") == 0
    assert volume.add(3) > other, "a number is not given out twice in one run"


def test_an_unmarked_shard_never_goes(volume: Volume) -> None:
    volume.catalog.remove_blocks(FILE, BlockNumber(0), BlockNumber(100))
    assert volume.garbage.sweep(volume.shard, 99) == []


def test_not_before_a_version_without_it(volume: Volume) -> None:
    volume.die()
    assert volume.garbage.sweep(volume.shard, 6) == []


@pytest.mark.parametrize(("number", "last_shard", "goes"), [(6, 1, False), (7, 1, True), (6, 0, True), (1, 50, False)])
def test_a_retained_version_that_may_need_it_keeps_it(volume: Volume, number: int, last_shard: int, goes: bool) -> None:
    volume.die()
    volume.retain(number, last_shard)
    assert bool(volume.garbage.sweep(volume.shard, 7)) is goes


def test_what_a_file_or_a_retained_version_needs_is_told_from_the_rest(volume: Volume) -> None:
    def needed() -> tuple[bool, int]:
        volume.database.commit()
        return volume.garbage.may_be_needed(volume.shard), count_totals(volume.database.path, [volume.shard]).needed

    assert needed() == (True, 1)
    volume.catalog.remove_blocks(FILE, BlockNumber(0), BlockNumber(100))
    assert needed() == (False, 0)
    volume.retain(6, volume.shard)
    assert needed() == (True, 1)
    volume.garbage.mark(volume.shard, 6)
    assert needed() == (False, 0)


def test_bytes_that_are_written_again_bring_the_shard_back(volume: Volume) -> None:
    volume.die()
    (number, length) = volume.catalog.find_content([bytes([1, 0]) * 16])[bytes([1, 0]) * 16]
    volume.catalog.put_blocks([(FILE, BlockNumber(3), number, length)])
    assert volume.database.value("SELECT count(*) FROM dead") == 0, "a version from now on may need it"
    volume.database.write("INSERT INTO dead VALUES(?, 7)", (volume.shard,))
    assert volume.garbage.sweep(volume.shard, 7) == [], "what the blocks say counts in any case"


def test_content_moves_only_from_where_it_was_read(volume: Volume) -> None:
    other = volume.add(2)
    (first, _) = volume.garbage.live_contents(volume.shard)
    new = NewContent(first.digest, 40, first.length)
    assert not volume.catalog.repack_content(first.number, other, volume.shard, new)
    assert not volume.catalog.repack_content(first.number + 1, volume.shard, other, new)
    volume.database.write("INSERT INTO dead VALUES(?, 7)", (other,))
    assert volume.catalog.repack_content(first.number, volume.shard, other, new)
    assert volume.catalog.place(FILE, BlockNumber(10)) == (first.number, other, 40, 10)
    assert volume.database.value("SELECT count(*) FROM dead") == 0, "it is needed again"
