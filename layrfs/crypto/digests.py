"""Plain digests: labelled BLAKE3, the id of a sealed shard, and the keyed digest that deduplicates blocks.

Block digests are keyed per volume, so that even somebody who sees one cannot test a guess of the block against it.
"""

from __future__ import annotations

from blake3 import blake3

from layrfs.crypto import labels
from layrfs.ids import ShardId

Buffer = bytes | bytearray | memoryview

DIGEST_BYTES = 32


def labelled(label: str, data: Buffer) -> bytes:
    """32 bytes: BLAKE3 of `data` in derive-key mode with `label` as the context."""
    return blake3(data, derive_key_context=label).digest()


def shard_id(sealed: Buffer) -> ShardId:
    """The id of a sealed shard, header included."""
    return ShardId(labelled(labels.SHARD_ID, sealed))


class BlockDigester:
    """Digests of plaintext blocks under a volume's digest key (`VolumeKeys.digest_key`, 32 bytes)."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != DIGEST_BYTES:
            raise ValueError("a digest key has 32 bytes")
        self._key = key

    def digest(self, data: Buffer) -> bytes:
        """32 bytes that are equal for equal blocks of this volume, and mean nothing without the key."""
        return blake3(data, key=self._key).digest()
