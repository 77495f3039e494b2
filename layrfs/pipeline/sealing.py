"""Blocks -> one sealed shard, and back: reading, digests, holes, compression, AES-GCM.

Owns what happens to plaintext. Must not know hosts, pieces or processes. Runs in worker threads; the bulk calls (read,
BLAKE3, zstd, AES) all release the GIL.
Invariant: every seal takes a fresh salt, so no key ever encrypts twice, also when a job is done again.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import msgspec
import zstandard

from layrfs.crypto import labels
from layrfs.crypto.aead import TAG_BYTES, open_sealed, seal_into
from layrfs.crypto.digests import BlockDigester, Buffer, shard_id
from layrfs.crypto.keys import VolumeKeys, derive
from layrfs.errors import BadMessage, LocalError, NoSpace, WrongBytes
from layrfs.ids import SALT_BYTES, BlockNumber, InodeNumber, Salt, ShardId, VolumeId
from layrfs.model.shard_format import (
    CODEC_RAW,
    CODEC_ZSTD,
    HEADER_BYTES,
    MAX_PLAINTEXT_BYTES,
    Part,
    ShardHeader,
    associated_data,
    decode_header_untrusted,
    decode_table_untrusted,
    encode_header,
    encode_table,
    payload_offset,
    payload_offset_untrusted,
)
from layrfs.pipeline.transfers import Duplicate, PartOutcome, SourcePart, Stored, StoredPart, TargetPart, Zero

LEVEL = 1
"""zstd's fastest ordinary level: 400 MB/s a core here, and most of what higher levels save."""

PROBE_BYTES = 8 << 10
PROBE_SAMPLES = 6
WORTH_COMPRESSING = 0.94
"""Samples, or a whole shard, that keep more than this share of their size are not worth unpacking at every read."""

_ZERO_STEP_BYTES = 64 << 10
_ZEROS = bytes(_ZERO_STEP_BYTES)

Lookup = Callable[[Sequence[bytes]], Mapping[bytes, tuple[int, int]]]


class SealingKeys(msgspec.Struct, frozen=True, dict=True):
    """The keys that touch plaintext, and the volume they belong to."""

    content: bytes
    digest: bytes
    volume: VolumeId

    @classmethod
    def of(cls, keys: VolumeKeys) -> SealingKeys:
        """The part of a volume's keys that sealing needs."""
        return cls(keys.content, keys.digest_key, keys.volume_id)

    @cached_property
    def digester(self) -> BlockDigester:
        """Names blocks within the volume."""
        return BlockDigester(self.digest)

    def shard_key(self, salt: Salt) -> bytes:
        """As `VolumeKeys.shard_key`, without the volume's other keys. Raises LocalError in who repairs for others."""
        if not self.content:
            raise LocalError("This process has no key of contents: it can neither read nor write them.")
        return derive(self.content, labels.SHARD_KEY, salt=salt)

    def __repr__(self) -> str:
        return f"SealingKeys(volume={self.volume.hex()})"


class Sealed(msgspec.Struct, frozen=True):
    """A sealed shard in memory; `plain_bytes` counts the payload without its table."""

    id: ShardId
    salt: Salt
    plain_bytes: int
    data: bytearray


