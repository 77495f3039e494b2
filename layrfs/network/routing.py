"""The routing table: whom we know, sorted into k-buckets. The only module that imports the ``kademlia`` package.

From the package: node ids and their distance, k-buckets with replacement lists, the table that splits them. Replaced:
adding contacts (the package starts asyncio tasks there), choosing the bucket (off by one at its edges), and finding the
closest (approximate, and it returns nodes that just failed).

Owns contacts and nothing else; must not know sockets or messages. Time is an argument.
Invariant: only nodes that answered us are in here, each under the address that answered, at most
``MOST_OF_ONE_NETWORK`` of one /24 or /64 in a bucket.
"""

from __future__ import annotations

import heapq
import secrets

from kademlia.node import Node
from kademlia.routing import KBucket, RoutingTable

from layrfs.ids import NodeId
from layrfs.network.addresses import Address
from layrfs.policy.placement import network_of
from layrfs.wire.datagrams import pack_triple

K = 20
"""Size of a bucket, and of the answer of a lookup."""
MOST_REPLACEMENTS = 8
MOST_OF_ONE_NETWORK = 4
FAILURES_UNTIL_GONE = 2
_ID_BITS = 160


class Contact(Node):  # type: ignore[misc]  # kademlia ships no types
    """A node that answered: where, when, and how often it has failed to since."""

    def __init__(self, node_id: NodeId, address: Address, heard: float) -> None:
        super().__init__(node_id, address.host, address.port)
        self.node_id = node_id
        self.address = address
        self.heard = heard
        self.failures = 0
        self.failed = 0.0
        self.network = network_of(address.host)
        self.triple = pack_triple(node_id, address.host, address.port)


class _Buckets(RoutingTable):  # type: ignore[misc]  # kademlia ships no types
    """The package's table without its detours."""

    def add_contact(self, node: Contact) -> None:
        bucket = self.buckets[self.get_bucket_for(node)]
        if _crowded(bucket, node):
            return
        while not bucket.add_node(node) and self.may_split(bucket, node.long_id):
            # add_node has put the node on the replacement list, from where the split hands it down.
            self.split_bucket(self.buckets.index(bucket))
            bucket = self.buckets[self.get_bucket_for(node)]

    def may_split(self, bucket: KBucket, number: int) -> bool:
        """Whether a full bucket is split for this id: it is our own bucket, or the id is among the K nearest to us.

        The second is Kademlia's answer to unbalanced trees (section 2.4 of the paper): our neighbourhood is kept whole.
        """
        if bucket.has_in_range(self.node):
            return True
        own = int(self.node.long_id)
        distances = (int(contact.long_id) ^ own for each in self.buckets for contact in each.nodes.values())
        return number ^ own < heapq.nsmallest(self.ksize, distances)[-1]

    def split_bucket(self, index: int) -> None:
        looked_into = self.buckets[index].last_updated
        super().split_bucket(index)
        for half in self.buckets[index : index + 2]:
            half.last_updated = looked_into

    def get_bucket_for(self, node: Node) -> int:
        return self.index_of(node.long_id)

    def index_of(self, number: int) -> int:
        for index, bucket in enumerate(self.buckets):
            if number <= bucket.range[1]:
                return index
        raise AssertionError("an id of more than 160 bits")


class Table:
    """Contacts of one node, found by id or by nearness."""

    def __init__(self, own_id: NodeId, bucket_size: int = K) -> None:
        self._own_id = own_id
        self._buckets = _Buckets(None, bucket_size, Node(own_id))
        for bucket in self._buckets.buckets:
            bucket.last_updated = 0.0
        self._addresses: frozenset[Address] | None = None

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._buckets.buckets)

    def get(self, node_id: NodeId) -> Contact | None:
        """The contact with this id, unless it is only a replacement."""
        contact: Contact | None = self._bucket(node_id).nodes.get(node_id)
        return contact

    def contacts(self) -> list[Contact]:
        """Everyone, replacements excepted."""
        return [contact for bucket in self._buckets.buckets for contact in bucket.nodes.values()]

    def knows_address(self, address: Address) -> bool:
        """Whether a contact lives there."""
        if self._addresses is None:
            self._addresses = frozenset(contact.address for contact in self.contacts())
        return address in self._addresses

    def wants(self, node_id: NodeId, address: Address) -> bool:
        """Whether it is worth asking this node to prove itself: new, or moved, and with a place to go."""
        if node_id == self._own_id:
            return False
        bucket = self._bucket(node_id)
        known: Contact | None = bucket.nodes.get(node_id) or bucket.replacement_nodes.get(node_id)
        if known is not None:
            return known.address != address
        full = len(bucket) >= bucket.ksize and len(bucket.replacement_nodes) >= MOST_REPLACEMENTS
        return not full or self._buckets.may_split(bucket, int.from_bytes(node_id, "big"))

    def heard_from(self, node_id: NodeId, address: Address, now: float) -> None:
        """This node has just answered from this address."""
        if node_id == self._own_id:
            return
        known = self.get(node_id)
        if known is not None and known.address == address:
            known.heard = now
            known.failures = 0
        else:
            self._buckets.add_contact(Contact(node_id, address, now))
            self._addresses = None

    def failed(self, node_id: NodeId, now: float) -> Contact | None:
        """This contact did not answer; answers it back when that was once too often and it is gone."""
        contact = self.get(node_id)
        if contact is None:
            return None
        contact.failures += 1
        contact.failed = now
        if contact.failures < FAILURES_UNTIL_GONE:
            return None
        self._buckets.remove_contact(contact)
        self._addresses = None
        return contact

    def doubt(self, node_id: NodeId, now: float) -> None:
        """Somebody had trouble with this contact: leave it out of answers until it has answered again."""
        contact = self.get(node_id)
        if contact is not None and not contact.failures:
            contact.failures = 1
            contact.failed = now

    def closest(self, target: bytes, count: int = K) -> list[Contact]:
        """The healthy contacts nearest to an id, nearest first."""
        goal = int.from_bytes(target, "big")
        healthy = (contact for contact in self.contacts() if not contact.failures)
        return heapq.nsmallest(count, healthy, key=lambda contact: int(contact.long_id) ^ goal)

    def looked_up(self, target: bytes, now: float) -> None:
        """A lookup for this id has refreshed the bucket it falls into."""
        self._bucket(NodeId(target)).last_updated = now

    def neglected(self, before: float) -> list[NodeId]:
        """For each bucket that no lookup has touched since ``before``, a random id within it."""
        return [_random_id(bucket) for bucket in self._buckets.buckets if bucket.last_updated < before]

    def _bucket(self, node_id: NodeId) -> KBucket:
        return self._buckets.buckets[self._buckets.index_of(int.from_bytes(node_id, "big"))]


def _crowded(bucket: KBucket, node: Contact) -> bool:
    """Whether one network would get too much of a bucket."""
    if node.network is None or node.id in bucket.nodes:
        return False
    neighbours = [other for other in bucket.nodes.values() if other.network == node.network]
    return len(neighbours) >= MOST_OF_ONE_NETWORK


def _random_id(bucket: KBucket) -> NodeId:
    low, high = bucket.range
    chosen = min(low + secrets.randbelow(high - low + 1), 2**_ID_BITS - 1)
    return NodeId(chosen.to_bytes(_ID_BITS // 8, "big"))
