"""Regions: what one lookup has seen completely answers every key inside it."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from layrfs.ids import NodeId
from layrfs.network.discovery import region_of

WIDTH = 8


def distance(node_id: bytes, target: bytes) -> int:
    return int.from_bytes(node_id, "big") ^ int.from_bytes(target, "big")


@given(
    st.integers(0, 1000), st.integers(0, 100), st.binary(min_size=20, max_size=20), st.binary(min_size=20, max_size=20)
)
def test_a_region_holds_everybody_under_its_prefix(seed: int, count: int, target: bytes, other: bytes) -> None:
    dice = random.Random(seed)
    everyone = [NodeId(dice.randbytes(20)) for _ in range(count)]
    found = sorted(everyone, key=lambda node: distance(node, target))[:WIDTH]
    reach = distance(found[-1], target) if len(found) == WIDTH else None
    region = region_of(target, found, reach, 0.0)
    inside = {node for node in everyone if int.from_bytes(node, "big") >> (160 - region.depth) == region.prefix}
    assert set(region.members) == inside
    assert (region.depth == 0) == (count < WIDTH or reach == 2**160 - 1)
    key = target[:2] + other[2:]
    if int.from_bytes(key, "big") >> (160 - region.depth) == region.prefix and inside:
        nearest = sorted(everyone, key=lambda node: distance(node, key))[: len(inside)]
        assert set(nearest) == inside
