"""The layout of a sealed shard and of the plaintext in it. Pure bytes; who seals and compresses is the pipeline.

Sealed:    magic `LYRS` | version u8 | codec u8 | salt[16] | AES-256-GCM(packed plaintext) with its tag
Plaintext: part count u32 | for each part: inode u64, block u64, length u32, block size u32 | the parts' bytes

The table makes a shard tell what it is when all metadata is lost; with the size of a file's blocks, for where a part
belongs in its file cannot be guessed from lengths, which are without the zeros at a block's end. Offsets kept elsewhere
(`content.offset`, a manifest's blocks) count from the first byte after the table.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from layrfs.crypto.aead import TAG_BYTES
from layrfs.errors import BadMessage
from layrfs.ids import SALT_BYTES, BlockNumber, InodeNumber, Salt, VolumeId

MAGIC = b"LYRS"
VERSION = 1
CODEC_RAW = 0
CODEC_ZSTD = 1
"""One or more zstd frames, one after the other; together they expand to the plaintext."""

MAX_PAYLOAD_BYTES = 4 * 1024 * 1024
MAX_PARTS = 8192
"""Of one shard: keeps the table below 200 KiB."""

_HEADER = struct.Struct(f"<4sBB{SALT_BYTES}s")
_COUNT = struct.Struct("<I")
_PART = struct.Struct("<QQII")
HEADER_BYTES = _HEADER.size
MAX_TABLE_BYTES = _COUNT.size + MAX_PARTS * _PART.size
MAX_PLAINTEXT_BYTES = MAX_TABLE_BYTES + MAX_PAYLOAD_BYTES
MAX_SEALED_BYTES = HEADER_BYTES + MAX_PLAINTEXT_BYTES + TAG_BYTES
"""What does not get smaller is stored raw, so nothing is ever longer."""


class ShardHeader(msgspec.Struct, frozen=True):
    """What stands in clear before the ciphertext (and is masked with everything else on hosts)."""

    codec: int
    salt: Salt


class Part(msgspec.Struct, frozen=True):
    """One block, or the beginning of one, inside a shard; `length` bytes (zeros that follow are not stored).

    Its place in the file is `block * block_bytes`.
    """

    inode: InodeNumber
    block: BlockNumber
    length: int
    block_bytes: int


def encode_header(header: ShardHeader) -> bytes:
    """The first `HEADER_BYTES` of a sealed shard."""
    if header.codec not in {CODEC_RAW, CODEC_ZSTD} or len(header.salt) != SALT_BYTES:
        raise ValueError("no such shard header")
    return _HEADER.pack(MAGIC, VERSION, header.codec, header.salt)


def decode_header_untrusted(sealed: bytes | bytearray | memoryview) -> ShardHeader:
    """The header of a sealed shard; BadMessage when it is none of ours."""
    if len(sealed) < HEADER_BYTES:
        raise BadMessage("a sealed shard is shorter than its header")
    magic, version, codec, salt = _HEADER.unpack_from(sealed)
    if magic != MAGIC or version != VERSION or codec not in {CODEC_RAW, CODEC_ZSTD}:
        raise BadMessage("a sealed shard does not begin as one")
    return ShardHeader(codec=codec, salt=Salt(salt))


def associated_data(header: bytes, volume: VolumeId) -> bytes:
    """What AES-GCM authenticates beside the ciphertext: the header's bytes and the volume's id."""
    return header + volume


def encode_table(parts: Sequence[Part]) -> bytes:
    """The table that precedes the parts' bytes; ValueError when there are too many or they are too long."""
    if not 0 < len(parts) <= MAX_PARTS or sum(part.length for part in parts) > MAX_PAYLOAD_BYTES:
        raise ValueError("these parts do not fit into one shard")
    rows = (_PART.pack(part.inode, part.block, part.length, part.block_bytes) for part in parts)
    return _COUNT.pack(len(parts)) + b"".join(rows)


def payload_offset(part_count: int) -> int:
    """Where the parts' bytes begin after the table of so many parts."""
    return _COUNT.size + part_count * _PART.size


def payload_offset_untrusted(plaintext: bytes | bytearray | memoryview) -> int:
    """Where the parts' bytes begin in an opened shard; BadMessage when the table is not whole."""
    if len(plaintext) < _COUNT.size:
        raise BadMessage("a shard's table is cut off")
    (count,) = _COUNT.unpack_from(plaintext)
    if not 0 < count <= MAX_PARTS or payload_offset(count) > len(plaintext):
        raise BadMessage("a shard's table is cut off")
    return payload_offset(count)


def decode_table_untrusted(plaintext: bytes | bytearray | memoryview) -> tuple[Part, ...]:
    """The parts of an opened shard, whose lengths add up to exactly what follows the table; BadMessage otherwise."""
    start = payload_offset_untrusted(plaintext)
    rows = _PART.iter_unpack(memoryview(plaintext)[_COUNT.size : start])
    parts = tuple(Part(InodeNumber(inode), BlockNumber(block), length, size) for inode, block, length, size in rows)
    if sum(part.length for part in parts) != len(plaintext) - start or len(plaintext) - start > MAX_PAYLOAD_BYTES:
        raise BadMessage("a shard's table does not describe its payload")
    return parts
