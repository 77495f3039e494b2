"""What directories cost: each shard on hosts, divided among those that have bytes of it. Pure.

A shard may hold parts of a thousand small files: whichever came first would otherwise pay for all of them. Dead space
belongs to all who have live bytes beside it, in proportion. Must not know how anything is looked up.
Invariant: parts add up to the whole, to the byte and to the stroop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from layrfs.model.costs import Cost

_PRICED_BYTES = 1 << 40


class Place(NamedTuple):
    """Something that is shown: ``within``, the index of the place it is shown as a part of, which comes later."""

    path: bytes
    within: int | None


class Shard(NamedTuple):
    """On hosts. ``prices``: the sum over its pieces, in stroops for a TiB and 30 days; ``live_bytes``: what all files
    of the volume have of it, wherever they are."""

    piece_bytes: int
    pieces: int
    paid_pieces: int
    prices: int
    live_bytes: int


def costs(places: Sequence[Place], shards: Iterable[tuple[Shard, Mapping[int, int]]]) -> tuple[Cost, ...]:
    """Of each place and all that is part of it. With each shard: how many live bytes which places have of it, by their
    index, not counting what their parts have."""
    stored, paid, priced = ([0] * len(places) for _ in range(3))
    for shard, live in shards:
        elsewhere = max(0, shard.live_bytes - sum(live.values()))
        for at, piece_bytes in zip(live, divided(shard.piece_bytes, [*live.values(), elsewhere]), strict=False):
            stored[at] += shard.pieces * piece_bytes
            paid[at] += shard.paid_pieces * piece_bytes
            priced[at] += shard.prices * piece_bytes
    stroops = divided(-(-sum(priced) // _PRICED_BYTES), priced)
    for amounts in (stored, paid, stroops):
        for at, place in enumerate(places):
            if place.within is not None:
                amounts[place.within] += amounts[at]
    return tuple(Cost(place.path, *of) for place, *of in zip(places, stored, paid, stroops, strict=True))


def divided(whole: int, weights: Sequence[int]) -> list[int]:
    """In proportion, by the largest remainders, of equal ones the first: the shares add up to the whole. Nothing is
    divided among weights of nothing."""
    total = sum(weights)
    if not total:
        return [0] * len(weights)
    shares = [whole * weight // total for weight in weights]
    lacking = whole - sum(shares)
    if lacking:
        by_remainder = sorted(range(len(weights)), key=lambda at: -(whole * weights[at] % total))
        for at in by_remainder[:lacking]:
            shares[at] += 1
    return shares
