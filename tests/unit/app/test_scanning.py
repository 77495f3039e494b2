"""A volume from leftovers: the newest version that is whole, and contents that nobody names."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from layrfs.app.scanning import newest_version
from layrfs.history.rescuing import Rescuer
from layrfs.ids import Salt
from layrfs.model.history import History
from layrfs.model.notes import PieceNote
from layrfs.model.redundancy import DEFAULT_REDUNDANCY as THREE
from layrfs.pipeline.transfers import SourcePart
from layrfs.policy import history as history_policy
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.sightings import Sightings
from tests.fakes.one_record import OneRecord
from tests.fakes.transfers import FakeTransfers
from tests.unit.history.test_publishing import KEYS, change, opened, publisher
from tests.volumes import Rows, rows_of


@pytest.fixture
def sightings(tmp_path: Path) -> Iterator[Sightings]:
    with Sightings(str(tmp_path / "sightings.db")) as sightings:
        yield sightings


def sight(sightings: Sightings, transfers: FakeTransfers, salt: Salt, stored: int) -> None:
    """Every piece of a shard, at the hosts that have it."""
    shard, _parts = transfers.shards[salt]
    for piece in shard.pieces:
        note = PieceNote(salt, piece.position, piece.generation, shard.redundancy, transfers.purposes[salt])
        sightings.add(piece.host, [(piece.id, stored, note)])


def silent(_text: str) -> None:
    """Nobody listens."""


@pytest.mark.parametrize("seed", range(6))
async def test_the_newest_version_of_what_is_left(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, sightings: Sightings
) -> None:
    monkeypatch.setattr(history_policy, "SMALLEST_CHECKPOINT_BYTES", 3000)
    dice, transfers = random.Random(seed), FakeTransfers()
    states: dict[int, Rows] = {}
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, transfers, OneRecord(), tmp_path / "history")
        for _ in range(15):
            change(database, dice)
            before = publishing.version
            await publishing.publish()
            states |= dict.fromkeys(range(before + 1, publishing.version + 1), rows_of(database))
    unseen = dice.sample(sorted(transfers.shards), 2)
    gone = dice.sample(sorted(transfers.shards), 3)
    for salt in transfers.shards:
        if salt not in unseen:
            sight(sightings, transfers, salt, transfers.purposes[salt].number)
    transfers.lost |= {transfers.shards[salt][0].id for salt in gone}
    version = await newest_version(sightings, transfers, KEYS, str(tmp_path), silent)
    if version is None:
        assert {transfers.purposes[salt].number for salt in [*unseen, *gone]} >= {1}
        return
    last = version.history.segments[-1]
    with Database(version.path) as database:
        assert _without_history(rows_of(database)) == _without_history(states[last.number])
    newer = [salt for salt, purpose in transfers.purposes.items() if purpose.number > last.number]
    assert all(_is_broken(transfers, salt, {*unseen, *gone}) for salt in newer), "nothing newer was whole"
    assert History.from_bytes(version.history.to_bytes()) == version.history


def _without_history(rows: Rows) -> Rows:
    """What retaining a version adds is of the next one."""
    return {table: found for table, found in rows.items() if table not in {"version", "segment"}}


def _is_broken(transfers: FakeTransfers, salt: Salt, missing: set[Salt]) -> bool:
    """Whether the shard, or something that its changes follow, is missing."""
    by_tag = {each[:6]: each for each in transfers.purposes}
    at: Salt | None = salt
    while at is not None:
        if at in missing:
            return True
        at = by_tag.get(transfers.purposes[at].previous)
    return False


async def test_a_segment_that_is_no_segment_is_passed_over(tmp_path: Path, sightings: Sightings) -> None:
    transfers = FakeTransfers()
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, transfers, OneRecord(), tmp_path / "history")
        await publishing.publish()
        rows = rows_of(database)
        change(database, random.Random(1))
        await publishing.publish()
    for salt, purpose in transfers.purposes.items():
        sight(sightings, transfers, salt, purpose.number)
        if purpose.number == 2:
            transfers.payloads[transfers.shards[salt][0].id] = b"LYRM and then something else\1"
    said: list[str] = []
    version = await newest_version(sightings, transfers, KEYS, str(tmp_path), said.append)
    assert version is not None
    with Database(version.path) as database:
        assert rows_of(database) == rows
    assert "version 2" in said[0]


async def test_contents_without_names(tmp_path: Path, sightings: Sightings, autojump_clock: object) -> None:
    transfers = FakeTransfers()
    source = tmp_path / "source"
    data = os.urandom(300_000).replace(b"\0", b"\1")  # zeros at the end of a block are not stored
    source.write_bytes(data)
    part = SourcePart(7, 0, str(source), 0, 65536, 65536)
    for number, (inode, block, offset) in enumerate(((7, 0, 0), (7, 1, 65536), (9, 0, 200_000), (0, 0, 250_000))):
        length = 65536 if inode == 7 else 5000
        uploaded = await transfers.upload([SourcePart(inode, block, part.path, offset, length, 65536)], THREE)
        assert uploaded.shard is not None
        sight(sightings, transfers, uploaded.shard.salt, 1000 + number)
    again = await transfers.upload([SourcePart(9, 0, part.path, 100_000, 4000, 65536)], THREE)
    assert again.shard is not None
    sight(sightings, transfers, again.shard.salt, 2000)
    lost = await transfers.upload([SourcePart(11, 0, part.path, 150_000, 4000, 65536)], THREE)
    assert lost.shard is not None
    sight(sightings, transfers, lost.shard.salt, 2000)
    transfers.lost.add(lost.shard.id)
    with opened(tmp_path / "metadata.db") as database:
        rescued = await Rescuer(database, transfers, sightings, silent).run()
        assert (rescued.files, rescued.directory, rescued.lost_shards) == (2, "lost+found", 1)
        found = {
            bytes(name).decode(): (number, size)
            for name, number, size in database.rows(
                "SELECT e.name, i.number, i.size FROM entry e JOIN inode i ON i.number = e.inode WHERE i.mode & 32768"
            )
        }
        assert {name: size for name, (_, size) in found.items()} == {"7": 2 * 65536, "9": 4000}
        catalog = Catalog(database)
        for name, expected in (("7", data[: 2 * 65536]), ("9", data[100_000:104_000])):
            inode = found[name][0]
            blocks = [catalog.place(inode, block) for block in catalog.block_numbers(inode)]
            shards = [catalog.shard(place.shard) for place in blocks if place is not None]
            assert all(len(shard.pieces) == 3 for shard in shards)
            payloads = [transfers.payloads[shard.id] for shard in shards]
            assert b"".join(payloads) == expected


async def test_only_contents_stored_later_than_the_list_of_files(
    tmp_path: Path, sightings: Sightings, autojump_clock: object
) -> None:
    transfers = FakeTransfers()
    source = tmp_path / "source"
    source.write_bytes(b"old and new")
    for inode, offset, stored in ((5, 0, 1000), (6, 4, 1001)):
        uploaded = await transfers.upload([SourcePart(inode, 0, str(source), offset, 4)], THREE)
        assert uploaded.shard is not None
        sight(sightings, transfers, uploaded.shard.salt, stored)
    with opened(tmp_path / "metadata.db") as database:
        rescued = await Rescuer(database, transfers, sightings, silent).run(1000)
        assert rescued.files == 1
        assert database.value("SELECT name FROM entry WHERE name = ?", (b"6",)) == b"6"
