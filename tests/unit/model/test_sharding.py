"""Block sizes: by size, by count, always within what a block may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.errors import UsageError
from layrfs.model.sharding import DEFAULT_SHARDING, MAX_BLOCK_BYTES, MIN_BLOCK_BYTES, Sharding

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "size"),
    [("size:4M", 4 * MIB), ("size:1M", MIB), ("size:64K", 65536), ("size:65536", 65536), ("size:100K", 102400)],
)
def test_by_size(text: str, size: int) -> None:
    assert Sharding.parse(text).block_bytes(10**12) == size
    assert Sharding.parse(text).block_bytes(0) == size


@pytest.mark.parametrize(
    ("text", "spelt"), [("size:4096K", "size:4M"), ("size:65536", "size:64K"), ("count:8", "count:8")]
)
def test_one_spelling_comes_back(text: str, spelt: str) -> None:
    assert str(Sharding.parse(text)) == spelt
    assert Sharding.parse(spelt) == Sharding.parse(text)


def test_the_default() -> None:
    assert str(DEFAULT_SHARDING) == "size:4M"


@given(st.integers(1, 65536), st.integers(0, 2**50))
def test_by_count(count: int, file_size: int) -> None:
    block = Sharding.parse(f"count:{count}").block_bytes(file_size)
    assert MIN_BLOCK_BYTES <= block <= MAX_BLOCK_BYTES
    assert block % 4096 == 0
    shards = -(-file_size // block)
    if block < MAX_BLOCK_BYTES:
        assert shards <= count
    if block > MIN_BLOCK_BYTES and file_size >= count * 4096 * count:
        assert shards >= count


def test_eight_shards_of_eight_mebibytes() -> None:
    assert Sharding.parse("count:8").block_bytes(8 * MIB) == MIB
    assert Sharding.parse("count:8").block_bytes(8 * MIB + 1) == MIB + 4096


@pytest.mark.parametrize(
    "text",
    [
        "",
        "size",
        "size:",
        "size:0",
        "size:63K",
        "size:5M",
        "size:4G",
        "size:65537",
        "size:-1M",
        "count:0",
        "count:65537",
        "count:x",
        "size:\u0664M",
        "size:4M,count:8",
        "size:4m",
        "count:9999999999999",
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="sharding is"):
        Sharding.parse(text)
