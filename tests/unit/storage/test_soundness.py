"""A database that was damaged is recognised, and nothing it says is believed."""

import contextlib
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from layrfs.errors import CorruptFile
from layrfs.storage import soundness
from layrfs.storage.database import Database
from tests.damage import DAMAGES, PAGE_BYTES, damage_page, used_pages

FILES = 3000


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with rows in every kind of page, closed in order."""
    path = str(tmp_path_factory.mktemp("filled") / "metadata.db")
    dice = random.Random(1)
    with Database(path) as database:
        for number in range(2, FILES):
            database.write("INSERT INTO inode VALUES(?,33188,0,0,1,9,4194304,0,1,1,1,NULL)", (number,))
            database.write("INSERT INTO entry VALUES(?,1,?,?)", (number, b"name %d" % number, number))
            database.write("INSERT INTO content VALUES(?,?,?,0,9)", (number, dice.randbytes(32), number // 9))
            database.write("INSERT INTO block VALUES(?,0,?,9)", (number, number))
            database.write("INSERT INTO local VALUES(?,0,0)", (number,))
        database.commit()
        database.write("DELETE FROM local_change")
    return path


@pytest.fixture
def path(filled: str, tmp_path: Path) -> str:
    """A copy of it."""
    for name in ("metadata.db", "metadata.db-seal"):
        shutil.copy(os.path.join(os.path.dirname(filled), name), tmp_path / name)
    return str(tmp_path / "metadata.db")


def everything(path: str) -> list[list[tuple[object, ...]]]:
    with contextlib.closing(apsw.Connection(path)) as connection:
        return [
            connection.execute(query).fetchall()
            for query in (
                "SELECT * FROM inode ORDER BY number",
                "SELECT * FROM entry ORDER BY cookie",
                "SELECT * FROM content ORDER BY number",
                "SELECT * FROM block ORDER BY inode, number",
                "SELECT * FROM local ORDER BY inode, block",
                "SELECT * FROM volume ORDER BY name",
            )
        ]


@pytest.mark.parametrize("kind", DAMAGES)
def test_whatever_changed_since_an_orderly_close_is_recognised(path: str, kind: str) -> None:
    with open(path, "rb") as file:
        sound = file.read()
    for seed in range(25):
        with open(path, "wb") as file:
            file.write(sound)
        damage_page(path, seed, kind)
        with open(path, "rb") as file:
            same = file.read() == sound
        assert soundness.seal_state(path) == ("kept" if same else "broken")
    damage_page(path, 99, "noise")
    with pytest.raises(CorruptFile, match="layrfs fsck --repair"):
        Database(path)
    assert soundness.read_note(path) is not None
    with pytest.raises(CorruptFile, match="changed while nobody was using it"):
        Database(path)


@pytest.mark.parametrize("kind", ["noise", "zeros", "another page"])
def test_without_a_seal_a_damaged_page_is_recognised_or_harmless(path: str, kind: str, big: bool) -> None:
    soundness.break_seal(path)
    before, pages = everything(path), used_pages(path)
    with open(path, "rb") as file:
        sound = file.read()
    dice = random.Random(kind)
    found = 0
    for seed in range(400 if big else 40):
        with open(path, "wb") as file:
            file.write(sound)
        page = damage_page(path, seed, kind, page=dice.choice(pages))
        if soundness.integrity_check(path):
            found += 1
        else:
            assert everything(path) == before, f"page {page} of seed {seed} was damaged and nobody noticed"
    assert found


def test_a_sound_database_is_opened_and_sealed_again(path: str) -> None:
    with Database(path) as database:
        assert soundness.seal_state(path) == "none"
        database.write("DELETE FROM local WHERE inode = 5")
    assert soundness.seal_state(path) == "kept"
    with Database(path) as database:
        assert database.value("SELECT count(*) FROM local") == FILES - 3


@contextlib.contextmanager
def opened_then_damaged(path: str) -> Iterator[Database]:
    with Database(path) as database:
        pages = os.path.getsize(path) // PAGE_BYTES
        for page in range(40, pages):
            damage_page(path, page, "noise", page=page)
        yield database


async def test_damage_under_a_running_drive_ends_every_answer_and_every_promise(path: str) -> None:
    with opened_then_damaged(path) as database:
        with pytest.raises(CorruptFile, match="layrfs fsck --repair"):
            list(database.rows("SELECT * FROM block ORDER BY inode"))
        assert database.is_damaged
        assert database.problem is not None
        for read in (database.row, database.value, lambda sql: list(database.rows(sql))):
            with pytest.raises(CorruptFile):
                read("SELECT 1")
        with pytest.raises(CorruptFile):
            database.write("DELETE FROM volume")
        with pytest.raises(CorruptFile):
            await database.sync()
    assert soundness.seal_state(path) == "none", "what was found damaged is not called sound"
    with pytest.raises(CorruptFile):
        Database(path)


async def test_a_large_database_is_checked_while_it_is_in_use(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundness, "CHECKED_AT_ONCE_BYTES", 0)
    monkeypatch.setattr(soundness, "CHECKED_FULLY_BYTES", 0)
    with contextlib.closing(apsw.Connection(path)) as connection:
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'"))
    soundness.break_seal(path)
    damage_page(path, 1, "noise", page=roots["block"] - 1)
    with Database(path) as database:
        await database._check_rest()
        assert database.is_damaged
    os.unlink(path + "-damaged")
    damage_page(path, 1, "noise", page=roots["inode"] - 1)
    with pytest.raises(CorruptFile):
        Database(path)
