"""The DHT over real UDP sockets on loopback, in real time: the same node, the operating system underneath."""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import StateInUse, Unreachable, UsageError
from layrfs.model.records import NodeRecord
from layrfs.network.addresses import Address
from layrfs.network.dht import DhtNode
from layrfs.network.discovery import Discovery
from layrfs.network.hello import learn_network_id
from layrfs.network.udp import UdpTransport

NETWORK = bytes(range(32))
PATIENCE_SECONDS = 20


def node(
    seeds: Sequence[tuple[str, int]] = (), *, serving: bool = True, bind: tuple[str, int] = ("127.0.0.1", 0)
) -> DhtNode:
    identity = NodeIdentity.generate()

    def make_record(port: int) -> NodeRecord:
        expires = int(time.time()) + 3600
        return NodeRecord.sign(
            identity, host="127.0.0.1", udp_port=port, tcp_port=port, free_bytes=1 << 30, expires=expires
        )

    return DhtNode(identity, NETWORK, bind=bind, make_record=make_record, seeds=seeds, serving=serving)


@asynccontextmanager
async def five_hosts() -> AsyncIterator[tuple[list[DhtNode], list[Address], trio.Nursery]]:
    async with trio.open_nursery() as nursery:
        with trio.fail_after(60):
            nodes = [node()]
            addresses = [Address("127.0.0.1", await nursery.start(nodes[0].run))]
            for _ in range(4):
                nodes.append(node([addresses[0]]))
                addresses.append(Address("127.0.0.1", await nursery.start(nodes[-1].run)))
            for each in nodes:
                await each.joined.wait()
            yield nodes, addresses, nursery
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "::ffff:127.0.0.1"])
async def test_an_owner_finds_the_five_hosts_through_any_spelling_of_a_seed(name: str) -> None:
    async with five_hosts() as (nodes, addresses, nursery):
        owner = node([(name, addresses[3].port)], serving=False, bind=("::", 0))
        await nursery.start(owner.run)
        await owner.joined.wait()
        discovery = Discovery(owner)
        found = await discovery.closest_hosts(random.Random(1).randbytes(32), 9)
        assert {record.node_id for record in found} == {host.node_id for host in nodes}
        assert owner.seen_as() == "127.0.0.1"


async def test_hello_over_udp() -> None:
    async with five_hosts() as (_, addresses, _nursery):
        assert await learn_network_id([("no-such-host.invalid", 1), addresses[2]]) == NETWORK
        assert await learn_network_id([("localhost", addresses[1].port)]) == NETWORK
        with pytest.raises(Unreachable, match="cannot be resolved"):
            await learn_network_id([("no-such-host.invalid", 1)])
        with pytest.raises(Unreachable, match="no seed"):
            await learn_network_id([])


async def test_a_port_in_use_and_an_address_that_is_not_ours() -> None:
    async with five_hosts() as (_, addresses, _nursery):
        with pytest.raises(StateInUse, match="already in use"):
            await node(bind=addresses[0]).run()
        with pytest.raises(UsageError, match="cannot listen"):
            await node(bind=("8.8.8.8", 0)).run()


async def test_noise_from_a_real_socket() -> None:
    async with five_hosts() as (nodes, addresses, _nursery):
        dice = random.Random(9)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as enemy:
            for length in [0, 1, 150, 1200, 2048, 60000, *[dice.randrange(1500) for _ in range(200)]]:
                enemy.sendto(dice.randbytes(length), addresses[0])
        while nodes[0].counters["malformed"] < 100:  # noqa: ASYNC110 - until the kernel has delivered most of it
            await trio.sleep(0.01)
        assert len(await nodes[1].look_up(nodes[0].node_id, until=nodes[0].node_id)) > 0
        assert len(nodes[0].contacts()) == 4


async def test_ipv6() -> None:
    async with trio.open_nursery() as nursery:
        with trio.fail_after(PATIENCE_SECONDS):
            host = node(bind=("::1", 0))
            port = await nursery.start(host.run)
            transport = UdpTransport(("::1", 0), Counter())
            assert await learn_network_id([("::1", port)], transport=transport) == NETWORK
            owner = node([("::1", port)], serving=False, bind=("::", 0))
            await nursery.start(owner.run)
            await owner.joined.wait()
            assert [record.node_id for record in owner.contacts()] == [host.node_id]
        nursery.cancel_scope.cancel()
