"""What directories cost adds up, whoever has how much of which shard."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from layrfs.model.costs import Cost
from layrfs.policy.dividing import Place, Shard, costs, divided

TIB = 1 << 40
MIB = 1 << 20

PLACES = (Place(b"/a/b", 1), Place(b"/a", 3), Place(b"/c", 3), Place(b"/", None))
"""As `layrfs cost --depth 2` would show them."""


@st.composite
def shards(draw: st.DrawFn) -> tuple[Shard, Mapping[int, int]]:
    live = draw(st.dictionaries(st.integers(0, 3), st.integers(1, 4 * MIB), min_size=1))
    elsewhere = draw(st.just(0) | st.integers(0, 4 * MIB))
    paid = draw(st.integers(0, 3))
    prices = draw(st.integers(paid, 10**10)) if paid else 0
    return Shard(draw(st.integers(1, 4 * MIB)), 3, paid, prices, sum(live.values()) + elsewhere), live


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**9)))
def test_shares_add_up_and_none_is_off_by_one(whole: int, weights: list[int]) -> None:
    shares = divided(whole, weights)
    total = sum(weights)
    assert sum(shares) == (whole if total else 0)
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share * total - whole * weight) < max(1, total)
        assert share == 0 or weight


@given(st.lists(shards(), max_size=6))
def test_parts_add_up_to_the_whole(found: list[tuple[Shard, Mapping[int, int]]]) -> None:
    (inner, outer, other, root) = costs(PLACES, found)
    own = costs([place._replace(within=None) for place in PLACES], found)
    for of in ("stored_bytes", "paid_bytes", "stroops"):
        assert getattr(outer, of) == getattr(inner, of) + getattr(own[1], of)
        assert getattr(root, of) == sum(getattr(one, of) for one in (outer, other, own[3]))
    assert all(one.paid_bytes <= one.stored_bytes for one in own)
    if all(shard.live_bytes == sum(live.values()) for shard, live in found):
        assert root.stored_bytes == sum(shard.pieces * shard.piece_bytes for shard, _ in found)
        assert root.stroops == -(-sum(shard.prices * shard.piece_bytes for shard, _ in found) // TIB)


def test_a_pack_is_divided_by_live_bytes_and_so_is_its_dead_space() -> None:
    pack = Shard(piece_bytes=1000, pieces=2, paid_pieces=1, prices=TIB, live_bytes=80)
    found = costs((Place(b"/a", 2), Place(b"/b", 2), Place(b"/", None)), [(pack, {0: 20, 1: 40})])
    assert found == (Cost(b"/a", 500, 250, 250), Cost(b"/b", 1000, 500, 500), Cost(b"/", 1500, 750, 750))


def test_amounts_are_rounded_up_when_all_is_added() -> None:
    third = Shard(piece_bytes=TIB // 3, pieces=1, paid_pieces=1, prices=1, live_bytes=1)
    places = [Place(b"/%d" % number, 3) for number in range(3)] + [Place(b"/", None)]
    found = costs(places, [(third, {number: 1}) for number in range(3)])
    assert [one.stroops for one in found] == [1, 0, 0, 1]
