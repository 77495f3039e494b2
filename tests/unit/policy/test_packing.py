from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.policy.packing import SHARD_BYTES, SHARD_PARTS, WORTH_SENDING_BYTES, Packed, pack

LENGTHS = st.lists(st.one_of(st.integers(0, 5000), st.integers(0, SHARD_BYTES)), max_size=60)


@given(LENGTHS, st.booleans())
def test_every_block_is_in_exactly_one_range_and_order_is_kept(lengths: list[int], everything: bool) -> None:
    packed = pack(lengths, everything=everything)
    indices = [index for first, end in (*packed.shards, packed.waiting) for index in range(first, end)]
    assert indices == list(range(len(lengths)))


@given(LENGTHS)
def test_no_shard_is_too_large_and_none_could_take_the_next_block(lengths: list[int]) -> None:
    shards = pack(lengths, everything=True).shards
    for first, end in shards:
        assert 0 < end - first <= SHARD_PARTS
        assert sum(lengths[first:end]) <= SHARD_BYTES
        if end < len(lengths) and end - first < SHARD_PARTS:
            assert sum(lengths[first : end + 1]) > SHARD_BYTES


@given(LENGTHS)
def test_only_a_small_last_group_waits(lengths: list[int]) -> None:
    first, end = pack(lengths, everything=False).waiting
    assert end == len(lengths)
    assert sum(lengths[first:end]) < WORTH_SENDING_BYTES


def test_with_everything_nothing_waits() -> None:
    assert pack([10, 20], everything=True) == Packed(((0, 2),), (2, 2))
    assert pack([10, 20], everything=False) == Packed((), (0, 2))
    assert pack([], everything=True) == Packed((), (0, 0))


def test_full_blocks_travel_alone_and_the_tail_joins_what_follows() -> None:
    lengths = [SHARD_BYTES, SHARD_BYTES, 1000, 2000]
    assert pack(lengths, everything=True).shards == ((0, 1), (1, 2), (2, 4))


def test_many_tiny_files_are_cut_at_the_number_of_parts() -> None:
    packed = pack([1] * (SHARD_PARTS + 1), everything=False)
    assert packed == Packed(((0, SHARD_PARTS),), (SHARD_PARTS, SHARD_PARTS + 1))


@pytest.mark.parametrize("length", [-1, SHARD_BYTES + 1])
def test_a_block_that_cannot_be_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        pack([length], everything=True)
