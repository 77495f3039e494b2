"""An owner and its delegate: what is told, what comes back, and who is believed no more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
import trio

from layrfs.app import delegations
from layrfs.app.delegations import Delegations
from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import MissingPiece, NoSpace, NotFound, ReadOnly, Refused, Unreachable
from layrfs.ids import NodeId, VolumeId
from layrfs.model.notes import Purpose
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.delegates import Metadata, all_digests
from layrfs.storage.entrusted import Entrusted
from layrfs.storage.grants import Grant
from layrfs.upkeep import delegating as module
from layrfs.upkeep.delegating import PRESENT_SECONDS, Delegator
from layrfs.wire.delegation import Delegate, DelegationRequest, Entrust, GetPatches, Patches, Revoke, bucket_of
from tests.unit.upkeep.test_merging import METADATA, SHARD, World, host, piece

NODE = NodeIdentity(bytes([1]) * 32)
LIAR = NodeIdentity(bytes([2]) * 32)
NETWORK = bytes([9]) * 32
VOLUME = VolumeId(bytes([3]) * 32)
MASK = bytes(range(32))
OLD, OTHER, NEW = piece(1, 0, 11), piece(0, 0, 10), piece(1, 1, 20)

CHANGES = Purpose("changes", 4, 0, 1)
AnswerT = TypeVar("AnswerT")


class Meeting:
    """An owner with a shard, a delegate that makes what it is told to make, and the line between them."""

    def __init__(self, directory: Path, database: Database) -> None:
        self.world = World(database)
        self.world.add(OTHER, OLD)
        self.make: list[PieceRecord] = []
        self.signs_as = NODE
        self.is_there = True
        self.may_write = True
        self.now = 1e9
        self.refused: set[int] = set()
        self.is_full_by_now = False
        self.asked: list[DelegationRequest] = []
        self.worked: list[Entrusted] = []
        self.began = trio.Event()
        self.node = Delegations(str(directory), NODE, NETWORK, self.work, now=lambda: self.now)
        self.metadata: list[tuple[ShardRecord, Purpose]] = []
        self.database = database
        self.delegator = self.owner()

    def owner(self) -> Delegator:
        """The owner's machine, just started."""
        return Delegator(
            database=self.database,
            volume=VOLUME,
            network_id=NETWORK,
            mask=MASK,
            asker=self,
            merger=self.world.merger,
            metadata=lambda: self.metadata,
            may_write=lambda: self.may_write,
            patch_after_seconds=100.0,
            now=lambda: self.now,
        )

    async def work(self, grant: Grant, database: Database, entrusted: Entrusted) -> None:
        assert grant.mask == MASK
        if self.make:
            Catalog(database).pieces.put(1, self.make)
            self.make = []
        self.worked.append(entrusted)
        self.began.set()
        await trio.sleep_forever()

    async def ask(self, node: NodeId, request: DelegationRequest, kind: type[AnswerT], body: bytes = b"") -> AnswerT:
        assert node == NODE.node_id
        if not self.is_there:
            raise Unreachable("nobody answers")
        self.asked.append(request)
        if (isinstance(request, Delegate) and self.is_full_by_now) or getattr(request, "bucket", None) in self.refused:
            raise Refused("no")
        try:
            answer = await self.node.respond(request, body)
        except NoSpace as error:
            raise Refused("full") from error
        if isinstance(answer, Patches) and self.signs_as is not NODE:
            answer = msgspec.structs.replace(answer, public_key=self.signs_as.public_key)
        assert isinstance(answer, kind)
        return answer

    async def leave(self) -> None:
        """The owner goes, and the delegate does its work."""
        self.began = trio.Event()
        await self.delegator.leave()
        await self.work_begins()

    async def work_begins(self) -> None:
        with trio.fail_after(30):
            await self.began.wait()

    async def come_back(self) -> None:
        await self.delegator.begin(NODE.node_id, 1000)

    def kinds(self) -> list[str]:
        kinds, self.asked = [type(request).__name__ for request in self.asked], []
        return kinds


