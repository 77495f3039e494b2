"""The sealed body of a root record: whole, of its volume and version, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.crypto.root_body import open_root_body, seal_root_body
from layrfs.errors import WrongBytes

KEY, VOLUME = bytes([1]) * 32, bytes([2]) * 32
BODY = seal_root_body(KEY, VOLUME, 3, b"where everything is")


@given(st.binary(max_size=300), st.integers(1, 2**63 - 1))
def test_there_and_back(plain: bytes, version: int) -> None:
    body = seal_root_body(KEY, VOLUME, version, plain)
    assert len(body) == len(plain) + 32
    assert open_root_body(KEY, VOLUME, version, body) == plain


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_no_byte_can_be_changed(at: int, change: int) -> None:
    body = bytearray(BODY)
    body[at] ^= change
    with pytest.raises(WrongBytes):
        open_root_body(KEY, VOLUME, 3, bytes(body))


@given(st.integers(0, len(BODY) - 1))
def test_a_part_does_not_open(length: int) -> None:
    with pytest.raises(WrongBytes):
        open_root_body(KEY, VOLUME, 3, BODY[:length])


@given(st.binary(max_size=100))
def test_noise_does_not_open(noise: bytes) -> None:
    with pytest.raises(WrongBytes):
        open_root_body(KEY, VOLUME, 3, noise)
