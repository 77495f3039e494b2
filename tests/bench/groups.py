"""The rows that need the drive, in groups: each writes first, in both places, and reads later, when the drive's cache
has been emptied once for all.

A group is independent of the others, so `--rows` can leave any out.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from tests.bench import files
from tests.bench.files import clock, program
from tests.bench.places import DriveDirectory, PlainDirectory
from tests.bench.table import Row
from tests.drive import cpu_seconds
from tests.trees import MIB, Incompressible, make_tar, small_files, source_tree


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    stream_bytes: int
    small_files: int
    random_file_bytes: int
    random_calls: int
    tree_files: int


FULL = Sizes(stream_bytes=1024 * MIB, small_files=2000, random_file_bytes=128 * MIB, random_calls=4096, tree_files=3000)
QUICK = Sizes(stream_bytes=192 * MIB, small_files=400, random_file_bytes=32 * MIB, random_calls=1024, tree_files=400)


@dataclass(frozen=True, slots=True)
class Bench:
    """The two places of a run, what to write there, and a directory for what programs read from."""

    plain: PlainDirectory
    drive: DriveDirectory
    sizes: Sizes
    sources: str

    def both(self, name: str) -> tuple[str, str]:
        """One name in the plain directory and on the drive."""
        return os.path.join(self.plain.path, name), os.path.join(self.drive.path, name)

    def settle(self) -> None:
        """Nothing of what came before is still going on."""
        self.drive.settle()
        self.plain.settle()


class Group(Protocol):
    """Some rows. `read` finds the drive freshly mounted with an empty cache, and nothing in the kernel's caches."""

    def write(self, bench: Bench) -> Iterator[Row]: ...

    def read(self, bench: Bench) -> Iterator[Row]: ...


# --- sequential -----------------------------------------------------------------------------------------------------