@asynccontextmanager
async def met(directory: Path) -> AsyncIterator[Meeting]:
    with Database(str(directory / "db")) as database:
        meeting = Meeting(directory, database)
        async with trio.open_nursery() as nursery:
            await nursery.start(meeting.node.run)
            yield meeting
            nursery.cancel_scope.cancel()


async def test_everything_is_told_once_and_with_the_mask_key_only_to_who_wants_it(tmp_path: Path) -> None:
    async with met(tmp_path) as meeting:
        await meeting.delegator.begin(NODE.node_id, 1000)
        assert meeting.kinds() == ["GetPatches", "Delegate", "Delegate", "GetPatches", "Delegate", "Entrust"]
        await meeting.delegator.begin(NODE.node_id, 1000)
        assert meeting.kinds() == ["GetPatches", "Delegate", "Delegate", "GetPatches", "Delegate"]
        (delegate,) = meeting.delegator.delegates
        assert (delegate.node, delegate.seconds, delegate.lies, delegate.problem) == (NODE.node_id, 1000, 0, None)


async def test_who_is_not_there_is_no_delegate_and_has_learned_nothing(tmp_path: Path) -> None:
    async with met(tmp_path) as meeting:
        meeting.is_there = False
        with pytest.raises(Unreachable):
            await meeting.delegator.begin(NODE.node_id, 1000)
        assert meeting.delegator.delegates == []
        with pytest.raises(NotFound):
            await meeting.delegator.revoke(NODE.node_id)


async def test_what_it_made_while_the_owner_was_away_is_the_owners(tmp_path: Path) -> None:
    async with met(tmp_path) as meeting:
        await meeting.come_back()
        meeting.make = [NEW]
        meeting.world.store(NEW)
        meeting.world.lose(11)
        await meeting.leave()
        assert meeting.world.pieces() == [OTHER, OLD]
        meeting.kinds()
        await meeting.come_back()
        assert meeting.world.pieces() == [OTHER, NEW]
        assert meeting.kinds() == ["GetPatches", "Delegate", "Delegate", "GetPatches", "Delegate", "Entrust"]
        answer = await meeting.ask(NODE.node_id, GetPatches(VOLUME, bytes(32), bytes(64)), Patches)
        assert answer.records == ()


async def test_of_what_waits_for_a_hosts_proof_the_delegate_is_told_nothing(tmp_path: Path) -> None:
    async with met(tmp_path) as meeting:
        await meeting.come_back()
        meeting.make = [NEW]
        meeting.world.store(NEW)
        meeting.world.lose(11, 20)
        await meeting.leave()
        await meeting.come_back()
        assert meeting.world.pieces() == [OTHER, OLD]
        meeting.world.silent.discard(host(20))
        await meeting.come_back()
        assert meeting.world.pieces() == [OTHER, NEW]


@pytest.mark.parametrize("lie", ["rubbish", "signature"])
async def test_who_lied_is_believed_no_more_until_delegated_anew(tmp_path: Path, lie: str) -> None:
    async with met(tmp_path) as meeting:
        await meeting.come_back()
        rubbish = PieceRecord(1, 1, type(NEW.id)(b"r" * 32), NEW.host)
        meeting.make = [rubbish if lie == "rubbish" else NEW]
        meeting.world.store(*meeting.make)
        meeting.world.lose(11)
        await meeting.leave()
        if lie == "signature":
            meeting.signs_as = LIAR
        with pytest.raises(Refused):
            await meeting.come_back()
        assert meeting.world.pieces() == [OTHER, OLD]
        assert meeting.delegator.delegates[0].lies == 1
        assert meeting.delegator.problem is not None
        meeting.kinds()
        await meeting.delegator.leave()
        assert meeting.kinds() == []
        meeting.signs_as = NODE
        if lie == "signature":
            await meeting.come_back()
            assert meeting.world.pieces() == [OTHER, NEW]
            assert meeting.delegator.problem is None


