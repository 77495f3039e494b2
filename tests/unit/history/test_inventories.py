"""Every host asked what it keeps: hosts that lie, that stop half-way, that are busy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layrfs.crypto.identity import NodeIdentity
from layrfs.crypto.keys import tenant_private
from layrfs.errors import BadMessage, Refused, RemoteError, Unreachable
from layrfs.history.inventories import every_host, take_inventories
from layrfs.ids import NodeId, PieceId, Salt
from layrfs.model.notes import PieceNote
from layrfs.model.records import HostAddress, NodeRecord
from layrfs.model.redundancy import Redundancy
from layrfs.storage.sightings import Sightings
from layrfs.wire.messages import Listed, Listing
from tests.fakes.hosts import FAR_FUTURE, FakeFinder

MASK = bytes([1]) * 32
Answer = Listing | RemoteError


def record(number: int, tcp_port: int = 5) -> NodeRecord:
    return NodeRecord.sign(
        NodeIdentity(bytes([number]) * 32),
        host="127.0.0.1",
        udp_port=number,
        tcp_port=tcp_port,
        free_bytes=1,
        expires=FAR_FUTURE,
    )


def listed(number: int, mask: bytes = MASK) -> Listed:
    """A piece of ours, or of somebody with another mask key."""
    piece = PieceId(bytes([number]) * 32)
    return Listed(piece, 5, PieceNote(Salt(bytes([number]) * 16), 0, 0, Redundancy(1, 1)).sealed(mask, piece))


class Hosts:
    """Answers prepared for each host, in order; asked with the right tenant key only."""

    def __init__(self, answers: dict[NodeId, list[Answer]]) -> None:
        self.answers = {node: iter(prepared) for node, prepared in answers.items()}
        self.asked_after: dict[NodeId, list[PieceId]] = {node: [] for node in answers}
        self.lock = threading.Lock()

    def inventory(
        self,
        host: HostAddress,
        after: PieceId,
        tenant_private: bytes,
        *,
        deadline_seconds: float,  # noqa: ARG002 - the real link has it
    ) -> Listing:
        assert tenant_private == tenant_key(host.node_id)
        with self.lock:
            self.asked_after[host.node_id].append(after)
            answer = next(self.answers[host.node_id])
        if isinstance(answer, RemoteError):
            raise answer
        return answer


def tenant_key(node: NodeId) -> bytes:
    return tenant_private(MASK, node)


@pytest.fixture
def sightings(tmp_path: Path) -> Iterator[Sightings]:
    with Sightings(str(tmp_path / "sightings.db")) as sightings:
        yield sightings


def salts(sightings: Sightings) -> set[int]:
    return {salt[0] for salt in sightings.contents(Salt(b""), 100)}


def silent(_text: str) -> None:
    """Nobody watches."""


async def test_all_pages_of_all_hosts(sightings: Sightings) -> None:
    one, two = record(1), record(2)
    hosts = Hosts(
        {
            one.node_id: [
                Listing((listed(1), listed(2)), listed(2).piece),
                Listing((), PieceId(b"\x30" * 32)),
                Listing((listed(0x31),)),
            ],
            two.node_id: [Listing((listed(1), listed(3)))],
        }
    )
    said: list[str] = []
    taken = await take_inventories([one, two], hosts, MASK, sightings, said.append, 0)
    assert (taken.hosts, taken.broken_off) == (2, ())
    assert salts(sightings) == {1, 2, 3, 0x31}
    assert sightings.pieces() == 5, "a piece at two hosts can be asked for at both"
    assert hosts.asked_after[one.node_id] == [PieceId(bytes(32)), listed(2).piece, PieceId(b"\x30" * 32)]
    assert said[-1].endswith("5 pieces found")


@pytest.mark.parametrize(
    "lie",
    [
        lambda: listed(9, mask=bytes(32)),
        lambda: Listed(listed(9).piece, 5, listed(8).note),
        lambda: Listed(listed(9).piece, 5, b""),
        lambda: Listed(listed(9).piece, 5, bytes(64)),
    ],
)
async def test_what_a_host_makes_up_is_not_believed(sightings: Sightings, lie: Callable[[], Listed]) -> None:
    host = record(1)
    hosts = Hosts({host.node_id: [Listing((listed(1), lie()))]})
    taken = await take_inventories([host], hosts, MASK, sightings, silent, 0)
    assert taken.broken_off == ()
    assert salts(sightings) == {1}


async def test_a_host_that_stops_half_way_has_told_what_it_told(sightings: Sightings) -> None:
    broken, lying, good = record(1), record(2), record(3)
    gone: list[Answer] = [Unreachable("gone")] * 9
    hosts = Hosts(
        {
            broken.node_id: [Listing((listed(1),), listed(1).piece), *gone],
            lying.node_id: [Listing((listed(2),), listed(2).piece), BadMessage("another order")],
            good.node_id: [Listing((listed(3),))],
        }
    )
    taken = await take_inventories([broken, lying, good], hosts, MASK, sightings, silent, 0)
    assert set(taken.broken_off) == {broken.node_id, lying.node_id}
    assert salts(sightings) == {1, 2, 3}


async def test_a_busy_host_is_asked_again(sightings: Sightings) -> None:
    host = record(1)
    hosts = Hosts({host.node_id: [Refused("busy"), Unreachable("late"), Listing((listed(1),))]})
    taken = await take_inventories([host], hosts, MASK, sightings, silent, 0)
    assert taken.broken_off == ()
    assert salts(sightings) == {1}


async def test_every_host_is_found_and_no_owner(autojump_clock: object) -> None:
    records = [record(number) for number in range(1, 60)]
    found = await every_host(FakeFinder([*records, record(60, tcp_port=0)]))
    assert {host.node_id for host in found} == {host.node_id for host in records}


async def test_hosts_that_come_late_are_waited_for(autojump_clock: object) -> None:
    assert await every_host(FakeFinder([])) == []
