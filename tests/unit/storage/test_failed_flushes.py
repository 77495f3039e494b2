"""A disk that fails to flush, or loses power: what our own storage makes of it, seen through the recorder of disks."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from tests.drive import REPOSITORY
from tests.reliability.disk import Disk, Severity, compiled, recording, records

if shutil.which("cc") is None:
    pytest.skip("needs a C compiler", allow_module_level=True)

NOTHING, ALL = Severity(0, 0), Severity(1, 1)


class Recorded:
    """Programs run in a directory that is recorded, and what the disk may hold after the power has gone."""

    def __init__(self, directory: Path, library: str) -> None:
        self._root, self._log, self._target = directory / "root", directory / "log", directory / "target"
        self._root.mkdir()
        self._variables = {
            **os.environ,
            **recording(library, str(self._root), str(self._log)),
            "LAYRFS_DISK_FAULT": str(directory / "fault"),
            "PYTHONPATH": REPOSITORY,
        }

    def run(self, program: str) -> None:
        """To its end."""
        done = subprocess.run(
            [sys.executable, "-c", FAULTS + program],
            env=self._variables, cwd=self._root, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def count(self) -> int:
        """How many things were done so far."""
        return sum(1 for _ in records(str(self._log)))

    def after(self, program: str, severity: Severity) -> Path:
        """What the disk holds when the power goes at the end of a program."""
        self.run(program)
        return self.cut(self.count(), severity, 1)

    def cut(self, at: int, severity: Severity, seed: int) -> Path:
        """What it holds when the power goes after so many things."""
        disk = Disk(str(self._root))
        for number, record in enumerate(records(str(self._log))):
            if number < at:
                disk.take(record)
        shutil.rmtree(self._target, ignore_errors=True)
        disk.leave(str(self._target), severity, random.Random(seed))
        return self._target


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled(str(tmp_path_factory.mktemp("recorder")))


@pytest.fixture
def disk(tmp_path: Path, library: str) -> Recorded:
    return Recorded(tmp_path, library)


FAULTS = """
import os
def fault(text):
    open("../fault.new", "w").write(text)
    os.rename("../fault.new", "../fault")
def heal():
    os.unlink("../fault")
