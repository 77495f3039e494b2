"""What a delegate made becomes the owner's if it is what the delegate says; lies and leftovers cost nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layrfs.errors import Unavailable, WorkerLost
from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.audits import Level
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.pipeline.transfers import Slot
from layrfs.policy.patching import PieceState
from layrfs.policy.trust import Outcome
from layrfs.storage.changes import ChangeLog
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.upkeep.challenging import HeldPiece
from layrfs.upkeep.merging import Merged, Merger
from layrfs.wire.delegation import UNSIGNED, PatchRecord

SHARD, METADATA, UNKNOWN = (ShardId(bytes([number]) * 32) for number in (1, 2, 3))
TOTAL = 3


def host(number: int) -> NodeId:
    return NodeId(bytes([number]) * 20)


def right_id(shard: ShardId, position: int, generation: int) -> PieceId:
    """The same slot is the same piece, whoever makes it."""
    return PieceId(shard[:1] + position.to_bytes(2, "big") + generation.to_bytes(4, "big") + bytes(25))


def piece(position: int, generation: int, at: int, shard: ShardId = SHARD) -> PieceRecord:
    return PieceRecord(position, generation, right_id(shard, position, generation), host(at))


def record(made: PieceRecord, replaced: bytes, shard: ShardId = SHARD) -> PatchRecord:
    return PatchRecord(bytes(32), shard, made.position, made.generation, made.id, made.host, replaced, UNSIGNED)


class World:
    """Hosts as a set of what they have, some of them silent, and an owner."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.catalog, self.changes = Catalog(database), ChangeLog(database)
        self.stored: set[tuple[PieceId, NodeId]] = set()
        self.silent: set[NodeId] = set()
        self.gone: set[NodeId] = set()
        self.leaving: set[NodeId] = set()
        self.asked: list[NodeId] = []
        self.looked = 0
        self.answers = trio.Event()
        self.answers.set()
        self.unavailable = self.worker_is_lost = False
        self.metadata: dict[ShardId, ShardRecord] = {}
        self.next_version, self.may_write = 7, True
        self.merger = Merger(
            catalog=self.catalog,
            changes=self.changes,
            log=self,
            challenger=self,
            transfers=self,
            metadata=self,
            state_of=self.state_of,
        )

    def add(self, *pieces: PieceRecord, shard: ShardId = SHARD) -> int:
        self.stored |= {(one.id, one.host) for one in pieces}
        return self.catalog.add_shard(ShardRecord(shard, Salt(bytes(16)), 5, 100, Redundancy(1, TOTAL), pieces))

    def store(self, *pieces: PieceRecord) -> None:
        self.stored |= {(one.id, one.host) for one in pieces}

    def lose(self, *hosts: int) -> None:
        self.silent |= {host(number) for number in hosts}

    def pieces(self, shard: ShardId = SHARD) -> list[PieceRecord]:
        found = self.catalog.find_shard(shard)
        return [] if found is None else list(found.pieces)

    def retired(self) -> set[tuple[bytes, bytes]]:
        return set(self.database.rows("SELECT piece, host FROM local_retired"))

    # ---- what a merger asks

    async def ask(self, held: HeldPiece, level: Level) -> Outcome:
        assert level == "prove"
        self.asked.append(held.piece.host)
        await self.answers.wait()
        if held.piece.host in self.silent:
            return "offline"
        return "passed" if (held.piece.id, held.piece.host) in self.stored else "missing"

    async def reaches_another(self, _host: NodeId) -> bool:
        return True

    async def identify(self, shard: ShardRecord, slots: Sequence[Slot]) -> tuple[PieceId, ...]:
        readable = [
            one
            for one in shard.pieces
            if one.host not in self.silent
            and (one.id, one.host) in self.stored
            and one.id == right_id(shard.id, one.position, one.generation)
        ]
        if self.worker_is_lost:
            raise WorkerLost("a worker ended")
        if self.unavailable or not readable:
            raise Unavailable("not now")
        return tuple(right_id(shard.id, slot.position, slot.generation) for slot in slots)

    def records(self) -> dict[ShardId, ShardRecord]:
        self.looked += 1
        return dict(self.metadata)

    async def adopt(self, shard: ShardId, pieces: Sequence[PieceRecord]) -> None:
        kept = {one.position: one for one in (*self.metadata[shard].pieces, *pieces)}
        old = self.metadata[shard]
        self.metadata[shard] = ShardRecord(
            old.id, old.salt, old.plain_bytes, old.sealed_bytes, old.redundancy, tuple(kept.values())
        )

    def state_of(self, node: NodeId) -> PieceState:
        return "gone" if node in self.gone else "leaving" if node in self.leaving else "good"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with Database(str(tmp_path_factory.mktemp("merging") / "db")) as database:
        yield database


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Database(str(tmp_path / "db")) as database:
        yield World(database)


