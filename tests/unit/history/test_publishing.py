"""Whatever fails between a change and its publication: hosts keep a whole volume, and in the end the newest."""

import contextlib
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from layrfs.app.recovering import restore_record
from layrfs.config import Paths
from layrfs.crypto.keys import VolumeKeys
from layrfs.crypto.root_body import open_root_body
from layrfs.errors import AlreadyExists, LayrError, LocalError, Superseded, Unavailable
from layrfs.history import segments
from layrfs.history.leasing import Tenure
from layrfs.history.publishing import REPEAT_SECONDS, Publisher
from layrfs.history.restoring import restore_segments
from layrfs.ids import NodeId, PieceId
from layrfs.model import history as history_model
from layrfs.model.history import History
from layrfs.model.notes import PieceNote
from layrfs.model.redundancy import Redundancy
from layrfs.model.root_record import RootRecord
from layrfs.model.snapshot_names import time_name
from layrfs.policy import history as history_policy
from layrfs.policy.chains import chains, whole_segments
from layrfs.policy.collecting import RETENTION_SECONDS
from layrfs.storage.changes import ROWS_TOGETHER, ChangeLog
from layrfs.storage.database import Database
from layrfs.storage.versions import Version, Versions
from layrfs.upkeep.dropping import Dropper
from tests.fakes.asking import FakeAsker
from tests.fakes.one_record import OneRecord
from tests.fakes.transfers import FakeTransfers
from tests.volumes import Rows, rows_of

KEYS = VolumeKeys(bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32, bytes([4]) * 32)


class Clock:
    """The time that the publisher is told."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def publisher(
    database: Database,
    transfers: FakeTransfers,
    roots: OneRecord,
    directory: Path,
    now: Callable[[], float] = time.time,
    hosts: Callable[[], int] = lambda: 5,
) -> Publisher:
    """One that has just started."""
    tenure = Tenure(device=NodeId(bytes(20)), name="test", keys=KEYS, roots=roots, now=now)
    return Publisher(
        database=database,
        transfers=transfers,
        roots=roots,
        keys=KEYS,
        directory=str(directory),
        tenure=tenure,
        known_hosts=hosts,
        now=now,
    )


def opened(path: Path) -> Database:
    """A volume's database."""
    database = Database(str(path))
    database.write("INSERT OR IGNORE INTO volume VALUES('id', ?)", (KEYS.volume_id,))
    return database


async def kept_by_hosts(roots: OneRecord, transfers: FakeTransfers, home: Path) -> Rows:
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
    dice, roots, transfers = random.Random(seed), OneRecord(), FakeTransfers()
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


@pytest.mark.parametrize("left", ["nothing", "zeros", "half", "all but a bit", "another history's"])
async def test_what_a_power_cut_left_of_a_changeset_is_not_merged(tmp_path: Path, left: str) -> None:
    roots, transfers, dice = OneRecord(), FakeTransfers(), random.Random(3)
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, transfers, roots, tmp_path / "history")
        change(database, dice)
        await publishing.publish()
        kept = tmp_path / "history" / str(publishing.version)
        data = kept.read_bytes()
        match left:
            case "nothing":
                kept.write_bytes(b"")
            case "zeros":
                kept.write_bytes(bytes(len(data)))
            case "half":
                kept.write_bytes(data[: len(data) // 2])
            case "all but a bit":
                kept.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
            case _:
                kept.write_bytes(await kept_by_another(tmp_path / "another"))
        change(database, dice)
        await publishing.publish()
        assert await kept_by_hosts(roots, transfers, tmp_path / "other") == rows_of(database)


async def kept_by_another(place: Path) -> bytes:
    """The changeset of the first segment of a volume that another machine began."""
    place.mkdir()
    with opened(place / "metadata.db") as database:
        change(database, random.Random(4))
        await publisher(database, FakeTransfers(), OneRecord(), place / "history").publish()
    return (place / "history" / "1").read_bytes()


async def test_notes_alone_lead_to_the_segments_of_the_newest_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_policy, "SMALLEST_CHECKPOINT_BYTES", 3000)
    dice, roots, transfers = random.Random(5), OneRecord(), FakeTransfers()
    kinds = set()
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, transfers, roots, tmp_path / "history")
        for _ in range(40):
            change(database, dice)
            await publishing.publish()
            assert roots.kept is not None
            body = open_root_body(KEYS.content, KEYS.volume_id, roots.kept.version, roots.kept.body)
            segments = History.from_bytes(body).segments
            kinds.add(tuple(segment.kind for segment in segments[:2]))
            notes = [(PieceNote(salt, 0, 0, Redundancy(1, 1), what), 0) for salt, what in transfers.purposes.items()]
            chain = next(chains(whole_segments(notes)))
            assert [(each.number, each.tag, each.kind) for each in chain] == [
                (each.number, each.tag, each.kind) for each in segments
            ]
    assert len(kinds) > 2, "chains with and without a checkpoint"


