"""Reading the mount table, and what is no place to mount at."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from layrfs.cli.mountpoint import Mount, check_mountpoint, mounts, others_may_be_allowed, unmount, users_of
from layrfs.errors import BadMountpoint

TABLE = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
40 22 0:5 / /home/al/my\\040cloud rw,nosuid - fuse.layrfs layrfs:default rw,user_id=1000
41 22 0:6 / /mnt/back\\134slash\\011tab rw master:3 propagate_from:2 - fuse sshfs#x rw
"""


def test_the_mount_table(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(TABLE)
    assert mounts(str(tmp_path / "mountinfo")) == [
        Mount("/", "ext4", "/dev/vda1"),
        Mount("/home/al/my cloud", "fuse.layrfs", "layrfs:default"),
        Mount("/mnt/back\\slash\ttab", "fuse", "sshfs#x"),
    ]
    assert [mount.is_fuse for mount in mounts(str(tmp_path / "mountinfo"))] == [False, True, True]
    assert [mount.is_layrfs for mount in mounts(str(tmp_path / "mountinfo"))] == [False, True, False]


def test_places_to_mount_at(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    assert check_mountpoint(str(tmp_path / "empty")) == str(tmp_path / "empty")
    assert check_mountpoint(str(tmp_path / "link")) == str(tmp_path / "empty")
    with pytest.raises(BadMountpoint, match="not empty"):
        check_mountpoint(str(tmp_path))
    assert check_mountpoint(str(tmp_path), nonempty=True) == str(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BadMountpoint, match=os.strerror(errno.ELOOP)):
        check_mountpoint(str(tmp_path / "loop"))


def test_who_uses_a_directory(tmp_path: Path) -> None:
    assert users_of(str(tmp_path)) == []
    with open(tmp_path / "file", "wb"):
        assert any(f"({os.getpid()})" in user for user in users_of(str(tmp_path)))
    assert users_of(str(tmp_path)) == []


def test_unmounting_what_is_not_mounted_gives_the_reason(tmp_path: Path) -> None:
    with pytest.raises(BadMountpoint, match="cannot be unmounted: "):
        unmount(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "allowed"), [("user_allow_other\n", True), ("#user_allow_other\n", False), ("", False)]
)
def test_fuse_conf(tmp_path: Path, text: str, *, allowed: bool) -> None:
    (tmp_path / "fuse.conf").write_text(text)
    assert others_may_be_allowed(str(tmp_path / "fuse.conf")) is allowed
    assert not others_may_be_allowed(str(tmp_path / "none"))
