"""Root records: nobody but the volume can make one, or another spelling of one; of several the order never matters."""

from __future__ import annotations

import itertools
import struct

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from layrfs.errors import BadMessage
from layrfs.model.root_record import BODY_LIMIT_BYTES, RootRecord, newest, verified_untrusted
from layrfs.wire.messages import ROOT_LIMIT_BYTES

KEY, OTHER = bytes([1]) * 32, bytes([2]) * 32


def record(version: int = 5, *, key: bytes = KEY, time_ms: int = 7, body: bytes = b"sealed") -> RootRecord:
    """A good one."""
    return RootRecord.sign(key, version=version, time_ms=time_ms, body=body)


GOOD = record()
DATA = GOOD.to_bytes()


@given(st.integers(1, 2**63 - 1), st.integers(0, 2**63 - 1), st.binary(max_size=100))
def test_a_signed_record_is_believed(version: int, time_ms: int, body: bytes) -> None:
    ours = record(version, time_ms=time_ms, body=body)
    assert verified_untrusted(ours.to_bytes()) == ours


def test_the_largest_record_fits() -> None:
    largest = record(2**63 - 1, time_ms=2**63 - 1, body=bytes(BODY_LIMIT_BYTES))
    assert verified_untrusted(largest.to_bytes()) == largest
    assert len(largest.to_bytes()) <= ROOT_LIMIT_BYTES


CHANGES: list[dict[str, object]] = [
    {"volume": record(key=OTHER).volume},
    {"version": 6},
    {"time_ms": 8},
    {"body": b"sealee"},
    {"signature": bytes(64)},
]


@pytest.mark.parametrize("change", CHANGES)
def test_no_field_can_be_changed(change: dict[str, object]) -> None:
    with pytest.raises(BadMessage, match="signed"):
        verified_untrusted(msgspec.structs.replace(GOOD, **change).to_bytes())


def test_every_field_is_covered_by_the_test_above() -> None:
    assert [next(iter(change)) for change in CHANGES] == list(RootRecord.__struct_fields__)


def test_bytes_do_not_move_between_fields() -> None:
    """What is signed has fixed lengths before the body: the last bytes of the time are no beginning of a body."""
    for moved in (record(body=struct.pack("<Q", 7) + b"sealed"), record(body=b"")):
        with pytest.raises(BadMessage, match="signed"):
            verified_untrusted(msgspec.structs.replace(moved, signature=GOOD.signature).to_bytes())


def test_a_signature_without_our_label_is_worthless() -> None:
    bare = b"LYRT" + GOOD.volume + struct.pack("<QQ", 5, 7) + b"sealed"
    signature = Ed25519PrivateKey.from_private_bytes(KEY).sign(bare)
    with pytest.raises(BadMessage, match="signed"):
        verified_untrusted(msgspec.structs.replace(GOOD, signature=signature).to_bytes())


FIELDS = DATA[1:]
VERSION_AT = 35
SPELLINGS = {
    "the version in nine bytes": DATA[:VERSION_AT] + b"\xcf" + struct.pack(">Q", 5) + DATA[VERSION_AT + 1 :],
    "the version in two bytes": DATA[:VERSION_AT] + b"\xcc\x05" + DATA[VERSION_AT + 1 :],
    "the array's length in two bytes": b"\xdc\x00\x05" + FIELDS,
    "the array's length in four bytes": b"\xdd\x00\x00\x00\x05" + FIELDS,
    "the volume's length in two bytes": DATA[:1] + b"\xc5\x00\x20" + DATA[3:],
    "the volume as text": DATA[:1] + b"\xd9\x20" + DATA[3:],
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_another_spelling_of_a_good_record_is_none(name: str) -> None:
    assert DATA[VERSION_AT] == GOOD.version, "the examples are cut at the right place"
    with pytest.raises(BadMessage):
        verified_untrusted(SPELLINGS[name])


SHAPES: dict[str, bytes] = {
    "nothing": b"",
    "something behind it": DATA + b"\0",
    "one field more": msgspec.msgpack.encode([*msgspec.structs.astuple(GOOD), 1]),
    "one field less": msgspec.msgpack.encode(msgspec.structs.astuple(GOOD)[:-1]),
    "a map": msgspec.msgpack.encode(msgspec.structs.asdict(GOOD)),
    "a volume of 31 bytes": msgspec.structs.replace(GOOD, volume=bytes(31)).to_bytes(),
    "a signature of 65 bytes": msgspec.structs.replace(GOOD, signature=bytes(65)).to_bytes(),
    "version 0": record(0).to_bytes(),
    "a version below 0": msgspec.structs.replace(GOOD, version=-1).to_bytes(),
    "a version of 64 bits": msgspec.structs.replace(GOOD, version=2**63).to_bytes(),
    "too long a body": record(body=bytes(BODY_LIMIT_BYTES + 1)).to_bytes(),
    "too many bytes": DATA + bytes(ROOT_LIMIT_BYTES),
}


@pytest.mark.parametrize("name", SHAPES)
def test_another_shape_is_a_bad_message(name: str) -> None:
    with pytest.raises(BadMessage):
        verified_untrusted(SHAPES[name])


@given(st.integers(0, len(DATA) - 1))
def test_a_part_of_a_record_is_none(length: int) -> None:
    with pytest.raises(BadMessage):
        verified_untrusted(DATA[:length])


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_no_byte_can_be_changed(at: int, change: int) -> None:
    data = bytearray(DATA)
    data[at] ^= change
    with pytest.raises(BadMessage):
        verified_untrusted(bytes(data))


@given(st.binary(max_size=400), st.integers(0, len(DATA)), st.integers(0, len(DATA)))
def test_garbage_in_a_record_is_a_bad_message(noise: bytes, start: int, end: int) -> None:
    data = DATA[:start] + noise + DATA[end:]
    if data != DATA:
        with pytest.raises(BadMessage):
            verified_untrusted(data)


def test_the_newest_does_not_depend_on_the_order() -> None:
    rivals = [record(6, time_ms=9, body=body) for body in (b"a", b"b")]
    winner = max(rivals, key=lambda one: one.signature)
    for order in itertools.permutations([record(5, time_ms=99), record(6, time_ms=8), *rivals]):
        assert newest(order) == winner
