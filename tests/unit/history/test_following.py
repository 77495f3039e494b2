"""A follower's tables are those of the version it names, through merges, checkpoints, forks and failures."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from layrfs.errors import LayrError, Unavailable, Unreachable
from layrfs.history.following import Follower, may_follow
from layrfs.history.root_watch import RootWatch
from layrfs.history.roots import Shown
from layrfs.ids import InodeNumber
from layrfs.model.records import NodeRecord
from layrfs.model.root_record import RootRecord
from layrfs.policy import history as history_policy
from layrfs.policy.following import SURVEY_LOOKS
from layrfs.storage.changes import ChangeLog
from layrfs.storage.database import Database
from layrfs.storage.replay import Touched
from tests.fakes.one_record import OneRecord
from tests.fakes.transfers import FakeTransfers
from tests.unit.history.test_publishing import KEYS, change, opened, publisher
from tests.volumes import Rows, rows_of


class Watch:
    """Shows what hosts keep."""

    def __init__(self, roots: OneRecord) -> None:
        self.roots = roots

    async def look(self) -> RootRecord | None:
        if not self.roots.hosts:
            raise Unavailable("nobody answers")
        return self.roots.kept


class OnlyTables:
    """A view of which nobody remembers anything."""

    def __init__(self) -> None:
        self.rows = 0

    async def go_over(self, touched: Touched, apply: Callable[[], None]) -> list[InodeNumber]:
        self.rows += len(touched.inodes)
        apply()
        return []


def follower(database: Database, roots: OneRecord, transfers: FakeTransfers, place: Path) -> Follower:
    return Follower(
        database=database,
        tables=OnlyTables(),
        watch=Watch(roots),
        transfers=transfers,
        keys=KEYS,
        history_directory=str(place / "history"),
        work_directory=str(place / "work"),
    )


@pytest.mark.parametrize("seed", range(8))
async def test_it_has_one_version_or_another_whatever_fails(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_policy, "SMALLEST_CHECKPOINT_BYTES", 3000)
    dice, roots, transfers = random.Random(seed), OneRecord(), FakeTransfers()
    theirs = FakeTransfers(payloads=transfers.payloads, pieces=transfers.pieces)
    versions: dict[int, Rows] = {}
    place = tmp_path / "follower"
    place.mkdir()
    with opened(tmp_path / "metadata.db") as writer:
        publishing = publisher(writer, transfers, roots, tmp_path / "history")
        copy = Database(str(place / "metadata.db"))
        following = follower(copy, roots, theirs, place)
        for _ in range(50):
            change(writer, dice)
            await publishing.publish()
            versions[publishing.version] = rows_of(writer)
            theirs.failure = dice.choice([None, None, Unreachable("gone")])
            if dice.random() < 0.1:
                shutil.rmtree(place / "history", ignore_errors=True)
            if dice.random() < 0.1 and (kept := sorted(place.glob("history/*"))):
                dice.choice(kept).write_bytes(b"damaged")
            if dice.random() < 0.2:  # killed; what was committed is on the disk
                copy.close()
                copy = Database(str(place / "metadata.db"))
                following = follower(copy, roots, theirs, place)
            try:
                await following.look()
                assert following.version == publishing.version
            except LayrError:
                assert theirs.failure is not None
            if following.version:
                assert rows_of(copy) == versions[following.version]
            assert not ChangeLog(copy).has_pending()
            assert may_follow(copy)
            assert not (place / "work").exists()
        assert theirs.uploads == []
        copy.close()


async def test_a_version_costs_what_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dice, roots, transfers = random.Random(1), OneRecord(), FakeTransfers()
    theirs = FakeTransfers(payloads=transfers.payloads, pieces=transfers.pieces)
    with opened(tmp_path / "one.db") as writer, Database(str(tmp_path / "copy.db")) as copy:
        publishing = publisher(writer, transfers, roots, tmp_path / "one")
        following = follower(copy, roots, theirs, tmp_path)
        for number in range(30):  # merged again and again, as there is no checkpoint yet
            change(writer, dice)
            await publishing.publish()
            await following.look()
            assert len(theirs.downloads) <= number + 1, "one new segment each time"
        assert rows_of(copy) == rows_of(writer)
        assert [record for record in caplog.records if record.levelname == "WARNING"] == [], "no detour was needed"


async def test_it_never_goes_back_and_two_of_one_version_are_decided_as_by_everybody(tmp_path: Path) -> None:
    roots, transfers = OneRecord(), FakeTransfers()
    with opened(tmp_path / "one.db") as writer:
        publishing = publisher(writer, transfers, roots, tmp_path / "one")
        await publishing.publish()
        first = roots.kept
        for name in ("metadata.db", "metadata.db-wal"):
            if (tmp_path / name.replace("metadata", "one")).exists():
                shutil.copy(tmp_path / name.replace("metadata", "one"), tmp_path / name.replace("metadata", "two"))
        writer.write("INSERT INTO volume VALUES('x', 1)")
        await publishing.publish()
        mine = rows_of(writer)
    second = roots.kept
    with Database(str(tmp_path / "copy.db")) as copy:
        following = follower(copy, roots, transfers, tmp_path)
        await following.look()
        roots.kept = first
        await following.look()
        assert following.version == 2
        roots.kept = first
        with Database(str(tmp_path / "two.db")) as fork:
            other = publisher(fork, transfers, roots, tmp_path / "two")
            fork.write("INSERT INTO volume VALUES('y', 2)")
            await other.publish()
            yours = rows_of(fork)
        assert roots.kept is not None
        assert second is not None
        await following.look()
        assert roots.kept.version == second.version == following.version
        assert rows_of(copy) == (yours if roots.kept.time_ms >= second.time_ms else mine)


async def test_a_volume_that_nobody_knows_may_be_new_but_not_without_hosts(
    tmp_path: Path, autojump_clock: object
) -> None:
    roots, transfers = OneRecord(), FakeTransfers()
    with opened(tmp_path / "one.db") as writer, Database(str(tmp_path / "copy.db")) as copy:
        following = follower(copy, roots, transfers, tmp_path)
        roots.hosts = 0
        with pytest.raises(Unavailable):
            await following.begin()
        roots.hosts = 3
        await following.begin()
        assert following.version == 0
        await publisher(writer, transfers, roots, tmp_path / "one").publish()
        await following.begin()
        assert rows_of(copy) == rows_of(writer)


async def test_trouble_is_told_while_it_lasts(tmp_path: Path, autojump_clock: object) -> None:
    roots, transfers = OneRecord(), FakeTransfers()
    with opened(tmp_path / "one.db") as writer, Database(str(tmp_path / "copy.db")) as copy:
        await publisher(writer, transfers, roots, tmp_path / "one").publish()
        following = follower(copy, roots, transfers, tmp_path)
        await following.look()

        async def changed(_inodes: object) -> None:
            await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(following.run, changed)
            await trio.sleep(5)
            assert following.problem is None
            roots.hosts = 0
            await trio.sleep(60)
            assert "nobody answers" in (following.problem or "")
            assert (following.status().seen_seconds or 0) >= 55
            roots.hosts = 3
            await trio.sleep(60)
            assert following.problem is None
            nursery.cancel_scope.cancel()


class FewAsked:
    """Counts who is asked for root records."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.silent = False

    async def survey(self, hosts: tuple[NodeRecord, ...] = ()) -> Shown:
        self.asked.append(len(hosts))
        if self.silent and hosts:
            raise Unavailable("nobody answers")
        record = RootRecord.sign(KEYS.root_private, version=1, time_ms=1, body=b"")
        return Shown(record, tuple(object() for _ in range(12)))  # whoever they are


async def test_few_hosts_are_asked_most_of_the_time_and_all_when_those_are_silent() -> None:
    roots = FewAsked()
    watch = RootWatch(roots)  # asks for nothing else
    for _ in range(2 * SURVEY_LOOKS):
        await watch.look()
    assert roots.asked.count(0) == 2
    assert set(roots.asked) == {0, 3}
    roots.silent = True
    await watch.look()
    await watch.look()
    assert roots.asked[-2:] == [3, 0]
