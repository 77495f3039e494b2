"""Who is asked to go on keeping what, how often, and what is done about pieces that are gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from layrfs.errors import CorruptFile
from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.history import Segment
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.policy.leases import RENEW_SECONDS
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.upkeep import renewing
from layrfs.upkeep.asking import TOGETHER
from layrfs.upkeep.renewing import SUSPECT_SECONDS, TICK_SECONDS, Renewer
from tests.fakes.asking import FakeAsker
from tests.fakes.transfers import FakeTransfers

ONE, OTHER = NodeId(bytes([1]) * 20), NodeId(bytes([2]) * 20)


class World:
    """A volume of some shards at two hosts, and a segment at one of them."""

    def __init__(self, path: Path, shards: int) -> None:
        self.database = Database(str(path / "metadata.db"))
        self.catalog = Catalog(self.database)
        self.transfers = FakeTransfers()
        self.asker = FakeAsker(self.transfers)
        self.missing: list[tuple[ShardId, PieceId, NodeId]] = []
        self.held: list[tuple[ShardId, PieceId]] = []
        self.now = 1_900_000_000.0
        for number in range(shards):
            self.catalog.add_shard(self.record(number, ONE, OTHER))
        segment = Segment("changes", 3, 10, (self.record(10_000_000, OTHER),))
        self.renewer = Renewer(
            database=self.database,
            catalog=self.catalog,
            segments=lambda: [segment],
            asker=self.asker,
            on_missing=lambda *what: self.missing.append(what),
            on_held=lambda *what: self.held.append(what),
            now=lambda: self.now,
        )

    def record(self, number: int, *hosts: NodeId) -> ShardRecord:
        name = number.to_bytes(4, "big") * 8
        pieces = tuple(
            PieceRecord(position, 0, PieceId(name[:-1] + bytes([position])), host)
            for position, host in enumerate(hosts)
        )
        self.transfers.pieces.update((piece.id, piece.host) for piece in pieces)
        return ShardRecord(ShardId(name), Salt(bytes(16)), 10, 20, Redundancy(1, 2), pieces)


@pytest.fixture
def world(tmp_path: Path, autojump_clock: object) -> Iterator[World]:
    world = World(tmp_path, TOGETHER + 5)
    yield world
    world.database.close()


async def test_every_piece_is_renewed_and_then_rests(world: World) -> None:
    assert await world.renewer.renew_due() == 2 * (TOGETHER + 5) + 1
    assert sorted(world.asker.renewed) == [(ONE, 5), (ONE, TOGETHER), (OTHER, 1), (OTHER, 5), (OTHER, TOGETHER)]
    assert await world.renewer.renew_due() == 0
    world.now += RENEW_SECONDS
    assert await world.renewer.renew_due() == 2 * (TOGETHER + 5) + 1
    assert world.missing == []


async def test_a_host_that_is_away_is_asked_again_and_no_other(world: World) -> None:
    world.asker.silent = {ONE}
    assert await world.renewer.renew_due() == TOGETHER + 6
    world.asker.silent = set()
    assert await world.renewer.renew_due() == TOGETHER + 5
    assert await world.renewer.renew_due() == 0


async def test_what_a_host_has_lost_is_told(world: World) -> None:
    gone = PieceId((7).to_bytes(4, "big") * 8)[:-1] + bytes([1])
    lost_segment = PieceId((10_000_000).to_bytes(4, "big") * 8)[:-1] + bytes([0])
    world.transfers.drop([PieceId(gone), PieceId(lost_segment)])
    await world.renewer.renew_due()
    assert {(piece, host) for _shard, piece, host in world.missing} == {(gone, OTHER), (lost_segment, OTHER)}


async def test_renewing_does_not_change_the_volume(world: World) -> None:
    world.database.commit()
    before = world.database.value("SELECT count(*) FROM local_change")
    await world.renewer.renew_due()
    world.database.commit()
    assert world.database.value("SELECT count(*) FROM local_change") == before


async def test_who_has_lost_one_piece_is_asked_for_all_at_once_and_the_shards_other_hosts_for_theirs(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    (shard,) = (shard for shard in [world.catalog.find_shard(ShardId((7).to_bytes(4, "big") * 8))] if shard)
    at_other = {piece.id for piece in shard.pieces if piece.host == OTHER}
    also_lost = PieceId((9).to_bytes(4, "big") * 8)[:-1] + bytes([0])
    world.transfers.drop([*at_other, PieceId(also_lost)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.renewer.run)
        world.renewer.suspect(ONE, shard.id)
        await trio.sleep(1)
        assert {piece for _shard, piece, _host in world.missing} == at_other | {also_lost}
        assert {host for host, count in world.asker.renewed if count > 1} == {ONE, OTHER}
        asked = len(world.asker.renewed)
        world.renewer.suspect(ONE)
        await trio.sleep(SUSPECT_SECONDS / 2)
        assert len(world.asker.renewed) == asked, "not again and again"
        await trio.sleep(SUSPECT_SECONDS)
        assert len(world.asker.renewed) > asked
        nursery.cancel_scope.cancel()


async def test_who_comes_back_is_asked_for_what_it_was_found_not_to_have(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    found, lost = (world.catalog.shard(number) for number in (3, 4))
    for number, shard in ((3, found), (4, lost)):
        world.catalog.pieces.refute(number, shard.pieces[0].id)
    world.transfers.drop([lost.pieces[0].id])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.renewer.run)
        world.renewer.hosts_appeared({ONE, OTHER})
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert world.held == [(found.id, found.pieces[0].id)]
    assert world.asker.renewed == [(ONE, 2)], "nothing else"


async def test_who_does_not_answer_when_it_comes_back_is_asked_once_more(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    shard = world.catalog.shard(3)
    world.catalog.pieces.refute(3, shard.pieces[0].id)
    world.asker.silent = {ONE}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.renewer.run)
        world.renewer.hosts_appeared({ONE})
        await trio.sleep(1)
        world.asker.silent = set()
        await trio.sleep(SUSPECT_SECONDS)
        nursery.cancel_scope.cancel()
    assert world.held == [(shard.id, shard.pieces[0].id)]


async def test_who_was_never_seen_to_be_away_is_believed_too_when_all_are_asked_and_in_time(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    shard = world.catalog.shard(3)
    for piece in shard.pieces:
        world.catalog.pieces.refute(3, piece.id)
    said = [(shard.id, piece.id) for piece in shard.pieces]
    await world.renewer.ask_all()
    assert sorted(world.held) == said
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.renewer.run)
        await trio.sleep(TICK_SECONDS)
        nursery.cancel_scope.cancel()
    assert sorted(world.held) == sorted(said + said)


async def test_much_that_is_refuted_holds_up_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(renewing, "SLICE", 7)
    for number in range(1, TOGETHER):
        world.catalog.pieces.refute(number, world.catalog.shard(number).pieces[0].id)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        refuted = await world.renewer._refuted()
        nursery.cancel_scope.cancel()
    assert len(refuted[ONE]) == TOGETHER - 1
    assert turns >= TOGETHER // 7 - 2  # who comes first in the first and the last turn is trio's choice


async def test_a_damaged_database_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.renewer.run)
        monkeypatch.setattr(world.database, "_damage", "The database is damaged.")
        world.renewer.suspect(ONE, ShardId((7).to_bytes(4, "big") * 8))
        await trio.sleep(SUSPECT_SECONDS / 2)
        world.renewer.hosts_appeared({OTHER})
        await trio.sleep(1)
        with pytest.raises(CorruptFile):
            await world.renewer.ask_all()
        monkeypatch.undo()
        await trio.sleep(2 * SUSPECT_SECONDS)
        assert (ONE, TOGETHER) in world.asker.renewed
        nursery.cancel_scope.cancel()


async def test_silence_of_who_is_suspected_ends_nothing(world: World, autojump_clock: trio.testing.MockClock) -> None:
    world.asker.silent = {ONE}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.renewer.run)
        world.renewer.suspect(ONE, ShardId((7).to_bytes(4, "big") * 8))
        await trio.sleep(1)
        world.renewer.suspect(OTHER)
        await trio.sleep(1)
        assert (OTHER, TOGETHER) in world.asker.renewed
        nursery.cancel_scope.cancel()
