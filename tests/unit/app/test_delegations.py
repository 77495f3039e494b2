"""What owners ask of a host that looks after their volumes: answered from the disk, and when the work rests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import apsw
import msgspec
import pytest
import trio

from layrfs.app import delegations as module
from layrfs.app.delegations import MOST_VOLUMES, REST_SECONDS, Delegations
from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import BadMessage, MissingPiece, NewerFormat, NoSpace
from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.patch_records import is_signed
from layrfs.model.shards import PieceRecord
from layrfs.storage import soundness
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.entrusted import Entrusted
from layrfs.storage.grants import Grant, Grants
from layrfs.wire import delegation
from layrfs.wire.delegation import (
    BUCKETS,
    UNSIGNED,
    DelegationRequest,
    DelegationResponse,
    EntrustedPiece,
    EntrustedPurpose,
    EntrustedShard,
)

HOST = NodeIdentity(bytes([1]) * 32)
NETWORK = bytes([9]) * 32
VOLUME = bytes([3]) * 32
MASK = bytes(range(32))
NOTHING = bytes(delegation.DIGESTS_BYTES)
OLD = EntrustedPiece(1, 0, PieceId(bytes([7]) * 32), NodeId(bytes([7]) * 20))
CONTENT = EntrustedPurpose(0, 0, 0, 0, bytes(6), bytes(6))
SHARD = EntrustedShard(ShardId(b"\x01\x20" + bytes(30)), Salt(bytes(16)), 100, 1, 3, 0, (OLD,), CONTENT)
BODY = delegation.shards_body((SHARD,))
DIGESTS = NOTHING[: 0x12 * 16] + delegation.bucket_digest(BODY) + NOTHING[0x13 * 16 :]
START = bytes(32)


class Workplace:
    """A host's delegations; the work is to note who works, and on request to make a piece or to fail."""

    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)
        self.now = 1000.0
        self.working: set[bytes] = set()
        self.began = 0
        self.make: list[PieceRecord] = []
        self.fails = False
        self.delegations = Delegations(self.directory, HOST, NETWORK, self.work, now=lambda: self.now)

    async def work(self, grant: Grant, database: Database, entrusted: Entrusted) -> None:
        assert database.path.startswith(self.directory)
        assert entrusted.shard_count() >= 0
        self.began += 1
        if self.fails:
            raise ValueError("nobody foresaw this")
        if self.make:
            Catalog(database).pieces.put(1, self.make)
        self.working.add(grant.volume)
        try:
            await trio.sleep_forever()
        finally:
            self.working.discard(grant.volume)

    async def ask(self, request: DelegationRequest, body: bytes = b"") -> DelegationResponse:
        """From a thread, as the piece server does."""
        call = partial(self.delegations.answer, request, memoryview(body))
        return await trio.to_thread.run_sync(call)

    async def delegate(self, *, present: int = 0, volume: bytes = VOLUME, until: int = 5000) -> DelegationResponse:
        return await self.ask(delegation.Delegate(volume, MASK, until, present, 100, UNSIGNED), DIGESTS)

    async def entrust(self) -> DelegationResponse:
        return await self.ask(delegation.Entrust(VOLUME, 0x12, UNSIGNED), BODY)

    async def patches(self) -> delegation.Patches:
        answer = await self.ask(delegation.GetPatches(VOLUME, START, UNSIGNED))
        assert isinstance(answer, delegation.Patches)
        return answer

    def on_disk(self) -> bytes:
        """All bytes of all files."""
        found = b""
        for path, _directories, names in os.walk(self.directory):
            found += b"".join(Path(path, name).read_bytes() for name in names)
        return found


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Workplace]:
    place = Workplace(directory)
    async with trio.open_nursery() as nursery:
        await nursery.start(place.delegations.run)
        yield place
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():
            await trio.lowlevel.checkpoint()