async def test_nothing_is_published_when_nothing_has_changed(tmp_path: Path) -> None:
    roots, transfers = OneRecord(), FakeTransfers()
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, transfers, roots, tmp_path / "history")
        for _ in range(3):
            await publishing.publish()
        assert (publishing.version, len(transfers.uploads), roots.offers) == (1, 1, 1)


async def test_a_record_that_few_hosts_keep_is_offered_again(tmp_path: Path, autojump_clock: object) -> None:
    roots = OneRecord()
    roots.hosts = 1
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, FakeTransfers(), roots, tmp_path / "history")
        await publishing.publish()
        await publishing.publish()
        assert roots.offers == 1
        await trio.sleep(REPEAT_SECONDS)
        await publishing.publish()
        assert roots.offers == 2


async def test_changes_made_without_hosts_do_not_pile_up(tmp_path: Path) -> None:
    roots = OneRecord()
    roots.hosts = 0
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, FakeTransfers(), roots, tmp_path / "history")
        for value in range(3 * ROWS_TOGETHER):
            database.write("INSERT OR REPLACE INTO volume VALUES('x', ?)", (value,))
            database.commit()
            with pytest.raises(Unavailable):
                await publishing.publish()
        assert database.value("SELECT count(*) FROM local_change") <= ROWS_TOGETHER


async def test_a_segment_that_few_hosts_keep_gets_more_copies_when_there_are_more(tmp_path: Path) -> None:
    roots, transfers = OneRecord(), FakeTransfers()
    transfers.hosts = roots.hosts = 1
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, transfers, roots, tmp_path / "history", hosts=lambda: transfers.hosts)
        for name in ("one", "two"):
            database.write(
                "INSERT INTO attribute VALUES(1, ?, ?)", (name.encode(), random.Random(1).randbytes(1 << 12))
            )
            await publishing.publish()
            await publishing.retain(name)
        alone = set(transfers.pieces)
        assert not publishing.lacks_copies, "one host is all there is"
        transfers.hosts, roots.hosts = 5, 3
        assert publishing.lacks_copies
        publishing.hosts_appeared()
        await publishing.publish()
        await publishing.complete()
        assert not publishing.lacks_copies
        transfers.drop(alone)
        await publishing.publish()
        wanted = {piece.id for one in publishing.segments for shard in one.shards for piece in shard.pieces}
        offers, uploads = roots.offers, len(transfers.uploads)
        await publishing.complete()
        assert (roots.offers, len(transfers.uploads)) == (offers, uploads), "that was all"
        assert await kept_by_hosts(roots, transfers, tmp_path / "other") == rows_of(database)
        versions = Versions(database)
        for version in versions.all():
            await restored_version(version, versions, transfers, tmp_path / "restored")
        assert len(wanted) == 5 * sum(len(one.shards) for one in publishing.segments)


async def test_hosts_do_not_keep_the_beginning_of_a_segment_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (segments, history_model):
        monkeypatch.setattr(module, "MAX_PAYLOAD_BYTES", 1000)
    roots, transfers = OneRecord(), FakeTransfers()
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, transfers, roots, tmp_path / "history")
        database.write("INSERT INTO attribute VALUES(1, ?, ?)", (b"user.a", random.Random(1).randbytes(5000)))
        for transfers.uploads_left in (3, 5):
            with pytest.raises(Unavailable):
                await publishing.publish()
            assert transfers.pieces == {}
        transfers.uploads_left = None
        await publishing.publish()
        assert await kept_by_hosts(roots, transfers, tmp_path / "other") == rows_of(database)


async def test_what_no_root_record_can_name_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (segments, history_model):
        monkeypatch.setattr(module, "MAX_PAYLOAD_BYTES", 10_000)
    monkeypatch.setattr(history_policy, "LARGEST_SHARDS", 8)
    roots, transfers, dice = OneRecord(), FakeTransfers(), random.Random(1)
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, transfers, roots, tmp_path / "history")
        for inode, size in enumerate((61_000, 10_500)):  # changes of seven shards and of two, or a checkpoint of eight
            database.write("INSERT INTO attribute VALUES(?, ?, ?)", (inode, b"user.a", dice.randbytes(size)))
            await publishing.publish()
        assert [one.kind for one in publishing.segments] == ["checkpoint"]
        assert await kept_by_hosts(roots, transfers, tmp_path / "other") == rows_of(database)
        uploads = len(transfers.uploads)
        database.write("INSERT OR REPLACE INTO attribute VALUES(2, ?, ?)", (b"user.a", dice.randbytes(90_000)))
        with pytest.raises(LocalError):
            await publishing.publish()
        assert len(transfers.uploads) == uploads


