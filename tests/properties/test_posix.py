"""The mount against a real local directory: the same calls, the same results, the same errnos.

Every rule makes one system call on both sides and compares what came back; every example ends with a comparison of the
two trees, and the last ones are compared again after a remount. What is not compared: sizes and blocks of directories,
inode numbers, access times, and setuid bits of files (FUSE does not tell us that root writes, so we clear them).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from tests.drive import FUSE_IS_THERE
from tests.mount.conftest import LocalDrive

pytestmark = pytest.mark.skipif(not FUSE_IS_THERE or os.getuid() != 0, reason="needs /dev/fuse, and root for chown")

AT_FDCWD = -100
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
REMEMBERED = 40
"""Trees compared again after the remount."""

libc = ctypes.CDLL(None, use_errno=True)

NAMES = st.sampled_from([b"a", b"b", b"c", b"d", b"\xff \n", b"n" * 255, b"n" * 256, b".", b".."])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
MODES = st.sampled_from([0o000, 0o400, 0o600, 0o644, 0o777, 0o1777, 0o755])
DIRECTORY_MODES = st.sampled_from([0o700, 0o755, 0o1777, 0o2755, 0o2777])
OFFSETS = st.one_of(
    st.integers(0, 20_000), st.sampled_from([4096, 65536, 4 << 20, (4 << 20) - 1, (4 << 20) + 5, 9 << 20, 1 << 33])
)
DATA = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda byte, length: bytes([byte]) * length, st.integers(0, 255), st.sampled_from([4096, 70_000, 300_000])
    ),
)
OPEN_FLAGS = st.builds(
    lambda access, extra: access | sum(set(extra)),
    st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR]),
    st.lists(
        st.sampled_from([os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_DIRECTORY, os.O_NOFOLLOW]), max_size=4
    ),
).filter(lambda flags: not (flags & os.O_CREAT and flags & os.O_DIRECTORY))
TIMES = st.one_of(
    st.integers(0, 2**32 * 10**9),
    st.sampled_from([-1, -(10**9) - 5, 0, 1, 999_999_999, 2**31 * 10**9, 15 * 10**18 // 10]),
)
ATTRIBUTES = st.sampled_from(["user.a", "user.b", "trusted.c", "security.d", "user.", "bad.x", "user." + "l" * 251])


class Real:
    """What a system call answered: a value, or an errno by name."""

    @staticmethod
    def of(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except OSError as error:
            return errno.errorcode[error.errno or 0]


class Sides(RuleBasedStateMachine):
    """``roots`` are two empty directories: the mount's and the local one."""

    roots: ClassVar[tuple[bytes, bytes]]
    finished: ClassVar[list[tuple[bytes, bytes]]]
    count: ClassVar[int] = 0

    handles = Bundle("handles")

    @initialize()
    def begin(self) -> None:
        type(self).count += 1
        self.tops = tuple(os.path.join(root, b"%d" % self.count) for root in self.roots)
        self.sides = tuple(os.path.join(top, b"so/deep/that-dots-stay-inside") for top in self.tops)
        for side in self.sides:
            os.makedirs(side)
        self.opened: set[tuple[int, int]] = set()

    def both(self, call: Callable[[bytes], Any]) -> Any:
        """Do it on both sides; the common answer."""
        mount, local = (Real.of(lambda side=side: call(side)) for side in self.sides)
        assert mount == local, f"the mount answered {mount!r}, the local directory {local!r}"
        return mount

    # ---- names

    @rule(path=PATHS, mode=DIRECTORY_MODES)
    def mkdir(self, path: bytes, mode: int) -> None:
        self.both(lambda side: os.mkdir(side + b"/" + path, mode))

    @rule(path=PATHS)
    def rmdir(self, path: bytes) -> None:
        self.both(lambda side: os.rmdir(side + b"/" + path))

    @rule(path=PATHS)
    def unlink(self, path: bytes) -> None:
        self.both(lambda side: os.unlink(side + b"/" + path))

    @rule(path=PATHS, aim=st.one_of(PATHS, st.sampled_from([b"", b"/nowhere", b"x" * 4095, b"x" * 4096])))
    def symlink(self, path: bytes, aim: bytes) -> None:
        self.both(lambda side: os.symlink(aim, side + b"/" + path))

    @rule(path=PATHS)
    def readlink(self, path: bytes) -> None:
        self.both(lambda side: os.readlink(side + b"/" + path))

    @rule(path=PATHS, new=PATHS)
    def link(self, path: bytes, new: bytes) -> None:
        self.both(lambda side: os.link(side + b"/" + path, side + b"/" + new, follow_symlinks=False))

    @rule(path=PATHS, new=PATHS, flags=st.sampled_from([0, 0, 0, NOREPLACE, EXCHANGE, EXCHANGE, NOREPLACE | EXCHANGE]))
    def rename(self, path: bytes, new: bytes, flags: int) -> None:
        self.both(lambda side: rename(side + b"/" + path, side + b"/" + new, flags))

    @rule(path=PATHS, mode=MODES, kind=st.sampled_from([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG, stat.S_IFCHR]))
    def mknod(self, path: bytes, mode: int, kind: int) -> None:
        self.both(lambda side: os.mknod(side + b"/" + path, kind | mode, os.makedev(1, 3)))

    @rule(path=PATHS)
    def listdir(self, path: bytes) -> None:
        self.both(lambda side: sorted(os.listdir(side + b"/" + path)))

    # ---- attributes

    @rule(path=PATHS, follow=st.booleans())
    def stat(self, path: bytes, follow: bool) -> None:
        self.both(lambda side: described(os.stat(side + b"/" + path, follow_symlinks=follow)))

    @rule(path=PATHS, mode=st.one_of(MODES, DIRECTORY_MODES))
    def chmod(self, path: bytes, mode: int) -> None:
        self.both(lambda side: os.chmod(side + b"/" + path, mode))

    @rule(path=PATHS, uid=st.sampled_from([-1, 0, 1000]), gid=st.sampled_from([-1, 0, 1000]))
    def lchown(self, path: bytes, uid: int, gid: int) -> None:
        self.both(lambda side: os.lchown(side + b"/" + path, uid, gid))

    @rule(path=PATHS, atime=TIMES, mtime=TIMES, follow=st.booleans())
    def utime(self, path: bytes, atime: int, mtime: int, follow: bool) -> None:
        self.both(lambda side: os.utime(side + b"/" + path, ns=(atime, mtime), follow_symlinks=follow))
        self.both(lambda side: os.stat(side + b"/" + path, follow_symlinks=follow).st_mtime_ns)

    @rule(path=PATHS, size=OFFSETS)
    def truncate(self, path: bytes, size: int) -> None:
        self.both(lambda side: None if is_pipe(side + b"/" + path) else os.truncate(side + b"/" + path, size))

    @rule(path=PATHS, name=ATTRIBUTES, value=st.binary(max_size=300), flags=st.sampled_from([0, 0, 1, 2]))
    def setxattr(self, path: bytes, name: str, value: bytes, flags: int) -> None:
        self.both(lambda side: os.setxattr(side + b"/" + path, name, value, flags, follow_symlinks=False))

    @rule(path=PATHS, name=ATTRIBUTES)
    def getxattr(self, path: bytes, name: str) -> None:
        self.both(lambda side: os.getxattr(side + b"/" + path, name, follow_symlinks=False))

    @rule(path=PATHS, name=ATTRIBUTES)
    def removexattr(self, path: bytes, name: str) -> None:
        self.both(lambda side: os.removexattr(side + b"/" + path, name, follow_symlinks=False))

    @rule(path=PATHS)
    def listxattr(self, path: bytes) -> None:
        self.both(lambda side: sorted(os.listxattr(side + b"/" + path, follow_symlinks=False)))

    # ---- bytes

    @rule(target=handles, path=PATHS, flags=OPEN_FLAGS, mode=MODES)
    def open(self, path: bytes, flags: int, mode: int) -> Any:
        answers = [Real.of(lambda side=side: open_file(side + b"/" + path, flags, mode)) for side in self.sides]
        mount, local = (answer if isinstance(answer, str) else "opened" for answer in answers)
        if mount != local or isinstance(answers[0], str):
            close_all(answer for answer in answers if isinstance(answer, int))
            assert mount == local, f"the mount answered {mount!r}, the local directory {local!r}"
            return multiple()
        self.opened.add(tuple(answers))
        return tuple(answers)

    @rule(handle=consumes(handles))
    def close(self, handle: tuple[int, int]) -> None:
        self.opened.discard(handle)
        close_all(handle)

    def on_both(self, handle: tuple[int, int], call: Callable[[int], Any]) -> None:
        mount, local = (Real.of(lambda number=number: call(number)) for number in handle)
        assert mount == local, f"the mount answered {str(mount)[:200]}, the local directory {str(local)[:200]}"

    @rule(handle=handles, offset=OFFSETS, length=st.sampled_from([1, 100, 4096, 65536, 1 << 20]))
    def pread(self, handle: tuple[int, int], offset: int, length: int) -> None:
        self.on_both(handle, lambda number: os.pread(number, length, offset))

    @rule(handle=handles, offset=OFFSETS, data=DATA)
    def pwrite(self, handle: tuple[int, int], offset: int, data: bytes) -> None:
        self.on_both(handle, lambda number: os.pwrite(number, data, offset))

    @rule(handle=handles, data=DATA)
    def write(self, handle: tuple[int, int], data: bytes) -> None:
        self.on_both(handle, lambda number: os.write(number, data))

    @rule(handle=handles, size=OFFSETS)
    def ftruncate(self, handle: tuple[int, int], size: int) -> None:
        self.on_both(handle, lambda number: os.ftruncate(number, size))

    @rule(handle=handles)
    def fstat(self, handle: tuple[int, int]) -> None:
        self.on_both(handle, lambda number: described(os.fstat(number)))

    @rule(handle=handles)
    def fsync(self, handle: tuple[int, int]) -> None:
        self.on_both(handle, os.fsync)

    def teardown(self) -> None:
        if not hasattr(self, "opened"):
            return
        for handle in self.opened:
            close_all(handle)
        assert tree(self.tops[0]) == tree(self.tops[1])
        forget()
        assert tree(self.tops[0]) == tree(self.tops[1])
        self.finished.append(self.tops)
        for side in self.finished.pop(0) if len(self.finished) > REMEMBERED else ():
            shutil.rmtree(side)


