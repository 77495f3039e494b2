from __future__ import annotations

import os

import pytest
import trio

from layrfs.crypto.identity import NodeIdentity
from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.records import NodeRecord
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.pipeline.finding import LOOKUP_SECONDS, REFRESH_SECONDS, AddressBook
from tests.fakes.hosts import FAR_FUTURE, FakeFinder

IDENTITIES = [NodeIdentity.from_private(bytes([number]) * 32) for number in range(1, 6)]


def record(number: int, port: int | None = None) -> NodeRecord:
    return NodeRecord.sign(
        IDENTITIES[number],
        host="127.0.0.1",
        udp_port=9,
        tcp_port=number + 1 if port is None else port,
        free_bytes=0,
        expires=FAR_FUTURE,
    )


def shard(*hosts: int) -> ShardRecord:
    pieces = tuple(
        PieceRecord(position, 0, PieceId(os.urandom(32)), IDENTITIES[host].node_id)
        for position, host in enumerate(hosts)
    )
    return ShardRecord(ShardId(bytes(32)), Salt(bytes(16)), 1, 1, Redundancy(1, 3), pieces)


def test_without_hosts_there_is_nobody_to_ask() -> None:
    async def main() -> None:
        assert AddressBook(FakeFinder()).recorded(shard(0, 1)) == []

    trio.run(main)


async def test_known_hosts_are_found_without_asking() -> None:
    finder = FakeFinder([record(0), record(1), record(2, port=0)])
    candidates = AddressBook(finder).recorded(shard(0, 2, 4))
    assert [(candidate.piece.position, candidate.address) for candidate in candidates] == [(0, record(0).address)]
    assert finder.lookups == 0


async def test_a_look_up_finds_who_was_not_known_and_then_who_might_have_it() -> None:
    finder = FakeFinder([record(number) for number in range(4)])
    finder.forgotten = {NodeId(record(1).node_id)}
    book, wanted = AddressBook(finder), shard(0, 1)
    assert len(book.recorded(wanted)) == 1
    candidates = await book.looked_up(wanted)
    assert [candidate.piece.host for candidate in candidates[:2]] == [record(0).node_id, record(1).node_id]
    assert all(candidate.address.node_id != candidate.piece.host for candidate in candidates[2:])
    assert {candidate.address.node_id for candidate in candidates[2:]} >= {record(2).node_id, record(3).node_id}


async def test_a_host_that_moved_is_noticed(autojump_clock: trio.testing.MockClock) -> None:
    finder = FakeFinder([record(0)])
    book = AddressBook(finder)
    assert book.address_of(record(0).node_id) == record(0).address
    finder.records = [record(0, port=99)]
    await trio.sleep(REFRESH_SECONDS)
    address = book.address_of(record(0).node_id)
    assert address is not None
    assert address.port == 99


async def test_a_silent_network_does_not_hold_up_what_is_known(autojump_clock: trio.testing.MockClock) -> None:
    class Silent(FakeFinder):
        async def find_node(self, node: NodeId) -> NodeRecord | None:  # noqa: ARG002 - silent to all
            await trio.sleep_forever()

    started = trio.current_time()
    candidates = await AddressBook(Silent([record(0)])).looked_up(shard(0))
    assert trio.current_time() - started == pytest.approx(LOOKUP_SECONDS)
    assert [candidate.address for candidate in candidates] == [record(0).address]