def fsync(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
"""

ONE_OF_EACH = """
for name in ("flushed", "nameless", "late"):
    with open(name, "wb") as file:
        file.write(b"first" * 3000)
fsync("flushed")
os.rename("flushed", "known")
fsync(".")
with open("known", "r+b") as file:
    file.write(b"again" * 3000)
os.rename("late", "later")
"""


def test_the_recorder_sees_what_is_flushed_and_what_is_not(disk: Recorded) -> None:
    found = disk.after(ONE_OF_EACH, NOTHING)
    assert sorted(os.listdir(found)) == ["known", "late", "nameless"]
    assert (found / "known").read_bytes() == b"first" * 3000
    assert (found / "late").read_bytes() == b""


def test_the_recorder_keeps_all_when_the_disk_is_kind(disk: Recorded) -> None:
    found = disk.after(ONE_OF_EACH, ALL)
    assert sorted(os.listdir(found)) == ["known", "later", "nameless"]
    assert (found / "known").read_bytes() == b"again" * 3000


def test_pages_survive_one_by_one(disk: Recorded) -> None:
    program = """
with open("file", "wb") as file:
    file.write(b"a" * 40960)
fsync("file"); fsync(".")
with open("file", "r+b") as file:
    for at in range(10):
        file.write(b"b" * 4096)
"""
    data = (disk.after(program, Severity(0.5, 1)) / "file").read_bytes()
    pages = {data[at : at + 4096] for at in range(0, len(data), 4096)}
    assert pages == {b"a" * 4096, b"b" * 4096}


def test_a_failed_flush_loses_what_it_should_have_written(disk: Recorded) -> None:
    program = """
with open("file", "wb") as file:
    file.write(b"lost")
fsync(".")
fault("f 5 file 0 1")
try:
    fsync("file")
except OSError as error:
    assert error.errno == 5
else:
    raise AssertionError
fsync("file")
"""
    assert (disk.after(program, ALL) / "file").read_bytes() == b""


def test_a_database_whose_log_was_not_flushed_promises_nothing_more_until_it_is_opened_again(disk: Recorded) -> None:
    program = """
import trio
from layrfs.errors import LocalError
from layrfs.storage.database import Database

async def put(database, name):
    database.write("INSERT INTO local_mark VALUES(?, 1)", (name,))
    await database.sync()

async def refused(database, name):
    try:
        await put(database, name)
    except LocalError:
        return
    raise AssertionError("it promised")

async def main():
    database = Database("m.db")
    await put(database, "before")
    fault("f 5 m.db-wal 0 1")
    await refused(database, "while")
    await refused(database, "after")
    assert database.value("SELECT count(*) FROM local_mark") >= 1, "it can still be read"
    heal()
    database.close()
    again = Database("m.db")
    await put(again, "again")
    os._exit(0)

trio.run(main)
"""
    found = disk.after(program, NOTHING)
    names = {row[0] for row in apsw.Connection(str(found / "m.db")).execute("SELECT name FROM local_mark")}
    assert {"before", "again"} <= names


FAILING = """
import trio
from layrfs.storage.database import Database
database = Database("m.db")
for name in range(200):
    database.write("INSERT INTO local_mark VALUES(?, zeroblob(3000))", (f"before {name}",))
database.close()  # all of it is in the database file now, and the log begins anew
database = Database("m.db")
database.write("UPDATE local_mark SET value = randomblob(3000) WHERE name LIKE '%7%'")
fault("f 5 m.db-wal 1 1")  # the first is SQLite's own, of the log's first page
try:
    trio.run(database.sync)
finally:
    os._exit(0)
"""
GOING_ON = """
import trio
from layrfs.storage.database import Database
heal()
database = Database("m.db")
database.write("INSERT INTO local_mark VALUES('after', 1)")
trio.run(database.sync)
os._exit(0)
"""


def test_a_start_after_a_flush_that_failed_never_leaves_half_of_what_was_not_flushed(disk: Recorded) -> None:
    disk.run(FAILING)
    first = disk.count()
    disk.run(GOING_ON)
    for at in range(first, disk.count() + 1, 3):
        connection = apsw.Connection(str(disk.cut(at, Severity(0.5, 1), seed=at) / "m.db"))
        assert connection.pragma("integrity_check") == "ok"
        kept = connection.execute("SELECT count(*) FROM local_mark WHERE name LIKE 'before%'").get
        changed = "SELECT count(*) FROM local_mark WHERE name LIKE 'before%' AND value != zeroblob(3000)"
        assert kept == 200
        assert connection.execute(changed).get in {0, 38}
        connection.close()
    connection = apsw.Connection(str(disk.cut(disk.count(), NOTHING, 1) / "m.db"))
    assert connection.execute("SELECT count(*) FROM local_mark").get == 201


def test_a_file_whose_flush_failed_is_written_again_before_the_next_is_believed(disk: Recorded) -> None:
    program = """
import trio
from layrfs.errors import LocalError
from tests.caches import FILE, running, write

async def main():
    os.mkdir("volume")
    fsync(".")
    async with running("volume") as cache:
        cache.make()
        file = cache.contents.open(FILE)
        await write(file, 0, b"precious" * 10_000)
        fault("f 5 /cache/ 0 1")
        try:
            await cache.contents.sync(FILE)
        except LocalError:
            pass
        else:
            raise AssertionError("it promised")
        await cache.contents.sync(FILE)
        os._exit(0)

trio.run(main)
"""
    assert (disk.after(program, NOTHING) / "volume/cache/0/7").read_bytes() == b"precious" * 10_000


def test_names_of_cache_files_are_on_the_disk_whoever_made_them_and_whenever(disk: Recorded) -> None:
    program = """
from layrfs.ids import InodeNumber
from layrfs.storage.cache_files import CacheFiles

def make(number):
    files.file(InodeNumber(number)).write(b"bytes", 0)

files = CacheFiles("cache")
make(1)
files.sync(InodeNumber(1))
make(2)
again = CacheFiles("cache")  # as after a crash of the process that made the name of 2
again.sync(InodeNumber(2))
make(5000)
fault("f 5 cache/1$ 0 1")
try:
    files.sync(InodeNumber(5000))
except Exception:
    pass
files.sync(InodeNumber(5000))
"""
    found = disk.after(program, NOTHING) / "cache"
    assert [(found / name).read_bytes() for name in ("0/1", "0/2", "1/1388")] == [b"bytes"] * 3


def test_promised_bytes_are_cut_only_when_their_rows_are_off_the_disk(disk: Recorded) -> None:
    program = """
import trio
from layrfs.storage.database import Database
from tests import caches
from tests.caches import FILE, running, write
caches.InlineDatabase.sync = Database.sync

async def main():
    os.mkdir("volume")
    fsync(".")
    async with running("volume") as cache:
        cache.make(size=10_000)
        file = cache.contents.open(FILE)
        await write(file, 0, b"promised" * 1250)
        await cache.contents.sync(FILE)
        await cache.database.sync()
        await file.truncate(10_000, 0)
        os._exit(0)

trio.run(main)
"""
    disk.run(program)
    for seed in range(20):
        found = disk.cut(disk.count(), Severity(0.5, 1), seed) / "volume"
        connection = apsw.Connection(str(found / "metadata.db"))
        rows = connection.execute("SELECT count(*) FROM local").get
        connection.close()
        assert rows == 0 or (found / "cache/0/7").read_bytes() == b"promised" * 1250


def test_a_file_that_the_disk_does_not_cut_is_as_it_was(disk: Recorded) -> None:
    program = """
import trio
from layrfs.errors import LocalError
from tests.caches import BLOCK, FILE, read, running, write

DATA = bytes(range(1, 241)) * (4 * BLOCK // 240)

async def main():
    async with running("volume") as cache:
        for sizes in ((0,), (100,), (2 * BLOCK,), (BLOCK + 5, 0)):
            for prepare in ("dirty", "clean", "mixed"):  # of a file that is not here there is nothing to cut
                cache.delete(FILE)
                await trio.sleep(0.6)
                await cache.put(FILE, DATA)
                if prepare != "dirty":
                    await cache.contents.flush_to_network(None)
                if prepare == "mixed":
                    await cache.contents.drop_clean()
                file = cache.contents.open(FILE)
                if prepare == "mixed":
                    await write(file, BLOCK + 1, DATA[BLOCK + 1 : BLOCK + 9])
                fault("t 5 /cache/ 0 1000")
                for size in sizes:
                    try:
                        await file.truncate(len(DATA), size)
                    except LocalError:
                        cache.check_sums()
                    else:
                        raise AssertionError("it was cut")
                heal()
                assert await read(file, 0, len(DATA)) == DATA, (sizes, prepare)
                cache.check_sums()
                await cache.contents.flush_to_network(None)
                cache.contents.release(file)
                await cache.contents.drop_clean()
                assert await cache.get(FILE, 0, len(DATA)) == DATA, (sizes, prepare)
        os._exit(0)

os.mkdir("volume")
trio.run(main)
"""
    disk.run(program)
