"""Names against a model: every operation, the link counts and the listing, whatever the order."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from layrfs.errors import FileError, InvalidArgument, NameTooLong, NotFound
from layrfs.ids import ROOT_INODE, InodeNumber
from layrfs.storage.database import Database
from layrfs.storage.tree import Tree
from layrfs.vfs.directories import Directories
from layrfs.vfs.inodes import Inode, Inodes

NAMES = st.sampled_from([b"a", b"b", b"c", b"\xff"])
Path = tuple[bytes, ...]
ANY: st.SearchStrategy[Path] = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
WHERE = st.one_of(ANY, st.integers(0, 100), st.integers(0, 100), st.tuples(st.integers(0, 100), NAMES))
"""A path, or an existing one by number, or a name in an existing directory by number."""

Where = Path | int | tuple[int, bytes]


class Model:
    """A tree of dictionaries; files are numbers."""

    def __init__(self) -> None:
        self.root: dict[bytes, Any] = {}

    def at(self, path: Path) -> Any:
        found: Any = self.root
        for name in path:
            if not isinstance(found, dict):
                raise TypeError("ENOTDIR")
            if name not in found:
                raise KeyError("ENOENT")
            found = found[name]
        return found

    def paths(self, directory: dict[bytes, Any] | None = None, above: Path = ()) -> list[Path]:
        """Every path there is."""
        found: list[Path] = []
        for name, thing in (self.root if directory is None else directory).items():
            found.append((*above, name))
            if isinstance(thing, dict):
                found += self.paths(thing, (*above, name))
        return found

    def directory(self, path: Path) -> dict[bytes, Any]:
        found = self.at(path)
        if not isinstance(found, dict):
            raise TypeError("ENOTDIR")
        return found


class Names(RuleBasedStateMachine):
    """The same calls to ``Directories`` and to the model."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.database = Database(f"{self.directory.name}/metadata.db")
        self.tree = Tree(self.database)
        self.inodes = Inodes(self.tree, capacity=16)
        self.directories = Directories(self.tree, self.inodes)
        self.inodes.make_root(mode=stat.S_IFDIR | 0o755, uid=0, gid=0)
        self.model = Model()

    def teardown(self) -> None:
        self.database.close()
        self.directory.cleanup()

    def number_of(self, path: Path) -> InodeNumber:
        number = ROOT_INODE
        for name in path:
            inode = self.directories.find(number, name)
            if inode is None:
                raise NotFound("no such name")
            number = inode.number
        return number

    def path(self, where: Where) -> Path:
        """What the strategy meant, with the names there are now."""
        if isinstance(where, int):
            paths = self.model.paths()
            return paths[where % len(paths)] if paths else (b"a",)
        if where and isinstance(where[0], int):
            directories = [(), *(path for path in self.model.paths() if isinstance(self.model.at(path), dict))]
            return (*directories[where[0] % len(directories)], where[1])
        return where

    def both(self, real: Callable[[], object], model: Callable[[], object]) -> None:
        """Either both succeed or both fail."""
        failures = []
        for call in (real, model):
            try:
                call()
                failures.append(False)
            except (FileError, KeyError, TypeError, ValueError):
                failures.append(True)
        assert failures[0] == failures[1], f"the real one {'failed' if failures[0] else 'went through'}"

    def make(self, path: Path, kind: int) -> Inode:
        parent = self.directories.check_new(self.number_of(path[:-1]), path[-1])
        inode = self.inodes.new(mode=kind | 0o644, uid=0, gid=0)
        self.directories.add(parent, path[-1], inode)
        return inode

    def model_make(self, path: Path, thing: object) -> None:
        parent = self.model.directory(path[:-1])
        if path[-1] in parent:
            raise ValueError("EEXIST")
        parent[path[-1]] = thing

    @rule(where=WHERE)
    def create(self, where: Where) -> None:
        path = self.path(where)

        made: list[object] = []
        self.both(
            lambda: made.append(self.make(path, stat.S_IFREG).number),
            lambda: self.model_make(path, made[0] if made else None),
        )

    @rule(where=WHERE)
    def mkdir(self, where: Where) -> None:
        path = self.path(where)

        self.both(lambda: self.make(path, stat.S_IFDIR), lambda: self.model_make(path, {}))

    @rule(where=WHERE)
    def unlink(self, where: Where) -> None:
        path = self.path(where)

        def model() -> None:
            if isinstance(self.model.at(path), dict):
                raise TypeError("EISDIR")
            del self.model.at(path[:-1])[path[-1]]

        self.both(lambda: self.directories.unlink(self.number_of(path[:-1]), path[-1]), model)

    @rule(where=WHERE)
    def rmdir(self, where: Where) -> None:
        path = self.path(where)

        def model() -> None:
            if self.model.directory(path):
                raise ValueError("ENOTEMPTY")
            del self.model.at(path[:-1])[path[-1]]

        self.both(lambda: self.directories.rmdir(self.number_of(path[:-1]), path[-1]), model)

    @rule(where=WHERE, there=WHERE)
    def link(self, where: Where, there: Where) -> None:
        path, new = self.path(where), self.path(there)

        def model() -> None:
            thing = self.model.at(path)
            if isinstance(thing, dict):
                raise TypeError("EPERM")
            self.model_make(new, thing)

        self.both(lambda: self.directories.link(self.number_of(path), self.number_of(new[:-1]), new[-1]), model)

    @rule(where=WHERE, there=WHERE, replace=st.booleans())
    def rename(self, where: Where, there: Where, replace: bool) -> None:
        path, new = self.path(where), self.path(there)

        def real() -> None:
            parents = self.number_of(path[:-1]), self.number_of(new[:-1])
            self.directories.rename(parents[0], path[-1], parents[1], new[-1], replace=replace)

        self.both(real, lambda: self.model_rename(path, new, replace))

    def model_rename(self, path: Path, new: Path, replace: bool) -> None:
        thing, parent = self.model.at(path), self.model.directory(new[:-1])
        target = parent.get(new[-1])
        if target is not None and not replace:
            raise ValueError("EEXIST")
        if target is not None and (target is thing or (not isinstance(thing, dict) and target == thing)):
            return
        if isinstance(thing, dict) and new[: len(path)] == path:
            raise ValueError("EINVAL")
        if target is not None and isinstance(thing, dict) != isinstance(target, dict):
            raise TypeError("EISDIR or ENOTDIR")
        if isinstance(target, dict) and target:
            raise ValueError("ENOTEMPTY")
        del self.model.at(path[:-1])[path[-1]]
        parent[new[-1]] = thing

    @rule(where=WHERE, there=WHERE)
    def exchange(self, where: Where, there: Where) -> None:
        path, new = self.path(where), self.path(there)

        def real() -> None:
            parents = self.number_of(path[:-1]), self.number_of(new[:-1])
            self.directories.exchange(parents[0], path[-1], parents[1], new[-1])

        def model() -> None:
            thing, other = self.model.at(path), self.model.at(new)
            inside = (new[: len(path)] == path and isinstance(thing, dict)) or (
                path[: len(new)] == new and isinstance(other, dict)
            )
            if inside and path != new:
                raise ValueError("EINVAL")
            self.model.at(path[:-1])[path[-1]], self.model.at(new[:-1])[new[-1]] = other, thing

        self.both(real, model)

    @rule()
    def commit(self) -> None:
        self.inodes.flush()
        self.database.commit()

    @invariant()
    def the_same_tree_with_the_right_link_counts(self) -> None:
        files: dict[int, int] = {}
        self.compare(ROOT_INODE, self.model.root, files)
        for number, links in files.items():
            assert self.inodes.get(InodeNumber(number)).nlink == links

    def compare(self, number: InodeNumber, model: dict[bytes, Any], files: dict[int, int]) -> None:
        listed = {line.name: line.inode.number for line in list(self.directories.listing(number, 0))[2:]}
        assert listed.keys() == model.keys()
        subdirectories = sum(isinstance(thing, dict) for thing in model.values())
        assert self.inodes.get(number).nlink == 2 + subdirectories
        for name, thing in model.items():
            if isinstance(thing, dict):
                assert self.directories.parent_of(listed[name]) == number
                self.compare(listed[name], thing, files)
            else:
                assert listed[name] == thing
                files[thing] = files.get(thing, 0) + 1


