"""Finding hosts, for those who place and fetch pieces: the DHT with a memory, so that most questions cost no datagram.

Owns what lookups found lately, as regions: a lookup that returned the ``K`` nodes nearest to an id has seen *everybody*
under the longest id prefix they enclose (everybody at all, when there were fewer than ``K``). Any key in such a
region is answered from memory. Must not know pieces, shards, or why a host is sought.

Invariant: no answer contains a node whose last known sign was a failure, or that stores nothing for others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import trio

from layrfs.ids import NODE_ID_BYTES, NodeId
from layrfs.model.records import NodeRecord
from layrfs.network.dht import DhtNode
from layrfs.network.routing import K

REGION_SECONDS = 30.0
MOST_REGIONS = 256
NOT_FOUND_SECONDS = 15.0
MOST_NOT_FOUND = 1024
LOOKUPS_AT_ONCE = 4

_ID_BITS = 8 * NODE_ID_BYTES


@dataclass(frozen=True, slots=True)
class Region:
    """All hosts whose ids start with the first ``depth`` bits of ``prefix``, as of ``found`` (monotonic seconds)."""

    depth: int
    prefix: int
    members: tuple[NodeId, ...]
    found: float


def region_of(target: bytes, found: Sequence[NodeId], reach: int | None, clock: float) -> Region:
    """The region that a lookup for ``target`` has seen completely; ``reach`` as ``DhtNode.survey`` answers it."""
    depth = 0 if reach is None else _ID_BITS + 1 - (reach + 1).bit_length()
    inside = tuple(node for node in found if _prefix(node, depth) == _prefix(target, depth))
    return Region(depth, _prefix(target, depth), inside, clock)


@dataclass(frozen=True, slots=True)
class Answering:
    """The hosts that can be counted on to answer, for ``in``: those that do, and those of which nothing is known.

    A node knows some hundred others. Where there are more, most of whoever has one's pieces is none of them.
    """

    living: AbstractSet[NodeId]
    silent: AbstractSet[NodeId]
    """The last that is known of them is a failure."""
    regions: Mapping[tuple[int, int], Region]
    """By depth and prefix, where everybody who answers was seen a moment ago."""
    is_everybody: bool
    """There are no hosts but the living ones."""

    def __contains__(self, node: object) -> bool:
        if node in self.living or self.is_everybody or node in self.silent or not isinstance(node, bytes):
            return node in self.living
        return not any((depth, _prefix(node, depth)) in self.regions for depth in {depth for depth, _ in self.regions})


class Discovery:
    """Questions about hosts, for callers in the node's trio runtime. Deadlines are the callers'."""

    def __init__(self, node: DhtNode) -> None:
        self._node = node
        self._regions: OrderedDict[tuple[int, int], Region] = OrderedDict()
        self._not_found: OrderedDict[NodeId, float] = OrderedDict()
        self._lookups = trio.CapacityLimiter(LOOKUPS_AT_ONCE)

    async def closest_hosts(self, key: bytes, count: int) -> list[NodeRecord]:
        """Records of the living hosts nearest to a key (its first 20 bytes), nearest first."""
        target = key[:NODE_ID_BYTES]
        remembered = self._remembered(target, count)
        if remembered is not None:
            return remembered
        async with self._lookups:
            remembered = self._remembered(target, count)
            if remembered is not None:  # somebody else has just looked there
                return remembered
            found, reach = await self._node.survey(target, width=max(K, count))
        self._remember(region_of(target, [record.node_id for record in found], reach, trio.current_time()))
        return found[:count]

    async def find_node(self, node: NodeId) -> NodeRecord | None:
        """The record of a node: at once when it is known to live, else from the network; None when nobody has one.

        A record does not promise that its node lives: its neighbours keep it for some time. See ``is_alive``.
        """
        if self._node.peers.is_alive(node):
            return self._node.peers.shelf.get(node)
        if self._not_found.get(node, 0.0) > trio.current_time():
            return self._node.peers.shelf.get(node)
        async with self._lookups:
            record = await self._node.file_node(node)
        if not self._node.peers.is_alive(node):
            self._not_found[node] = trio.current_time() + NOT_FOUND_SECONDS
            self._not_found.move_to_end(node)
            if len(self._not_found) > MOST_NOT_FOUND:
                self._not_found.popitem(last=False)
        return record

    def known_hosts(self) -> list[NodeRecord]:
        """Every living host this node knows without asking; all of them in a network smaller than ``K``."""
        known = {record.node_id: record for record in self._node.contacts()}
        for region in self._regions.values():
            for node_id in region.members:
                record = self._node.peers.shelf.get(node_id)
                if record and self._is_fresh(region) and not self._node.peers.is_doubtful(node_id):
                    known.setdefault(node_id, record)
        return list(known.values())

    def answering(self, doubted: AbstractSet[NodeId] = frozenset()) -> Answering:
        """Whom to count on now, but for ``doubted``: what others know against them is newer, or worse."""
        living = {record.node_id for record in self.known_hosts()}
        fresh = {place: region for place, region in self._regions.items() if self._is_fresh(region)}
        return Answering(living - doubted, self._node.peers.silent() | doubted, fresh, is_everybody=len(living) < K)

    def is_alive(self, node: NodeId) -> bool:
        """Whether this node is a contact that answered when last asked."""
        return self._node.peers.is_alive(node)

    def is_leaving(self, node: NodeId) -> bool:
        """Whether a host has said, in the newest record that is known, that it is going to end. Signed by itself."""
        record = self._node.peers.shelf.get(node)
        return record is not None and record.leaving

    def suspect(self, node: NodeId) -> None:
        """A caller had trouble with this host: leave it out of answers until it has answered a ping, sent now."""
        self._node.suspect(node)

    def _remembered(self, target: bytes, count: int) -> list[NodeRecord] | None:
        for depth in {depth for depth, _ in self._regions}:
            region = self._regions.get((depth, _prefix(target, depth)))
            if region is not None and self._is_fresh(region):
                hosts = self._living(region.members) if depth else self.known_hosts()
                if depth == 0 or len(hosts) >= count:
                    goal = int.from_bytes(target, "big")
                    return sorted(hosts, key=lambda host: int.from_bytes(host.node_id, "big") ^ goal)[:count]
        return None

    def _remember(self, region: Region) -> None:
        """Keep a region. One that saw nobody says only that the network was out of reach: it is not kept."""
        if not region.members:
            return
        self._regions[region.depth, region.prefix] = region
        self._regions.move_to_end((region.depth, region.prefix))
        if len(self._regions) > MOST_REGIONS:
            self._regions.popitem(last=False)

    def _is_fresh(self, region: Region) -> bool:
        return trio.current_time() < region.found + REGION_SECONDS

    def _living(self, members: tuple[NodeId, ...]) -> list[NodeRecord]:
        shelf = self._node.peers.shelf
        living = (node_id for node_id in members if not self._node.peers.is_doubtful(node_id))
        return [record for node_id in living if (record := shelf.get(node_id))]


def _prefix(node_id: bytes, depth: int) -> int:
    return int.from_bytes(node_id, "big") >> (_ID_BITS - depth)
