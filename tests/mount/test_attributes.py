"""Modes, owners, times, extended attributes and sizes on a real mount."""

# ruff: noqa: S103 - modes are what is tested

from __future__ import annotations

import errno
import mmap
import os
import stat
import subprocess
from collections.abc import Callable

import pytest

from tests.drive import Drive
from tests.mount.test_namespace import fails, read, write

root = pytest.mark.skipif(os.getuid() != 0, reason="needs root")

NOBODY = 65534


def as_nobody(place: str, call: Callable[[], object]) -> int:
    """Do it in a directory as a user without privileges; the errno it ended with, 0 when all went well."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 255
    try:
        os.chdir(place)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        call()
        code = 0
    except OSError as error:
        code = error.errno or 255
    finally:
        os._exit(code)


def overwrite(path: str) -> None:
    with open(path, "r+b") as file:
        file.write(b"y")


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@root
def test_permission_bits_count(place: str) -> None:
    write(f"{place}/secret", b"x")
    os.chmod(f"{place}/secret", 0o600)
    assert as_nobody(place, lambda: read("secret")) == errno.EACCES
    assert as_nobody(place, lambda: os.unlink("secret")) == errno.EACCES
    assert as_nobody(place, lambda: os.chmod("secret", 0o777)) == errno.EPERM
    os.chmod(f"{place}/secret", 0o604)
    assert as_nobody(place, lambda: read("secret")) == 0


@root
def test_a_sticky_directory_protects_others_files(place: str) -> None:
    os.chmod(place, 0o1777)
    write(f"{place}/mine")
    assert as_nobody(place, lambda: os.unlink("mine")) == errno.EPERM
    assert as_nobody(place, lambda: os.rename("mine", "yours")) == errno.EPERM
    assert as_nobody(place, lambda: os.unlink(write("theirs"))) == 0


@root
def test_a_setgid_directory_passes_its_group_on(place: str) -> None:
    os.chown(place, -1, 4242)
    os.chmod(place, 0o2777)
    os.mkdir(f"{place}/directory")
    write(f"{place}/file")
    os.symlink("x", f"{place}/link")
    assert {os.lstat(f"{place}/{name}").st_gid for name in ("directory", "file", "link")} == {4242}
    assert mode_of(f"{place}/directory") & stat.S_ISGID
    assert not mode_of(f"{place}/file") & stat.S_ISGID


@root
@pytest.mark.parametrize("change", ["write", "truncate", "chown", "grow"])
def test_setuid_is_lost_when_the_file_changes(place: str, change: str) -> None:
    path = write(f"{place}/program", b"x" * 10)
    os.chmod(path, 0o6777)
    os.chmod(place, 0o777)
    assert mode_of(path) == 0o6777
    calls = {
        "write": lambda: overwrite("program"),
        "truncate": lambda: os.truncate("program", 3),
        "grow": lambda: os.truncate("program", 30),
        "chown": lambda: None,
    }
    assert as_nobody(place, calls[change]) == 0
    if change == "chown":
        os.chown(path, NOBODY, NOBODY)
    assert mode_of(path) == 0o777


@root
def test_setuid_survives_a_copy_with_all_its_attributes(place: str) -> None:
    source = write(f"{place}/source", b"x" * 100_000)
    os.chmod(source, 0o4755)
    os.utime(source, ns=(10**18, 10**18 + 1))
    subprocess.run(["cp", "-a", source, f"{place}/copy"], check=True)
    subprocess.run(["sync", "-f", place], check=True)
    assert mode_of(f"{place}/copy") == 0o4755
    assert os.stat(f"{place}/copy").st_mtime_ns == 10**18 + 1


def test_times_have_nanoseconds_and_any_year(place: str) -> None:
    path = write(f"{place}/file")
    for time in (0, 1, -1, -(10**9) * 86400 * 365 * 60 - 7, 2**31 * 10**9 + 1, 10**9 * 2**33 + 999_999_999):
        os.utime(path, ns=(time + 5, time))
        assert (os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns) == (time + 5, time)


def test_a_time_set_stays_whatever_the_kernel_still_had_to_write(mounted: Drive, place: str) -> None:
    """What rsync and tar rely on: the data arrives after the time was set."""
    paths = []
    for number in range(50):
        path = f"{place}/{number}"
        with open(path, "wb", buffering=0) as file:
            file.write(b"x" * 5000)
            os.utime(path, ns=(number, 10**18 + number))
        paths.append(path)
    assert [os.stat(path).st_mtime_ns for path in paths] == [10**18 + number for number in range(50)]
    mounted.remount()
    assert [os.stat(path).st_mtime_ns for path in paths] == [10**18 + number for number in range(50)]


def test_writing_changes_the_times(place: str) -> None:
    path = write(f"{place}/file", b"x")
    os.utime(path, ns=(1, 1))
    with open(path, "ab") as file:
        file.write(b"y")
    assert os.stat(path).st_mtime_ns > 10**18
    os.utime(path, ns=(1, 1))
    os.truncate(path, 0)
    assert os.stat(path).st_mtime_ns > 10**18
    os.utime(place, ns=(1, 1))
    os.rename(path, path + "2")
    assert os.stat(place).st_mtime_ns > 10**18


def test_append_from_two_handles(place: str) -> None:
    path = f"{place}/log"
    with open(path, "ab", buffering=0) as first, open(path, "ab", buffering=0) as second:
        for turn in range(100):
            first.write(b"first %d\n" % turn)
            second.write(b"second %d\n" % turn)
    assert read(path) == b"".join(b"first %d\nsecond %d\n" % (turn, turn) for turn in range(100))


def test_open_with_truncation(place: str) -> None:
    path = write(f"{place}/file", b"x" * 10_000)
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    assert os.stat(path).st_size == 0
    assert read(path) == b""


def test_truncating_both_ways_leaves_zeros(place: str) -> None:
    path = write(f"{place}/file", b"x" * 10_000)
    os.truncate(path, 5000)
    os.truncate(path, 12_000)
    assert read(path) == b"x" * 5000 + bytes(7000)


def test_sparse_files_take_little_room(place: str) -> None:
    path = f"{place}/sparse"
    with open(path, "wb") as file:
        file.truncate(1 << 41)
        assert os.fstat(file.fileno()).st_blocks == 0
        os.pwrite(file.fileno(), b"far away", (1 << 41) - 8)
    assert os.stat(path).st_size == 1 << 41
    assert 0 < os.stat(path).st_blocks * 512 <= 8 << 20
    with open(path, "rb") as file:
        assert os.pread(file.fileno(), 100, (1 << 41) - 8) == b"far away"
        assert os.pread(file.fileno(), 100, 1 << 40) == bytes(100)


def test_a_size_of_almost_2_to_63(place: str) -> None:
    path = write(f"{place}/huge")
    os.truncate(path, 2**63 - 1)
    assert os.stat(path).st_size == 2**63 - 1
    with open(path, "rb") as file:
        assert os.pread(file.fileno(), 10, 2**63 - 4096) == bytes(10)
    os.truncate(path, 0)


def test_a_write_the_local_disk_cannot_address(place: str) -> None:
    path = write(f"{place}/huge", b"fine")
    with open(path, "r+b", buffering=0) as file, pytest.raises(OSError) as caught:  # noqa: PT011, PT012
        os.pwrite(file.fileno(), b"x", 2**62)
        os.fsync(file.fileno())
    assert caught.value.errno in {errno.EFBIG, errno.EIO, errno.ENOSPC}
    subprocess.run(["sync", "-f", place], check=False, capture_output=True)  # takes the error note of the whole mount
    os.truncate(path, 4)
    assert read(path) == b"fine"


def test_a_shared_mapping_reaches_the_file(place: str) -> None:
    path = write(f"{place}/file", bytes(100_000))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[50_000:50_005] = b"hello"
        assert os.pread(file.fileno(), 5, 50_000) == b"hello"
        mapping.flush()
    assert read(path)[50_000:50_005] == b"hello"


@root
def test_extended_attributes(mounted: Drive, place: str) -> None:
    path = write(f"{place}/file")
    os.setxattr(path, "user.a", b"1")
    os.setxattr(path, "trusted.t", b"2")
    os.setxattr(path, "security.s", b"3")
    os.setxattr(path, "user.empty", b"")
    os.setxattr(path, "user.long", b"x" * 65536)
    assert sorted(os.listxattr(path)) == ["security.s", "trusted.t", "user.a", "user.empty", "user.long"]
    fails(errno.EEXIST, lambda: os.setxattr(path, "user.a", b"", os.XATTR_CREATE))
    fails(errno.ENODATA, lambda: os.setxattr(path, "user.b", b"", os.XATTR_REPLACE))
    fails(errno.EOPNOTSUPP, lambda: os.setxattr(path, "unknown.a", b""))
    fails(errno.EOPNOTSUPP, lambda: os.setxattr(path, "system.posix_acl_access", b"\2\0\0\0"))
    fails(errno.ENODATA, lambda: os.getxattr(path, "user.b"))
    os.removexattr(path, "user.a")
    fails(errno.ENODATA, lambda: os.removexattr(path, "user.a"))
    mounted.remount()
    assert os.getxattr(path, "user.long") == b"x" * 65536
    assert os.getxattr(path, "trusted.t") == b"2"
    os.chmod(path, 0o666)
    assert as_nobody(place, lambda: os._exit("trusted.t" in os.listxattr("file"))) == 0


def test_our_own_attributes_answer_but_are_not_listed(place: str) -> None:
    path = write(f"{place}/file", b"x")
    assert os.getxattr(path, "user.layrfs.redundancy") == b"mirror:3"
    assert os.getxattr(path, "user.layrfs.sharding") == b"size:4M"
    assert os.getxattr(path, "user.layrfs.state") in {b"cached", b"uploading", b"safe", b"degraded"}
    assert os.listxattr(path) == []
    fails(errno.EPERM, lambda: os.setxattr(path, "user.layrfs.state", b"safe"))
    fails(errno.ENODATA, lambda: os.getxattr(path, "user.layrfs.nothing"))


def test_policies_are_inherited_by_what_is_new(place: str) -> None:
    write(f"{place}/before")
    os.setxattr(place, "user.layrfs.redundancy", b"mirror:2")
    os.setxattr(place, "user.layrfs.sharding", b"size:64K")
    os.mkdir(f"{place}/d")
    path = write(f"{place}/d/file", b"x")
    assert os.getxattr(path, "user.layrfs.redundancy") == b"mirror:2"
    assert os.getxattr(path, "user.layrfs.sharding") == b"size:64K"
    assert os.getxattr(f"{place}/before", "user.layrfs.redundancy") == b"mirror:3"
    fails(errno.EINVAL, lambda: os.setxattr(place, "user.layrfs.redundancy", b"mirror:0"))
    fails(errno.EINVAL, lambda: os.setxattr(path, "user.layrfs.sharding", b"size:4M"))
    os.removexattr(place, "user.layrfs.redundancy")
    assert os.getxattr(place, "user.layrfs.redundancy") == b"mirror:3"
    assert os.listxattr(place) == []


def test_statfs_makes_sense(place: str) -> None:
    found = os.statvfs(place)
    assert found.f_bsize == found.f_frsize == 4096
    assert 0 < found.f_bavail <= found.f_bfree <= found.f_blocks
    before = found.f_files - found.f_ffree
    write(f"{place}/one more")
    found = os.statvfs(place)
    assert found.f_files - found.f_ffree == before + 1
    assert 0 < found.f_ffree < found.f_files


def test_fsync_of_files_and_directories(place: str) -> None:
    path = write(f"{place}/file", b"x" * 100)
    for target, flags in ((path, os.O_RDWR), (place, os.O_RDONLY | os.O_DIRECTORY)):
        handle = os.open(target, flags)
        os.fsync(handle)
        os.fdatasync(handle)
        os.close(handle)


def test_what_was_fsynced_survives_kill_9(mounted: Drive, place: str) -> None:
    for number in range(20):
        path = f"{place}/{number}"
        with open(path, "wb") as file:
            file.write(b"%d" % number * 10_000)
            file.flush()
            os.fsync(file.fileno())
        os.setxattr(path, "user.number", b"%d" % number)
        os.chmod(path, 0o640)
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(handle)
    os.close(handle)
    mounted.crash()
    mounted.mount()
    for number in range(20):
        path = f"{place}/{number}"
        assert read(path) == b"%d" % number * 10_000
        assert os.getxattr(path, "user.number") == b"%d" % number
        assert mode_of(path) == 0o640


def test_the_mount_table_says_what_it_is(mounted: Drive) -> None:
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        line = next(line for line in lines if line.split()[4] == mounted.path)
    kind, source = line.split(" - ")[1].split()[:2]
    assert kind == "fuse.layrfs"
    assert source.startswith("layrfs:")


@root
def test_the_kernel_reads_ahead_far(mounted: Drive) -> None:
    device = os.stat(mounted.path).st_dev
    with open(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb", encoding="ascii") as knob:
        assert int(knob.read()) == 4096
