"""Root records: the one thing of a volume that changes on the network. Signed by the volume, kept by hosts.

A record is believed only as the result of `verified_untrusted`. Of several the highest version counts, so a host that
shows an old one achieves nothing while another shows the newest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Annotated

import msgspec
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from layrfs.crypto import labels
from layrfs.crypto.identity import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, verify_signature
from layrfs.errors import BadMessage
from layrfs.ids import NODE_ID_BYTES, VolumeId
from layrfs.wire.codec import Uint63, decode_untrusted, encode
from layrfs.wire.messages import ROOT_LIMIT_BYTES

BODY_LIMIT_BYTES = 64 * 1024
PLACES = 4
"""Points of the id space whose neighbours keep the record: no one corner of it decides what a volume is."""

_MAGIC = b"LYRT"

VolumeKey = Annotated[bytes, msgspec.Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)]
Version = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Signature = Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


class RootRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One version of a volume. `body` is sealed, see `layrfs.crypto.root_body`; hosts see versions and times only."""

    volume: VolumeKey
    version: Version
    time_ms: Uint63
    body: Annotated[bytes, msgspec.Meta(max_length=BODY_LIMIT_BYTES)]
    signature: Signature

    @classmethod
    def sign(cls, root_private: bytes, *, version: int, time_ms: int, body: bytes) -> RootRecord:
        """A record of the volume whose root key this is."""
        key = Ed25519PrivateKey.from_private_bytes(root_private)
        unsigned = cls(key.public_key().public_bytes_raw(), version, time_ms, body, bytes(SIGNATURE_BYTES))
        return msgspec.structs.replace(unsigned, signature=key.sign(_signed_part(unsigned)))

    def to_bytes(self) -> bytes:
        """The record as it is sent and stored."""
        return encode(self)


def verified_untrusted(data: bytes) -> RootRecord:
    """The record, if it has the right shape and its volume has signed it; raises BadMessage otherwise.

    A record has one spelling. The signature does not cover msgpack's longer ones: with such a copy anybody could make
    hosts see two records of one version, and the owner believe that another machine writes to the volume.
    """
    record = decode_untrusted(RootRecord, data, limit=ROOT_LIMIT_BYTES)
    if record.to_bytes() != data:
        raise BadMessage("a root record is not in its shortest form")
    if not verify_signature(record.volume, _signed_part(record), record.signature):
        raise BadMessage("a root record is not signed by its volume")
    return record


def newest(records: Iterable[RootRecord]) -> RootRecord | None:
    """The one that counts; None of none."""
    return max(records, key=lambda record: (record.version, record.time_ms, record.signature), default=None)


def root_places(volume: VolumeId) -> tuple[bytes, ...]:
    """Points of the Kademlia id space, 20 bytes each."""
    hasher = blake3(volume, derive_key_context=labels.ROOT_PLACE)
    stream = hasher.digest(length=PLACES * NODE_ID_BYTES)
    return tuple(stream[at : at + NODE_ID_BYTES] for at in range(0, len(stream), NODE_ID_BYTES))


def _signed_part(record: RootRecord) -> bytes:
    head = record.volume + struct.pack("<QQ", record.version, record.time_ms)
    return labels.signed_bytes(labels.SIGN_ROOT_RECORD, _MAGIC + head + record.body)
