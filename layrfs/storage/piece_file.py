"""One piece's file: a 64-byte head, then the piece's bytes. The format and the durable ways to read and write it.

Head, little-endian: magic `LYRP` | version u8 | 3 zero bytes | tenant's public key 32 | stored at, Unix seconds u64 |
length of the piece u64 | first 8 bytes of the labelled BLAKE3 of all that. Nothing more is kept about a piece.
"""

from __future__ import annotations

import errno
import os
import struct

import msgspec

from layrfs.crypto import labels
from layrfs.crypto.digests import Buffer, labelled
from layrfs.errors import CorruptFile, NewerFormat

_HEAD = struct.Struct("<4sB3x32sQQ")
_CHECK_BYTES = 8
HEAD_BYTES = _HEAD.size + _CHECK_BYTES
_MAGIC = b"LYRP"
_VERSION = 1


class PieceHead(msgspec.Struct, frozen=True):
    """Whose piece, since when, how long."""

    tenant: bytes
    stored: int
    length: int

    def to_bytes(self) -> bytes:
        """64 bytes."""
        fields = _HEAD.pack(_MAGIC, _VERSION, self.tenant, self.stored, self.length)
        return fields + _check(fields)

    @classmethod
    def from_bytes(cls, data: bytes) -> PieceHead:
        """Raises CorruptFile, NewerFormat."""
        fields = data[: _HEAD.size]
        if len(data) != HEAD_BYTES or _check(fields) != data[_HEAD.size :]:
            raise CorruptFile("the head of a piece's file is damaged")
        magic, version, tenant, stored, length = _HEAD.unpack(fields)
        if magic != _MAGIC:
            raise CorruptFile("not a piece's file")
        if version > _VERSION:
            raise NewerFormat("a piece's file was written by a newer LayrFS")
        return cls(tenant, stored, length)


def write_new(path: str, head: PieceHead, data: Buffer) -> None:
    """A new file, its bytes durable (its name is not yet). OSError as the system says."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write_all(descriptor, head.to_bytes(), memoryview(data))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_at(descriptor: int, offset: int, length: int) -> bytes:
    """`length` bytes, fewer only at the file's end."""
    data = os.pread(descriptor, length, offset)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def sync_directory(path: str) -> None:
    """Make names given and taken in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, head: bytes, data: memoryview) -> None:
    written = os.writev(descriptor, [head, data]) - len(head)
    if written < 0:  # so full a disk that not even the head fits
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    while written < len(data):
        written += os.write(descriptor, data[written:])


def _check(fields: bytes) -> bytes:
    return labelled(labels.PIECE_FILE_HEAD, fields)[:_CHECK_BYTES]
