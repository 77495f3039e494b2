"""Discovery over a whole network: right answers, few lookups, no dead hosts."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from layrfs.ids import NodeId
from layrfs.network.discovery import Discovery
from tests.grid.fabric import Fabric
from tests.grid.network import Grid, Member, ids


@asynccontextmanager
async def owner_of(hosts: int) -> AsyncIterator[tuple[Grid, Member, Discovery]]:
    """A network of hosts, and an owner's node in it."""
    fabric = Fabric()
    async with trio.open_nursery() as nursery:
        await nursery.start(fabric.run)
        network = Grid(nursery, fabric)
        await network.add_many(hosts)
        owner = await network.add(serving=False)
        await owner.node.joined.wait()
        network.members.remove(owner)
        yield network, owner, Discovery(owner.node)
        nursery.cancel_scope.cancel()


async def test_a_small_network_costs_one_lookup_for_all_keys(autojump_clock: trio.testing.MockClock) -> None:
    async with owner_of(5) as (network, owner, discovery):
        before = owner.node.counters["lookups"]
        dice = random.Random(2)
        for _ in range(200):
            key = dice.randbytes(32)
            assert ids(await discovery.closest_hosts(key, 3)) == network.nearest(key[:20], 3)
            assert ids(await discovery.closest_hosts(key, 8)) == network.nearest(key[:20], 8)
        assert owner.node.counters["lookups"] == before + 1
        assert set(ids(discovery.known_hosts())) == set(network.nearest(bytes(20), 5))


async def test_a_large_network_costs_few_lookups_and_answers_are_exact(autojump_clock: trio.testing.MockClock) -> None:
    async with owner_of(45) as (network, owner, discovery):
        before = owner.node.counters["lookups"]
        dice = random.Random(2)
        for _ in range(200):
            key = dice.randbytes(20)
            assert ids(await discovery.closest_hosts(key, 6)) == network.nearest(key, 6)
        assert owner.node.counters["lookups"] - before < 20


async def test_many_callers_at_once_share_their_lookups(autojump_clock: trio.testing.MockClock) -> None:
    async with owner_of(10) as (network, owner, discovery):
        before = owner.node.counters["lookups"]
        dice = random.Random(2)

        async def ask(key: bytes) -> None:
            assert ids(await discovery.closest_hosts(key, 3)) == network.nearest(key, 3)

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask, dice.randbytes(20))
        assert owner.node.counters["lookups"] - before <= 4


async def test_new_hosts_are_seen_and_suspects_are_not(autojump_clock: trio.testing.MockClock) -> None:
    async with owner_of(4) as (network, _, discovery):
        assert len(await discovery.closest_hosts(bytes(20), 9)) == 4
        await network.add()
        await trio.sleep(35)
        assert ids(await discovery.closest_hosts(bytes(20), 9)) == network.nearest(bytes(20), 9)
        victim = network.members[2]
        await network.kill(victim)
        discovery.suspect(victim.id)
        assert victim.id not in ids(await discovery.closest_hosts(bytes(20), 9))
        assert victim.id not in ids(discovery.known_hosts())
        assert not discovery.is_alive(victim.id)
        await trio.sleep(120)
        assert victim.id not in ids(await discovery.closest_hosts(bytes(20), 9))


async def test_hosts_nobody_knows_are_counted_on_in_a_large_network_and_not_in_a_small_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stranger = NodeId(random.Random(3).randbytes(20))
    async with owner_of(5) as (network, _, discovery):
        assert all(member.id in discovery.answering() for member in network.members)
        assert stranger not in discovery.answering()
        assert network.members[0].id not in discovery.answering({network.members[0].id})
        victim = network.members[1]
        await network.kill(victim)
        discovery.suspect(victim.id)
        assert victim.id not in discovery.answering()
        await trio.sleep(5)
        assert victim.id not in discovery.answering()
        assert all(member.id in discovery.answering() for member in network.members)
    async with owner_of(60) as (network, _, discovery):
        far = [member.id for member in network.members if member.id not in ids(discovery.known_hosts())]
        assert far
        assert all(node in discovery.answering() for node in [*far, *ids(discovery.known_hosts()), stranger])
        assert far[0] not in discovery.answering({far[0]})
        await discovery.closest_hosts(stranger, 3)
        assert stranger not in discovery.answering(), "everybody near it was seen, and it was not there"
        assert all(node in discovery.answering() for node in far)
        contact = discovery.known_hosts()[0].node_id
        discovery.suspect(contact)
        assert contact not in discovery.answering()


async def test_find_node(autojump_clock: trio.testing.MockClock) -> None:
    async with owner_of(40) as (network, owner, discovery):
        for member in network.members[::7]:
            record = await discovery.find_node(member.id)
            assert record is not None
            assert (record.node_id, record.host) == (member.id, member.address.host)
        before = owner.node.counters["lookups"]
        assert (await discovery.find_node(network.members[0].id)) is not None
        assert owner.node.counters["lookups"] == before


async def test_a_node_that_is_not_there_costs_one_lookup_for_a_while(autojump_clock: trio.testing.MockClock) -> None:
    async with owner_of(5) as (_, owner, discovery):
        before = owner.node.counters["lookups"]
        for _ in range(10):
            assert await discovery.find_node(owner.node.node_id) is None
        assert owner.node.counters["lookups"] == before + 1
        await trio.sleep(20)
        assert await discovery.find_node(owner.node.node_id) is None
        assert owner.node.counters["lookups"] == before + 2


async def test_no_network_is_no_hosts_and_is_not_remembered(autojump_clock: trio.testing.MockClock) -> None:
    async with owner_of(3) as (network, owner, _):
        lonely = await network.add(serving=False, seeds=[])
        discovery = Discovery(lonely.node)
        assert await discovery.closest_hosts(bytes(20), 3) == []
        lonely.node._check_soon(owner.node.peers.nearest(bytes(20), 1)[0])
        await trio.sleep(1)
        assert len(await discovery.closest_hosts(bytes(20), 3)) == 3


async def test_who_says_that_it_leaves_is_known_within_two_minutes_as_is_who_stays_after_all(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with owner_of(5) as (network, owner, discovery):
        one, other = network.members[1:3]
        for is_leaving in (True, False):
            one.leaving = is_leaving
            await trio.sleep(120)
            assert discovery.is_leaving(one.id) == is_leaving
            assert not discovery.is_leaving(other.id)
        assert not discovery.is_leaving(owner.id)
