"""Files without names get a directory, whatever the volume has already."""

from __future__ import annotations

from pathlib import Path

import pytest

from layrfs.ids import ROOT_INODE, InodeNumber
from layrfs.policy.rescuing import RescuedFile
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.lost_found import LostFound
from layrfs.storage.tree import Tree

FILE = RescuedFile("42", 65536, 65536 + 7, 1_800_000_000, ((0, 5, 65536), (1, 6, 7)))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "metadata.db")


def names(database: Database, directory: InodeNumber) -> dict[bytes, InodeNumber]:
    return dict(database.rows("SELECT name, inode FROM entry WHERE parent = ?", (directory,)))


def test_an_empty_volume_gets_a_root_and_the_directory(path: str) -> None:
    with Database(path) as database:
        LostFound(database).add(FILE)
    with Database(path) as database:
        tree = Tree(database)
        (directory,) = names(database, ROOT_INODE).values()
        assert names(database, ROOT_INODE) == {b"lost+found": directory}
        (file,) = names(database, directory).values()
        root, row = tree.load(ROOT_INODE), tree.load(file)
        assert root is not None
        assert row is not None
        assert root[4] == 3, "a directory in it"
        assert (row[4], row[5], row[6], row[9]) == (1, 65536 + 7, 65536, 1_800_000_000 * 10**9)
        assert Catalog(database).block_numbers(file) == [0, 1]
        assert tree.inode_count == 3
        assert tree.new_number() > file


def test_names_that_are_taken_stay(path: str) -> None:
    with Database(path) as database:
        first, second, third = LostFound(database), LostFound(database), LostFound(database)
        assert (first.name, second.name, third.name) == (b"lost+found", b"lost+found-2", b"lost+found-3")
        third.add(FILE)
        assert len(names(database, ROOT_INODE)) == 3
