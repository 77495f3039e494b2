"""The codec: what is not the declared shape is BadMessage, whatever it is."""

from __future__ import annotations

import contextlib
from typing import Annotated

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from layrfs.errors import BadMessage
from layrfs.ids import PieceId
from layrfs.wire.codec import Uint16, Uint32, Uint63, decode_untrusted, encode


class Leaf(msgspec.Struct, frozen=True, tag="leaf"):
    name: str
    piece: Annotated[PieceId, msgspec.Meta(min_length=32, max_length=32)]
    port: Uint16
    count: Uint32 = 0
    size: Uint63 = 0


class Branch(msgspec.Struct, frozen=True, tag="branch"):
    leaves: tuple[Leaf, ...]


class Checked(msgspec.Struct, frozen=True):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


LEAF = Leaf(name="x", piece=PieceId(bytes(32)), port=1)


def test_round_trip_and_unions() -> None:
    branch = Branch(leaves=(LEAF, LEAF))
    assert decode_untrusted(Branch, encode(branch), limit=1000) == branch
    either = Leaf | Branch
    assert decode_untrusted(either, encode(branch), limit=1000) == branch  # type: ignore[arg-type]
    assert decode_untrusted(Leaf, memoryview(bytearray(encode(LEAF))), limit=1000) == LEAF


def test_the_size_comes_first() -> None:
    data = encode(LEAF)
    assert decode_untrusted(Leaf, data, limit=len(data)) == LEAF
    with pytest.raises(BadMessage, match="limit"):
        decode_untrusted(Leaf, data, limit=len(data) - 1)


@pytest.mark.parametrize(
    "change",
    [
        {"piece": bytes(31)},
        {"piece": "text"},
        {"port": -1},
        {"port": 65536},
        {"count": 2**32},
        {"size": 2**63},
        {"name": 3},
    ],
)
def test_values_out_of_bounds(change: dict[str, object]) -> None:
    fields: dict[str, object] = {"type": "leaf", "name": "x", "piece": bytes(32), "port": 1}
    assert decode_untrusted(Leaf, msgspec.msgpack.encode(fields), limit=1000) == LEAF
    fields |= change
    with pytest.raises(BadMessage):
        decode_untrusted(Leaf, msgspec.msgpack.encode(fields), limit=1000)


def test_what_a_type_itself_refuses() -> None:
    with pytest.raises(BadMessage, match="low is above high"):
        decode_untrusted(Checked, msgspec.msgpack.encode({"low": 2, "high": 1}), limit=100)


@given(st.binary(max_size=200))
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\xc6\xff\xff\xff\xff")
@example(b"\xa1\xff")
@example(b"\x81\xa1\xff\xc0")
def test_hostile_bytes(data: bytes) -> None:
    for kind in (Leaf, Branch, Checked):
        with pytest.raises(BadMessage):
            decode_untrusted(kind, data, limit=1000)


@given(st.data())
def test_a_damaged_message_decodes_or_is_bad(data: st.DataObject) -> None:
    message = bytearray(encode(Branch(leaves=(LEAF,))))
    for _ in range(data.draw(st.integers(1, 5))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadMessage):
        assert isinstance(decode_untrusted(Branch, bytes(message), limit=1000), Branch)


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1x", b"\x81\xa5other"])
def test_deep_nesting_is_refused(opening: bytes) -> None:
    with pytest.raises(BadMessage):
        decode_untrusted(Leaf, opening * 20_000 + b"\xc0", limit=1_000_000)


def test_an_announced_length_is_not_believed() -> None:
    """A tuple of four billion leaves in five bytes must fail at once, not after setting memory aside."""
    with pytest.raises(BadMessage):
        decode_untrusted(Branch, b"\x82\xa4type\xa6branch\xa6leaves\xdd\xff\xff\xff\xff", limit=100)
