"""The UDP messages by which nodes find each other, and the signed envelope around each of them.

Envelope (little-endian)::

    magic "LYRD" | version u8 | flags u8 | network id 32 | sender's public key 32 | unix time in ms u64 | nonce 8 |
    msgpack array [kind, fields…] | Ed25519 signature 64

The signature covers everything before it, under its own label. A reply carries the nonce of its request; flag bit 0
marks replies, bit 1 senders that serve (owner-only nodes do not, and enter nobody's table). The network id is zero in
one message only, Hello, from somebody who has yet to learn it.

Sizes are part of the protocol: no datagram exceeds DATAGRAM_LIMIT (whole through every IPv6 path), and no reply
exceeds REPLY_FACTOR times its request, whoever asks, so that a forged sender address gains an attacker little.
Requests that want long replies are padded for it.

This module knows bytes. It must not know tables, clocks, sockets, or what a record says: records pass as bytes.
"""

from __future__ import annotations

import functools
import ipaddress
import struct
from typing import Annotated, Final, cast

import msgspec

from layrfs.crypto import labels
from layrfs.crypto.identity import SIGNATURE_BYTES, NodeIdentity, node_id_of, verify_signature
from layrfs.errors import BadMessage
from layrfs.ids import NODE_ID_BYTES, NodeId
from layrfs.wire.codec import Uint16, decode_untrusted, encode

DATAGRAM_LIMIT: Final = 1200
REPLY_FACTOR: Final = 3
FIND_PADDING_BYTES: Final = 200
"""Makes FIND_NODE long enough to be answered by a full datagram."""
NETWORK_ID_BYTES: Final = 32
NO_NETWORK: Final = bytes(NETWORK_ID_BYTES)
NONCE_BYTES: Final = 8
RECORD_LIMIT: Final = 512
MOST_NODES: Final = 32

_MAGIC = b"LYRD"
_VERSION = 1
_REPLY = 1
_SERVING = 2
_HEADER = struct.Struct("<4sBB32s32sQ8s")
_PORT = struct.Struct("<H")
_SMALLEST = _HEADER.size + 1 + SIGNATURE_BYTES
_IPV4_BYTES = 4
_IPV6_BYTES = 16

NodeIdField = Annotated[bytes, msgspec.Meta(min_length=NODE_ID_BYTES, max_length=NODE_ID_BYTES)]
RecordField = Annotated[bytes, msgspec.Meta(max_length=RECORD_LIMIT)]
Padding = Annotated[bytes, msgspec.Meta(max_length=DATAGRAM_LIMIT)]
EndpointField = Annotated[bytes, msgspec.Meta(max_length=_IPV6_BYTES)]
Triple = Annotated[bytes, msgspec.Meta(max_length=NODE_ID_BYTES + 2 + _IPV6_BYTES)]


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=0, forbid_unknown_fields=True):
    """Which network are you in? Answered by Pong under the network's id."""


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """Are you there? Answered by Pong."""