OLD, OTHER, NEW = piece(1, 0, 11), piece(0, 0, 10), piece(1, 1, 20)


async def merged(world: World, *records: PatchRecord) -> tuple[int, int, int, int]:
    done: Merged = await world.merger.merge(records)
    return done.taken, done.left, done.lies, len(done.unsettled)


async def test_a_piece_instead_of_one_whose_host_is_silent_is_taken_and_the_old_one_retired(world: World) -> None:
    number = world.add(OTHER, OLD)
    world.store(NEW)
    world.lose(11)
    assert await merged(world, record(NEW, OLD.id)) == (1, 0, 0, 0)
    assert world.pieces() == [OTHER, NEW]
    assert world.retired() == {(OLD.id, OLD.host)}
    assert world.catalog.pieces.next_generation(number) == 2
    assert await merged(world, record(NEW, OLD.id)) == (0, 0, 0, 0)


async def test_all_pieces_may_be_a_delegates_when_all_others_are_lost(world: World) -> None:
    world.add(OTHER, OLD)
    made = [piece(0, 1, 20), piece(1, 1, 21), piece(2, 1, 22)]
    world.store(*made)
    world.lose(10, 11)
    records = [record(one, {0: OTHER.id, 1: OLD.id}.get(one.position, b"")) for one in made]
    assert await merged(world, *records) == (3, 0, 0, 0)
    assert world.pieces() == made


async def test_a_piece_that_is_still_there_is_not_given_up(world: World) -> None:
    """So a delegate cannot move a volume to hosts of its choice."""
    number = world.add(OTHER, OLD)
    world.store(NEW)
    assert await merged(world, record(NEW, OLD.id)) == (0, 1, 0, 0)
    assert world.pieces() == [OTHER, OLD]
    assert world.retired() == set()
    assert world.catalog.pieces.next_generation(number) == 2


async def test_what_was_made_instead_of_a_piece_whose_host_leaves_is_taken_while_that_is_there(world: World) -> None:
    world.add(OTHER, OLD)
    world.store(NEW)
    world.leaving = {OLD.host}
    assert await merged(world, record(NEW, OLD.id)) == (1, 0, 0, 0)
    assert world.pieces() == [OTHER, NEW]
    assert world.retired() == {(OLD.id, OLD.host)}


async def test_what_was_made_at_a_host_that_leaves_too_is_no_better(world: World) -> None:
    world.add(OTHER, OLD)
    world.store(NEW)
    world.leaving = {OLD.host, NEW.host}
    assert await merged(world, record(NEW, OLD.id)) == (0, 1, 0, 0)
    assert world.pieces() == [OTHER, OLD]


async def test_the_owners_patch_wins(world: World) -> None:
    world.add(OTHER, piece(1, 1, 12))
    world.store(NEW)
    assert await merged(world, record(NEW, OLD.id)) == (0, 1, 0, 0)
    assert world.pieces() == [OTHER, piece(1, 1, 12)]
    assert world.retired() == set()


