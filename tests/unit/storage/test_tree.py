"""Rows of inodes, names and attributes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layrfs.ids import ROOT_INODE, InodeNumber
from layrfs.storage.database import Database
from layrfs.storage.tree import NUMBERS_RESERVED, InodeRow, Tree


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "metadata.db")


@pytest.fixture
def database(path: str) -> Iterator[Database]:
    with Database(path) as opened:
        yield opened


@pytest.fixture
def tree(database: Database) -> Tree:
    return Tree(database)


def row(number: int, *, nlink: int = 1, target: bytes | None = None) -> InodeRow:
    return (number, 0o100644, 1, 2, nlink, 3, 4096, 0, 10, -20, 30, target)


def names(tree: Tree, directory: InodeNumber, after: int = 0) -> list[bytes]:
    return [listed.name for listed in tree.listing(directory, after, 1000)]


def test_inodes_come_back_as_saved(tree: Tree) -> None:
    rows = [row(2), row(3, target=b"\xff/x"), row(4, nlink=0)]
    tree.save(rows)
    assert [tree.load(InodeNumber(number)) for number in (2, 3, 4, 5)] == [*rows, None]
    assert tree.orphans() == [4]
    tree.save([row(2, nlink=7)])
    assert tree.load(InodeNumber(2)) == row(2, nlink=7)


def test_numbers_are_never_given_out_twice(path: str) -> None:
    given = []
    for _ in range(3):
        with Database(path) as database:
            tree = Tree(database)
            given += [tree.new_number() for _ in range(NUMBERS_RESERVED + 10)]
    assert len(set(given)) == len(given)
    assert ROOT_INODE not in given


def test_numbers_are_not_repeated_when_the_last_run_crashed(path: str) -> None:
    first = Database(path)
    number = Tree(first).new_number()
    first.commit()
    with Database(path) as second:
        assert Tree(second).new_number() > number
    first.close()


def test_names(tree: Tree) -> None:
    for number, name in enumerate([b"b", b"a", b"\xff\n", b"n" * 255], 2):
        tree.add(ROOT_INODE, name, InodeNumber(number))
    assert tree.find(ROOT_INODE, b"\xff\n") == 4
    assert tree.find(ROOT_INODE, b"c") is None
    assert names(tree, ROOT_INODE) == [b"b", b"a", b"\xff\n", b"n" * 255]
    tree.remove(ROOT_INODE, b"a")
    assert tree.find(ROOT_INODE, b"a") is None
    tree.move(ROOT_INODE, b"b", InodeNumber(9), b"c")
    assert tree.find(InodeNumber(9), b"c") == 2
    tree.repoint(InodeNumber(9), b"c", InodeNumber(5))
    assert tree.find(InodeNumber(9), b"c") == 5


def test_a_listing_goes_on_where_it_stopped_whatever_happened_meanwhile(tree: Tree) -> None:
    for number in range(100):
        tree.add(ROOT_INODE, b"%d" % number, InodeNumber(number + 2))
    (first,) = tree.listing(ROOT_INODE, 0, 1)
    assert tree.listing(ROOT_INODE, first.cookie, 2)[0].name == b"1"
    tree.remove(ROOT_INODE, first.name)
    tree.remove(ROOT_INODE, b"1")
    tree.add(ROOT_INODE, b"new", InodeNumber(200))
    rest = names(tree, ROOT_INODE, first.cookie)
    assert rest == [*(b"%d" % number for number in range(2, 100)), b"new"]


def test_the_saved_inodes_behind_a_listing(tree: Tree) -> None:
    for name, number in ((b"before", 4), (b"saved", 2), (b"not yet", 3), (b"after", 5)):
        tree.add(ROOT_INODE, name, InodeNumber(number))
    tree.save([row(2), row(4), row(5)])
    before, _saved, not_yet, _after = tree.listing(ROOT_INODE, 0, 10)
    assert tree.load_listed(ROOT_INODE, before.cookie, not_yet.cookie) == [row(2)]


def test_ways_up(tree: Tree) -> None:
    tree.add(ROOT_INODE, b"d", InodeNumber(2))
    tree.add(InodeNumber(2), b"e", InodeNumber(3))
    assert tree.parent_of(InodeNumber(3)) == 2
    assert tree.parent_of(ROOT_INODE) is None
    assert tree.path_of(InodeNumber(3)) == b"/d/e"
    assert tree.path_of(ROOT_INODE) == b"/"
    assert tree.path_of(InodeNumber(77)) is None
    assert not tree.is_empty(InodeNumber(2))
    assert tree.is_empty(InodeNumber(3))


def test_attributes_go_with_their_inode(tree: Tree) -> None:
    inode = InodeNumber(2)
    tree.save([row(2), row(3)])
    tree.set_attribute(inode, b"user.a", b"1")
    tree.set_attribute(inode, b"user.a", b"2")
    tree.set_attribute(inode, b"user.b", b"")
    tree.set_attribute(InodeNumber(3), b"user.a", b"other")
    assert tree.attribute(inode, b"user.a") == b"2"
    assert tree.attributes(inode) == {b"user.a": b"2", b"user.b": b""}
    tree.remove_attribute(inode, b"user.b")
    assert tree.attribute(inode, b"user.b") is None
    tree.delete(inode)
    assert tree.load(inode) is None
    assert tree.attributes(inode) == {}
    assert tree.attributes(InodeNumber(3)) == {b"user.a": b"other"}


def test_the_number_of_inodes_survives(path: str) -> None:
    with Database(path) as database:
        tree = Tree(database)
        tree.save([row(tree.new_number()) for _ in range(5)])
        tree.delete(InodeNumber(3))
        tree.save_count()
        assert tree.inode_count == 4
    with Database(path) as database:
        assert Tree(database).inode_count == 4


def test_stored_blocks_are_counted_once_wherever_they_are(tree: Tree, database: Database) -> None:
    database.write_many("INSERT INTO block VALUES(7, ?, 1, 100)", [(0,), (1,), (5,)])
    database.write_many("INSERT INTO local VALUES(7, ?, 1)", [(1,), (2,)])
    assert tree.stored_blocks(InodeNumber(7)) == 4
    assert tree.stored_blocks(InodeNumber(8)) == 0
