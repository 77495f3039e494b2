"""Node records: what a node says about itself, signed, so that anybody may pass it on and nobody can change it.

A record is believed only as the result of `verified_untrusted`. The signature covers the label, the magic, and all
fields before it as a msgpack array (docs/format.md); the node id is not a field, it follows from the key.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated

import msgspec

from layrfs.crypto import labels
from layrfs.crypto.identity import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, NodeIdentity, node_id_of, verify_signature
from layrfs.errors import BadMessage
from layrfs.ids import NodeId
from layrfs.wire.codec import Uint16, Uint63, decode_untrusted, encode

RECORD_VERSION = 1
RECORD_LIMIT_BYTES = 512
LIFETIME_SECONDS = 24 * 3600
MAX_LIFETIME_SECONDS = 48 * 3600
"""Nobody can plant a record that outlives its node by more than this (twice our own, for clocks that are wrong)."""

_MAGIC = b"LYRN"
_LONGEST_IP = 45

PublicKey = Annotated[bytes, msgspec.Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)]
Signature = Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
Port = Annotated[int, msgspec.Meta(ge=1, lt=2**16)]


class HostAddress(msgspec.Struct, frozen=True):
    """Where to send pieces (an IP literal and a TCP port), and who must answer there."""

    node_id: NodeId
    ip: str
    port: int


class NodeRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One node's addresses and offer. `tcp_port` 0: stores nothing for others (an owner only)."""

    public_key: PublicKey
    host: Annotated[str, msgspec.Meta(max_length=_LONGEST_IP)]
    """IPv4 or IPv6 literal in its canonical spelling."""
    udp_port: Port
    tcp_port: Uint16
    free_bytes: Uint63
    price: Uint63
    """Stroops for one TiB and 30 days; 0 is free."""
    leaving: bool
    """Whether it takes nothing new and ends when it owes nobody anything: what it has should be somewhere else then."""
    version: Uint16
    """Of the protocol the node speaks."""
    expires: Uint63
    """Unix time in seconds after which the record is void; of two valid records the one that expires later wins."""
    signature: Signature

    @classmethod
    def sign(
        cls,
        identity: NodeIdentity,
        *,
        host: str,
        udp_port: int,
        tcp_port: int,
        free_bytes: int,
        expires: int,
        price: int = 0,
        leaving: bool = False,
        version: int = RECORD_VERSION,
    ) -> NodeRecord:
        """A record of this node. The caller takes `expires` from its clock, normally now + LIFETIME_SECONDS."""
        unsigned = cls(
            public_key=identity.public_key,
            host=str(ipaddress.ip_address(host)),
            udp_port=udp_port,
            tcp_port=tcp_port,
            free_bytes=free_bytes,
            price=price,
            leaving=leaving,
            version=version,
            expires=expires,
            signature=bytes(SIGNATURE_BYTES),
        )
        return msgspec.structs.replace(unsigned, signature=identity.sign(_signed_part(unsigned)))

    @property
    def node_id(self) -> NodeId:
        """The id that the record's key gives its node."""
        return node_id_of(self.public_key)

    @property
    def address(self) -> HostAddress:
        """Where the node takes pieces. Meaningless when `tcp_port` is 0."""
        return HostAddress(self.node_id, self.host, self.tcp_port)

    def to_bytes(self) -> bytes:
        """The record as it is stored and passed on."""
        return encode(self)


def verified_untrusted(record: NodeRecord | bytes, now: float) -> NodeRecord:
    """The record, if its fields make sense, it is in force at `now` (Unix seconds), and its signature is its node's.

    Raises BadMessage otherwise. Costs one Ed25519 verification (0.1 ms).
    """
    if isinstance(record, bytes):
        record = decode_untrusted(NodeRecord, record, limit=RECORD_LIMIT_BYTES)
    if not _is_address(record.host):
        raise BadMessage("a node record does not hold the address of a node")
    if not now < record.expires <= now + MAX_LIFETIME_SECONDS:
        raise BadMessage("a node record is out of date, or dated too far ahead")
    if not verify_signature(record.public_key, _signed_part(record), record.signature):
        raise BadMessage("a node record is not signed by its node")
    return record


def _is_address(text: str) -> bool:
    """A canonical literal of an address that one node can have (no scope, not "any", not multicast)."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return str(address) == text and "%" not in text and not (address.is_unspecified or address.is_multicast)


def _signed_part(record: NodeRecord) -> bytes:
    fields = (
        record.public_key,
        record.host,
        record.udp_port,
        record.tcp_port,
        record.free_bytes,
        record.price,
        record.leaving,
        record.version,
        record.expires,
    )
    return labels.signed_bytes(labels.SIGN_NODE_RECORD, _MAGIC + msgspec.msgpack.encode(fields))
