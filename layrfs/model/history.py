"""Where a volume's metadata is on the network: what a root record's body says, and what a segment holds.

A volume is a checkpoint (or nothing: the volume was empty) and the changes since, one segment after the other, in
order. A segment is one blob, cut into shards of 4 MiB like any file's bytes; its parts name inode 0.
"""

from __future__ import annotations

import struct
from typing import Annotated, Literal

import msgspec
import zstandard

from layrfs.errors import BadMessage
from layrfs.ids import NODE_ID_BYTES, BlockNumber, VolumeId
from layrfs.model.manifest import Manifest, ManifestBlock, ManifestShard
from layrfs.model.notes import blob_tag
from layrfs.model.shard_format import MAX_PAYLOAD_BYTES
from layrfs.model.shards import ShardRecord
from layrfs.wire.codec import Uint63

HISTORY_VERSION = 2
LIMIT_BYTES = 4 << 20
"""Of a history before compression."""

METADATA_INODE = 0
"""The file number that parts of metadata shards carry; no file has it."""

Kind = Literal["checkpoint", "changes"]


class Segment(msgspec.Struct, frozen=True):
    """One blob on hosts, ``blob_bytes`` long; ``number`` names it within the volume and is never used twice."""

    kind: Kind
    number: Uint63
    blob_bytes: Uint63
    shards: Annotated[tuple[ShardRecord, ...], msgspec.Meta(min_length=1)]

    @property
    def tag(self) -> bytes:
        """What the notes of later segments call this one."""
        return blob_tag(self.shards[0].salt)

    def manifest(self, volume: VolumeId) -> Manifest:
        """The blob as the file it could be: how any file's bytes are fetched, this one's are too."""
        shards = (
            ManifestShard(record, (ManifestBlock(BlockNumber(number), 0, record.plain_bytes),))
            for number, record in enumerate(self.shards)
        )
        return Manifest(b"segment", self.blob_bytes, MAX_PAYLOAD_BYTES, volume, tuple(shards))


class Lease(msgspec.Struct, frozen=True):
    """Which machine may write, and until when by its own clock. ``until_ms`` 0: it has given the volume back."""

    device: Annotated[bytes, msgspec.Meta(min_length=NODE_ID_BYTES, max_length=NODE_ID_BYTES)]
    """Its node id of this volume: random, and never that of another state directory."""
    name: str
    """What its owner calls it."""
    until_ms: Uint63


class Moment(msgspec.Struct, frozen=True):
    """When the volume was what its segments say, and what was true then; as old as the last segment."""

    time_ms: Uint63 = 0
    last_shard: Uint63 = 0
    """The highest number of a shard that had been given out."""
    unsent: Uint63 = 0
    """How many blocks had bytes that were on no host."""


class History(msgspec.Struct, frozen=True):
    """The volume as of one root record: apply the segments in order."""

    segments: tuple[Segment, ...] = ()
    device: str = ""
    """The machine that wrote this."""
    time_ms: Uint63 = 0
    lease: Lease | None = None
    """None: written by a machine that asked for none (mounted read-only, or a tool)."""
    moment: Moment = Moment()
    version: Uint63 = HISTORY_VERSION

    def to_bytes(self) -> bytes:
        """What is sealed into a root record."""
        return zstandard.ZstdCompressor().compress(msgspec.msgpack.encode(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> History:
        """Raises ``BadMessage``: it was sealed by us, so a failure means a format we do not know."""
        try:
            plain = zstandard.ZstdDecompressor().decompress(data, max_output_size=LIMIT_BYTES)
            history = msgspec.msgpack.decode(plain, type=cls)
        except (zstandard.ZstdError, msgspec.MsgspecError) as error:
            raise BadMessage(f"the volume's history cannot be read: {error}") from None
        if history.version != HISTORY_VERSION:
            raise BadMessage("the volume's history was written by a newer LayrFS")
        return history


# --- blobs: magic | version | kind | nonce[16] | zstd frame | 0x01

BLOB_MAGIC = b"LYRM"
BLOB_VERSION = 1
NONCE_BYTES = 16
"""Random, so that no two blobs are equal and none is taken for a block that is stored already."""

END = b"\x01"
"""Zeros at the end of a block are not stored; a blob does not end in any."""

_HEADER = struct.Struct(f"<4sBB{NONCE_BYTES}s")
HEADER_BYTES = _HEADER.size
_KINDS: tuple[Kind, ...] = ("checkpoint", "changes")


def blob_header(kind: Kind, nonce: bytes) -> bytes:
    """The beginning of a blob."""
    return _HEADER.pack(BLOB_MAGIC, BLOB_VERSION, _KINDS.index(kind), nonce)


def check_blob_header(data: bytes, kind: Kind) -> None:
    """Raises ``BadMessage`` unless a blob of this kind begins so."""
    if len(data) < HEADER_BYTES:
        raise BadMessage("a segment of the volume's history is too short")
    magic, version, number, _nonce = _HEADER.unpack_from(data)
    if magic != BLOB_MAGIC or version != BLOB_VERSION or number != _KINDS.index(kind):
        raise BadMessage("a segment of the volume's history does not begin as one")