def forget() -> None:
    """The kernel forgets names and attributes: the drive is asked again."""
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as knob:
        knob.write("2")


def described(found: os.stat_result) -> tuple[object, ...]:
    """What both sides must agree on."""
    mode = found.st_mode
    size = 0 if stat.S_ISDIR(mode) else found.st_size
    return mode, found.st_nlink, found.st_uid, found.st_gid, size, found.st_rdev


def open_file(path: bytes, flags: int, mode: int) -> int | str:
    """Pipes and devices are left alone: opening one waits, or has nothing to do with the file system."""
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(kind := os.stat(path).st_mode) and not stat.S_ISDIR(kind):
            return "special"
    return os.open(path, flags, mode)


def is_pipe(path: bytes) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISFIFO(os.stat(path).st_mode)
    return False


def rename(path: bytes, new: bytes, flags: int) -> None:
    if libc.renameat2(AT_FDCWD, path, AT_FDCWD, new, flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def close_all(numbers: Iterator[int] | tuple[int, int]) -> None:
    for number in numbers:
        os.close(number)


def tree(root: bytes) -> dict[bytes, object]:
    """Everything below a directory, by path; contents where there is data."""
    found: dict[bytes, object] = {}
    for top, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(top, name)
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            inside: object = None
            if kind == stat.S_IFLNK:
                inside = os.readlink(path)
            elif kind == stat.S_IFREG:
                inside = (ends(path, status.st_size), {name: os.getxattr(path, name) for name in os.listxattr(path)})
            found[os.path.relpath(path, root)] = (described(status), inside)
    return found


def ends(path: bytes, size: int) -> tuple[bytes, ...]:
    """The bytes around the places that rules write to."""
    with open(path, "rb", buffering=0) as file:
        places = [0, 65536, 4 << 20, (4 << 20) + 65536, 9 << 20, 1 << 33, max(0, size - 400_000)]
        return tuple(os.pread(file.fileno(), 400_000, place) for place in places)


def test_the_mount_behaves_like_a_local_directory(tmp_path_factory: pytest.TempPathFactory, big: bool) -> None:
    directory = tmp_path_factory.mktemp("posix")
    local = directory / "local"
    local.mkdir()
    umask = os.umask(0o022)
    with LocalDrive(str(directory), options=("allow_other", "suid", "dev")) as drive:
        Sides.roots, Sides.finished, Sides.count = (os.fsencode(drive.path), os.fsencode(str(local))), [], 0
        try:
            run_state_machine_as_test(
                Sides,
                settings=settings(
                    max_examples=1000 if big else 60,
                    stateful_step_count=60,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            os.umask(umask)
        drive.remount()
        for mounted, plain in Sides.finished:
            assert tree(mounted) == tree(plain)
