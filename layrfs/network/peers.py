"""Whom a node knows: contacts, their records, and who has failed lately. State and rules, no waiting.

Owns the routing table, the shelf of records and the memory of lost peers. Must not know sockets or messages. ``clock``
arguments are monotonic seconds.
Invariants: a node enters the table only by answering us, with a valid record that says it stores pieces; one that fails
leaves it after two failures and returns only by answering again, never on somebody's word.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from layrfs.errors import BadMessage
from layrfs.ids import NodeId
from layrfs.model.records import NodeRecord
from layrfs.network.addresses import Address, may_speak_of
from layrfs.network.lookups import Peer
from layrfs.network.routing import K, Table
from layrfs.network.shelf import RecordShelf
from layrfs.wire.datagrams import unpack_triple_untrusted

PING_SECONDS = 60.0
"""A contact that has been silent this long is asked whether it is there, and what its record says now."""
DOUBT_SECONDS = 1.0
"""A contact that failed is asked again after this."""
HEARSAY_PAUSE_SECONDS = 60.0
"""For so long after a failure nobody's word brings a peer back."""
FIRST_RETRY_SECONDS = 2.0
LONGEST_RETRY_SECONDS = 300.0
LONGEST_RETRY_OF_FEW_SECONDS = 10.0
"""The same while fewer contacts are left than fill a bucket."""
MOST_LOST = 128
"""Lost contacts tried again, with pauses that double: this is how the halves of a parted network find together."""
MOST_BANNED = 512


@dataclass(slots=True)
class _Lost:
    """A former contact, and when it is tried next."""

    address: Address
    retry_at: float
    pause: float = FIRST_RETRY_SECONDS


class Peers:
    """Everyone this node knows. ``now`` is Unix time, for the expiry of records."""

    def __init__(self, own_id: NodeId, now: Callable[[], float], counters: Counter[str]) -> None:
        self._own_id = own_id
        self._counters = counters
        self._lost: OrderedDict[NodeId, _Lost] = OrderedDict()
        self._banned: OrderedDict[Peer, float] = OrderedDict()
        self.table = Table(own_id)
        self.shelf = RecordShelf(now)

    def answered_untrusted(self, peer: Peer, record: bytes, clock: float) -> bool:
        """This peer has just answered from its address with this record: remember both. False when it is no host."""
        try:
            accepted = self.shelf.accept_untrusted(record, peer.node_id, first_hand=True)
        except BadMessage:
            self._counters["bad record"] += 1
            return False
        if accepted.tcp_port == 0 or not may_speak_of(peer.address.host, accepted.host):
            self.shelf.forget(peer.node_id)
            self._counters["bad record"] += 1
            return False
        if self._lost.pop(peer.node_id, None) is not None:
            self._hope(clock)
        self._banned.pop(peer, None)
        self.table.heard_from(peer.node_id, peer.address, clock)
        return True

    def failed(self, peer: Peer, clock: float) -> None:
        """This peer has not answered in time, or not with sense. A contact has its second chance soon."""
        contact = self.table.get(peer.node_id)
        if contact is not None and contact.address == peer.address:
            if self.table.failed(peer.node_id, clock) is None:
                return
            self._lose(peer, clock)
        self._banned[peer] = clock + HEARSAY_PAUSE_SECONDS
        self._banned.move_to_end(peer)
        if len(self._banned) > MOST_BANNED:
            self._banned.popitem(last=False)

    def doubt(self, node_id: NodeId, clock: float) -> Peer | None:
        """Somebody had trouble with this node: the contact to ask, if it is one."""
        self.table.doubt(node_id, clock)
        contact = self.table.get(node_id)
        return Peer(node_id, contact.address) if contact else None

    def is_doubtful(self, node_id: NodeId) -> bool:
        """Whether the last we know of this node is a failure."""
        contact = self.table.get(node_id)
        return bool(contact.failures) if contact else node_id in self._lost

    def silent(self) -> set[NodeId]:
        """Everybody who is doubtful."""
        return {contact.node_id for contact in self.table.contacts() if contact.failures} | self._lost.keys()

    def is_alive(self, node_id: NodeId) -> bool:
        """Whether this node is a contact that answers."""
        contact = self.table.get(node_id)
        return contact is not None and not contact.failures

    def nearest(self, target: bytes, count: int = K) -> list[Peer]:
        """The healthy contacts nearest to an id."""
        return [Peer(contact.node_id, contact.address) for contact in self.table.closest(target, count)]

    def records(self) -> list[NodeRecord]:
        """The records of all healthy contacts."""
        healthy = (contact.node_id for contact in self.table.contacts() if not contact.failures)
        return [record for node_id in healthy if (record := self.shelf.get(node_id))]

    def credible_untrusted(self, triples: Iterable[bytes], speaker: Address, clock: float) -> list[Peer]:
        """Those of the nodes in an answer that are worth asking."""
        credible = []
        for triple in triples:
            try:
                node_id, host, port = unpack_triple_untrusted(triple)
            except BadMessage:
                self._counters["bad triple"] += 1
                continue
            contact = self.table.get(node_id)
            peer = Peer(node_id, contact.address if contact else Address(host, port))
            if node_id != self._own_id and may_speak_of(speaker.host, host) and not self._is_banned(peer, clock):
                credible.append(peer)
        return credible

    def due(self, clock: float) -> list[Peer]:
        """Who should be pinged now. Lost peers in it have their next turn arranged."""
        return [*self._due_contacts(clock), *self._due_lost(clock)]

    def _due_contacts(self, clock: float) -> list[Peer]:
        return [
            Peer(contact.node_id, contact.address)
            for contact in self.table.contacts()
            if clock >= (contact.failed + DOUBT_SECONDS if contact.failures else contact.heard + PING_SECONDS)
        ]

    def _due_lost(self, clock: float) -> list[Peer]:
        due = []
        longest_seconds = LONGEST_RETRY_OF_FEW_SECONDS if len(self.table) < K else LONGEST_RETRY_SECONDS
        for node_id, lost in self._lost.items():
            if lost.retry_at <= clock:
                lost.pause = min(2 * lost.pause, longest_seconds)
                lost.retry_at = clock + lost.pause
                due.append(Peer(node_id, lost.address))
        return due

    def _hope(self, clock: float) -> None:
        """One lost contact is back: whatever kept us apart may be over, so try the others now."""
        for lost in self._lost.values():
            lost.retry_at = clock
            lost.pause = FIRST_RETRY_SECONDS

    def _is_banned(self, peer: Peer, clock: float) -> bool:
        return clock < self._banned.get(peer, clock)

    def _lose(self, peer: Peer, clock: float) -> None:
        self._lost[peer.node_id] = _Lost(peer.address, retry_at=clock + FIRST_RETRY_SECONDS)
        if len(self._lost) > MOST_LOST:
            self._lost.popitem(last=False)