class Pong(msgspec.Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """The sender's node record, and the address (4 or 16 bytes) under which the asker was seen."""

    record: RecordField
    seen_ip: EndpointField
    seen_port: Uint16


class FindNode(msgspec.Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """Whom do you know closest to this id? Answered by Nodes."""

    target: NodeIdField
    padding: Padding = bytes(FIND_PADDING_BYTES)


class Nodes(msgspec.Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True):
    """The sender's own record, and (id, address, port) of those it knows: see ``pack_triple``."""

    record: RecordField
    nodes: Annotated[tuple[Triple, ...], msgspec.Meta(max_length=MOST_NODES)]


class FileNode(msgspec.Struct, frozen=True, array_like=True, tag=5, forbid_unknown_fields=True):
    """Do you hold this node's record? Answered by Filed."""

    node: NodeIdField


class Filed(msgspec.Struct, frozen=True, array_like=True, tag=6, forbid_unknown_fields=True):
    """The record asked for; empty when not held."""

    record: RecordField


Request = Hello | Ping | FindNode | FileNode
Reply = Pong | Nodes | Filed
Message = Hello | Ping | Pong | FindNode | Nodes | FileNode | Filed

_MESSAGE = cast("type[Message]", Message)


class Datagram(msgspec.Struct, frozen=True):
    """One datagram taken apart. Whether its sender wrote it is only known after ``authentic``."""

    network_id: bytes
    public_key: bytes
    time_ms: int
    nonce: bytes
    is_reply: bool
    serving: bool
    message: Message
    signed: bytes
    signature: bytes

    @property
    def sender(self) -> NodeId:
        return node_id_of(self.public_key)

    def authentic(self) -> bool:
        """Whether the signature is the sender's: 0.1 ms, so ask everything cheaper first."""
        return verify_signature(self.public_key, labels.signed_bytes(labels.SIGN_DATAGRAM, self.signed), self.signature)


def seal(
    identity: NodeIdentity, network_id: bytes, message: Message, *, nonce: bytes, time_ms: int, serving: bool
) -> bytes:
    """The signed datagram for a message. Replies are recognised by their type."""
    flags = (_REPLY if isinstance(message, Reply) else 0) | (_SERVING if serving else 0)
    header = _HEADER.pack(_MAGIC, _VERSION, flags, network_id, identity.public_key, time_ms, nonce)
    signed = header + encode(message)
    return signed + identity.sign(labels.signed_bytes(labels.SIGN_DATAGRAM, signed))


def open_untrusted(data: bytes) -> Datagram:
    """A stranger's datagram taken apart, its shape checked, its signature not yet. Raises ``BadMessage``."""
    if not _SMALLEST <= len(data) <= DATAGRAM_LIMIT:
        raise BadMessage(f"a datagram of {len(data)} bytes")
    magic, version, flags, network_id, public_key, time_ms, nonce = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != _VERSION or flags & ~(_REPLY | _SERVING):
        raise BadMessage("a datagram of some other protocol or version")
    message = decode_untrusted(_MESSAGE, data[_HEADER.size : -SIGNATURE_BYTES], limit=DATAGRAM_LIMIT)
    is_reply = bool(flags & _REPLY)
    if is_reply != isinstance(message, Reply):
        raise BadMessage("a request that calls itself a reply, or the other way round")
    if (network_id == NO_NETWORK) != isinstance(message, Hello):
        raise BadMessage("a message of no network")
    return Datagram(
        network_id=network_id,
        public_key=public_key,
        time_ms=time_ms,
        nonce=nonce,
        is_reply=is_reply,
        serving=bool(flags & _SERVING),
        message=message,
        signed=data[:-SIGNATURE_BYTES],
        signature=data[-SIGNATURE_BYTES:],
    )


def pack_ip(ip: str) -> bytes:
    """4 or 16 bytes of an IP literal."""
    return ipaddress.ip_address(ip).packed


def unpack_ip_untrusted(packed: bytes) -> str:
    """The canonical literal of 4 or 16 bytes. Raises ``BadMessage`` for other lengths and IPv4 dressed as IPv6."""
    if len(packed) == _IPV4_BYTES:
        return "{}.{}.{}.{}".format(*packed)
    if len(packed) != _IPV6_BYTES:
        raise BadMessage(f"an address of {len(packed)} bytes")
    address = ipaddress.IPv6Address(packed)
    if address.ipv4_mapped:
        raise BadMessage("an IPv4 address in the shape of an IPv6 address")
    return str(address)


def pack_triple(node_id: NodeId, ip: str, port: int) -> bytes:
    """``node id 20 | UDP port u16 | address 4 or 16``."""
    return node_id + _PORT.pack(port) + pack_ip(ip)


@functools.lru_cache(maxsize=4096)
def unpack_triple_untrusted(triple: bytes) -> tuple[NodeId, str, int]:
    """The inverse of ``pack_triple``; remembers, as the same nodes are named again and again. Raises ``BadMessage``."""
    if len(triple) < NODE_ID_BYTES + _PORT.size:
        raise BadMessage("a node in a list is cut short")
    (port,) = _PORT.unpack_from(triple, NODE_ID_BYTES)
    if port == 0:
        raise BadMessage("a node at port 0")
    return NodeId(triple[:NODE_ID_BYTES]), unpack_ip_untrusted(triple[NODE_ID_BYTES + _PORT.size :]), port


def fitting_triples(triples: list[bytes], *, record_bytes: int, request_bytes: int) -> tuple[bytes, ...]:
    """As many of the triples, in order, as a Nodes reply to a request of this size may carry."""
    room = min(DATAGRAM_LIMIT, REPLY_FACTOR * request_bytes) - _NODES_FRAME - record_bytes
    fitting: list[bytes] = []
    for triple in triples[:MOST_NODES]:
        room -= len(triple) + 2
        if room < 0:
            break
        fitting.append(triple)
    return tuple(fitting)


_NODES_FRAME = _HEADER.size + SIGNATURE_BYTES + 1 + 1 + 3 + 3
"""A Nodes reply without its record and triples: array and tag, and at most 3 bytes of length each for the two."""
