"""Extended attributes: which names exist, who sees them, and policies that directories pass on."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from layrfs.errors import InvalidArgument, NameTooLong, NoAttribute, NotPermitted, NotSupported, UsageError
from layrfs.ids import InodeNumber
from layrfs.model.redundancy import Redundancy
from layrfs.storage.database import Database
from layrfs.storage.tree import Tree
from layrfs.vfs.inodes import Inode, Inodes
from layrfs.vfs.policies import Policies
from layrfs.vfs.xattrs import ExtendedAttributes


class Parts:
    def __init__(self, database: Database) -> None:
        self.database = database
        tree = Tree(database)
        self.inodes = Inodes(tree)
        self.policies = Policies(tree, self.inodes)
        answers = {b"user.layrfs.state": lambda inode: b"safe %d" % inode}
        self.xattrs = ExtendedAttributes(tree, self.inodes, self.policies, answers)

    def make(self, kind: int = stat.S_IFREG) -> Inode:
        inode = self.inodes.new(mode=kind | 0o644, uid=0, gid=0)
        self.inodes.changed(inode)
        return inode


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with Database(str(tmp_path / "metadata.db")) as database:
        yield Parts(database)


def test_set_get_list_remove(parts: Parts) -> None:
    xattrs, number = parts.xattrs, parts.make().number
    assert xattrs.names(number, privileged=True) == []
    xattrs.set(number, b"user.a", b"1")
    xattrs.set(number, b"trusted.b", b"")
    assert xattrs.get(number, b"user.a") == b"1"
    assert sorted(xattrs.names(number, privileged=True)) == [b"trusted.b", b"user.a"]
    assert xattrs.names(number, privileged=False) == [b"user.a"]
    xattrs.remove(number, b"user.a")
    for call in (lambda: xattrs.get(number, b"user.a"), lambda: xattrs.remove(number, b"user.a")):
        with pytest.raises(NoAttribute):
            call()


def test_a_file_without_attributes_is_asked_about_without_the_database(parts: Parts) -> None:
    number = parts.make().number
    parts.database.write("INSERT INTO attribute VALUES(?, ?, ?)", (number, b"user.behind our back", b""))
    with pytest.raises(NoAttribute):
        parts.xattrs.get(number, b"user.behind our back")


def test_changing_an_attribute_changes_ctime(parts: Parts) -> None:
    inode = parts.make()
    for change in (
        lambda: parts.xattrs.set(inode.number, b"user.a", b""),
        lambda: parts.xattrs.remove(inode.number, b"user.a"),
    ):
        inode.ctime_ns = 0
        change()
        assert inode.ctime_ns > 0


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        (b"system.posix_acl_access", b"", NotSupported),
        (b"system.posix_acl_default", b"", NotSupported),
        (b"nonsense", b"", NotSupported),
        (b"user.", b"", InvalidArgument),
        (b"user." + b"n" * 251, b"", NameTooLong),
        (b"user.a", bytes(65537), InvalidArgument),
        (b"user.layrfs.state", b"safe", NotPermitted),
        (b"user.layrfs.unknown", b"", NotPermitted),
        (b"user.layrfs.redundancy", b"mirror:0", UsageError),
        (b"user.layrfs.sharding", b"\xff", UsageError),
    ],
)
def test_what_cannot_be_set(parts: Parts, name: bytes, value: bytes, error: type[Exception]) -> None:
    number = parts.make().number
    with pytest.raises(error):
        parts.xattrs.set(number, name, value)
    assert parts.database.value("SELECT count(*) FROM attribute") == 0


def test_answers_are_given_by_name_and_never_listed(parts: Parts) -> None:
    number = parts.make().number
    assert parts.xattrs.get(number, b"user.layrfs.state") == b"safe %d" % number
    assert parts.xattrs.names(number, privileged=True) == []
    with pytest.raises(NoAttribute):
        parts.xattrs.get(number, b"user.layrfs.unknown")
    with pytest.raises(NotPermitted):
        parts.xattrs.remove(number, b"user.layrfs.state")


def test_policies_pass_from_directory_to_directory_to_file(parts: Parts) -> None:
    top, below, file = parts.make(stat.S_IFDIR), parts.make(stat.S_IFDIR), parts.make()
    parts.xattrs.set(top.number, b"user.layrfs.redundancy", b" mirror:2 ")
    parts.xattrs.set(top.number, b"user.layrfs.sharding", b"size:64K")
    parts.policies.inherit(top, below)
    parts.policies.inherit(below, file)
    assert parts.policies.redundancy_of(file.number) == Redundancy(1, 2)
    assert parts.xattrs.get(file.number, b"user.layrfs.redundancy") == b"mirror:2"
    assert file.block_bytes == 65536
    assert parts.xattrs.names(file.number, privileged=True) == []
    parts.xattrs.remove(file.number, b"user.layrfs.redundancy")
    assert parts.policies.redundancy_of(file.number) == Redundancy(1, 3)


def test_a_directory_without_policies_passes_nothing_on(parts: Parts) -> None:
    top, file = parts.make(stat.S_IFDIR), parts.make()
    parts.xattrs.set(top.number, b"user.mine", b"x")
    parts.policies.inherit(top, file)
    assert parts.xattrs.names(file.number, privileged=True) == []
    assert file.has_attributes is False


def test_a_constant_number_of_shards_is_decided_when_the_size_is_known(parts: Parts) -> None:
    file = parts.make()
    parts.xattrs.set(file.number, b"user.layrfs.sharding", b"count:8")
    file.size = 8 << 20
    assert parts.policies.fix_block_bytes(file.number) == 1 << 20
    assert parts.inodes.block_bytes_of(file.number) == 1 << 20


def test_sharding_of_a_file_with_content_is_settled(parts: Parts) -> None:
    file = parts.make()
    file.size = 1
    with pytest.raises(InvalidArgument, match="empty file"):
        parts.xattrs.set(file.number, b"user.layrfs.sharding", b"size:64K")


def test_nothing_is_known_of_what_does_not_exist(parts: Parts) -> None:
    for call in (parts.policies.redundancy_of, parts.policies.sharding_of, parts.policies.fix_block_bytes):
        with pytest.raises(Exception, match="no inode"):
            call(InodeNumber(99))
