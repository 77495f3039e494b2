"""Patch records: what a delegate says it did to a shard, signed by its node, and how such a record is checked.

A record proves who says so, never that it is true: the piece has to prove that.
"""

from __future__ import annotations

import msgspec

from layrfs.crypto import labels
from layrfs.crypto.identity import NodeIdentity, node_id_of, verify_signature
from layrfs.ids import NodeId
from layrfs.wire.codec import encode
from layrfs.wire.delegation import UNSIGNED, PatchRecord


def signed(record: PatchRecord, delegate: NodeIdentity, network: bytes) -> PatchRecord:
    """The record with the delegate's signature for this network."""
    return msgspec.structs.replace(record, signature=delegate.sign(_signed_part(record, network)))


def is_signed(record: PatchRecord, delegate: NodeId, public_key: bytes, network: bytes) -> bool:
    """Whether the record is this delegate's, the key being the one that its node shows."""
    if node_id_of(public_key) != delegate:
        return False
    return verify_signature(public_key, _signed_part(record, network), record.signature)


def _signed_part(record: PatchRecord, network: bytes) -> bytes:
    unsigned = encode(msgspec.structs.replace(record, signature=UNSIGNED))
    return labels.signed_bytes(labels.SIGN_PATCH, network + unsigned)
