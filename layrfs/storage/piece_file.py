"""One piece's file: the format, and the durable ways to write and read it past the page cache.

The file is a head of 128 bytes, then the piece's bytes. Head, little-endian: magic `LYRP` | version u8 | length of the
note u8 | 2 zero bytes | tenant's public key 32 | stored at, Unix seconds u64 | length of the piece u64 | note 64, zeros
behind it | first 8 bytes of the labelled BLAKE3 of all that. Nothing more is kept about a piece.

Why O_DIRECT: a host writes pieces once and rarely reads them, so cached copies only push out the pages of programs that
need theirs. Measured: 0.13 CPU s/GiB against 0.35-2.9 through the page cache, and 1.5 GiB/s against 0.3-2.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from layrfs.crypto import labels
from layrfs.crypto.digests import Buffer, labelled
from layrfs.errors import CorruptFile, NewerFormat
from layrfs.wire.frames import BODY_LIMIT
from layrfs.wire.messages import NOTE_LIMIT

T = TypeVar("T")

BLOCK_BYTES = 4096
_HEAD = struct.Struct(f"<4sBB2x32sQQ{NOTE_LIMIT}s")
_CHECK_BYTES = 8
HEAD_BYTES = _HEAD.size + _CHECK_BYTES
_MAGIC = b"LYRP"
_VERSION = 2
_SPARE_BUFFERS = 8


class _NotDirect(Exception):
    """The file system wants this transfer through its cache."""


class PieceHead(msgspec.Struct, frozen=True):
    """Whose piece, since when, how long, and what its owner wants to be shown with it."""

    tenant: bytes
    stored: int
    length: int
    note: bytes = b""

    def to_bytes(self) -> bytes:
        """`HEAD_BYTES` of them."""
        fields = _HEAD.pack(_MAGIC, _VERSION, len(self.note), self.tenant, self.stored, self.length, self.note)
        return fields + _check(fields)

    @classmethod
    def from_bytes(cls, data: Buffer) -> PieceHead:
        """Raises CorruptFile, NewerFormat."""
        fields = bytes(data[: _HEAD.size])
        if len(data) != HEAD_BYTES or _check(fields) != data[_HEAD.size :]:
            raise CorruptFile("the head of a piece's file is damaged")
        magic, version, note_bytes, tenant, stored, length, note = _HEAD.unpack(fields)
        if magic != _MAGIC:
            raise CorruptFile("not a piece's file")
        if version > _VERSION:
            raise NewerFormat("a piece's file was written by a newer LayrFS")
        return cls(tenant, stored, length, note[:note_bytes])


class AlignedBuffers:
    """Page-aligned memory for direct I/O, used again and again: fresh memory costs as much as the I/O. Thread-safe."""

    def __init__(self) -> None:
        self._spare: list[memoryview] = []
        self._usual_bytes = _whole_blocks(file_bytes(BODY_LIMIT))

    @contextlib.contextmanager
    def lease(self, size_bytes: int) -> Iterator[memoryview]:
        """A buffer of at least this size in whole blocks, its content anything; not to be kept after the block."""
        try:
            buffer = self._spare.pop()
        except IndexError:
            buffer = memoryview(mmap.mmap(-1, self._usual_bytes))
        if size_bytes > len(buffer):
            buffer = memoryview(mmap.mmap(-1, _whole_blocks(size_bytes)))
        try:
            yield buffer[: _whole_blocks(size_bytes)]
        finally:
            if len(buffer) == self._usual_bytes and len(self._spare) < _SPARE_BUFFERS:
                self._spare.append(buffer)


def file_bytes(piece_bytes: int) -> int:
    """How large the file of a piece is."""
    return HEAD_BYTES + piece_bytes


def disk_bytes(size_bytes: int) -> int:
    """What a file of this size takes of the disk: a piece of three bytes as much as one of 3,968."""
    return _whole_blocks(size_bytes)


def write_new(path: str, head: PieceHead, data: Buffer, buffers: AlignedBuffers) -> None:
    """A new file, its bytes durable (its name is not yet). OSError as the system says."""
    size = file_bytes(len(data))
    with buffers.lease(size) as image:
        image[:HEAD_BYTES] = head.to_bytes()
        image[HEAD_BYTES:size] = data
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            in_whole_blocks = size // BLOCK_BYTES * BLOCK_BYTES
            _past_the_cache(descriptor, lambda: _write_all(descriptor, image[:in_whole_blocks], 0))
            _write_all(descriptor, image[in_whole_blocks:size], in_whole_blocks)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_whole(descriptor: int, image: memoryview) -> memoryview:
    """The file's bytes, read into `image`, which was leased for its size."""
    return image[: _past_the_cache(descriptor, lambda: _read_all(descriptor, image))]


def read_head(descriptor: int) -> PieceHead:
    """Raises CorruptFile (also when the file's size does not fit), NewerFormat."""
    head = PieceHead.from_bytes(os.pread(descriptor, HEAD_BYTES, 0))
    if os.fstat(descriptor).st_size != file_bytes(head.length):
        raise CorruptFile("a piece's file has another size than its head says")
    return head


def _past_the_cache(descriptor: int, transfer: Callable[[], T]) -> T:
    """Do it with O_DIRECT, or without on a file system or device that cannot."""
    with contextlib.suppress(_NotDirect):
        return _with_flags(descriptor, os.O_DIRECT, transfer)
    return transfer()


def _with_flags(descriptor: int, flags: int, transfer: Callable[[], T]) -> T:
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
        return transfer()
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise _NotDirect from error
        raise
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, 0)


def _write_all(descriptor: int, data: memoryview, offset: int) -> int:
    at = 0
    while at < len(data):
        at += os.pwrite(descriptor, data[at:], offset + at)
    return at


def _read_all(descriptor: int, image: memoryview) -> int:
    at = 0
    while at < len(image):
        got = os.preadv(descriptor, [image[at:]], at)
        at += got
        if got == 0 or at % BLOCK_BYTES:  # the end of the file
            break
    return at


def _whole_blocks(size_bytes: int) -> int:
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def _check(fields: bytes) -> bytes:
    return labelled(labels.PIECE_FILE_HEAD, fields)[:_CHECK_BYTES]