async def test_what_is_unknown_is_wanted_and_once_it_came_it_is_not(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        assert await place.delegate() == delegation.Delegated((0x12,))
        assert await place.entrust() == delegation.Entrusted()
        assert await place.delegate() == delegation.Delegated(())
    async with running(tmp_path) as place:
        assert await place.delegate() == delegation.Delegated(())


async def test_the_key_is_readable_by_the_hosts_user_only_and_gone_after_a_revocation(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        await place.delegate()
        await place.entrust()
        assert MASK in place.on_disk()
        grant = tmp_path / "delegations" / VOLUME.hex() / "grant"
        assert grant.stat().st_mode & 0o777 == 0o600
        assert await place.ask(delegation.Revoke(VOLUME, UNSIGNED)) == delegation.Revoked()
        assert place.working == set()
        found = place.on_disk()
        assert MASK not in found
        assert SHARD.id not in found
        for request in (delegation.Revoke(VOLUME, UNSIGNED), delegation.GetPatches(VOLUME, START, UNSIGNED)):
            with pytest.raises(MissingPiece):
                await place.ask(request)
        with pytest.raises(MissingPiece):
            await place.entrust()


async def test_it_works_while_the_owner_is_away_and_rests_while_it_is_there(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        await place.delegate(present=900)
        await trio.sleep(0.05)
        assert not place.working
        await place.delegate(present=0)
        await until(lambda: place.working == {VOLUME})
        await place.delegate(present=900)
        assert not place.working
        await place.delegate(present=0)
        await until(lambda: place.working == {VOLUME})
        await place.entrust()
        assert not place.working


async def test_what_was_made_is_told_signed_after_the_work_has_stopped(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        await place.delegate(present=900)
        await place.entrust()
        new = PieceRecord(2, 1, PieceId(bytes([8]) * 32), NodeId(bytes([8]) * 20))
        again = PieceRecord(1, 1, PieceId(bytes([6]) * 32), NodeId(bytes([6]) * 20))
        place.make = [again, new]
        await place.delegate(present=0)
        await until(lambda: place.working == {VOLUME})
        answer = await place.patches()
        assert not place.working
        assert [(one.position, one.piece, one.host, one.replaced) for one in answer.records] == [
            (1, again.id, again.host, OLD.id),
            (2, new.id, new.host, b""),
        ]
        assert all(is_signed(one, HOST.node_id, answer.public_key, NETWORK) for one in answer.records)
        assert not answer.more
        await place.entrust()
        assert (await place.patches()).records == ()


async def test_a_delegation_ends_when_its_time_has_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXPIRY_SECONDS", 0.01)
    async with running(tmp_path) as place:
        await place.delegate(until=1200)
        await until(lambda: place.working == {VOLUME})
        place.now = 1199.0
        await trio.sleep(0.1)
        assert place.working == {VOLUME}
        place.now = 1200.0
        await until(lambda: not (tmp_path / "delegations" / VOLUME.hex()).exists())
        assert place.working == set()
        assert MASK not in place.on_disk()


@pytest.mark.parametrize("first", ["expiry", "owner"])
async def test_what_an_owner_was_told_goes_on_does_not_end_by_what_was_said_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.setattr(module, "EXPIRY_SECONDS", 0.01)
    async with running(tmp_path) as place:
        await place.delegate(until=1200)
        lock = place.delegations._volumes[VOLUME].lock
        async with trio.open_nursery() as nursery, lock:
            if first == "owner":
                nursery.start_soon(partial(place.delegate, until=5000))
                await until(lambda: lock.statistics().tasks_waiting == 1)
                place.now = 1200.0
            else:
                place.now = 1200.0
                await until(lambda: lock.statistics().tasks_waiting == 1)
                nursery.start_soon(partial(place.delegate, until=5000))
            await trio.sleep(0.1)
        assert place.delegations.volumes == 1
        await place.entrust()
    assert [grant.until for grant in Grants(str(tmp_path)).all()] == [5000]


async def test_a_delegation_whose_time_has_passed_while_the_host_was_away_is_not_begun(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        await place.delegate(until=1200)
    place = Workplace(tmp_path)
    place.now = 1200.0
    async with trio.open_nursery() as nursery:
        await nursery.start(place.delegations.run)
        assert place.delegations.volumes == 0
        assert MASK not in place.on_disk()
        nursery.cancel_scope.cancel()


async def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_VOLUMES", 2)
    assert MOST_VOLUMES > 2
    async with running(tmp_path) as place:
        with pytest.raises(BadMessage):
            await place.delegate(until=1000)
        for number in (1, 2):
            await place.delegate(volume=bytes([number]) * 32)
        with pytest.raises(NoSpace):
            await place.delegate(volume=bytes([4]) * 32)
        await place.delegate(volume=bytes([1]) * 32)
        with pytest.raises(BadMessage):
            await place.ask(delegation.Entrust(bytes([1]) * 32, 0x13, UNSIGNED), BODY)
        with pytest.raises(BadMessage):
            await place.ask(delegation.Entrust(bytes([1]) * 32, BUCKETS - 1, UNSIGNED), b"\xc1")


async def test_work_that_fails_ends_nothing_else(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        place.fails = True
        await place.delegate(present=0)
        await until(lambda: place.began == 1)
        place.fails = False
        await place.delegate(volume=bytes([1]) * 32)
        await until(lambda: place.working == {bytes([1]) * 32})
        assert await place.entrust() == delegation.Entrusted()


async def test_a_volume_whose_database_fails_ends_alone_and_can_be_handed_over_anew(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        await place.delegate(volume=bytes([1]) * 32)
        await place.delegate()
        volume = place.delegations._volumes[VOLUME]
        volume.database.before_commit(fail)
        await until(lambda: place.delegations.volumes == 1)
        assert isinstance(await place.delegate(), delegation.Delegated)
        assert place.delegations.volumes == 2


def fail() -> None:
    raise OSError("the disk is gone")


def spoil(database: Path, table: str) -> None:
    """What is in one table is unreadable from now on."""
    with contextlib.closing(apsw.Connection(str(database))) as connection:
        query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        page, page_bytes = connection.execute(query, (table,)).get, connection.pragma("page_size")
    with open(database, "r+b") as file:
        file.seek((page - 1) * page_bytes)
        file.write(b"\xff" * page_bytes)


@pytest.mark.parametrize("killed", [False, True])
async def test_what_can_be_read_of_what_is_damaged_goes_on_and_is_told(tmp_path: Path, *, killed: bool) -> None:
    async with running(tmp_path) as place:
        place.make = [PieceRecord(2, 1, PieceId(bytes([8]) * 32), NodeId(bytes([8]) * 20))]
        await place.delegate(present=900)
        await place.entrust()
        await place.delegate(present=0)
        await until(lambda: place.working == {VOLUME})
        known = await place.patches()
        assert len(known.records) == 1
    database = tmp_path / "delegations" / VOLUME.hex() / "entrusted.db"
    spoil(database, "local_trust")
    if killed:  # when it had just been set aside
        soundness.write_note(str(database), soundness.Note("its bytes changed"))
        (database.parent / "damaged").mkdir()
        database.rename(database.parent / "damaged" / "entrusted.db")
    async with running(tmp_path) as place:
        assert await place.patches() == known
        assert await place.delegate() == delegation.Delegated((0x12,))
        await place.entrust()
        assert await place.delegate() == delegation.Delegated(())
        assert (await place.patches()).records == ()
    async with running(tmp_path) as place:
        assert await place.delegate() == delegation.Delegated(())


async def test_what_a_newer_version_wrote_is_left_alone(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        await place.delegate()
        await place.entrust()
    database = tmp_path / "delegations" / VOLUME.hex() / "entrusted.db"
    with contextlib.closing(apsw.Connection(str(database))) as connection:
        connection.pragma("user_version", 999)
    (database.parent / "entrusted.db-seal").unlink()
    before = database.read_bytes()
    async with running(tmp_path) as place:
        assert place.delegations.volumes == 0
        with pytest.raises(NewerFormat):
            await place.delegate()
    assert database.read_bytes() == before


@pytest.mark.parametrize("how", ["unreadable", "damaged"])
async def test_a_delegation_whose_keys_cannot_be_read_now_is_not_forgotten(tmp_path: Path, how: str) -> None:
    async with running(tmp_path) as place:
        await place.delegate()
        await place.entrust()
    grant = tmp_path / "delegations" / VOLUME.hex() / "grant"
    grant.rename(grant.with_name("good"))
    if how == "damaged":
        grant.write_bytes(b"\xc1")
    else:
        grant.mkdir()
    async with running(tmp_path) as place:
        assert place.delegations.volumes == 0
    if how == "unreadable":
        grant.rmdir()
        grant.with_name("good").rename(grant)
    async with running(tmp_path) as place:
        assert await place.delegate() == delegation.Delegated(())


async def test_what_is_damaged_is_begun_anew_and_what_is_unfinished_is_forgotten(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        await place.delegate()
        await place.entrust()
    database = tmp_path / "delegations" / VOLUME.hex() / "entrusted.db"
    database.write_bytes(b"\0" + database.read_bytes()[1:])
    unfinished = tmp_path / "delegations" / (bytes([5]) * 32).hex()
    unfinished.mkdir()
    async with running(tmp_path) as place:
        assert not unfinished.exists()
        assert await place.delegate() == delegation.Delegated((0x12,))


def test_a_grant_shows_no_key() -> None:
    grant = Grant(msgspec.convert(VOLUME, bytes), MASK, 5, 6)
    assert MASK.hex() not in repr(grant)
    assert repr(MASK)[2:-1] not in repr(grant)


def test_grants_of_an_empty_directory(tmp_path: Path) -> None:
    assert Grants(str(tmp_path)).all() == []
    assert REST_SECONDS > 0
