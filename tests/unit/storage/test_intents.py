"""Intents are kept durably, replaced, forgotten; in the database and in a file alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from layrfs.errors import CorruptFile
from layrfs.model.intents import Intent
from layrfs.storage.database import Database
from layrfs.storage.intents import IntentFile, IntentTable

FIRST = Intent(b"a" * 32, "AAAA", 1_000, 1_060, "claim 3")
SECOND = Intent(b"b" * 32, "BBBB", 999, 0, "refund")


@pytest.fixture(params=["table", "file"])
def intents(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[IntentTable | IntentFile]:
    if request.param == "file":
        yield IntentFile(str(tmp_path / "payments.json"))
    else:
        with Database(str(tmp_path / "metadata.db")) as database:
            yield IntentTable(database)


async def test_what_is_kept_is_there_until_it_is_forgotten(intents: IntentTable | IntentFile) -> None:
    assert list(intents.all()) == []
    await intents.keep(SECOND)
    await intents.keep(FIRST)
    assert list(intents.all()) == [SECOND, FIRST]
    abandoned = msgspec.structs.replace(FIRST, is_abandoned=True)
    await intents.keep(abandoned)
    assert list(intents.all()) == [SECOND, abandoned]
    await intents.forget(SECOND.hash)
    await intents.forget(SECOND.hash)
    assert list(intents.all()) == [abandoned]


async def test_the_table_is_on_the_disk_when_keep_returns(tmp_path: Path) -> None:
    path = str(tmp_path / "metadata.db")
    with Database(path) as database:
        await IntentTable(database).keep(FIRST)
        copy = tmp_path / "copy.db"
        for suffix in ("", "-wal"):
            Path(f"{copy}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    with Database(str(copy)) as copied:
        assert IntentTable(copied).all() == [FIRST]


@pytest.mark.parametrize("text", ["", "{}", '[{"hash": 1}]'])
def test_a_damaged_file_is_not_taken_for_an_empty_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "payments.json"
    path.write_text(text)
    with pytest.raises(CorruptFile, match="payments"):
        IntentFile(str(path)).all()