async def test_what_its_host_has_not_is_not_taken(world: World) -> None:
    world.add(OTHER, OLD)
    world.lose(11)
    assert await merged(world, record(NEW, OLD.id)) == (0, 1, 0, 0)
    assert world.pieces() == [OTHER, OLD]


async def test_rubbish_that_proves_itself_is_a_lie(world: World) -> None:
    world.add(OTHER, OLD)
    world.lose(11)
    rubbish = PieceRecord(1, 1, PieceId(b"r" * 32), host(20))
    world.store(rubbish)
    assert await merged(world, record(rubbish, OLD.id)) == (0, 0, 1, 0)
    assert world.pieces() == [OTHER, OLD]
    assert world.retired() == set()


async def test_no_host_is_told_to_drop_what_the_owner_needs_on_a_delegates_word(world: World) -> None:
    world.add(OTHER, OLD)
    for shard, position in ((UNKNOWN, 0), (SHARD, 2), (SHARD, 9), (SHARD, 0)):
        liar = PieceRecord(position, 1, OLD.id, OLD.host)
        await merged(world, record(liar, OTHER.id, shard))
    assert world.retired() == set()
    assert world.pieces() == [OTHER, OLD]


async def test_what_a_host_is_about_to_drop_is_not_taken(world: World) -> None:
    """The owner made the same piece before, and gave it up: the order to drop it may reach its host any time."""
    world.add(OTHER)
    world.store(NEW)
    world.changes.retire([(NEW.id, NEW.host)], 5)
    assert await merged(world, record(NEW, b"")) == (0, 1, 0, 0)
    assert world.pieces() == [OTHER]


async def test_a_silent_host_is_asked_once_and_its_pieces_later(world: World) -> None:
    shards = [ShardId(bytes([number]) * 32) for number in (4, 5, 6)]
    for shard in shards:
        world.add(piece(0, 0, 10, shard), piece(1, 0, 11, shard), shard=shard)
    world.lose(11, 20)
    records = [record(piece(1, 1, 20, shard), right_id(shard, 1, 0), shard) for shard in shards]
    assert (await merged(world, *records))[:3] == (0, 0, 0)
    assert len((await world.merger.merge(records)).unsettled) == 3
    assert world.asked.count(host(20)) <= 4
    world.gone.add(host(20))
    assert await merged(world, *records) == (0, 3, 0, 0)


async def test_a_shard_that_cannot_be_read_now_is_looked_at_later(world: World) -> None:
    world.add(OTHER, OLD)
    world.store(NEW)
    world.lose(11)
    world.unavailable = True
    assert await merged(world, record(NEW, OLD.id)) == (0, 0, 0, 1)
    world.unavailable, world.worker_is_lost = False, True
    assert await merged(world, record(NEW, OLD.id)) == (0, 0, 0, 1)
    world.worker_is_lost = False
    assert await merged(world, record(NEW, OLD.id)) == (1, 0, 0, 0)


async def test_pieces_of_metadata_are_adopted(world: World) -> None:
    old, new = piece(0, 0, 10, METADATA), piece(0, 1, 20, METADATA)
    world.metadata[METADATA] = ShardRecord(METADATA, Salt(bytes(16)), 5, 100, Redundancy(1, TOTAL), (old,))
    world.store(new)
    world.lose(10)
    assert await merged(world, record(new, old.id, METADATA)) == (1, 0, 0, 0)
    assert world.metadata[METADATA].pieces == (new,)
    far = PieceRecord(0, 2000, right_id(METADATA, 0, 2000), host(21))
    assert await merged(world, record(far, new.id, METADATA)) == (0, 0, 1, 0)


async def test_versions_are_not_looked_through_for_each_shard_that_is_unknown(world: World) -> None:
    unknown = [ShardId(bytes([9, number]) * 16) for number in range(50)]
    made = [record(piece(0, 1, 20, shard), b"", shard) for shard in unknown]
    assert await merged(world, *made) == (0, 50, 0, 0)
    assert world.looked == 1


