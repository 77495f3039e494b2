"""Names on a real mount: making, moving, dropping and listing them, as programs do."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.drive import Drive

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
libc = ctypes.CDLL(None, use_errno=True)


DISTURBER = """
import os, sys
os.chdir(sys.argv[1])
for number in range(800):
    os.unlink(f"goes {number}")
    open(f"comes {number}", "w").close()
"""


def fails(code: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what is looked at
        call()
    assert caught.value.errno == code, f"{errno.errorcode[caught.value.errno or 0]} for {errno.errorcode[code]}"


def write(path: str, data: bytes = b"") -> str:
    with open(path, "wb") as file:
        file.write(data)
    return path


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def rename(old: str, new: str, flags: int) -> None:
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def test_every_kind_of_file(place: str) -> None:
    os.mkdir(f"{place}/directory", 0o751)
    write(f"{place}/file", b"bytes")
    os.symlink("file", f"{place}/link")
    os.mkfifo(f"{place}/pipe", 0o640)
    os.mknod(f"{place}/device", stat.S_IFCHR | 0o600, os.makedev(259, 70_000))
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(place)
        listener.bind("socket")
        os.chdir("/")
    kinds = {entry.name: stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode) for entry in os.scandir(place)}
    assert kinds == {
        "directory": stat.S_IFDIR,
        "file": stat.S_IFREG,
        "link": stat.S_IFLNK,
        "pipe": stat.S_IFIFO,
        "device": stat.S_IFCHR,
        "socket": stat.S_IFSOCK,
    }
    assert os.stat(f"{place}/device").st_rdev == os.makedev(259, 70_000)
    assert os.readlink(f"{place}/link") == "file"
    assert os.lstat(f"{place}/link").st_size == 4
    assert stat.S_IMODE(os.stat(f"{place}/directory").st_mode) == 0o751


def test_names_of_255_bytes_and_not_one_more(place: str) -> None:
    longest, longer = f"{place}/{'n' * 255}", f"{place}/{'n' * 256}"
    write(longest, b"here")
    assert read(longest) == b"here"
    for call in (lambda: os.stat(longer), lambda: write(longer), lambda: os.mkdir(longer), lambda: os.unlink(longer)):
        fails(errno.ENAMETOOLONG, call)
    fails(errno.ENAMETOOLONG, lambda: os.rename(longest, longer))
    assert os.statvfs(place).f_namemax == 255


def test_names_of_any_byte(place: str) -> None:
    names = {bytes([byte]) * 2 for byte in range(1, 256) if byte != ord("/")} - {b".."}
    for name in names:
        os.close(os.open(os.fsencode(place) + b"/" + name, os.O_CREAT))
    assert set(os.listdir(os.fsencode(place))) == names


def test_link_counts(place: str) -> None:
    write(f"{place}/a")
    os.link(f"{place}/a", f"{place}/b")
    assert os.stat(f"{place}/a").st_nlink == 2
    assert os.stat(f"{place}/a").st_ino == os.stat(f"{place}/b").st_ino
    os.unlink(f"{place}/a")
    assert os.stat(f"{place}/b").st_nlink == 1
    for name in ("x", "y"):
        os.mkdir(f"{place}/{name}")
    assert os.stat(place).st_nlink == 4
    os.rename(f"{place}/x", f"{place}/y/x")
    assert (os.stat(place).st_nlink, os.stat(f"{place}/y").st_nlink) == (3, 3)
    os.rmdir(f"{place}/y/x")
    assert os.stat(f"{place}/y").st_nlink == 2


def test_rename_replaces_what_it_may(place: str) -> None:
    write(f"{place}/file", b"new")
    write(f"{place}/old", b"old")
    os.mkdir(f"{place}/directory")
    os.mkdir(f"{place}/full")
    write(f"{place}/full/x")
    os.rename(f"{place}/file", f"{place}/old")
    assert read(f"{place}/old") == b"new"
    fails(errno.EISDIR, lambda: os.rename(f"{place}/old", f"{place}/directory"))
    fails(errno.ENOTDIR, lambda: os.rename(f"{place}/directory", f"{place}/old"))
    fails(errno.ENOTEMPTY, lambda: os.rename(f"{place}/directory", f"{place}/full"))
    fails(errno.EINVAL, lambda: os.rename(f"{place}/full", f"{place}/full/inside"))
    fails(errno.ENOENT, lambda: os.rename(f"{place}/nothing", f"{place}/old"))
    os.rename(f"{place}/full", f"{place}/directory")
    assert os.listdir(f"{place}/directory") == ["x"]
    assert sorted(os.listdir(place)) == ["directory", "old"]


def test_renaming_one_name_of_a_file_to_its_other_does_nothing(place: str) -> None:
    write(f"{place}/a")
    os.link(f"{place}/a", f"{place}/b")
    os.rename(f"{place}/a", f"{place}/b")
    assert sorted(os.listdir(place)) == ["a", "b"]


def test_noreplace_and_exchange(place: str) -> None:
    write(f"{place}/a", b"a")
    os.mkdir(f"{place}/d")
    write(f"{place}/d/inside")
    fails(errno.EEXIST, lambda: rename(f"{place}/a", f"{place}/d", NOREPLACE))
    rename(f"{place}/a", f"{place}/b", NOREPLACE)
    fails(errno.ENOENT, lambda: rename(f"{place}/b", f"{place}/nothing", EXCHANGE))
    os.mkdir(f"{place}/e")
    rename(f"{place}/d", f"{place}/e", EXCHANGE)
    rename(f"{place}/b", f"{place}/e/inside", EXCHANGE)
    rename(f"{place}/e", f"{place}/b", EXCHANGE)
    assert read(f"{place}/b/inside") == b"a"
    assert read(f"{place}/e") == b""
    assert os.stat(place).st_nlink == 4
    fails(errno.EINVAL, lambda: rename(f"{place}/b", f"{place}/c", WHITEOUT))


def test_link_counts_after_replacing_and_exchanging(place: str) -> None:
    for name in ("x", "y", "x/directory"):
        os.mkdir(f"{place}/{name}")
    write(f"{place}/y/file")
    os.link(f"{place}/y/file", f"{place}/other")
    rename(f"{place}/x/directory", f"{place}/y/file", EXCHANGE)
    assert (os.stat(f"{place}/x").st_nlink, os.stat(f"{place}/y").st_nlink) == (2, 3)
    write(f"{place}/new")
    os.rename(f"{place}/new", f"{place}/other")
    assert os.stat(f"{place}/x/directory").st_nlink == 1
    os.mkdir(f"{place}/empty")
    before = os.stat(place).st_nlink
    os.rename(f"{place}/y/file", f"{place}/empty")
    assert (os.stat(place).st_nlink, os.stat(f"{place}/y").st_nlink) == (before, 2)


def test_a_file_lives_as_long_as_it_is_open(place: str) -> None:
    path = write(f"{place}/file", b"still here")
    with open(path, "r+b", buffering=0) as file:
        os.unlink(path)
        fails(errno.ENOENT, lambda: os.stat(path))
        assert file.read() == b"still here"
        file.write(b", and growing")
        assert os.fstat(file.fileno()).st_nlink == 0
        assert os.pread(file.fileno(), 100, 0) == b"still here, and growing"
        os.fsync(file.fileno())
    os.rmdir(place)
    os.mkdir(place)


def test_a_file_replaced_by_rename_lives_as_long_as_it_is_open(place: str) -> None:
    write(f"{place}/new", b"new")
    path = write(f"{place}/old", b"old")
    with open(path, "rb", buffering=0) as file:
        os.rename(f"{place}/new", path)
        assert file.read() == b"old"
    assert read(path) == b"new"


def test_nothing_can_be_made_in_a_removed_directory(place: str) -> None:
    os.mkdir(f"{place}/gone")
    handle = os.open(f"{place}/gone", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.rmdir(f"{place}/gone")
        fails(errno.ENOENT, lambda: os.open("x", os.O_CREAT, dir_fd=handle))
        fails(errno.ENOENT, lambda: os.mkdir("x", dir_fd=handle))
        assert os.listdir(handle) == []
    finally:
        os.close(handle)


def test_a_name_looked_up_in_vain_appears_when_it_is_made(place: str) -> None:
    for turn in range(3):
        fails(errno.ENOENT, lambda: os.stat(f"{place}/x"))
        write(f"{place}/x", b"%d" % turn)
        assert read(f"{place}/x") == b"%d" % turn
        os.rename(f"{place}/x", f"{place}/y")
        fails(errno.ENOENT, lambda: os.stat(f"{place}/x"))
        os.unlink(f"{place}/y")


def test_listing_while_names_come_and_go(place: str) -> None:
    """What is there all the time is listed exactly once."""
    for number in range(800):
        write(f"{place}/stays {number}")
        write(f"{place}/goes {number}")
    stays = sorted(f"stays {number}" for number in range(800))
    with subprocess.Popen([sys.executable, "-c", DISTURBER, place]) as disturber:
        listings = 0
        while disturber.poll() is None:
            assert sorted(name for name in os.listdir(place) if name.startswith("stays")) == stays
            listings += 1
    assert disturber.returncode == 0
    assert listings > 5
    assert len(os.listdir(place)) == 1600


def test_removing_while_listing(place: str) -> None:
    for number in range(2000):
        write(f"{place}/{number}")
    with os.scandir(place) as entries:
        for entry in entries:
            os.unlink(entry.path)
    assert os.listdir(place) == []


def test_rm_of_a_deep_and_wide_tree(place: str) -> None:
    for number in range(300):
        directory = f"{place}/{number % 7}/{number % 5}/{number}"
        os.makedirs(directory)
        write(f"{directory}/x")
    subprocess.run(["rm", "-r", *(f"{place}/{number}" for number in range(7))], check=True)
    assert os.listdir(place) == []


def test_dot_and_dot_dot_are_listed(place: str) -> None:
    os.mkdir(f"{place}/d")
    shown = subprocess.run(["ls", "-ai", f"{place}/d"], check=True, capture_output=True, text=True).stdout.split()
    assert shown == [str(os.stat(f"{place}/d").st_ino), ".", str(os.stat(place).st_ino), ".."]


def test_a_path_of_many_directories(place: str) -> None:
    path = place
    while len(path) < 3800:
        path += "/" + "d" * 100
        os.mkdir(path)
    write(f"{path}/end", b"end")
    assert read(f"{path}/end") == b"end"


def test_symbolic_links_of_every_length(place: str) -> None:
    for length in (1, 255, 4000, 4095):
        os.symlink("x" * length, f"{place}/{length}")
        assert os.readlink(f"{place}/{length}") == "x" * length
    fails(errno.ENAMETOOLONG, lambda: os.symlink("x" * 4096, f"{place}/longer"))
    os.symlink("loop", f"{place}/loop")
    fails(errno.ELOOP, lambda: os.stat(f"{place}/loop"))


def test_names_and_links_survive_a_remount(mounted: Drive, place: str) -> None:
    write(f"{place}/a", b"a")
    os.link(f"{place}/a", f"{place}/b")
    os.makedirs(f"{place}/d/e")
    os.symlink("a", f"{place}/s")
    before = {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(place)}
    mounted.remount()
    after = {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(place)}
    assert {
        name: found[:2] + found[3:7] + (found.st_mtime_ns, found.st_ctime_ns) for name, found in before.items()
    } == {name: found[:2] + found[3:7] + (found.st_mtime_ns, found.st_ctime_ns) for name, found in after.items()}
    assert read(f"{place}/s") == b"a"


def test_a_file_unlinked_while_open_is_gone_after_a_crash(mounted: Drive, place: str) -> None:
    path = write(f"{place}/file", b"x" * 100_000)
    with open(path, "rb"):
        os.unlink(path)
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(handle)
        os.close(handle)
        before = os.statvfs(place)
        mounted.crash()
    mounted.mount()
    after = os.statvfs(place)
    assert os.listdir(place) == []
    assert after.f_files - after.f_ffree == before.f_files - before.f_ffree - 1
