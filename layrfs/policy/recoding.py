"""Which contents have to leave their shards because files want another redundancy, and how many move together. Pure.

Equal blocks of several files are one content. It is kept as the file wants that asks for most: copies for one file are
never taken away because another would do with fewer. Invariant: what is where it should be does not move, so moving
ends, however files share bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from layrfs.model.redundancy import Redundancy

BATCH_BYTES = 64 << 20
"""Fetched, and kept on the disk for a moment, before it goes to hosts again."""


def wanted(wishes: Iterable[Redundancy]) -> Redundancy:
    """Of several wishes the one that survives the loss of most hosts, and among those the one that stores most."""
    return max(wishes, key=lambda wish: (wish.total - wish.needed, wish.total / wish.needed))


def leaving(current: Redundancy, wishes: Mapping[int, Collection[Redundancy]]) -> dict[int, Redundancy]:
    """Of a shard's contents, with what the files that need them want, those that have to leave, and what for."""
    best = {content: wanted(several) for content, several in wishes.items() if several}
    return {content: wish for content, wish in best.items() if wish != current}


def is_as_safe(pieces: int, redundancy: Redundancy, spare_before: int) -> bool:
    """Whether bytes may leave shards of which so many hosts can be lost, for one that so many hosts took pieces of."""
    return pieces >= redundancy.total or (pieces >= redundancy.needed and pieces - redundancy.needed >= spare_before)


def from_behind(shards: Iterable[tuple[int, int]], last: int) -> list[tuple[int, int]]:
    """The same shards, ascending by number, from the first behind ``last`` on and round."""
    return sorted(shards, key=lambda shard: (shard[0] <= last, shard[0]))


def batches(shards: Iterable[tuple[int, int]], limit_bytes: int = BATCH_BYTES) -> Iterator[list[int]]:
    """Numbers of shards, given with how long they are, that are fetched together: few enough bytes, or one shard."""
    batch: list[int] = []
    held_bytes = 0
    for number, plain_bytes in shards:
        if batch and held_bytes + plain_bytes > limit_bytes:
            yield batch
            batch, held_bytes = [], 0
        batch.append(number)
        held_bytes += plain_bytes
    if batch:
        yield batch
