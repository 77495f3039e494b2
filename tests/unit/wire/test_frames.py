"""The eight bytes that decide how much is read from a stranger."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from layrfs.errors import BadMessage
from layrfs.wire import frames


@given(st.integers(1, frames.HEADER_LIMIT), st.integers(0, frames.BODY_LIMIT))
@example(1, 0)
@example(frames.HEADER_LIMIT, frames.BODY_LIMIT)
def test_round_trip(header: int, body: int) -> None:
    prefix = frames.pack_prefix(header, body)
    assert len(prefix) == frames.PREFIX_BYTES
    for kind in (bytes, bytearray, memoryview):
        assert frames.parse_prefix_untrusted(kind(prefix)) == (header, body)


def test_the_layout() -> None:
    assert frames.pack_prefix(1, 0x010203) == b"\1\0\0\0\3\2\1\0"


@pytest.mark.parametrize(
    ("header", "body"), [(0, 0), (-1, 0), (1, -1), (frames.HEADER_LIMIT + 1, 0), (1, frames.BODY_LIMIT + 1)]
)
def test_we_never_send_what_we_would_not_take(header: int, body: int) -> None:
    with pytest.raises(ValueError, match="not allowed"):
        frames.pack_prefix(header, body)


@given(st.binary(max_size=20))
def test_hostile_prefixes(prefix: bytes) -> None:
    try:
        header, body = frames.parse_prefix_untrusted(prefix)
    except BadMessage:
        return
    assert 0 < header <= frames.HEADER_LIMIT
    assert 0 <= body <= frames.BODY_LIMIT


@pytest.mark.parametrize("prefix", ["00000000 00000000", "01000100 00000000", "01000000 01005000", "01000000 ffffffff"])
def test_lengths_over_the_limit(prefix: str) -> None:
    with pytest.raises(BadMessage, match="more than"):
        frames.parse_prefix_untrusted(bytes.fromhex(prefix))


def test_half_a_prefix() -> None:
    with pytest.raises(BadMessage, match="cut off"):
        frames.parse_prefix_untrusted(bytes(7))
