"""Names for the bytes and numbers that identify things, so that mypy can tell them apart."""

from __future__ import annotations

from typing import NewType

NodeId = NewType("NodeId", bytes)
"""20 bytes: the first 20 of SHA-256 of a node's Ed25519 public key; its place in the Kademlia id space."""

VolumeId = NewType("VolumeId", bytes)
"""32 bytes: the Ed25519 public key that signs the volume's root records."""

PieceId = NewType("PieceId", bytes)
"""32 bytes: Merkle root of a piece's bytes; its first 20 bytes are its Kademlia key."""

ShardId = NewType("ShardId", bytes)
"""32 bytes: labelled BLAKE3 of the sealed shard."""

Salt = NewType("Salt", bytes)
"""16 random bytes, fresh for each shard: names its sealing key and its masks."""

InodeNumber = NewType("InodeNumber", int)
"""A file, directory or link of the volume; never used twice. 1 is the root directory."""

BlockNumber = NewType("BlockNumber", int)
"""Which fixed-size slice of a file, from 0."""

ROOT_INODE = InodeNumber(1)
NODE_ID_BYTES = 20
PIECE_ID_BYTES = 32
SALT_BYTES = 16