async def test_another_machines_version_is_not_replaced(tmp_path: Path) -> None:
    roots = OneRecord()
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, FakeTransfers(), roots, tmp_path / "history")
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


async def test_what_no_version_needs_is_dropped_long_after(tmp_path: Path) -> None:
    roots, transfers, clock = OneRecord(), FakeTransfers(), Clock()
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, transfers, roots, tmp_path / "history", clock)
        for value in range(3):  # within a second: only the last is worth keeping
            database.write("INSERT OR REPLACE INTO volume VALUES('x', ?)", (bytes([value]) * 5000,))
            await publishing.publish()
        count = database.value("SELECT count(*) FROM local_retired")
        assert count > 0
        clock.now += RETENTION_SECONDS - 1
        assert await dropped(database, transfers, clock) == 0, "somebody may be reading the older record"
        clock.now += 1
        assert await dropped(database, transfers, clock) == count
        assert database.value("SELECT count(*) FROM local_retired") == 0


async def test_nothing_is_dropped_before_hosts_know_the_version_without_it(tmp_path: Path) -> None:
    roots, transfers, clock = OneRecord(), FakeTransfers(), Clock()
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, transfers, roots, tmp_path / "history", clock)
        await publishing.publish()
        roots.hosts = 0
        for value in range(3):
            database.write("INSERT OR REPLACE INTO volume VALUES('x', ?)", (bytes([value]) * 5000,))
            with pytest.raises(Unavailable):
                await publishing.publish()
        clock.now += 10 * RETENTION_SECONDS
        assert await dropped(database, transfers, clock) == 0
        roots.hosts = 3
        await publishing.publish()
        assert await dropped(database, transfers, clock) == 0, "who reads the older record has an hour from now on"
        clock.now += RETENTION_SECONDS
        assert await dropped(database, transfers, clock) > 0


async def dropped(
    database: Database, transfers: FakeTransfers, clock: Clock, retention_seconds: float = RETENTION_SECONDS
) -> int:
    """How many pieces hosts were told to drop now."""
    dropper = Dropper(ChangeLog(database), FakeAsker(transfers), clock)
    return (await dropper.drop_due(retention_seconds, lambda _pieces: None)).pieces


@pytest.mark.parametrize("seed", range(4))
async def test_every_retained_version_can_be_restored_from_what_hosts_keep(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Months of publishing, failing, being killed; pieces that nobody needs are gone from hosts at once."""
    monkeypatch.setattr(history_policy, "SMALLEST_CHECKPOINT_BYTES", 3000)
    dice, roots, transfers, clock = random.Random(seed), OneRecord(), FakeTransfers(), Clock()
    place = tmp_path / "0"
    place.mkdir()
    database = opened(place / "metadata.db")
    publishing = publisher(database, transfers, roots, place / "history", clock)
    states: list[Rows] = []
    for step in range(80):
        clock.now += dice.choice([0.3, 10, 10, 1000, 4000, 90_000, -2000])
        change(database, dice)
        roots.hosts = dice.choice([0, 3, 3])
        transfers.failure = Unavailable("no host") if dice.random() < 0.1 else None
        with contextlib.suppress(LayrError):
            await publishing.publish()
        await dropped(database, transfers, clock, 0)
        states.append(rows_of(database))
        if dice.random() < 0.1:
            left = tmp_path / str(step + 1)
            shutil.copytree(place, left)
            database.close()
            place = left
            database = opened(place / "metadata.db")
            publishing = publisher(database, transfers, roots, place / "history", clock)
    roots.hosts, transfers.failure = 3, None
    database.write("INSERT OR REPLACE INTO volume VALUES('end', 1)")
    await publishing.flush()
    versions = Versions(database)
    retained = versions.all()
    assert 10 < len(retained) < 75
    for version in dice.sample(retained, 6):
        restored = await restored_version(version, versions, transfers, tmp_path / "restored")
        assert restored in states
    assert await kept_by_hosts(roots, transfers, tmp_path / "other") == rows_of(database)
    await dropped(database, transfers, clock, 0)
    assert len(transfers.pieces) <= 5 * (len(versions.segments()) + 10), "what nobody needs is not kept"
    database.close()


async def restored_version(version: Version, versions: Versions, transfers: FakeTransfers, directory: Path) -> Rows:
    """What a retained version holds, as rows."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    path = await restore_segments(versions.segments_of(version), KEYS, transfers, str(directory))
    with Database(path) as database:
        assert version.last_shard == (database.value("SELECT max(number) FROM shard") or 0)
        assert version.unsent == database.value("SELECT count(*) FROM unsent")
        return rows_of(database)


async def test_retaining_does_not_make_the_network_behind(tmp_path: Path) -> None:
    roots, clock = OneRecord(), Clock()
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, FakeTransfers(), roots, tmp_path / "history", clock)
        for value in range(3):
            clock.now += 10
            database.write("INSERT OR REPLACE INTO volume VALUES('x', ?)", (value,))
            await publishing.publish()
            assert not publishing.is_behind
        assert [version.number for version in Versions(database).all()] == [1, 2]


