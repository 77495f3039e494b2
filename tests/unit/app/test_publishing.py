"""Whatever fails between a change and its publication: hosts keep a whole volume, and in the end the newest."""

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from layrfs.app.publishing import REPEAT_SECONDS, RETENTION_SECONDS, Publisher, Superseded
from layrfs.app.recovering import restore_record
from layrfs.app.roots import Kept
from layrfs.config import Paths
from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import LayrError, Unavailable, Unreachable
from layrfs.ids import NodeId, PieceId
from layrfs.model.root_record import RootRecord
from layrfs.policy import history as history_policy
from layrfs.storage.database import Database
from tests.fakes.transfers import FakeTransfers
from tests.volumes import Rows, rows_of

KEYS = VolumeKeys(bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32)


class Roots:
    """Hosts that keep one record between them. ``hosts`` 0: nobody answers; ``deaf``: they keep it and say nothing."""

    def __init__(self) -> None:
        self.hosts = 3
        self.deaf = False
        self.kept: RootRecord | None = None
        self.offers = 0

    async def publish(self, record: RootRecord) -> Kept:
        self.offers += 1
        if not self.hosts:
            return Kept(0, stale=False)
        if self.kept is not None and self.kept != record and self.kept.version >= record.version:
            return Kept(0, stale=True)
        self.kept = record
        if self.deaf:
            raise Unreachable("no answer")
        return Kept(self.hosts, stale=False)


class Moves(FakeTransfers):
    """Remembers what was dropped."""

    dropped: tuple[PieceId, ...] = ()

    async def discard(self, pieces: Sequence[tuple[PieceId, NodeId]]) -> None:
        self.dropped += tuple(piece for piece, _host in pieces)


def publisher(database: Database, transfers: Moves, roots: Roots, directory: Path) -> Publisher:
    """One that has just started."""
    return Publisher(
        database=database, transfers=transfers, roots=roots, keys=KEYS, directory=str(directory), device="test"
    )


def opened(path: Path) -> Database:
    """A volume's database."""
    database = Database(str(path))
    database.write("INSERT OR IGNORE INTO volume VALUES('id', ?)", (KEYS.volume_id,))
    return database


async def kept_by_hosts(roots: Roots, transfers: Moves, home: Path) -> Rows:
    """What another machine would recover now."""
    shutil.rmtree(home, ignore_errors=True)
    paths = Paths.under(str(home))
    paths.prepare("volume")
    assert roots.kept is not None
    await restore_record(paths, "volume", KEYS, transfers, roots.kept)
    with Database(paths.database("volume")) as database:
        return rows_of(database)


def change(database: Database, dice: random.Random) -> None:
    """A few rows, some of them large enough for checkpoints to be due now and then."""
    for _ in range(dice.randrange(1, 5)):
        inode = dice.randrange(60)
        value = dice.randbytes(dice.choice([10, 200]))
        if dice.random() < 0.3:
            database.write("DELETE FROM attribute WHERE inode = ?", (inode,))
        else:
            database.write("INSERT OR REPLACE INTO attribute VALUES(?, ?, ?)", (inode, b"user.a", value))


@pytest.mark.parametrize("seed", range(8))
async def test_hosts_keep_a_whole_volume_at_every_moment(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_policy, "SMALLEST_CHECKPOINT_BYTES", 3000)
    dice, roots, transfers = random.Random(seed), Roots(), Moves()
    place = tmp_path / "0"
    place.mkdir()
    database = opened(place / "metadata.db")
    publishing = publisher(database, transfers, roots, place / "history")
    database.commit()
    states = [rows_of(database)]
    for step in range(60):
        change(database, dice)
        if dice.random() < 0.7:
            database.commit()
            states.append(rows_of(database))
        roots.hosts, roots.deaf = dice.choice([0, 1, 3]), dice.random() < 0.2
        transfers.failure = Unavailable("no host") if dice.random() < 0.2 else None
        try:
            await publishing.publish()
            states.append(rows_of(database))
        except LayrError:
            states.append(rows_of(database))  # it commits first, whatever happens then
        if dice.random() < 0.15:  # killed, and started again on what was on the disk
            left = tmp_path / str(step + 1)
            shutil.copytree(place, left)
            database.close()
            place = left
            database = opened(place / "metadata.db")
            if dice.random() < 0.3:
                shutil.rmtree(place / "history")
            publishing = publisher(database, transfers, roots, place / "history")
        if roots.kept is not None and step % 5 == 0:
            transfers.failure = None
            assert await kept_by_hosts(roots, transfers, tmp_path / "other") in states
    roots.hosts, roots.deaf, transfers.failure = 3, False, None
    await publishing.flush()
    assert not publishing.is_behind
    assert await kept_by_hosts(roots, transfers, tmp_path / "other") == rows_of(database)
    database.close()


async def test_nothing_is_published_when_nothing_has_changed(tmp_path: Path) -> None:
    roots, transfers = Roots(), Moves()
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, transfers, roots, tmp_path / "history")
        for _ in range(3):
            await publishing.publish()
        assert (publishing.version, len(transfers.uploads), roots.offers) == (1, 1, 1)


async def test_a_record_that_few_hosts_keep_is_offered_again(tmp_path: Path, autojump_clock: object) -> None:
    roots = Roots()
    roots.hosts = 1
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, Moves(), roots, tmp_path / "history")
        await publishing.publish()
        await publishing.publish()
        assert roots.offers == 1
        await trio.sleep(REPEAT_SECONDS)
        await publishing.publish()
        assert roots.offers == 2


async def test_another_machines_version_is_not_replaced(tmp_path: Path) -> None:
    roots = Roots()
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, Moves(), roots, tmp_path / "history")
        await publishing.publish()
        roots.kept = other = RootRecord.sign(KEYS.root_private, version=5, time_ms=1, body=b"another machine's")
        database.write("INSERT INTO volume VALUES('x', 1)")
        with pytest.raises(Superseded):
            await publishing.flush()
        assert roots.kept == other
        assert publishing.problem is not None
        assert publishing.is_behind, "what is new here stays here"
        with pytest.raises(Superseded):
            await publishing.publish()


async def test_what_older_records_named_is_dropped_long_after(tmp_path: Path) -> None:
    roots, transfers = Roots(), Moves()
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, transfers, roots, tmp_path / "history")
        await publishing.publish()
        assert database.value("SELECT count(*) FROM local_retired") == 0
        database.write("INSERT INTO volume VALUES('x', ?)", (bytes(5000),))
        await publishing.publish()
        assert transfers.dropped == (), "somebody may be reading the older record"
        database.write("UPDATE local_retired SET since = since - ?", (RETENTION_SECONDS + 1,))
        count = database.value("SELECT count(*) FROM local_retired")
        await publishing.publish()
        assert len(transfers.dropped) == count > 0
        assert database.value("SELECT count(*) FROM local_retired") == 0
