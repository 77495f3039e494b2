"""Sealing: a published vector, the round trip, and every bit mattering."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.crypto import aead
from layrfs.errors import WrongBytes

KEY = bytes(range(32))


def test_aes_256_gcm_as_published() -> None:
    """McGrew and Viega's test cases 13 and 14 (256-bit zero key, zero nonce)."""
    assert aead.seal(bytes(32), b"", b"").hex() == "530f8afbc74536b9a963b4f1c4cb738b"
    assert aead.seal(bytes(32), b"", bytes(16)).hex() == (
        "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    )


@given(st.binary(max_size=200), st.binary(max_size=40), st.sampled_from([bytes, bytearray, memoryview]))
def test_round_trip(plaintext: bytes, aad: bytes, kind: type[bytes]) -> None:
    sealed = aead.seal(KEY, aad, kind(plaintext))
    assert len(sealed) == len(plaintext) + aead.TAG_BYTES
    assert aead.open_sealed(KEY, aad, kind(sealed)) == plaintext


def test_seal_into_writes_the_same_bytes_in_place() -> None:
    target = bytearray(b"head" + bytes(5 + aead.TAG_BYTES))
    aead.seal_into(KEY, b"aad", b"plain", memoryview(target)[4:])
    assert target == b"head" + aead.seal(KEY, b"aad", b"plain")


def test_seal_into_wants_room_for_exactly_the_seal() -> None:
    for length in (20, 22):
        with pytest.raises(ValueError, match="16 bytes"):
            aead.seal_into(KEY, b"", b"plain", bytearray(length))


@given(st.binary(max_size=64), st.data())
def test_a_flipped_bit_does_not_open(plaintext: bytes, data: st.DataObject) -> None:
    sealed = bytearray(aead.seal(KEY, b"aad", plaintext))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(WrongBytes):
        aead.open_sealed(KEY, b"aad", sealed)


@given(st.binary(max_size=64))
def test_hostile_bytes_do_not_open(data: bytes) -> None:
    with pytest.raises(WrongBytes):
        aead.open_sealed(KEY, b"", data)


def test_key_and_associated_data_matter() -> None:
    sealed = aead.seal(KEY, b"aad", b"plain")
    for key, aad in [(bytes(32), b"aad"), (KEY, b"aae"), (KEY, b"")]:
        with pytest.raises(WrongBytes):
            aead.open_sealed(key, aad, sealed)