TestNames = Names.TestCase
TestNames.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)


def test_link_counts_after_replacing_and_exchanging(tmp_path: Any) -> None:
    with Database(str(tmp_path / "metadata.db")) as database:
        tree = Tree(database)
        inodes = Inodes(tree)
        root = inodes.make_root(mode=stat.S_IFDIR | 0o755, uid=0, gid=0)
        directories = Directories(tree, inodes)
        file, other, inside = (
            inodes.new(mode=kind, uid=0, gid=0) for kind in (stat.S_IFREG, stat.S_IFREG, stat.S_IFDIR)
        )
        directories.add(root, b"file", file)
        directories.link(file.number, ROOT_INODE, b"second")
        directories.add(root, b"other", other)
        directories.add(root, b"d", inside)
        directories.rename(ROOT_INODE, b"other", ROOT_INODE, b"second")
        assert file.nlink == 1
        deep = inodes.new(mode=stat.S_IFDIR, uid=0, gid=0)
        directories.add(inside, b"deep", deep)
        assert (root.nlink, inside.nlink) == (3, 3)
        directories.exchange(ROOT_INODE, b"file", inside.number, b"deep")
        assert (root.nlink, inside.nlink) == (4, 2)
        with pytest.raises(InvalidArgument):
            directories.exchange(ROOT_INODE, b"second", ROOT_INODE, b"..")


@pytest.fixture
def directories(tmp_path: Any) -> Directories:
    tree = Tree(Database(str(tmp_path / "metadata.db")))
    inodes = Inodes(tree)
    inodes.make_root(mode=stat.S_IFDIR | 0o755, uid=0, gid=0)
    return Directories(tree, inodes)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b"])
def test_what_cannot_be_a_name(directories: Directories, name: bytes) -> None:
    with pytest.raises(InvalidArgument):
        directories.check_new(ROOT_INODE, name)


def test_a_name_of_256_bytes_is_too_long_even_to_look_for(directories: Directories) -> None:
    assert directories.find(ROOT_INODE, b"n" * 255) is None
    with pytest.raises(NameTooLong):
        directories.find(ROOT_INODE, b"n" * 256)


def test_dots_are_found_though_nobody_made_them(directories: Directories) -> None:
    for name in (b".", b".."):
        found = directories.find(ROOT_INODE, name)
        assert found is not None
        assert found.number == ROOT_INODE
