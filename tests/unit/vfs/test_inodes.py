"""The cache of inodes."""

from __future__ import annotations

import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from layrfs.errors import NotFound
from layrfs.ids import ROOT_INODE, InodeNumber
from layrfs.storage.database import Database
from layrfs.storage.tree import Tree
from layrfs.vfs.inodes import FLUSH_AT, Inode, Inodes


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(str(tmp_path / "metadata.db")) as opened:
        yield opened


def make(inodes: Inodes, count: int) -> list[InodeNumber]:
    made = []
    for number in range(count):
        inode = inodes.new(mode=stat.S_IFREG | 0o644, uid=number, gid=0)
        inode.size = number
        inodes.changed(inode)
        made.append(inode.number)
    return made


def test_an_inode_in_memory_is_one_object_and_asks_no_database(database: Database) -> None:
    inodes = Inodes(Tree(database))
    (number,) = make(inodes, 1)
    assert inodes.get(number) is inodes.get(number)
    inodes.flush()
    database.write("DELETE FROM inode")
    assert inodes.get(number).uid == 0


def test_evicted_inodes_come_back_as_they_were(database: Database) -> None:
    inodes = Inodes(Tree(database), capacity=100)
    numbers = make(inodes, 1000)
    assert len(inodes._cached) < 200
    for number in random.Random(1).sample(numbers, 1000):
        inode = inodes.get(number)
        assert inode.uid == inode.size == numbers.index(number)


def test_changes_are_not_lost_by_eviction(database: Database) -> None:
    inodes = Inodes(Tree(database), capacity=20)
    numbers = make(inodes, 500)
    for turn in range(3):
        for number in numbers:
            inode = inodes.get(number)
            inode.size += 10
            inodes.changed(inode)
        assert {inodes.get(number).size - index for index, number in enumerate(numbers)} == {10 * (turn + 1)}


def test_flush_writes_what_changed_and_only_that(database: Database) -> None:
    inodes = Inodes(Tree(database))
    numbers = make(inodes, 3)
    inodes.flush()
    inodes.get(numbers[0]).size = 77
    inodes.get(numbers[1]).size = 88
    inodes.changed(inodes.get(numbers[1]))
    inodes.flush()
    saved = dict(database.rows("SELECT number, size FROM inode"))
    assert saved == {numbers[0]: 0, numbers[1]: 88, numbers[2]: 2}


def test_many_changes_do_not_wait_for_the_commit(database: Database) -> None:
    inodes = Inodes(Tree(database))
    make(inodes, FLUSH_AT + 1)
    assert database.value("SELECT count(*) FROM inode") >= FLUSH_AT


def test_a_deleted_inode_is_gone(database: Database) -> None:
    inodes = Inodes(Tree(database))
    (number,) = make(inodes, 1)
    inodes.delete(inodes.get(number))
    inodes.flush()
    with pytest.raises(NotFound):
        inodes.get(number)


def test_a_row_of_a_listing_never_hides_what_is_newer_in_memory(database: Database) -> None:
    inodes = Inodes(Tree(database))
    (number,) = make(inodes, 1)
    row = inodes.get(number).row()
    inodes.get(number).size = 5
    inodes.keep([row])
    assert inodes.get(number).size == 5


def test_what_listings_bring_is_bounded_and_loses_no_change(database: Database) -> None:
    inodes = Inodes(Tree(database), capacity=10)
    numbers = make(inodes, 300)
    inodes.flush()
    changed = inodes.get(numbers[0])
    changed.size = 7
    inodes.changed(changed)
    for number in numbers[1:]:
        row = Tree(database).load(number)
        assert row is not None
        inodes.keep([row])
    assert inodes.has(numbers[-1])
    assert not inodes.has(numbers[0])
    assert inodes.get(numbers[0]).size == 7


def test_a_change_takes_back_what_a_front_end_made_of_the_inode(database: Database) -> None:
    inodes = Inodes(Tree(database))
    inode = inodes.get(make(inodes, 1)[0])
    inode.shown, inode.listed = "exactly", "about"
    inodes.changed(inode)
    assert inode.shown is None
    assert inode.listed is None


def test_the_root_is_its_own_parent_by_count(database: Database) -> None:
    tree = Tree(database)
    root = Inodes(tree).make_root(mode=stat.S_IFDIR | 0o755, uid=1, gid=2)
    assert (root.number, root.nlink, root.uid, root.is_directory) == (ROOT_INODE, 2, 1, True)
    assert tree.inode_count == 1


def test_a_row_makes_the_inode_it_came_from() -> None:
    row = (7, stat.S_IFLNK | 0o777, 1, 2, 3, 4, 4096, 0, -5, 6, 7, b"target")
    assert Inode(row).row() == row