class Sequential:
    """One large incompressible file, and what goes on meanwhile."""

    def write(self, bench: Bench) -> Iterator[Row]:
        size = bench.sizes.stream_bytes
        chunks = list(Incompressible().chunks(size))
        plain, drive = bench.both("stream")
        bench.settle()
        plain_seen = files.write_chunks(plain, chunks)
        with clock() as rest:
            bench.plain.settle()
        plain_durable = plain_seen + rest.seconds

        owner = bench.drive.drive.owner_pids()
        cpu_before = cpu_seconds(owner)
        with getattr_probe(bench.drive.path) as while_writing:
            seen = files.write_chunks(drive, chunks)
        cpu_written = cpu_seconds(owner)
        with getattr_probe(bench.drive.path) as while_uploading, clock() as rest:
            bench.drive.drive.sync()
        cpu_after = cpu_seconds(owner)
        mib = size / MIB
        yield Row(
            "sequential write as the program sees it", "MiB/s", mib / seen, mib / plain_seen, bar=0.8, bar_on_ratio=True
        )
        yield Row(
            "sequential write until fsynced on hosts", "MiB/s", mib / (seen + rest.seconds), mib / plain_durable,
            bar=70, note="three copies; plain: one",
        )  # fmt: skip
        yield Row(
            "owner's CPU for it",
            "s/GiB",
            (cpu_after - cpu_before) * 1024 / mib,
            better="less",
            note="mount and workers",
        )
        yield Row(
            "owner's CPU after the program's last write", "s/GiB", (cpu_after - cpu_written) * 1024 / mib, better="less"
        )
        yield from percentiles("getattr asked of the drive while it uploads", while_uploading, bars=(0.2, 2.0))
        yield from percentiles("getattr asked of the drive while the program writes", while_writing)
        bench.settle()
        others = list(Incompressible(seed=5).chunks(size // 4))
        again = bench.both("again")
        plain_rate, rate = (len(others) / files.write_chunks(path, others, fsync=True) for path in again)
        yield Row("sequential write and fsync", "MiB/s", rate, plain_rate, note="a quarter of it")
        for path in again:
            os.unlink(path)

    def read(self, bench: Bench) -> Iterator[Row]:
        mib = bench.sizes.stream_bytes / MIB
        plain, drive = bench.both("stream")
        cold = [mib / files.read_through(path) for path in (drive, plain)]
        yield Row(
            "sequential read, cold", "MiB/s", cold[0], cold[1], bar=250, note="from the hosts; plain: from the disk"
        )
        files.read_through(plain)
        warm = [max(mib / files.read_through(path) for _ in range(2)) for path in (drive, plain)]
        yield Row("sequential read, warm", "MiB/s", warm[0], warm[1], bar=0.75, bar_on_ratio=True, note="page cache")
        bench.drive.forget_pages()
        bench.plain.forget_pages()
        again = [mib / files.read_through(path) for path in (drive, plain)]
        yield Row(
            "sequential read from the drive's cache file",
            "MiB/s",
            again[0],
            again[1],
            note="page cache dropped; plain: from the disk",
        )


@contextmanager
def getattr_probe(path: str) -> Iterator[list[float]]:
    """Seconds of each getattr another process asked for while the block ran."""
    taken: list[float] = []
    here = os.path.join(os.path.dirname(__file__), "getattr_probe.py")
    with subprocess.Popen([sys.executable, here, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as probe:
        assert probe.stdout is not None
        try:
            probe.stdout.readline()
            yield taken
        finally:
            output, _ = probe.communicate()
    taken += json.loads(output)


def percentiles(
    name: str, seconds: list[float], bars: tuple[float | None, float | None] = (None, None)
) -> Iterator[Row]:
    """Median and ninth decile, in milliseconds."""
    deciles = statistics.quantiles(seconds, n=10) if len(seconds) > 1 else [0.0] * 9
    for decile, bar in ((4, bars[0]), (8, bars[1])):
        yield Row(f"{name}, p{(decile + 1) * 10}", "ms", deciles[decile] * 1000, better="less", bar=bar)


# --- small files ----------------------------------------------------------------------------------------------------


class SmallFiles:
    """Thousands of files of 4 KiB, and walking over them."""

    def write(self, bench: Bench) -> Iterator[Row]:
        count = bench.sizes.small_files
        plain, drive = (small_files(root, count) for root in bench.both("small"))
        bench.settle()
        plain_seen = files.create_all(plain)
        with clock() as plain_rest:
            bench.plain.settle()
        seen = files.create_all(drive)
        with clock() as rest:
            bench.drive.drive.sync()
        yield Row("small files created", "/s", count / seen, count / plain_seen, bar=1800, note="4 KiB each")
        yield Row(
            "small files until on the hosts",
            "/s",
            count / (seen + rest.seconds),
            count / (plain_seen + plain_rest.seconds),
            bar=1000,
        )

    def read(self, bench: Bench) -> Iterator[Row]:
        count = bench.sizes.small_files
        plain_root, drive_root = bench.both("small")
        files.walk(bench.sources)  # the interpreter's own first time is nobody's
        for name, bar in (("cold", 0.9), ("warm", 1.0)):
            rates = []
            for root in (drive_root, plain_root):
                rounds = [files.walk(root) for _ in range(1 if name == "cold" else 5)]
                rates.append(rounds[0][1] / min(seconds for seconds, _ in rounds))
            yield Row(f"walk, {name}", "files/s", rates[0], rates[1], bar=bar, bar_on_ratio=True)
        plain, drive = (small_files(root, count) for root in (plain_root, drive_root))
        for name, wanted in (("cold, from the hosts", 1500), ("warm", None)):
            rates = [count / files.read_all(where) for where in (drive, plain)]
            yield Row(f"small files read, {name}", "/s", rates[0], rates[1], bar=wanted)


# --- random access --------------------------------------------------------------------------------------------------


class RandomAccess:
    """4 KiB here and there in one file."""

    def write(self, bench: Bench) -> Iterator[Row]:
        chunks = list(Incompressible(seed=2).chunks(bench.sizes.random_file_bytes))
        for path in bench.both("random"):
            files.write_chunks(path, chunks)
        yield from ()

    def read(self, bench: Bench) -> Iterator[Row]:
        size, calls = bench.sizes.random_file_bytes, bench.sizes.random_calls
        plain, drive = bench.both("random")
        about = f"{calls:,} calls on {size // MIB} MiB"
        offsets = files.random_offsets(size, calls, 1)
        for name, bar in (("cold, from the hosts", 3000), ("warm", None)):
            rates = [calls / files.read_randomly(path, offsets) for path in (drive, plain)]
            yield Row(f"random 4 KiB reads, {name}", "/s", rates[0], rates[1], bar=bar, note=about)
        offsets = files.random_offsets(size, calls, 2)
        bench.settle()
        rates = [calls / files.write_randomly(path, offsets) for path in (drive, plain)]
        yield Row("random 4 KiB writes", "/s", rates[0], rates[1], note="with the close")
        bench.settle()
        rates = [calls / files.write_randomly(path, offsets, fsync=True) for path in (drive, plain)]
        yield Row("random 4 KiB writes and one fsync", "/s", rates[0], rates[1])


# --- programs -------------------------------------------------------------------------------------------------------


class Programs:
    """tar, rsync and git on a generated source tree."""

    def write(self, bench: Bench) -> Iterator[Row]:
        tree, archive, origin = (os.path.join(bench.sources, name) for name in ("tree", "tree.tar", "origin"))
        source_tree(tree, bench.sizes.tree_files)
        make_tar(tree, archive)
        make_repository(tree, origin)
        count = f"{bench.sizes.tree_files:,} files"
        rsync = ["rsync", "-a", f"{tree}/", "HERE/rsynced/"]
        yield timed(bench, f"untar {count}", ["tar", "xf", archive, "-C", "HERE"], bar=2.0)
        yield timed(bench, f"rsync -a of {count}", rsync, bar=2.5)
        yield timed(bench, "rsync -a again", rsync)
        yield timed(bench, f"git clone of {count}", ["git", "clone", "-q", "--no-hardlinks", origin, "HERE/clone"])
        yield timed(bench, "git status", ["git", "-C", "HERE/clone", "status", "--porcelain"])
        yield timed(bench, "rm -r of the untarred tree", ["rm", "-r", "HERE/tree"])

    def read(self, bench: Bench) -> Iterator[Row]:
        tree = os.path.join(bench.sources, "tree")
        sources = [f"{path}/" for path in bench.both("rsynced")]
        plain, drive = (program("rsync", "-a", source, f"{tree}-{number}") for number, source in enumerate(sources))
        yield Row("rsync -a from the drive, cold", "s", drive, plain, better="less", note="to a plain directory")


def timed(bench: Bench, name: str, command: Sequence[str], *, bar: float | None = None) -> Row:
    """A program run in both places, one after the other; HERE in its command is the place."""
    bench.settle()
    plain = program(*(word.replace("HERE", bench.plain.path) for word in command))
    bench.plain.settle()
    drive = program(*(word.replace("HERE", bench.drive.path) for word in command))
    return Row(name, "s", drive, plain, better="less", bar=bar)


def make_repository(tree: str, origin: str) -> None:
    """Commit the tree, in two halves, to a new repository."""
    shutil.copytree(tree, origin, symlinks=True)
    who = ["-c", "user.name=bench", "-c", "user.email=bench@example.org", "-c", "gc.auto=0"]
    program("git", "init", "-q", "-b", "main", cwd=origin)
    for pathspec in ("*0.py", "."):
        program("git", "add", "--", pathspec, cwd=origin)
        program("git", *who, "commit", "-q", "-m", f"add {pathspec}", cwd=origin)


GROUPS: dict[str, Group] = {
    "small": SmallFiles(),
    "random": RandomAccess(),
    "stream": Sequential(),
    "programs": Programs(),
}