async def test_the_owners_machine_says_that_it_is_there_and_that_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(module, "INTERVAL_SECONDS", 0.0)
    async with met(tmp_path) as meeting:
        await meeting.come_back()
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(meeting.delegator.run)
                while len(said := [one for one in meeting.asked if isinstance(one, Delegate)]) < 4:
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        assert {one.present_seconds for one in said} == {PRESENT_SECONDS}
        assert sum(isinstance(one, Entrust) for one in meeting.asked) == 1
        assert meeting.worked == []
        await meeting.leave()
        assert [one.present_seconds for one in meeting.asked if isinstance(one, Delegate)][-1] == 0


async def test_who_vanishes_without_a_word_is_away_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PRESENT_SECONDS", 1)
    monkeypatch.setattr(delegations, "REST_SECONDS", 0.0)
    async with met(tmp_path) as meeting:
        await meeting.come_back()
        await meeting.work_begins()


@asynccontextmanager
async def merging(meeting: Meeting) -> AsyncIterator[trio.Nursery]:
    """The owner is back and talks to its delegate; a host that is asked for a proof takes its time."""
    await meeting.come_back()
    meeting.make = [NEW]
    meeting.world.store(NEW)
    meeting.world.lose(11)
    await meeting.leave()
    meeting.delegator = meeting.owner()
    meeting.worked, meeting.world.answers = [], trio.Event()
    meeting.kinds()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(meeting.delegator.run)
        await until(lambda: meeting.world.asked != [])
        yield nursery
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():
            await trio.lowlevel.checkpoint()


@pytest.fixture
def _busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(module, "INTERVAL_SECONDS", 0.01)


@pytest.mark.usefixtures("_busy")
async def test_a_delegate_rests_before_and_while_what_it_made_is_merged(tmp_path: Path) -> None:
    async with met(tmp_path) as meeting, merging(meeting):
        kinds = meeting.kinds()
        assert kinds[0] == "Delegate"
        assert kinds.count("GetPatches") == 1
        for _ in range(5):
            meeting.now += PRESENT_SECONDS - 100
            greeted = len(meeting.asked)
            await until(lambda: len(meeting.asked) > greeted + 1)  # noqa: B023 - called before it changes
        assert set(meeting.kinds()) == {"Delegate"}
        meeting.world.answers.set()
        await until(lambda: meeting.world.pieces() == [OTHER, NEW])
        await until(lambda: any(isinstance(one, Entrust) for one in meeting.asked))
        assert meeting.worked == []


@pytest.mark.usefixtures("_busy")
async def test_who_may_have_worked_since_it_was_asked_is_told_nothing_before_it_is_asked_again(tmp_path: Path) -> None:
    async with met(tmp_path) as meeting, merging(meeting):
        meeting.is_there = False
        meeting.now += 10 * PRESENT_SECONDS
        meeting.is_there = True
        greeted = len(meeting.asked)
        await until(lambda: len(meeting.asked) > greeted + 1)
        meeting.kinds()
        meeting.world.answers.set()
        await until(lambda: any(isinstance(one, Entrust) for one in meeting.asked))
        kinds = meeting.kinds()
        assert "GetPatches" in kinds[: kinds.index("Entrust")]


@pytest.mark.usefixtures("_busy")
@pytest.mark.parametrize("what", ["revoke", "leave"])
async def test_who_revokes_or_goes_does_not_wait_for_what_is_merged(tmp_path: Path, what: str) -> None:
    async with met(tmp_path) as meeting, merging(meeting):
        with trio.fail_after(10):
            if what == "revoke":
                assert await meeting.delegator.revoke(NODE.node_id)
                assert meeting.node.volumes == 0
            else:
                await meeting.delegator.leave()
                assert [one.present_seconds for one in meeting.asked if isinstance(one, Delegate)][-1] == 0
        said = [one for one in meeting.kinds() if one in {"Delegate", "Revoke"}]
        assert what == "leave" or said[-1] == "Revoke"
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        assert meeting.kinds() == []


