"""Masks: CTR as published, their own inverse, and the same from any offset."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from layrfs.crypto.mask import apply_mask, apply_mask_into

KEY = bytes(range(32))


@given(st.binary(max_size=100))
def test_is_another_library_s_ctr(data: bytes) -> None:
    assert apply_mask(KEY, data) == Cipher(algorithms.AES256(KEY), modes.CTR(bytes(16))).encryptor().update(data)


@given(st.binary(max_size=100), st.sampled_from([bytes, bytearray, memoryview]))
def test_is_its_own_inverse(data: bytes, kind: type[bytes]) -> None:
    assert apply_mask(KEY, kind(apply_mask(KEY, kind(data)))) == data


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_range_is_unmasked_alone(data: bytes, draw: st.DataObject) -> None:
    offset = 16 * draw.draw(st.integers(0, (len(data) - 1) // 16))
    assert apply_mask(KEY, apply_mask(KEY, data)[offset:], offset=offset) == data[offset:]


def test_into_a_buffer_and_in_place() -> None:
    target = bytearray(b"0123456789")
    apply_mask_into(KEY, target, target)
    assert bytes(target) == apply_mask(KEY, b"0123456789")


@pytest.mark.parametrize("offset", [-16, 1, 15])
def test_ranges_start_at_a_counter(offset: int) -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        apply_mask(KEY, b"", offset=offset)
