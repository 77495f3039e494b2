"""Transactions grouped in time, durable on demand, and a full disk that loses nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
import trio

from layrfs.errors import CorruptFile, LocalError, NewerFormat, NoSpace
from layrfs.storage import database as module
from layrfs.storage.database import Database
from layrfs.storage.schema import APPLICATION_ID, SCHEMA_VERSION

PUT = "INSERT OR REPLACE INTO volume VALUES(?, ?)"
GET = "SELECT value FROM volume WHERE name = ?"
COUNT = "SELECT count(*) FROM volume"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "metadata.db")


@pytest.fixture
def database(path: str) -> Iterator[Database]:
    with Database(path) as opened:
        yield opened


def committed(path: str) -> int:
    """What another connection sees."""
    other = apsw.Connection(path)
    try:
        return int(other.execute(COUNT).get)
    finally:
        other.close()


def test_what_is_written_is_read_at_once_and_seen_by_others_after_commit(database: Database, path: str) -> None:
    database.write(PUT, ("a", 1))
    assert database.value(GET, ("a",)) == 1
    assert committed(path) == 0
    database.commit()
    assert committed(path) == 1


def test_rows_of_every_kind(database: Database) -> None:
    database.write_many(PUT, [("int", 2**62), ("bytes", b"\0\xff"), ("none", None), ("text", "\N{SNOWMAN}")])
    assert dict(database.rows("SELECT name, value FROM volume")) == {
        "int": 2**62,
        "bytes": b"\0\xff",
        "none": None,
        "text": "\N{SNOWMAN}",
    }
    assert database.row(GET, ("nothing",)) is None
    assert database.value(GET, ("nothing",)) is None
    assert database.insert("INSERT INTO host(node_id) VALUES(?)", (b"x",)) == 1
    assert database.insert("INSERT INTO host(node_id) VALUES(?)", (b"y",)) == 2


def test_closing_commits_and_reopening_finds_it(path: str) -> None:
    with Database(path) as first:
        first.write(PUT, ("a", b"kept"))
    first.close()
    with Database(path) as second:
        assert second.value(GET, ("a",)) == b"kept"


def test_flushes_run_before_every_commit_and_belong_to_it(database: Database, path: str) -> None:
    turns = iter(range(10))
    database.before_commit(lambda: database.write(PUT, (str(next(turns)), 0)))
    database.commit()
    assert committed(path) == 1
    database.commit()
    assert committed(path) == 2


async def test_run_commits_about_every_second(
    database: Database, path: str, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    await nursery.start(database.run)
    database.write(PUT, ("a", 1))
    await trio.sleep(0.9)
    assert committed(path) == 0
    await trio.sleep(0.3)
    assert committed(path) == 1


async def test_sync_flushes_once_for_callers_that_arrive_together(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(module.os, "fdatasync", flushed.append)
    database.write(PUT, ("a", 1))
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(database.sync)
    assert len(flushed) == 1
    await database.sync()
    assert len(flushed) == 1
    database.write(PUT, ("b", 1))
    await database.sync()
    assert len(flushed) == 2


WRITER = """
import os, sys, trio
from layrfs.storage.database import Database
database = Database(sys.argv[1])
for number in range(500):
    database.write("INSERT INTO volume VALUES(?, 0)", (f"committed {number}",))
database.commit()
database.write("INSERT INTO volume VALUES('not committed', 0)")
os.kill(os.getpid(), 9)
"""


def test_kill_9_keeps_what_was_committed_and_nothing_else(path: str) -> None:
    done = subprocess.run([sys.executable, "-c", WRITER, path], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr
    with Database(path) as database:
        assert database.value(COUNT) == 500


async def test_the_log_is_emptied_in_the_background(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_PAGES", 20)
    with Database(path) as database:
        grown = []
        for turn in range(20):
            database.write_many(PUT, ((f"{turn} {number}", b"x" * 1000) for number in range(100)))
            database.commit()
            await database.checkpoint()
            grown.append(os.path.getsize(path + "-wal"))
        assert max(grown) < 4 * grown[0]
        assert database.value(COUNT) == 2000


async def test_a_log_that_never_rests_is_emptied_all_the_same(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_PAGES", 20)
    monkeypatch.setattr(module, "BLOCKING_CHECKPOINT_PAGES", 100)
    with Database(path) as database:
        for turn in range(20):
            database.write_many(PUT, ((f"{turn} {number}", b"x" * 1000) for number in range(100)))
            database.commit()
            database.write(PUT, ("the next transaction", turn))
            await database.checkpoint()
        assert os.path.getsize(path + "-wal") < 100 * 4200
        assert database.value(COUNT) == 2001


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to be one" * 100, b"SQLite format 3\0" * 90]
)
def test_garbage_is_named(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
    with pytest.raises((CorruptFile, LocalError), match=r"metadata\.db"):
        Database(path)
    with open(path, "rb") as file:
        assert file.read() == content


def test_another_programs_database_is_left_alone(path: str) -> None:
    other = apsw.Connection(path)
    other.execute("CREATE TABLE precious(x); INSERT INTO precious VALUES(1)")
    other.close()
    with pytest.raises(CorruptFile, match="not one of LayrFS"):
        Database(path)


def test_a_newer_format_is_refused(path: str) -> None:
    other = apsw.Connection(path)
    other.pragma("application_id", APPLICATION_ID)
    other.pragma("user_version", SCHEMA_VERSION + 1)
    other.close()
    with pytest.raises(NewerFormat, match="newer LayrFS"):
        Database(path)


def test_every_table_has_a_declared_key_for_the_session_extension(database: Database) -> None:
    for (table,) in database.rows("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"):
        columns = list(database.rows("SELECT pk FROM pragma_table_info(?)", (table,)))
        assert any(pk for (pk,) in columns), table


# --- a full disk ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[str]:
    """A file system of 120 MiB."""
    directory = str(tmp_path / "disk")
    os.mkdir(directory)
    command = ["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", directory]
    if (
        os.getuid()
        or shutil.which("mount") is None
        or subprocess.run(command, check=False, capture_output=True).returncode
    ):
        pytest.skip("needs root to mount a small disk")
    yield directory
    subprocess.run(["umount", directory], check=True)


def fill(directory: str) -> str:
    path = os.path.join(directory, "filler")
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 20))
        except OSError:
            return path


def test_a_full_disk_loses_nothing_that_was_answered(small_disk: str) -> None:
    with Database(f"{small_disk}/metadata.db") as database:
        assert database.has_room
        database.write_many(PUT, ((str(number), b"x" * 1000) for number in range(3000)))
        filler = fill(small_disk)
        database.commit()
        assert not database.has_room
        assert committed(f"{small_disk}/metadata.db") == 3000
        os.unlink(filler)
        database.commit()
        assert database.has_room
    with Database(f"{small_disk}/metadata.db") as database:
        assert database.value(COUNT) == 3000


async def test_when_even_the_room_set_aside_is_gone_the_database_says_so_and_stays_consistent(small_disk: str) -> None:
    path = f"{small_disk}/metadata.db"
    with Database(path) as database:
        database.write(PUT, ("answered", 1))
        database.commit()
        fill(small_disk)
        database.commit()
        fill(small_disk)
        many = ((str(number), b"x" * 1000) for number in range(10**6))
        with pytest.raises(NoSpace, match="is full"):
            database.write_many(PUT, many)
        with pytest.raises(LocalError, match="mount again"):
            database.write(PUT, ("more", 1))
        with pytest.raises(LocalError, match="mount again"):
            await database.sync()
        os.unlink(f"{small_disk}/filler")
    with Database(path) as database:
        assert database.value(COUNT) == 1