class Gathered:
    """The plaintext of a shard on its way: parts read one after the other behind room for a full table."""

    def __init__(self, parts: Sequence[SourcePart]) -> None:
        self._parts = parts
        self._start = payload_offset(len(parts))
        self._buffer = bytearray(self._start + sum(part.length for part in parts))
        self._spans = self._read()

    def outcomes(self, keys: SealingKeys, lookup: Lookup) -> tuple[list[PartOutcome], Buffer]:
        """What becomes of each part, and the plaintext (table included) that has to be stored; empty when none."""
        view = memoryview(self._buffer)
        digests = [keys.digester.digest(view[at : at + length]) if length else b"" for at, length in self._spans]
        known = lookup([digest for digest in dict.fromkeys(digests) if digest])
        outcomes: list[PartOutcome] = []
        kept: dict[bytes, StoredPart] = {}
        chosen: list[int] = []
        payload_bytes = 0
        for index, digest in enumerate(digests):
            length = self._spans[index][1]
            if not length:
                outcomes.append(Zero())
            elif digest in known:
                outcomes.append(Duplicate(*known[digest]))
            else:
                if digest not in kept:
                    kept[digest] = StoredPart(digest, payload_bytes, length)
                    payload_bytes += length
                    chosen.append(index)
                outcomes.append(Stored(kept[digest]))
        return outcomes, self._plaintext(chosen)

    def _read(self) -> list[tuple[int, int]]:
        """Fill the buffer; (position in it, length without zeros at the end) of each part."""
        view, at = memoryview(self._buffer), self._start
        spans: list[tuple[int, int]] = []
        with _OpenFiles(os.O_RDONLY) as files:
            for part in self._parts:
                target = view[at : at + part.length]
                _read_into(files.get(part.path), target, part.offset, part.path)
                spans.append((at, _length_without_zeros(target)))
                at += part.length
        return spans

    def _plaintext(self, chosen: list[int]) -> Buffer:
        if not chosen:
            return b""
        table = encode_table([self._row(index) for index in chosen])
        if self._is_contiguous(chosen):
            first = self._spans[chosen[0]][0]
            end = sum(self._spans[chosen[-1]])
            self._buffer[first - len(table) : first] = table
            return memoryview(self._buffer)[first - len(table) : end]
        view = memoryview(self._buffer)
        pieces = [view[at : at + length] for at, length in (self._spans[index] for index in chosen)]
        return b"".join([table, *pieces])

    def _row(self, index: int) -> Part:
        part = self._parts[index]
        return Part(InodeNumber(part.inode), BlockNumber(part.block), self._spans[index][1], part.block_bytes)

    def _is_contiguous(self, chosen: list[int]) -> bool:
        """Whether the chosen parts stand in the buffer one after the other: then nothing needs to be copied."""
        ends = [sum(self._spans[index]) for index in chosen]
        return all(self._spans[index][0] == end for index, end in zip(chosen[1:], ends, strict=False))


def seal(keys: SealingKeys, plaintext: Buffer) -> Sealed:
    """Compress if it pays, then encrypt under a key of its own."""
    salt = Salt(secrets.token_bytes(SALT_BYTES))
    packed = _compressed(plaintext)
    codec = CODEC_RAW if packed is None else CODEC_ZSTD
    body = plaintext if packed is None else packed
    header = encode_header(ShardHeader(codec=codec, salt=salt))
    data = bytearray(HEADER_BYTES + len(body) + TAG_BYTES)
    data[:HEADER_BYTES] = header
    seal_into(keys.shard_key(salt), associated_data(header, keys.volume), body, memoryview(data)[HEADER_BYTES:])
    plain_bytes = len(plaintext) - payload_offset_untrusted(plaintext)
    return Sealed(shard_id(data), salt, plain_bytes, data)


def unseal(keys: SealingKeys, salt: Salt, sealed: Buffer) -> memoryview:
    """The payload (without its table) of a sealed shard; WrongBytes when it is not the one with this salt."""
    with _wrong_unless_ours():
        plaintext = _opened(keys, salt, sealed)
        return plaintext[payload_offset_untrusted(plaintext) :]


def unseal_with_table(keys: SealingKeys, salt: Salt, sealed: Buffer) -> tuple[tuple[Part, ...], memoryview]:
    """What the shard says of its parts, and the payload they are in; WrongBytes likewise."""
    with _wrong_unless_ours():
        plaintext = _opened(keys, salt, sealed)
        return decode_table_untrusted(plaintext), plaintext[payload_offset_untrusted(plaintext) :]


def _opened(keys: SealingKeys, salt: Salt, sealed: Buffer) -> memoryview:
    view = memoryview(sealed)
    header = decode_header_untrusted(view)
    aad = associated_data(bytes(view[:HEADER_BYTES]), keys.volume)
    body = open_sealed(keys.shard_key(salt), aad, view[HEADER_BYTES:])
    return _expanded(body) if header.codec == CODEC_ZSTD else memoryview(body)


@contextlib.contextmanager
def _wrong_unless_ours() -> Iterator[None]:
    try:
        yield
    except (BadMessage, zstandard.ZstdError) as error:
        raise WrongBytes(f"a shard of ours does not open: {error}") from None


