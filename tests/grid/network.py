"""Networks of many DHT nodes over the fabric, for the grid tests: build, kill, ask."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio
import trio.testing

from layrfs.crypto.identity import NodeIdentity
from layrfs.ids import NodeId
from layrfs.model.records import NodeRecord
from layrfs.network.addresses import Address
from layrfs.network.dht import DhtNode
from tests.grid.fabric import Fabric

EPOCH = 1_800_000_000.0
NETWORK = bytes(range(32))
LIFETIME_SECONDS = 24 * 3600


def wall_clock() -> float:
    """Unix time that follows trio's clock."""
    return EPOCH + trio.current_time()


def identity_number(number: int) -> NodeIdentity:
    """The same identities in every run."""
    return NodeIdentity.from_private(random.Random(number).randbytes(32))


def host_number(number: int) -> str:
    return f"10.0.{number // 256}.{number % 256}"


@dataclass
class Member:
    """One node of a grid, and how to end it."""

    node: DhtNode
    address: Address
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    free_bytes: int = 1 << 30
    leaving: bool = False

    @property
    def id(self) -> NodeId:
        return self.node.node_id


class Grid:
    """A fabric and the nodes on it; ``nursery`` holds their tasks."""

    def __init__(self, nursery: trio.Nursery, fabric: Fabric) -> None:
        self.nursery = nursery
        self.fabric = fabric
        self.members: list[Member] = []
        self._made = 0

    async def add(
        self,
        *,
        seeds: Sequence[Address] | None = None,
        met: Sequence[Address] = (),
        serving: bool = True,
        network_id: bytes = NETWORK,
        host: str | None = None,
        identity: NodeIdentity | None = None,
        now: Callable[[], float] = wall_clock,
    ) -> Member:
        """Start a node; its seed is the first one unless others are given."""
        self._made += 1
        address = Address(host or host_number(self._made), 4000)
        identity = identity or identity_number(self._made)
        if seeds is None:
            seeds = [self.members[0].address] if self.members else []
        member: Member

        def make_record(udp_port: int) -> NodeRecord:
            return NodeRecord.sign(
                identity,
                host=address.host,
                udp_port=udp_port,
                tcp_port=udp_port if serving else 0,
                free_bytes=member.free_bytes,
                leaving=member.leaving,
                expires=int(wall_clock()) + LIFETIME_SECONDS,
            )

        node = DhtNode(
            identity,
            network_id,
            bind=address,
            make_record=make_record,
            seeds=seeds,
            met=met,
            serving=serving,
            now=now,
            transport=self.fabric.endpoint(*address),
        )
        member = Member(node, address)
        self.members.append(member)
        await self.nursery.start(self._live, member)
        return member

    async def add_many(self, count: int) -> list[Member]:
        """Nodes that come one after the other, and have all joined when this returns."""
        added = []
        for _ in range(count):
            added.append(await self.add())
            await trio.sleep(0.05)
        for member in added:
            await member.node.joined.wait()
        return added

    async def kill(self, member: Member) -> None:
        """End a node without a word."""
        member.scope.cancel()
        self.members.remove(member)
        await trio.testing.wait_all_tasks_blocked()

    def nearest(self, target: bytes, count: int) -> list[NodeId]:
        """Who really is nearest, of those who live and serve."""
        goal = int.from_bytes(target, "big")
        ids = [member.id for member in self.members]
        return sorted(ids, key=lambda node_id: int.from_bytes(node_id, "big") ^ goal)[:count]

    async def _live(self, member: Member, *, task_status: trio.TaskStatus[int]) -> None:
        with member.scope:
            await member.node.run(task_status=task_status)


def ids(records: Sequence[NodeRecord]) -> list[NodeId]:
    return [record.node_id for record in records]