async def test_a_snapshot_made_by_hand_is_what_was_there_and_stays(tmp_path: Path) -> None:
    roots, transfers, clock = OneRecord(), FakeTransfers(), Clock()
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, transfers, roots, tmp_path / "history", clock)
        versions = Versions(database)
        database.write("INSERT INTO volume VALUES('x', 1)")
        first = await publishing.retain("first")
        before = rows_of(database)
        assert not publishing.is_behind
        assert versions.by_name()["first"] == first
        second = await publishing.retain(None)
        third = await publishing.retain(None)
        assert [second.name, third.name] == [time_name(second.time_ms), f"{time_name(second.time_ms)}-2"]
        with pytest.raises(AlreadyExists):
            await publishing.retain("first")
        clock.now += 10 * 365 * 86400
        for value in range(20):
            clock.now += 90_000
            database.write("INSERT OR REPLACE INTO volume VALUES('x', ?)", (value,))
            await publishing.publish()
        restored = await restored_version(first, versions, transfers, tmp_path / "restored")
        assert dict(restored["volume"])["x"] == 1
        assert restored["version"] == [row for row in before["version"] if row[4] != "first"]
        publishing.drop([first.number])
        database.write("INSERT OR REPLACE INTO volume VALUES('x', 'after')")
        await publishing.publish()
        assert "first" not in versions.by_name()
        assert first.segments[-1] not in {segment.number for segment in versions.segments()}


async def test_who_recovers_a_volume_keeps_the_version_found(tmp_path: Path) -> None:
    roots, transfers = OneRecord(), FakeTransfers()
    with opened(tmp_path / "metadata.db") as database:
        database.write("INSERT INTO unsent(inode, block) VALUES(7, 0)")
        database.write("INSERT INTO volume VALUES('x', 1)")
        await publisher(database, transfers, roots, tmp_path / "history").publish()
        before = rows_of(database)
    await kept_by_hosts(roots, transfers, tmp_path / "other")
    paths = Paths.under(str(tmp_path / "other"))
    with Database(paths.database("volume")) as database:
        database.write("INSERT INTO volume VALUES('x', 2) ON CONFLICT DO UPDATE SET value = 2")
        await publisher(database, transfers, roots, tmp_path / "history2").publish()
        (version,) = Versions(database).all()
        assert (version.number, version.unsent) == (1, 1)
        assert await restored_version(version, Versions(database), transfers, tmp_path / "restored") == before


async def test_a_small_change_after_a_large_one_does_not_pay_for_the_checkpoint(tmp_path: Path) -> None:
    roots, transfers = OneRecord(), FakeTransfers()
    with opened(tmp_path / "metadata.db") as database:
        publishing = publisher(database, transfers, roots, tmp_path / "history")
        await publishing.publish()
        for number in range(100):
            value = random.Random(number).randbytes(60_000)
            database.write("INSERT OR REPLACE INTO attribute VALUES(?, ?, ?)", (number, b"user.a", value))
        await publishing.publish()
        sent = len(transfers.uploads)
        database.write("INSERT OR REPLACE INTO attribute VALUES(1, ?, ?)", (b"user.b", b"small"))
        await publishing.publish()
        assert sum(part.length for parts in transfers.uploads[sent:] for part in parts) < 4096
        assert not publishing.is_behind
        assert await kept_by_hosts(roots, transfers, tmp_path / "other") == rows_of(database)


async def test_what_is_retired_while_a_version_is_made_waits_for_the_next_one(tmp_path: Path) -> None:
    """A piece that was replaced in that moment is what the version under way still names."""
    transfers, roots, clock = FakeTransfers(), OneRecord(), Clock()
    piece, node = PieceId(bytes(32)), NodeId(bytes(20))
    with opened(tmp_path / "metadata.db") as database:
        publishing, changes = publisher(database, transfers, roots, tmp_path / "history", clock), ChangeLog(database)
        await publishing.publish()
        assert publishing.next_version == publishing.version + 1
        change(database, random.Random(1))
        transfers.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publishing.publish)
            while not transfers.waiting:
                await trio.lowlevel.checkpoint()
            change(database, random.Random(2))
            changes.retire([(piece, node)], publishing.next_version)
            transfers.release()
        assert node not in changes.retired_hosts(int(clock.now) + 1), "hosts have no version yet that says so"
        await publishing.publish()
        assert node in changes.retired_hosts(int(clock.now) + 1)
