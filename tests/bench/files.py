"""The calls that are timed: the same in a plain directory and on the drive. Each returns seconds, or says what else."""

import os
import random
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from tests.trees import MIB

PAGE = 4096


class Clock:
    """Seconds between entering and leaving a `with` block."""

    seconds = 0.0


@contextmanager
def clock() -> Iterator[Clock]:
    """Measure a block."""
    measured, start = Clock(), time.perf_counter()
    yield measured
    measured.seconds = time.perf_counter() - start


def write_chunks(path: str, chunks: Iterable[memoryview], *, fsync: bool = False) -> float:
    """1 MiB writes and a close, as `dd bs=1M` (`conv=fsync`) does."""
    with clock() as taken:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for chunk in chunks:
            os.write(descriptor, chunk)
        if fsync:
            os.fsync(descriptor)
        os.close(descriptor)
    return taken.seconds


def read_through(path: str) -> float:
    """The whole file once, with 1 MiB reads into one buffer."""
    buffer = memoryview(bytearray(MIB))
    with clock() as taken:
        descriptor = os.open(path, os.O_RDONLY)
        while os.readv(descriptor, [buffer]):
            pass
        os.close(descriptor)
    return taken.seconds


def create_all(files: Sequence[tuple[str, bytes]]) -> float:
    """Create, write and close each small file."""
    with clock() as taken:
        for path, data in files:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(descriptor, data)
            os.close(descriptor)
    return taken.seconds


def read_all(files: Sequence[tuple[str, bytes]]) -> float:
    """Open, read and close each small file; what was read is compared after the clock has stopped."""
    found = []
    with clock() as taken:
        for path, _ in files:
            descriptor = os.open(path, os.O_RDONLY)
            found.append(os.read(descriptor, 65536))
            os.close(descriptor)
    if found != [data for _, data in files]:
        raise AssertionError("a small file read back wrong")
    return taken.seconds


def random_offsets(file_bytes: int, count: int, seed: int) -> list[int]:
    """Offsets of whole pages, in no order."""
    dice = random.Random(seed)
    return [dice.randrange(file_bytes // PAGE) * PAGE for _ in range(count)]


def read_randomly(path: str, offsets: Sequence[int]) -> float:
    """One 4 KiB pread after the other; the kernel is told that there is no order, as databases do."""
    with clock() as taken:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        for offset in offsets:
            os.pread(descriptor, PAGE, offset)
        os.close(descriptor)
    return taken.seconds


def write_randomly(path: str, offsets: Sequence[int], *, fsync: bool = False) -> float:
    """One 4 KiB pwrite after the other, then a close."""
    pages = memoryview(random.Random(1).randbytes(PAGE * 256))
    with clock() as taken:
        descriptor = os.open(path, os.O_RDWR)
        for number, offset in enumerate(offsets):
            start = number % 255 * PAGE
            os.pwrite(descriptor, pages[start : start + PAGE], offset)
        if fsync:
            os.fsync(descriptor)
        os.close(descriptor)
    return taken.seconds


def walk(root: str) -> tuple[float, int]:
    """List every directory and stat every file, as `find -ls` does. Returns seconds and how many were met."""
    met = 0
    with clock() as taken:
        for top, directories, names in os.walk(root):
            for name in directories + names:
                os.lstat(os.path.join(top, name))
                met += 1
    return taken.seconds, met


def program(*command: str, cwd: str = "/") -> float:
    """Seconds a program takes; its failure ends the run."""
    quiet = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    with clock() as taken:
        subprocess.run(
            command, cwd=cwd, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=os.environ | quiet
        )
    return taken.seconds