async def test_a_bucket_that_is_refused_keeps_no_other_from_being_told(tmp_path: Path) -> None:
    async with met(tmp_path) as meeting:
        meeting.world.add(piece(0, 0, 10, METADATA), shard=METADATA)
        meeting.refused = {bucket_of(SHARD)}
        with pytest.raises(Refused):
            await meeting.come_back()
        (delegate,) = meeting.delegator.delegates
        assert (delegate.heard, delegate.problem) == (None, "no")
        meeting.refused = set()
        meeting.kinds()
        await meeting.come_back()
        assert meeting.kinds().count("Entrust") == 1


@pytest.mark.parametrize("when", ["asked", "told"])
async def test_a_node_that_is_full_is_no_delegate_and_gets_no_key_if_it_says_so_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    async with met(tmp_path) as meeting:
        if when == "asked":
            monkeypatch.setattr(delegations, "MOST_VOLUMES", 0)
        meeting.is_full_by_now = True
        with pytest.raises(Refused):
            await meeting.come_back()
        assert meeting.delegator.delegates == []
        assert meeting.kinds() == (["GetPatches"] if when == "asked" else ["GetPatches", "Delegate"])
        meeting.is_full_by_now = False
        monkeypatch.undo()
        await meeting.come_back()
        meeting.is_full_by_now = True
        with pytest.raises(Refused):
            await meeting.come_back()
        assert len(meeting.delegator.delegates) == 1, "it has the key"


async def test_who_was_taken_over_says_nothing(tmp_path: Path) -> None:
    async with met(tmp_path) as meeting:
        await meeting.come_back()
        meeting.kinds()
        meeting.may_write = False
        with pytest.raises(ReadOnly):
            await meeting.come_back()
        assert meeting.kinds() == []


async def test_a_revoked_delegate_knows_nothing_and_one_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    async with met(tmp_path) as meeting:
        await meeting.come_back()
        assert await meeting.delegator.revoke(NODE.node_id)
        assert meeting.delegator.delegates == []
        with pytest.raises(MissingPiece):
            await meeting.node.respond(Revoke(VOLUME, bytes(64)), b"")
        await meeting.come_back()
        meeting.is_there = False
        assert not await meeting.delegator.revoke(NODE.node_id)
        assert meeting.delegator.delegates == []


async def test_shards_are_looked_through_again_only_when_something_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Metadata] = []

    def counted(path: str, metadata: Metadata) -> bytes:
        looked.append(metadata)
        return all_digests(path, metadata)

    monkeypatch.setattr(module, "all_digests", counted)
    async with met(tmp_path) as meeting:
        await meeting.come_back()
        assert len(looked) == 1
        meeting.world.changes.forget(1 << 40)  # as if it were published
        for expected in (2, 2, 2):
            await meeting.come_back()
            assert len(looked) == expected
        meeting.world.catalog.pieces.put(1, [NEW])
        await meeting.come_back()
        assert len(looked) == 3
        meeting.world.changes.forget(1 << 40)
        other = msgspec.structs.replace(meeting.world.catalog.shard(1), id=type(SHARD)(bytes([9]) * 32))
        meeting.metadata = [(other, CHANGES)]
        await meeting.come_back()
        assert len(looked) == 4


async def test_shards_of_metadata_are_told_with_their_purpose(tmp_path: Path) -> None:
    async with met(tmp_path) as meeting:
        shard = msgspec.structs.replace(meeting.world.catalog.shard(1), id=type(SHARD)(bytes([200]) * 32))
        meeting.metadata.append((shard, Purpose("changes", 4, 0, 1)))
        await meeting.come_back()
        assert meeting.kinds().count("Entrust") == 2
