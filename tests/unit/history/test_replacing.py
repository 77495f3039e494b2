"""Copies of metadata that are gone are made anew, and nothing is given up before."""

from __future__ import annotations

from collections.abc import Iterator

import trio

from layrfs.errors import Unavailable
from layrfs.history.completing import Completer, Replaced
from layrfs.ids import NodeId, PieceId
from layrfs.model.history import Segment
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord
from tests.fakes.transfers import FakeTransfers


def host(number: int) -> NodeId:
    return NodeId(bytes([number + 1]) * 20)


class World:
    """A volume of one segment, on five of so many hosts."""

    may_write = True

    def __init__(self, hosts: int) -> None:
        self.transfers = FakeTransfers(hosts=5)
        shard = self.transfers._keep(b"metadata", Redundancy(1, 5))
        self.transfers.hosts = hosts
        self.gone: set[NodeId] = set()
        self.replaced: Replaced = []
        self.amendments = 0
        self.completer = Completer(self.transfers, self.gone.__contains__, lambda: self.transfers.hosts)
        self.segment = Segment("changes", 3, 8, (shard,))

    def chains(self) -> Iterator[tuple[Segment, ...]]:
        yield (self.segment,)

    async def amend(self, segment: Segment, replaced: Replaced) -> None:
        await trio.lowlevel.checkpoint()
        self.segment = segment
        self.amendments += 1
        self.replaced += replaced

    def hosts(self) -> list[NodeId]:
        return [piece.host for piece in self.segment.shards[0].pieces]

    def lose(self, position: int) -> bytes:
        piece = self.segment.shards[0].pieces[position]
        self.transfers.drop([piece.id])
        self.completer.lost(piece.id)
        return piece.id


async def test_a_copy_that_its_host_lost_may_go_to_the_same_host() -> None:
    world = World(hosts=5)
    old = world.lose(2)
    await world.completer.complete(world)
    assert world.replaced == [(old, host(2))]
    assert world.hosts() == [host(number) for number in range(5)]
    assert [piece.generation for piece in world.segment.shards[0].pieces] == [0, 0, 1, 0, 0]
    await world.completer.complete(world)
    assert len(world.replaced) == 1


async def test_a_host_that_is_silent_for_too_long_gets_a_successor_and_no_second_copy() -> None:
    world = World(hosts=7)
    world.gone.add(host(1))
    await world.completer.complete(world)
    assert [node for _piece, node in world.replaced] == [host(1)]
    assert world.hosts() == [host(0), host(5), host(2), host(3), host(4)]


async def test_without_another_host_the_old_copy_stays_on_record() -> None:
    world = World(hosts=5)
    world.gone.add(host(1))
    await world.completer.complete(world)
    assert world.hosts() == [host(number) for number in range(5)]
    world.lose(3)
    world.transfers.failure = Unavailable("no copy can be reached")
    await world.completer.complete(world)
    assert (len(world.hosts()), world.replaced) == (5, [])


async def test_a_generation_is_never_used_again() -> None:
    world = World(hosts=5)
    names = set()
    for _ in range(4):
        names.add(world.lose(0))
        await world.completer.complete(world)
        assert world.segment.shards[0].pieces[0].id not in names


async def test_a_host_that_lost_its_copy_and_takes_another_has_one_on_record() -> None:
    world = World(hosts=5)
    world.gone.add(host(1))
    silent, lost = world.segment.shards[0].pieces[1].id, world.lose(3)
    await world.completer.complete(world)
    assert world.hosts() == [host(0), host(3), host(2), host(4)]
    assert set(world.replaced) == {(silent, host(1)), (lost, host(3))}
    world.transfers.hosts, world.transfers.full = 6, {host(1)}
    await world.completer.complete(world)
    assert world.hosts() == [host(0), host(3), host(2), host(5), host(4)]
    assert len(set(world.hosts())) == 5


async def test_what_others_made_is_adopted_unless_something_newer_or_another_piece_is_there_by_now() -> None:
    world = World(hosts=5)
    shard, old = world.segment.shards[0].id, world.segment.shards[0].pieces[0]
    world.lose(2)
    await world.completer.complete(world)
    before, world.replaced = world.segment, []
    stale, twice = PieceRecord(2, 1, PieceId(b"s" * 32), host(8)), PieceRecord(1, 2, PieceId(b"t" * 32), host(3))
    await world.completer.adopt(world, shard, [stale, twice])
    assert (world.segment, world.amendments) == (before, 1)
    good = PieceRecord(0, 4, PieceId(b"g" * 32), host(9))
    await world.completer.adopt(world, shard, [twice, good, stale])
    assert world.segment.shards[0].pieces == (good, *before.shards[0].pieces[1:])
    assert world.replaced == [(old.id, old.host)]
