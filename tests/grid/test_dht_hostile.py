"""What strangers send: the node survives it, counts it, stays small, and never shouts at third parties."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from layrfs.crypto.identity import NodeIdentity
from layrfs.ids import NodeId
from layrfs.model.records import NodeRecord
from layrfs.network.addresses import Address
from layrfs.network.exchange import BURST_PER_SOURCE, MOST_REMEMBERED, MOST_SOURCES
from layrfs.network.lookups import MOST_ASKED
from layrfs.wire.datagrams import (
    DATAGRAM_LIMIT,
    NO_NETWORK,
    REPLY_FACTOR,
    Datagram,
    Filed,
    FileNode,
    FindNode,
    Hello,
    Message,
    Nodes,
    Ping,
    Pong,
    open_untrusted,
    pack_triple,
    seal,
)
from tests.grid.fabric import Fabric, FabricTransport
from tests.grid.network import NETWORK, Grid, Member, identity_number, wall_clock

STRANGER = Address("10.66.0.1", 6666)


class Enemy:
    """An endpoint that says whatever it is told to."""

    def __init__(self, fabric: Fabric, address: Address = STRANGER, number: int = 6666) -> None:
        self.identity = identity_number(number)
        self.transport: FabricTransport = fabric.endpoint(*address)
        self._nonces = random.Random(number)

    def sealed(
        self,
        message: Message,
        *,
        network_id: bytes = NETWORK,
        nonce: bytes | None = None,
        serving: bool = True,
        late_seconds: float = 0.0,
        identity: NodeIdentity | None = None,
    ) -> bytes:
        return seal(
            identity or self.identity,
            network_id,
            message,
            nonce=nonce or self._nonces.randbytes(8),
            time_ms=int((wall_clock() - late_seconds) * 1000),
            serving=serving,
        )

    def record(self, identity: NodeIdentity | None = None, host: str = STRANGER.host, tcp_port: int = 1) -> bytes:
        expires = int(wall_clock()) + 3600
        return NodeRecord.sign(
            identity or self.identity, host=host, udp_port=6666, tcp_port=tcp_port, free_bytes=1, expires=expires
        ).to_bytes()

    async def answer_forever(self, make: Callable[[Datagram], Message | None]) -> None:
        """Answer each request with what ``make`` makes of it."""
        while True:
            data, sender = await self.transport.receive()
            datagram = open_untrusted(data)
            reply = None if datagram.is_reply else make(datagram)
            if reply is not None:
                self.transport.send(self.sealed(reply, nonce=datagram.nonce), sender)


@asynccontextmanager
async def siege(hosts: int = 3) -> AsyncIterator[tuple[Grid, Member, Enemy]]:
    """A network, the member under attack, and the attacker."""
    fabric = Fabric()
    async with trio.open_nursery() as nursery:
        await nursery.start(fabric.run)
        network = Grid(nursery, fabric)
        await network.add_many(hosts)
        enemy = Enemy(fabric)
        await enemy.transport.open()
        yield network, network.members[1], enemy
        nursery.cancel_scope.cancel()


async def answered(enemy: Enemy) -> list[bytes]:
    """Whatever comes back within two seconds."""
    replies = []
    with trio.move_on_after(2):
        while True:
            replies.append((await enemy.transport.receive())[0])
    return replies


async def is_well(network: Grid, member: Member) -> bool:
    """Whether a member still answers others and finds others."""
    other = next(candidate for candidate in network.members if candidate is not member)
    found = await other.node.look_up(member.id, until=member.id)
    return any(record.node_id == member.id for record in found) and len(await member.node.look_up(bytes(20))) > 0


async def test_noise_is_counted_and_nothing_else(autojump_clock: trio.testing.MockClock) -> None:
    dice = random.Random(5)
    async with siege() as (network, member, enemy):
        good = enemy.sealed(FindNode(bytes(20)))
        noise = [dice.randbytes(length) for length in (0, 1, 86, 151, 300, 1200, 1201, 2048)]
        noise += [good[:length] for length in range(0, len(good), 7)]
        for _ in range(300):
            spoilt = bytearray(good)
            spoilt[dice.randrange(len(spoilt))] ^= 1 << dice.randrange(8)
            noise.append(bytes(spoilt))
        for data in noise:
            network.fabric.launch(data, STRANGER, member.address)
            await trio.sleep(0.02)
        assert await answered(enemy) == []
        counters = member.node.counters
        fates = ("malformed", "forged", "foreign", "stale", "unasked", "throttled")
        assert sum(counters[fate] for fate in fates) >= len(noise)
        assert counters["malformed"] > 50
        assert counters["forged"] > 50
        assert await is_well(network, member)


async def test_wrong_network_old_times_and_repetitions_get_no_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with siege() as (_network, member, enemy):
        for data, fate in (
            (enemy.sealed(Ping(), network_id=bytes(31) + b"x"), "foreign"),
            (enemy.sealed(Ping(), late_seconds=650), "stale"),
            (enemy.sealed(Ping(), late_seconds=-650), "stale"),
        ):
            before = member.node.counters[fate]
            enemy.transport.send(data, member.address)
            assert await answered(enemy) == []
            assert member.node.counters[fate] == before + 1
        again = enemy.sealed(Ping(), serving=False)
        for expected in (1, 0, 0):
            enemy.transport.send(again, member.address)
            assert len(await answered(enemy)) == expected
        assert member.node.counters["replayed"] == 2


async def test_answers_nobody_asked_for_are_not_believed(autojump_clock: trio.testing.MockClock) -> None:
    async with siege() as (network, member, enemy):
        for message in (Pong(enemy.record(), b"\x01\x02\x03\x04", 5), Nodes(enemy.record(), ()), Filed(enemy.record())):
            enemy.transport.send(enemy.sealed(message), member.address)
        await trio.sleep(2)
        assert member.node.counters["unasked"] == 3
        assert len(member.node.contacts()) == len(network.members) - 1


@pytest.mark.parametrize("padding", [0, 1, 50, 200, 800])
async def test_no_reply_is_much_larger_than_its_request(autojump_clock: trio.testing.MockClock, padding: int) -> None:
    async with siege(hosts=40) as (_network, member, enemy):
        requests: list[bytes] = [enemy.sealed(FindNode(bytes(20), bytes(padding)), serving=False)]
        if not padding:
            requests += [enemy.sealed(request, serving=False) for request in (Ping(), FileNode(member.id))]
            requests.append(enemy.sealed(Hello(), network_id=NO_NETWORK, serving=False))
        for request in requests:
            enemy.transport.send(request, member.address)
            [reply] = await answered(enemy)
            assert len(reply) <= min(DATAGRAM_LIMIT, REPLY_FACTOR * len(request))
            message = open_untrusted(reply).message
            if isinstance(message, Nodes):
                assert len(message.nodes) >= (20 if padding >= 200 else 3)


async def test_a_stranger_with_a_forged_address_provokes_one_ping(autojump_clock: trio.testing.MockClock) -> None:
    async with siege() as (network, member, enemy):
        victim = network.fabric.endpoint("10.77.0.1", 7)
        await victim.open()
        network.fabric.launch(enemy.sealed(Ping()), victim.address, member.address)
        received = []
        with trio.move_on_after(60):
            while True:
                received.append(open_untrusted((await victim.receive())[0]).message)
        assert sum(isinstance(message, Pong) for message in received) == 1
        assert 1 <= sum(isinstance(message, Ping) for message in received) <= 2
        assert len(received) <= 3
        assert member.node.peers.table.get(enemy.identity.node_id) is None


async def test_a_flood_from_one_source_is_throttled_and_others_are_served(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with siege() as (network, member, enemy):
        began = trio.current_time()
        for _ in range(1500):
            enemy.transport.send(enemy.sealed(Ping(), serving=False), member.address)
            await trio.sleep(0.001)
        assert await is_well(network, member)
        replies = len(await answered(enemy))
        assert replies <= BURST_PER_SOURCE + 100 * (trio.current_time() - began)
        assert member.node.counters["throttled"] > 500


async def test_many_sources_cannot_make_a_node_grow(autojump_clock: trio.testing.MockClock) -> None:
    async with siege() as (network, member, enemy):
        for number in range(2500):
            source = Address(f"10.{100 + number // 65536}.{number // 256 % 256}.{number % 256}", 1)
            network.fabric.launch(enemy.sealed(Ping()), source, member.address)
            await trio.sleep(0.001)
        await trio.sleep(30)
        exchange = member.node._exchange
        assert len(exchange._sources) <= MOST_SOURCES
        assert len(exchange._replays) <= MOST_REMEMBERED
        assert len(exchange._pending) == 0
        assert len(member.node._checking) == 0
        assert member.node.counters["throttled"] > 0
        assert member.node.counters["checks dropped"] > 0
        assert await is_well(network, member)


LIES = ["garbage", "wrong kind", "other's record", "no host", "endless nodes", "bad triples", "victim"]


@pytest.mark.parametrize("lie", LIES)
async def test_a_lying_neighbour_does_not_stop_lookups(autojump_clock: trio.testing.MockClock, lie: str) -> None:
    """A host that has been accepted, and then answers lookups with lies."""
    async with siege(hosts=6) as (network, member, enemy):
        victim = Address("10.77.0.1", 7)
        truth = {other.id for other in network.members} - {member.id}

        def make(datagram: Datagram) -> Message | None:
            if not isinstance(datagram.message, FindNode):
                return Pong(enemy.record(), b"\x0a\x0a\x0a\x0a", 1)
            return lies(datagram.message.target)[lie]

        def lies(target: bytes) -> dict[str, Message | None]:
            near = [NodeId(target[:18] + number.to_bytes(2, "big")) for number in range(32)]
            return {
                "garbage": Nodes(b"\x00" * 100, ()),
                "wrong kind": Filed(enemy.record()),
                "other's record": Nodes(enemy.record(identity_number(1)), ()),
                "no host": Nodes(enemy.record(tcp_port=0), ()),
                "endless nodes": Nodes(
                    enemy.record(),
                    tuple(pack_triple(node, f"10.88.{dice.randrange(256)}.9", 9) for node in near),
                ),
                "bad triples": Nodes(enemy.record(), (b"", b"x" * 21, bytes(22) + b"12345", bytes(24))),
                "victim": Nodes(enemy.record(), tuple(pack_triple(node, *victim) for node in near)),
            }

        dice = random.Random(1)
        network.nursery.start_soon(enemy.answer_forever, make)
        enemy.transport.send(enemy.sealed(Ping()), member.address)
        await trio.sleep(1)
        assert member.node.peers.table.get(enemy.identity.node_id) is not None
        with trio.fail_after(20):
            before = member.node.counters["requests sent"]
            found = {record.node_id for record in await member.node.look_up(bytes(20))}
        assert truth <= found
        assert member.node.counters["requests sent"] - before <= 2 * MOST_ASKED + 20
        if lie in {"garbage", "other's record", "no host"}:
            assert member.node.counters["bad record"] > 0
            assert enemy.identity.node_id not in found


async def test_a_node_that_answers_for_somebody_else_is_not_taken_for_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with siege() as (network, member, enemy):
        host = network.members[2]
        await network.kill(host)
        usurper = Enemy(network.fabric, host.address, 4242)
        await usurper.transport.open()
        network.nursery.start_soon(usurper.answer_forever, lambda _: Pong(usurper.record(), b"\x0a\x0a\x0a\x0a", 1))
        member.node.suspect(host.id)
        await trio.sleep(10)
        assert member.node.counters["impostor"] > 0
        assert member.node.peers.table.get(host.id) is None
        assert enemy.identity.node_id != host.id


async def test_a_reply_counts_only_from_where_the_request_went(autojump_clock: trio.testing.MockClock) -> None:
    async with siege() as (network, member, enemy):
        elsewhere = Address("10.66.0.2", 6666)

        async def answer_from_elsewhere() -> None:
            while True:
                data, sender = await enemy.transport.receive()
                datagram = open_untrusted(data)
                if not datagram.is_reply:
                    pong = Pong(enemy.record(), b"\x0a\x0a\x0a\x0a", 1)
                    network.fabric.launch(enemy.sealed(pong, nonce=datagram.nonce), elsewhere, sender)

        network.nursery.start_soon(answer_from_elsewhere)
        enemy.transport.send(enemy.sealed(Ping()), member.address)
        await trio.sleep(5)
        assert member.node.counters["unasked"] > 0
        assert member.node.peers.table.get(enemy.identity.node_id) is None


async def test_a_reply_from_another_network_is_no_reply(autojump_clock: trio.testing.MockClock) -> None:
    async with siege() as (network, member, enemy):
        other = b"\x01" * 32

        async def answer_for_another_network() -> None:
            while True:
                data, sender = await enemy.transport.receive()
                datagram = open_untrusted(data)
                if not datagram.is_reply:
                    pong = Pong(enemy.record(), b"\x0a\x0a\x0a\x0a", 1)
                    enemy.transport.send(enemy.sealed(pong, nonce=datagram.nonce, network_id=other), sender)

        network.nursery.start_soon(answer_for_another_network)
        enemy.transport.send(enemy.sealed(Ping()), member.address)
        await trio.sleep(5)
        assert member.node.counters["foreign"] > 0
        assert member.node.peers.table.get(enemy.identity.node_id) is None
