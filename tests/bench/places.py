"""The two places every row is measured in: a plain directory, and the drive.

The invariant is fairness: both lie on the same file system, do the same calls, and begin each row with nothing left
to write from the row before. *Cold* means that neither the page cache nor the name cache of the kernel holds
anything; for the drive also that every byte has to come from the hosts, because the cache was emptied and the drive
mounted anew.
"""

import contextlib
import ctypes
import os
import subprocess
import sys
from typing import Protocol, Self

from tests.drive import REPOSITORY, Drive, end, is_mounted, wait_for
from tests.trees import write_stream

LIBC = ctypes.CDLL(None, use_errno=True)
DROP_CACHES = "/proc/sys/vm/drop_caches"


class Place(Protocol):
    """Somewhere files can be written, forgotten and read again."""

    path: str

    def settle(self) -> None:
        """Finish everything that is still being written behind the program's back."""

    def forget_pages(self) -> None:
        """Make the kernel drop what it remembers of files; the drive keeps its own cache."""


class PlainDirectory:
    """A directory of the file system that also holds the drive's state."""

    def __init__(self, path: str) -> None:
        self.path = path
        os.makedirs(path)

    def settle(self) -> None:
        """Everything on the disk."""
        sync_file_system(self.path)

    def forget_pages(self) -> None:
        """Everything on the disk, then out of memory."""
        self.settle()
        drop_kernel_caches(self.path)


class BareDrive:
    """What a drive on pyfuse3 would be without a database, hosts or anything to lose: see `bare_fuse`."""

    def __init__(self, directory: str) -> None:
        self.home, self.path = os.path.join(directory, "home"), os.path.join(directory, "mnt")
        os.makedirs(self.home)
        os.makedirs(self.path)

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.bench.bare_fuse", self.home, self.path]
        self.process = subprocess.Popen(command, cwd=REPOSITORY)
        wait_for(lambda: is_mounted(self.path), "the bare file system is mounted")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["fusermount3", "-u", "-z", self.path], check=False)
        end(self.process)

    def sync(self) -> None:
        """There are no hosts."""

    def remount(self, *, emptied: bool) -> None:
        """It would forget everything."""

    def owner_pids(self) -> list[int]:
        """One process."""
        return [self.process.pid]


class DriveDirectory:
    """A directory on the mounted drive."""

    def __init__(self, drive: Drive | BareDrive) -> None:
        self.drive = drive
        self.path = os.path.join(drive.path, "bench")
        os.makedirs(self.path, exist_ok=True)
        self.greeting = os.path.join(drive.path, "greeting")
        write_stream(self.greeting, 4096)

    def settle(self) -> None:
        """Everything on the hosts."""
        self.drive.sync()
        sync_file_system(self.drive.home)

    def forget_pages(self) -> None:
        """All on the hosts, then out of the kernel's memory; the cache files of the drive stay on disk."""
        self.settle()
        drop_kernel_caches(self.path)

    def empty(self) -> None:
        """Nothing is on this machine any more but what the hosts store; they have been met again."""
        self.drive.remount(emptied=True)
        with open(self.greeting, "rb") as file:
            file.read()
        drop_kernel_caches(self.path)


def sync_file_system(path: str) -> None:
    """syncfs(2) of the file system that holds `path`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        LIBC.syncfs(descriptor)
    finally:
        os.close(descriptor)


def drop_kernel_caches(path: str) -> str:
    """Drop pages, names, attributes from the kernel; without root only the pages of files below `path`."""
    with contextlib.suppress(OSError):
        with open(DROP_CACHES, "w", encoding="ascii") as file:
            file.write("3")
        return "page, name and attribute caches dropped (drop_caches = 3)"
    for top, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                descriptor = os.open(os.path.join(top, name), os.O_RDONLY | os.O_NOFOLLOW)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)
    return "not root: pages dropped by posix_fadvise, names and attributes stay in memory (plain walk is never cold)"