KINDS = st.sampled_from(["owner", "delegate", "merge", "drop", "lose", "lie"])
STEPS = st.lists(st.tuples(KINDS, st.integers(0, 2), st.integers(1, 9)), max_size=14)


class History:
    """An owner and a delegate patch one shard, each knowing what it knows; orders to drop are carried out now and then.

    A loss is a host that is silent for good; nobody patches without a piece to make it of.
    """

    def __init__(self, world: World, shard: ShardId) -> None:
        self.world, self.shard = world, shard
        first = [piece(position, 0, position + 1, shard) for position in range(TOTAL)]
        self.number = world.add(*first, shard=shard)
        self.known = {one.position: one for one in first}
        self.theirs = dict(self.known)
        self.generation = 0

    def living(self, pieces: list[PieceRecord]) -> list[PieceRecord]:
        return [one for one in pieces if one.host not in self.world.silent and (one.id, one.host) in self.world.stored]

    def owner(self, position: int, at: int) -> None:
        pieces = self.world.pieces(self.shard)
        if any(one.host == host(at) for one in pieces) or not self.living(pieces) or host(at) in self.world.silent:
            return
        made = piece(position, self.world.catalog.pieces.next_generation(self.number), at, self.shard)
        self.world.store(made)
        self.world.changes.retire(self.world.catalog.pieces.put(self.number, [made]), 7)

    def delegate(self, position: int, at: int) -> None:
        pieces = list(self.theirs.values())
        if any(one.host == host(at) for one in pieces) or not self.living(pieces) or host(at) in self.world.silent:
            return
        self.generation += 1
        self.theirs[position] = piece(position, self.generation, at, self.shard)
        self.world.store(self.theirs[position])

    def lie(self, position: int, at: int) -> None:
        """It says that rubbish, which it has put there, is a piece."""
        rubbish = PieceRecord(position, self.generation + 1, PieceId(b"r" * 31 + bytes([at])), host(at))
        self.world.store(rubbish)
        self.generation += 1
        self.theirs[position] = rubbish

    async def merge(self) -> None:
        made = [one for position, one in sorted(self.theirs.items()) if one != self.known.get(position)]
        records = [record(one, self.known[one.position].id, self.shard) for one in made]
        done = await self.world.merger.merge(records)
        if done.unsettled:
            return
        now = {one.position: one for one in self.world.pieces(self.shard)}
        dropped = {(one.id, one.host) for one in made} - {(one.id, one.host) for one in now.values()}
        self.world.stored -= dropped  # by the delegate, which has been told
        self.known, self.theirs = now, dict(now)
        self.generation = max(self.generation, self.world.catalog.pieces.highest_generation(self.number))

    def drop(self) -> None:
        """Hosts that can be reached drop what is retired."""
        for one, node in self.world.retired():
            if node not in self.world.silent:
                self.world.stored.discard((PieceId(one), NodeId(node)))
                self.world.changes.forget_retired(NodeId(node), [PieceId(one)])


_counter = iter(range(10, 1 << 30))


@given(STEPS)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_owner_and_delegate_do_what_is_on_record_is_there_and_on_different_hosts(
    database: Database, steps: list[tuple[str, int, int]]
) -> None:
    world = World(database)
    database.write("DELETE FROM local_retired")
    history = History(world, ShardId(next(_counter).to_bytes(32, "big")))

    async def run() -> None:
        for step, position, at in steps:
            match step:
                case "owner":
                    history.owner(position, at)
                case "delegate":
                    history.delegate(position, at)
                case "lie":
                    history.lie(position, at)
                case "merge":
                    await history.merge()
                case "drop":
                    history.drop()
                case "lose" if len(world.silent) < 2:
                    world.lose(at)
            pieces = world.pieces(history.shard)
            assert len({one.host for one in pieces}) == len(pieces)
            for one in pieces:
                assert one.id == right_id(history.shard, one.position, one.generation)
                assert (one.id, one.host) in world.stored

    trio.run(run)
