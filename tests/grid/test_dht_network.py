"""A whole DHT in one process on the virtual clock: joining, looking up, dying, parting, healing."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from layrfs.ids import NodeId
from layrfs.network.addresses import Address
from layrfs.network.hello import learn_network_id
from layrfs.network.routing import K
from tests.grid.fabric import Fabric
from tests.grid.network import NETWORK, Grid, Member, identity_number, ids, wall_clock

OTHER_NETWORK = bytes(reversed(range(32)))


@asynccontextmanager
async def grid() -> AsyncIterator[Grid]:
    fabric = Fabric()
    async with trio.open_nursery() as nursery:
        await nursery.start(fabric.run)
        yield Grid(nursery, fabric)
        nursery.cancel_scope.cancel()


def known_to(member: Member) -> set[NodeId]:
    return {record.node_id for record in member.node.contacts()}


@pytest.mark.timeout(900)
async def test_a_network_finds_itself_and_outlives_a_third_of_it(
    autojump_clock: trio.testing.MockClock, big: bool
) -> None:
    nodes = 200 if big else 60  # 60: three times what one bucket holds; 200 take a minute of CPU
    async with grid() as network:
        await network.add_many(nodes)
        dice = random.Random(7)
        for _ in range(20):
            key, asker = dice.randbytes(20), dice.choice(network.members)
            began = trio.current_time()
            found = ids(await asker.node.look_up(key))
            assert found == [node for node in network.nearest(key, K + 1) if node != asker.id][:K]
            assert trio.current_time() - began < 0.5

        dead = dice.sample(network.members[1:], nodes * 3 // 10)
        for member in dead:
            await network.kill(member)
        gone = {member.id for member in dead}
        for _ in range(10):
            key, asker = dice.randbytes(20), dice.choice(network.members)
            began = trio.current_time()
            found = ids(await asker.node.look_up(key))
            assert not gone & set(found)
            truth = [node for node in network.nearest(key, K + 1) if node != asker.id][:K]
            assert found[:3] == truth[:3]
            assert len(set(found) & set(truth)) >= K // 2
            assert trio.current_time() - began < 2.5

        await trio.sleep(80)
        assert not any(gone & known_to(member) for member in network.members)
        key, asker = dice.randbytes(20), network.members[5]
        assert ids(await asker.node.look_up(key))[:8] == [
            node for node in network.nearest(key, 9) if node != asker.id
        ][:8]  # fmt: skip


async def test_a_network_of_one_has_joined_and_finds_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with grid() as network:
        alone = await network.add()
        with trio.fail_after(5):
            await alone.node.joined.wait()
        assert await alone.node.look_up(bytes(20)) == []
        assert alone.node.problem is None


async def test_the_first_host_may_be_its_own_seed(autojump_clock: trio.testing.MockClock) -> None:
    async with grid() as network:
        alone = await network.add(seeds=[Address("10.0.0.1", 4000)])
        with trio.fail_after(5):
            await alone.node.joined.wait()
        assert alone.node.contacts() == []


async def test_owner_only_nodes_see_everybody_and_are_seen_by_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with grid() as network:
        hosts = await network.add_many(5)
        owner = await network.add(serving=False)
        await owner.node.joined.wait()
        assert known_to(owner) == {host.id for host in hosts}
        await owner.node.look_up(bytes(20))
        await trio.sleep(700)
        assert not any(owner.id in known_to(host) for host in hosts)
        assert owner.node.counters["answered"] == 0
        assert owner.node.counters["ignored"] == 0, "nobody asks an owner back"


async def test_networks_with_different_ids_never_merge(autojump_clock: trio.testing.MockClock) -> None:
    async with grid() as network:
        ours = await network.add_many(6)
        first = await network.add(seeds=[], network_id=OTHER_NETWORK)
        seeds = [first.address, *(member.address for member in ours)]
        theirs = [first, *[await network.add(seeds=seeds, network_id=OTHER_NETWORK) for _ in range(4)]]
        lost = await network.add(seeds=[ours[0].address], network_id=OTHER_NETWORK)
        await trio.sleep(900)
        our_ids = {member.id for member in ours}
        assert all(known_to(member) == our_ids - {member.id} for member in ours)
        assert not any(our_ids & known_to(member) for member in [*theirs, lost])
        assert len(known_to(theirs[1])) == 4
        assert lost.node.problem == f"seed {ours[0].address} belongs to another network"
        assert sum(member.node.counters["foreign"] for member in ours) > 0


async def test_a_parted_network_heals_without_anybody_restarting(autojump_clock: trio.testing.MockClock) -> None:
    async with grid() as network:
        members = await network.add_many(8)
        everybody = {member.id for member in members}
        left, right = members[:4], members[4:]
        network.fabric.part([member.address.host for member in left])
        await trio.sleep(120)
        assert known_to(left[2]) == {member.id for member in left} - {left[2].id}
        assert known_to(right[2]) == {member.id for member in right} - {right[2].id}
        await trio.sleep(900)
        network.fabric.heal()
        await trio.sleep(400)
        assert all(known_to(member) == everybody - {member.id} for member in members)


async def test_a_seed_that_appears_later_is_found(autojump_clock: trio.testing.MockClock) -> None:
    async with grid() as network:
        late = Address("10.9.9.9", 4000)
        early = await network.add(seeds=[late])
        await trio.sleep(600)
        assert early.node.problem == f"seed {late} does not answer"
        assert not early.node.joined.is_set()
        seed = await network.add(seeds=[], host=late.host)
        with trio.fail_after(35):
            await early.node.joined.wait()
        assert known_to(early) == {seed.id}
        assert early.node.problem is None


async def test_who_has_only_dead_seeds_finds_the_one_host_that_is_left_of_all_that_were_met(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with grid() as network:
        (living,) = await network.add_many(1)
        gone = [Address(f"10.9.{number // 200}.{number % 200 + 1}", 4000) for number in range(300)]
        drive = await network.add(seeds=gone[:1], met=[*gone[1:], living.address], serving=False)
        with trio.fail_after(150):
            await drive.node.joined.wait()
        assert known_to(drive) == {living.id}

        began = trio.current_time()
        hurried = await network.add(seeds=[living.address], met=gone, serving=False)
        await hurried.node.joined.wait()
        assert trio.current_time() < began + 1  # as fast as one that never met anybody

        lost = await network.add(seeds=gone[:1], met=gone[1:40], serving=False)
        with trio.move_on_after(30):
            await lost.node.joined.wait()
        assert lost.node.problem == f"seed {gone[0]} does not answer"


async def test_hosts_that_all_restart_are_found_again_soon(autojump_clock: trio.testing.MockClock) -> None:
    async with grid() as network:
        hosts = await network.add_many(5)
        owner = await network.add(serving=False)
        await owner.node.joined.wait()
        for host in hosts:
            await network.kill(host)
        await trio.sleep(200)
        assert known_to(owner) == set()
        for number, host in enumerate(hosts, 1):
            await network.add(host=host.address.host, identity=identity_number(number), seeds=[hosts[0].address])
        await trio.sleep(40)
        assert known_to(owner) == {host.id for host in hosts}


async def test_new_free_space_reaches_everybody(autojump_clock: trio.testing.MockClock) -> None:
    async with grid() as network:
        hosts = await network.add_many(5)
        owner = await network.add(serving=False)
        await owner.node.joined.wait()
        hosts[3].free_bytes = 12345
        await trio.sleep(90)
        [record] = [record for record in owner.node.contacts() if record.node_id == hosts[3].id]
        assert record.free_bytes == 12345


async def test_the_record_of_a_dead_node_is_still_on_file(autojump_clock: trio.testing.MockClock) -> None:
    async with grid() as network:
        hosts = await network.add_many(30)
        await trio.sleep(60)
        victim = hosts[11]
        await network.kill(victim)
        newcomer = await network.add(serving=False)
        await newcomer.node.joined.wait()
        record = await newcomer.node.file_node(victim.id)
        assert record is not None
        assert record.node_id == victim.id
        assert record.udp_port == victim.address.port
        assert await newcomer.node.file_node(NodeId(bytes(20))) is None
        living = await newcomer.node.file_node(hosts[12].id)
        assert living is not None
        assert living.node_id == hosts[12].id


async def test_one_datagram_in_five_lost(autojump_clock: trio.testing.MockClock) -> None:
    async with grid() as network:
        await network.add_many(25)
        network.fabric.loss = 0.2
        await trio.sleep(200)
        dice, found = random.Random(3), []
        for _ in range(10):
            key, asker = dice.randbytes(20), dice.choice(network.members)
            truth = {node for node in network.nearest(key, K + 1) if node != asker.id}
            found.append(len(truth & set(ids(await asker.node.look_up(key)))))
        assert min(found) >= K / 2, "no lookup fails"
        assert sum(found) >= 0.7 * K * len(found), "one of them may well be unlucky"


async def test_a_new_identity_at_an_old_address_replaces_the_old_one(autojump_clock: trio.testing.MockClock) -> None:
    async with grid() as network:
        hosts = await network.add_many(5)
        await network.kill(hosts[2])
        reborn = await network.add(host=hosts[2].address.host)
        await trio.sleep(90)
        assert hosts[2].id not in known_to(hosts[4])
        assert reborn.id in known_to(hosts[4])
        assert hosts[4].node.counters["impostor"] > 0


async def test_a_suspected_host_is_hidden_until_it_answers(autojump_clock: trio.testing.MockClock) -> None:
    async with grid() as network:
        hosts = await network.add_many(4)
        hosts[0].node.suspect(hosts[1].id)
        assert hosts[1].id not in known_to(hosts[0])
        await trio.sleep(1)
        assert hosts[1].id in known_to(hosts[0])
        await network.kill(hosts[1])
        hosts[0].node.suspect(hosts[1].id)
        await trio.sleep(5)
        assert hosts[0].node.peers.table.get(hosts[1].id) is None


async def test_hello_tells_the_network_to_who_knows_only_an_address(autojump_clock: trio.testing.MockClock) -> None:
    async with grid() as network:
        await network.add_many(2)
        asker = network.fabric.endpoint("10.7.7.7")
        seeds = [Address("10.8.8.8", 1), network.members[1].address]
        with trio.fail_after(5):
            assert await learn_network_id(seeds, transport=asker) == NETWORK
        with trio.move_on_after(60) as scope:
            await learn_network_id(seeds[:1], transport=network.fabric.endpoint("10.7.7.8"))
        assert scope.cancelled_caught


async def test_a_wrong_clock_is_named(autojump_clock: trio.testing.MockClock) -> None:
    async with grid() as network:
        await network.add_many(2)
        slow = await network.add(serving=False, now=lambda: wall_clock() - 7200)
        await trio.sleep(60)
        assert slow.node.problem is not None
        assert "wrong by 120 minutes" in slow.node.problem


async def test_nodes_learn_their_address_from_others(autojump_clock: trio.testing.MockClock) -> None:
    async with grid() as network:
        hosts = await network.add_many(4)
        assert hosts[3].node.seen_as() == hosts[3].address.host
