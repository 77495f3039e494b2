"""The log of changes, and a volume made again from it: the same rows, whatever was done and however it was cut."""

import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.errors import BadMessage, CorruptFile
from layrfs.storage.changes import (
    ChangeLog,
    combined,
    count_unsent,
    lose_unsent,
    read_blob,
    restore,
    write_blob,
    write_checkpoint,
)
from layrfs.storage.database import Database
from tests.volumes import rows_of


def change_at_random(database: Database, dice: random.Random) -> None:
    """One step of a life: names made, swapped through a third, removed; attributes, blocks."""
    cookie = dice.randrange(1, 30)
    match dice.randrange(6):
        case 0 | 1:
            name = b"name%d" % dice.randrange(40)
            if database.row("SELECT 1 FROM entry WHERE parent = 1 AND name = ?", (name,)) is None:
                database.write("INSERT OR REPLACE INTO entry VALUES(?, 1, ?, ?)", (cookie, name, cookie + 1))
        case 2:
            names = list(database.rows("SELECT cookie, name FROM entry ORDER BY cookie LIMIT 2"))
            if len(names) == 2:
                (one, first), (other, second) = names
                database.write("UPDATE entry SET name = x'00' WHERE cookie = ?", (one,))
                database.write("UPDATE entry SET name = ? WHERE cookie = ?", (first, other))
                database.write("UPDATE entry SET name = ? WHERE cookie = ?", (second, one))
        case 3:
            database.write("DELETE FROM entry WHERE cookie = ?", (cookie,))
        case 4:
            database.write("INSERT OR REPLACE INTO attribute VALUES(?, ?, ?)", (cookie, b"user.a", dice.randbytes(9)))
        case _:
            database.write("INSERT OR REPLACE INTO local VALUES(?, 0, ?)", (cookie, dice.randrange(2)))


@pytest.mark.parametrize("seed", range(20))
def test_a_volume_made_again_from_its_changes_is_the_same(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    segments: list[bytes] = []
    checkpoint: str | None = None
    with Database(str(tmp_path / "first.db")) as database:
        log = ChangeLog(database)
        for step in range(120):
            change_at_random(database, dice)
            if dice.random() < 0.3:
                database.commit()
            if dice.random() < 0.1:
                log.compact()
            if dice.random() < 0.1:
                database.commit()
                last, changes = log.pending()
                segments.append(changes)
                log.forget(last)
            if step == 60:
                database.commit()
                checkpoint, segments = str(tmp_path / "checkpoint"), []
                log.forget(write_checkpoint(str(tmp_path / "first.db"), checkpoint).last)
        database.commit()
        segments = [changes for changes in [*segments, log.pending()[1]] if changes]
        if dice.random() < 0.5:
            segments = [combined(segments)]
        restore(str(tmp_path / "second.db"), checkpoint, segments)
        with Database(str(tmp_path / "second.db")) as again:
            assert rows_of(again) == rows_of(database)


def test_what_this_machine_has_is_not_part_of_it_but_what_is_on_no_host_is(tmp_path: Path) -> None:
    with Database(str(tmp_path / "first.db")) as database:
        database.write("INSERT OR REPLACE INTO local VALUES(7, 0, 1), (7, 1, 1), (7, 2, 1)")
        database.write("INSERT OR REPLACE INTO local VALUES(7, 1, 0)")
        database.write("DELETE FROM local WHERE block = 2")
        database.commit()
        restore(str(tmp_path / "second.db"), None, [ChangeLog(database).pending()[1]])
    with Database(str(tmp_path / "second.db")) as again:
        assert list(again.rows("SELECT inode, block FROM unsent")) == [(7, 0)]
        assert list(again.rows("SELECT * FROM local")) == []


def test_only_what_another_machine_never_sent_is_lost(tmp_path: Path) -> None:
    with Database(str(tmp_path / "first.db")) as database:
        for inode in (2, 3, 4):
            database.write("INSERT INTO inode VALUES(?,33188,0,0,1,9,65536,0,0,0,0,NULL)", (inode,))
            database.write("INSERT INTO unsent(inode, block) VALUES(?, 0)", (inode,))
        database.write("INSERT OR REPLACE INTO local VALUES(2, 0, 1)")
        database.write("INSERT INTO block VALUES(3, 0, 5, 9)")
        assert count_unsent(database) == (1, 1)
        for _ in range(2):
            lose_unsent(database)
            assert list(database.rows("SELECT inode, block FROM unsent")) == [(2, 0)], "those bytes are here"
            assert list(database.rows("SELECT * FROM block ORDER BY inode")) == [(3, 0, 5, 9), (4, 0, 0, 0)]
            database.commit()


def test_a_crash_leaves_no_change_unrecorded(tmp_path: Path) -> None:
    with Database(str(tmp_path / "first.db")) as database:
        database.write("INSERT INTO volume VALUES('one', 1)")
        database.commit()
        database.write("INSERT INTO volume VALUES('two', 2)")  # not committed: in neither, after a crash
        for name in ("first.db", "first.db-wal"):
            shutil.copy(tmp_path / name, tmp_path / name.replace("first", "left"))
    with Database(str(tmp_path / "left.db")) as left:
        assert list(left.rows("SELECT name FROM volume")) == [("one",)]
        restore(str(tmp_path / "second.db"), None, [ChangeLog(left).pending()[1]])
        with Database(str(tmp_path / "second.db")) as again:
            assert rows_of(again) == rows_of(left)


def test_a_missing_changeset_is_noticed(tmp_path: Path) -> None:
    cuts = []
    with Database(str(tmp_path / "first.db")) as database:
        log = ChangeLog(database)
        for value in (1, 2):
            database.write("INSERT OR REPLACE INTO volume VALUES('x', ?)", (value,))
            database.commit()
            last, changes = log.pending()
            log.forget(last)
            cuts.append(changes)
    with pytest.raises(CorruptFile):
        restore(str(tmp_path / "second.db"), None, cuts[1:])
    assert not (tmp_path / "second.db").exists()


@given(st.binary(max_size=5000))
def test_blobs_give_back_what_was_put_in(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = str(tmp_path_factory.mktemp("blob") / "blob")
    assert write_blob(path, "changes", data) == Path(path).stat().st_size
    assert Path(path).read_bytes()[-1:] == b"\x01"
    read_blob(path, "changes", f"{path}.plain")
    assert Path(f"{path}.plain").read_bytes() == data
    with pytest.raises(BadMessage):
        read_blob(path, "checkpoint", f"{path}.plain")


@pytest.mark.parametrize("spoil", [slice(0, 1), slice(-1, None), slice(30, 31)])
def test_a_damaged_blob_is_refused(tmp_path: Path, spoil: slice) -> None:
    path = tmp_path / "blob"
    write_blob(str(path), "changes", b"some changes" * 100)
    data = bytearray(path.read_bytes())
    data[spoil] = b""
    path.write_bytes(data)
    with pytest.raises(BadMessage):
        read_blob(str(path), "changes", str(tmp_path / "plain"))
