"""The layout inside a sealed shard."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.errors import BadMessage
from layrfs.ids import BlockNumber, InodeNumber, Salt, VolumeId
from layrfs.model import shard_format
from layrfs.model.shard_format import Part, ShardHeader
from layrfs.wire.frames import BODY_LIMIT

SALT = Salt(bytes(range(16)))

parts = st.lists(
    st.builds(Part, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 300), st.integers(0, 2**22)),
    min_size=1,
    max_size=20,
)


@pytest.mark.parametrize("codec", [shard_format.CODEC_RAW, shard_format.CODEC_ZSTD])
def test_header_round_trip(codec: int) -> None:
    header = ShardHeader(codec=codec, salt=SALT)
    encoded = shard_format.encode_header(header)
    assert len(encoded) == shard_format.HEADER_BYTES == 22
    assert shard_format.decode_header_untrusted(memoryview(encoded + b"ciphertext")) == header


def test_headers_we_never_write() -> None:
    for header in (ShardHeader(2, SALT), ShardHeader(0, Salt(b"short"))):
        with pytest.raises(ValueError, match="header"):
            shard_format.encode_header(header)


@given(st.binary(max_size=40))
def test_hostile_headers(data: bytes) -> None:
    with pytest.raises(BadMessage):
        shard_format.decode_header_untrusted(data)


@pytest.mark.parametrize("head", [b"LYRS\2\0", b"LYRS\0\0", b"LYRS\1\2", b"LYRX\1\0"])
def test_other_headers(head: bytes) -> None:
    with pytest.raises(BadMessage, match="does not begin"):
        shard_format.decode_header_untrusted(head + bytes(16))


def test_associated_data_is_header_and_volume() -> None:
    assert shard_format.associated_data(b"header", VolumeId(b"volume")) == b"headervolume"


@given(parts)
def test_table_round_trip(rows: list[Part]) -> None:
    table = shard_format.encode_table(rows)
    plaintext = table + bytes(sum(part.length for part in rows))
    assert shard_format.payload_offset(len(rows)) == len(table)
    assert shard_format.payload_offset_untrusted(plaintext) == len(table)
    for kind in (bytes, bytearray, memoryview):
        assert shard_format.decode_table_untrusted(kind(plaintext)) == tuple(rows)


@given(parts, st.integers(1, 50), st.booleans())
def test_a_payload_of_another_length(rows: list[Part], by: int, longer: bool) -> None:
    whole = shard_format.encode_table(rows) + bytes(sum(part.length for part in rows))
    with pytest.raises(BadMessage):
        shard_format.decode_table_untrusted(whole + bytes(by) if longer else whole[:-by])


@given(st.binary(max_size=100))
def test_hostile_tables(data: bytes) -> None:
    try:
        rows = shard_format.decode_table_untrusted(data)
    except BadMessage:
        return
    assert shard_format.encode_table(rows) == data[: shard_format.payload_offset(len(rows))]


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\0", bytes(4), struct.pack("<I", 2**32 - 1) + bytes(100), b"\1\0\0\0" + bytes(23)]
)
def test_tables_that_are_cut_off(data: bytes) -> None:
    with pytest.raises(BadMessage, match="cut off"):
        shard_format.payload_offset_untrusted(data)


def test_limits() -> None:
    part = Part(InodeNumber(1), BlockNumber(0), 0, 65536)
    assert len(shard_format.encode_table([part] * shard_format.MAX_PARTS)) == shard_format.MAX_TABLE_BYTES
    whole = Part(InodeNumber(1), BlockNumber(0), shard_format.MAX_PAYLOAD_BYTES, 65536)
    full = shard_format.encode_table([whole, part]) + bytes(shard_format.MAX_PAYLOAD_BYTES)
    assert shard_format.decode_table_untrusted(full) == (whole, part)
    too_long = Part(InodeNumber(1), BlockNumber(0), shard_format.MAX_PAYLOAD_BYTES + 1, 65536)
    for rows in ([], [part] * (shard_format.MAX_PARTS + 1), [too_long]):
        with pytest.raises(ValueError, match="fit"):
            shard_format.encode_table(rows)
    oversized = struct.pack("<IQQII", 1, 1, 0, too_long.length, 65536) + bytes(too_long.length)
    with pytest.raises(BadMessage, match="does not describe"):
        shard_format.decode_table_untrusted(oversized)


def test_the_largest_shard_fits_into_a_frame() -> None:
    assert shard_format.MAX_SEALED_BYTES <= BODY_LIMIT