def write_targets(payload: memoryview, targets: Sequence[TargetPart]) -> None:
    """Put parts of the payload where they belong; raises LocalError, NoSpace."""
    with _OpenFiles(os.O_WRONLY | os.O_CREAT) as files:
        for target in targets:
            data = payload[target.shard_offset : target.shard_offset + target.length]
            if target.shard_offset < 0 or len(data) != target.length:
                raise LocalError(f"The records place {target.path} beyond the end of its shard.")
            _write_all(files.get(target.path), data, target.file_offset, target.path)


class _OpenFiles:
    """The file in use: neighbours in a list are mostly of one file."""

    def __init__(self, flags: int) -> None:
        self._flags = flags | os.O_CLOEXEC
        self._path = ""
        self._file = -1

    def __enter__(self) -> _OpenFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def get(self, path: str) -> int:
        if self._file < 0 or path != self._path:
            self._close()
            try:
                self._file = os.open(path, self._flags, 0o600)
            except OSError as error:
                raise local_error(path, error) from None
            self._path = path
        return self._file

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def local_error(path: str, error: OSError) -> LocalError:
    """A disk's complaint as one of ours."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return (NoSpace if full else LocalError)(f"{path}: {error.strerror}.")


def _read_into(file: int, target: memoryview, offset: int, path: str) -> None:
    """Fill `target`; what lies beyond the end of the file stays zero."""
    try:
        while len(target):
            got = os.preadv(file, [target], offset)
            if not got:
                return
            target, offset = target[got:], offset + got
    except OSError as error:
        raise local_error(path, error) from None


def _write_all(file: int, data: memoryview, offset: int, path: str) -> None:
    try:
        while len(data):
            put = os.pwrite(file, data, offset)
            data, offset = data[put:], offset + put
    except OSError as error:
        raise local_error(path, error) from None


def _length_without_zeros(data: memoryview) -> int:
    """How long the data is without zeros at its end; the last byte answers for almost every block."""
    end = len(data)
    while end and not data[end - 1]:
        start = max(0, end - _ZERO_STEP_BYTES)
        step = bytes(data[start:end])
        end = start if step == _ZEROS[: len(step)] else start + len(step.rstrip(b"\0"))
    return end


_of_thread = threading.local()


def _compressor() -> zstandard.ZstdCompressor:
    """zstd contexts are not for two threads at once, and cost too much to make for every shard."""
    existing: zstandard.ZstdCompressor | None = getattr(_of_thread, "compressor", None)
    if existing is None:
        existing = _of_thread.compressor = zstandard.ZstdCompressor(level=LEVEL)
    return existing


def _compressed(plaintext: Buffer) -> bytes | None:
    """The plaintext as zstd frames, or None when that would not be worth it.

    Every file gets a frame of its own: what one file holds must never show in how well another compresses (CRIME).
    """
    compressor, view = _compressor(), memoryview(plaintext)
    if not _seems_compressible(compressor, view):
        return None
    packed = b"".join([compressor.compress(view[start:end]) for start, end in _frames(plaintext)])
    return packed if len(packed) < len(plaintext) * WORTH_COMPRESSING else None


def _frames(plaintext: Buffer) -> list[tuple[int, int]]:
    """Where frames begin and end: the table, then each run of blocks of one file."""
    end = payload_offset_untrusted(plaintext)
    frames = [(0, end)]
    for _, run in itertools.groupby(decode_table_untrusted(plaintext), key=lambda part: part.inode):
        start, end = end, end + sum(part.length for part in run)
        frames.append((start, end))
    return frames


def _seems_compressible(compressor: zstandard.ZstdCompressor, view: memoryview) -> bool:
    if len(view) <= PROBE_BYTES * PROBE_SAMPLES * 2:
        return True
    step = (len(view) - PROBE_BYTES) // (PROBE_SAMPLES - 1)
    samples = (view[at : at + PROBE_BYTES] for at in range(0, len(view) - PROBE_BYTES + 1, step))
    packed = [len(compressor.compress(sample)) for sample in samples]
    return min(packed) < PROBE_BYTES * WORTH_COMPRESSING


def _expanded(body: bytes) -> memoryview:
    """One or more zstd frames, never more than a shard can hold."""
    plaintext = bytearray(MAX_PLAINTEXT_BYTES + 1)
    view, filled = memoryview(plaintext), 0
    with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as reader:
        while filled < len(view) and (got := reader.readinto(view[filled:])):
            filled += got
    if filled > MAX_PLAINTEXT_BYTES:
        raise BadMessage("a shard expands to more than a shard can hold")
    return view[:filled]
