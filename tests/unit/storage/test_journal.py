from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layrfs.ids import BlockNumber, InodeNumber
from layrfs.storage.database import Database
from layrfs.storage.journal import BlockKey, Journal, Use

A, B = InodeNumber(10), InodeNumber(11)
FIRST = Use(InodeNumber(0), 0, -1)


def key(inode: int, block: int) -> BlockKey:
    return InodeNumber(inode), BlockNumber(block)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(f"{tmp_path}/metadata.db") as database:
        yield database


@pytest.fixture
def journal(database: Database) -> Journal:
    return Journal(database)


def test_dirty_and_clean_take_turns(journal: Journal) -> None:
    journal.mark_dirty(A, BlockNumber(3))
    journal.mark_dirty(A, BlockNumber(3))
    journal.mark_clean([key(A, 1)])
    assert journal.blocks(A) == [(1, 0), (3, 1)]
    assert journal.has_dirty(A)
    journal.mark_clean([key(A, 3)])
    assert not journal.has_dirty(A)
    assert journal.has_blocks(A)
    assert journal.last_block(A) == 3
    journal.forget([key(A, 1), key(A, 3)])
    assert not journal.has_blocks(A)


def test_queue_is_read_in_slices_in_order(journal: Journal) -> None:
    keys = [key(inode, block) for inode in range(5, 9) for block in range(4)]
    journal.mark_all_dirty(reversed(keys))
    journal.mark_clean([key(6, 2)])
    found: list[BlockKey] = []
    after = key(0, -1)
    while rows := journal.dirty_after(after, 3):
        found += rows
        after = rows[-1]
    assert found == [each for each in keys if each != key(6, 2)]
    assert journal.dirty_of(InodeNumber(6), BlockNumber(0), 10) == [key(6, 1), key(6, 3)]


def test_forget_range_leaves_the_rest(journal: Journal) -> None:
    journal.mark_all_dirty(key(A, block) for block in range(5))
    journal.forget_range(A, BlockNumber(1), BlockNumber(3))
    assert [block for block, _dirty in journal.blocks(A)] == [0, 3, 4]


def test_least_recently_used_comes_first(journal: Journal) -> None:
    journal.add_use([Use(InodeNumber(1), 100, 50), Use(InodeNumber(2), 100, 40), Use(InodeNumber(3), 0, 10)])
    assert journal.oldest(FIRST, 10) == [Use(InodeNumber(2), 100, 40), Use(InodeNumber(1), 100, 50)]
    journal.touch([(InodeNumber(2), 60)])
    journal.add_use([Use(InodeNumber(1), -40, 0)])
    assert journal.oldest(FIRST, 10) == [Use(InodeNumber(1), 60, 50), Use(InodeNumber(2), 100, 60)]
    assert journal.oldest(Use(InodeNumber(1), 60, 50), 10) == [Use(InodeNumber(2), 100, 60)]
    assert journal.clean_bytes() == 160
    assert journal.clean_bytes_of(InodeNumber(1)) == 60
    journal.forget_use([InodeNumber(1)])
    assert journal.clean_bytes() == 100


def test_clean_blocks_tell_the_length_of_valid_bytes(journal: Journal, database: Database) -> None:
    database.write_many("INSERT INTO block VALUES(10, ?, 1, ?)", [(0, 5), (1, 6)])
    journal.mark_clean([key(A, 0)])
    journal.mark_dirty(A, BlockNumber(1))
    assert journal.clean_blocks(A) == [(0, 5)]
    assert journal.clean_length(A, BlockNumber(0)) == 5
    assert journal.clean_length(A, BlockNumber(1)) == 0


def test_marks_and_rows_survive_reopening(tmp_path: Path) -> None:
    with Database(f"{tmp_path}/again.db") as database:
        journal = Journal(database)
        assert journal.mark("running") is None
        journal.set_mark("running", "boot")
        journal.mark_dirty(A, BlockNumber(0))
        journal.add_use([Use(B, 7, 1)])
    with Database(f"{tmp_path}/again.db") as database:
        journal = Journal(database)
        assert journal.mark("running") == "boot"
        assert list(journal.cached_inodes(InodeNumber(0), InodeNumber(1 << 62))) == [A]
        assert journal.oldest(FIRST, 1) == [Use(B, 7, 1)]


def test_orphans_are_rows_of_inodes_that_do_not_exist(journal: Journal, database: Database) -> None:
    database.write("INSERT INTO inode VALUES(10,0,0,0,1,77,65536,0,0,0,0,NULL)")
    database.write_many("INSERT INTO block VALUES(?, 0, 1, 5)", [(A,), (B,)])
    journal.mark_all_dirty([key(A, 0), key(B, 0)])
    journal.remove_orphans()
    assert list(journal.cached_inodes(InodeNumber(0), InodeNumber(1 << 62))) == [A]
    assert database.value("SELECT count(*) FROM block") == 1
    assert journal.size_of(A) == 77
    assert journal.size_of(B) == 0
    assert journal.sizes_between(InodeNumber(0), InodeNumber(4096)).keys() == {A}
