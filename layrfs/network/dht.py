"""A Kademlia node in the caller's trio runtime: answers others, looks up ids, keeps its table healthy.

Owns the node's tasks and its own record. Envelope and nonces are ``network.exchange``'s, knowledge of others is
``network.peers``', deciding whom to ask next is ``network.lookups``'; finding the network is ``network.joining``'s.
Must not know what is stored at hosts, or who asks for them.

Invariant: the number of tasks is fixed, however many datagrams arrive; strangers who want into the table wait in one
short queue to be asked back, and are forgotten when it is full.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

import trio

from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import BadMessage
from layrfs.ids import NodeId
from layrfs.model.records import NodeRecord
from layrfs.network.addresses import Address
from layrfs.network.exchange import Asker, Exchange
from layrfs.network.joining import EXPLORED, Joining
from layrfs.network.lookups import ALPHA, HARD_SECONDS, Peer, Search, look_up
from layrfs.network.observed import ObservedAddress
from layrfs.network.peers import Peers
from layrfs.network.routing import K
from layrfs.network.udp import DatagramTransport, UdpTransport
from layrfs.wire.datagrams import (
    Filed,
    FileNode,
    FindNode,
    Hello,
    Nodes,
    Ping,
    Pong,
    Reply,
    Request,
    fitting_triples,
    pack_ip,
)

TICK_SECONDS = 1.0
REFRESH_SECONDS = 30.0
"""How often the table is searched for neglected buckets; a network smaller than ``K`` is looked over as a whole."""
NEGLECTED_SECONDS = 900.0
SPARE_START = 3
"""Contacts a lookup starts with, as a multiple of its width: the further ones matter when near ones are dead."""
CHECKERS = 4
"""Peers asked back at the same time."""
MOST_WAITING = 64
RECORD_SECONDS = 20.0
"""How long our own record is reused before it is made anew (free space changes)."""


class DhtNode:
    """One node. ``make_record`` takes the UDP port; it is called only by nodes that serve. ``now`` is Unix time."""

    def __init__(
        self,
        identity: NodeIdentity,
        network_id: bytes,
        *,
        bind: tuple[str, int],
        make_record: Callable[[int], NodeRecord],
        seeds: Sequence[tuple[str, int]],
        met: Sequence[tuple[str, int]] = (),
        serving: bool,
        now: Callable[[], float] = time.time,
        transport: DatagramTransport | None = None,
    ) -> None:
        self.node_id = identity.node_id
        self.network_id = network_id
        self.counters: Counter[str] = Counter()
        self.peers = Peers(identity.node_id, now, self.counters)
        self._make_record = make_record
        self._transport = transport or UdpTransport(bind, self.counters)
        self._observed = ObservedAddress()
        self._exchange = Exchange(
            identity,
            network_id,
            self._transport,
            now=now,
            respond=self._respond if serving else None,
            is_known=self.peers.table.knows_address,
            counters=self.counters,
        )
        where = [Address(*seed) for seed in seeds], [Address(*host) for host in met]
        self._joining = Joining(self, self._exchange, *where, now)
        self._port = 0
        self._record = b""
        self._record_made = -RECORD_SECONDS
        self._to_check, self._checks = trio.open_memory_channel[Peer](MOST_WAITING)
        self._checking: set[Peer] = set()

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Live until cancelled; reports the UDP port. Raises ``StateInUse`` when it is taken."""
        try:
            self._port = await self._transport.open()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._exchange.receive_forever)
                for _ in range(CHECKERS):
                    nursery.start_soon(self._check_forever)
                nursery.start_soon(self._tick_forever)
                nursery.start_soon(self._refresh_forever)
                nursery.start_soon(self._joining.join_forever)
                task_status.started(self._port)
        finally:
            self._transport.close()

    @property
    def joined(self) -> trio.Event:
        """Set once the node has a contact, or has found that it is the only seed itself."""
        return self._joining.joined

    @property
    def problem(self) -> str | None:
        """Why the network is not reached, in a sentence; None when it is, or when there is nothing to say yet."""
        return None if len(self.peers.table) else self._joining.problem

    def stats(self) -> dict[str, int]:
        """Contacts, records held, and how many datagrams met which fate."""
        return {"contacts": len(self.peers.table), "records": len(self.peers.shelf), **self.counters}

    def seen_as(self) -> str | None:
        """The IP address most others see this node under, once somebody has answered."""
        return self._observed.best()

    def contacts(self) -> list[NodeRecord]:
        """Records of all hosts in the table that answered when last asked."""
        return self.peers.records()

    def suspect(self, node_id: NodeId) -> None:
        """Somebody had trouble with this node: hide it and ask whether it is still there."""
        peer = self.peers.doubt(node_id, trio.current_time())
        if peer is not None:
            self._check_soon(peer)

    async def look_up(self, target: bytes, *, width: int = K, until: NodeId | None = None) -> list[NodeRecord]:
        """Records of the ``width`` nodes nearest to an id that answer now, nearest first; fewer in a small network.

        Ends early when ``until`` has answered. Takes no longer than a few seconds.
        """
        return (await self.survey(target, width=width, until=until))[0]

    async def survey(
        self, target: bytes, *, width: int = K, until: NodeId | None = None
    ) -> tuple[list[NodeRecord], int | None]:
        """``look_up``, and the distance within which it has seen everybody (None: there is nobody else anywhere)."""
        self.counters["lookups"] += 1
        search = Search(target, self.peers.nearest(target, SPARE_START * width), width=width, until=until)
        found = await look_up(search, self._ask_nearest)
        self.peers.table.looked_up(target, trio.current_time())
        return [record for node_id in found if (record := self.peers.shelf.get(node_id))], search.reach()

    async def file_node(self, node_id: NodeId) -> NodeRecord | None:
        """The record of a node: its own answer, or else the freshest its neighbours hold (it may be down)."""
        near = await self.look_up(node_id, until=node_id)
        if any(record.node_id == node_id for record in near):
            return self.peers.shelf.get(node_id)
        async with trio.open_nursery() as nursery:
            for peer in self.peers.nearest(node_id, 2 * ALPHA):
                nursery.start_soon(self._ask_file, peer, node_id)
        return self.peers.shelf.get(node_id)

    async def ping(self, peer: Peer) -> bool:
        """Whether the peer answers as a host of this network; if so it is a contact now, where there is room."""
        with trio.move_on_after(HARD_SECONDS):
            answer = await self._exchange.ask(peer.address, Ping(), Pong, expect=peer.node_id)
            return self.answered_untrusted(peer, answer.message)
        self.peers.failed(peer, trio.current_time())
        return False

    def answered_untrusted(self, peer: Peer, pong: Pong) -> bool:
        """Take in what a peer that answered says of itself and of us."""
        self._observed.vote_untrusted(peer.address, pong.seen_ip)
        return self.peers.answered_untrusted(peer, pong.record, trio.current_time())

    async def _ask_nearest(self, peer: Peer, target: bytes) -> list[Peer] | None:
        """FIND_NODE; see ``lookups.Ask``."""
        with trio.move_on_after(HARD_SECONDS):
            answer = await self._exchange.ask(peer.address, FindNode(target), Nodes, expect=peer.node_id)
            clock = trio.current_time()
            if self.peers.answered_untrusted(peer, answer.message.record, clock):
                return self.peers.credible_untrusted(answer.message.nodes, peer.address, clock)
            return None
        self.peers.failed(peer, trio.current_time())
        return None

    async def _ask_file(self, peer: Peer, node_id: NodeId) -> None:
        """FILENODE: the answer, if it is a good one, goes onto the shelf."""
        with trio.move_on_after(HARD_SECONDS):
            answer = await self._exchange.ask(peer.address, FileNode(node_id), Filed, expect=peer.node_id)
            if answer.message.record:
                try:
                    self.peers.shelf.accept_untrusted(answer.message.record, node_id, first_hand=False)
                except BadMessage:
                    self.counters["bad record"] += 1

    def _respond(self, request: Request, asker: Asker) -> Reply:
        """The answer to a request whose sender is proven, if not its address."""
        if asker.serving and self.peers.table.wants(asker.node_id, asker.address):
            self._check_soon(Peer(asker.node_id, asker.address))
        match request:
            case Hello() | Ping():
                return Pong(self._own_record(), pack_ip(asker.address.host), asker.address.port)
            case FindNode():
                return self._nodes_near(request.target, asker)
            case FileNode():
                own = request.node == self.node_id
                return Filed(self._own_record() if own else self.peers.shelf.get_bytes(NodeId(request.node)))

    def _nodes_near(self, target: bytes, asker: Asker) -> Nodes:
        record = self._own_record()
        near = self.peers.table.closest(target, K + 1)
        triples = [contact.triple for contact in near if contact.node_id != asker.node_id]
        room = {"record_bytes": len(record), "request_bytes": asker.request_bytes}
        return Nodes(record, fitting_triples(triples[:K], **room))

    def _own_record(self) -> bytes:
        clock = trio.current_time()
        if clock >= self._record_made + RECORD_SECONDS:
            self._record = self._make_record(self._port).to_bytes()
            self._record_made = clock
        return self._record

    def _check_soon(self, peer: Peer) -> None:
        """Have a peer asked back, unless that is under way or too many wait already."""
        if peer in self._checking:
            return
        try:
            self._to_check.send_nowait(peer)
        except trio.WouldBlock:
            self.counters["checks dropped"] += 1
        else:
            self._checking.add(peer)

    async def _check_forever(self) -> None:
        async for peer in self._checks:
            await self.ping(peer)
            self._checking.discard(peer)

    async def _tick_forever(self) -> None:
        while True:
            for peer in self.peers.due(trio.current_time()):
                self._check_soon(peer)
            await trio.sleep(TICK_SECONDS)

    async def _refresh_forever(self) -> None:
        while True:
            await trio.sleep(REFRESH_SECONDS)
            if 0 < len(self.peers.table) < K:
                await self.look_up(self.node_id)
            for target in self.peers.table.neglected(trio.current_time() - NEGLECTED_SECONDS):
                await self.look_up(target, width=EXPLORED)
