"""What may go from hosts, what waits for which retained version, and what is worth packing anew. Pure.

A shard is dead when no block needs it. When that is noticed it is marked with the number of the first version that is
known not to: the newest, when nothing has changed since, or else the next. A version with that number or a higher one
cannot refer to the shard, because a block that did would have taken the mark away. One with a smaller number may, if
the shard had been given out by then. So a marked shard goes when there is a version with its number, and no retained
version is older than its mark and younger than itself. All older ones that stay are retained by then: preparing a
version retains the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

RETENTION_SECONDS = 3600
"""Who has read an older root record (a follower, a machine that recovers) is given so long to read what it names."""

GIVE_UP_SECONDS = 90 * 86_400
"""A host that could not be told for so long to drop a piece finds out by itself: nobody renews it."""

SPARSE = 4
"""A shard is packed anew when less than one in so many of its bytes is needed ..."""

LEAST_FREED_BYTES = 256 << 10
"""... and hosts get this much room back, all copies together ..."""

REPACKED_BYTES = 64 << 20
"""... as far as one run goes: so much is fetched at most."""


class ShardUse(NamedTuple):
    """A shard as it is now: ``stored_bytes`` counts all its copies, ``dead_since`` is its mark."""

    number: int
    stored_bytes: int
    plain_bytes: int
    live_bytes: int
    dead_since: int | None


class Retained(NamedTuple):
    """A version that stays, ``by_hand`` until somebody deletes it; ``last_shard``: the highest it can refer to."""

    number: int
    last_shard: int
    by_hand: bool


class Waiting(msgspec.Struct, frozen=True):
    """What the newest version that may need it keeps from going."""

    version: int
    shards: int
    stored_bytes: int


class Plan(msgspec.Struct, frozen=True):
    """What one run does, in numbers of shards; ``dead_bytes`` are on hosts and go when these are through."""

    mark: tuple[int, ...] = ()
    sweep: tuple[int, ...] = ()
    repack: tuple[int, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    dead_shards: int = 0
    dead_bytes: int = 0
    repack_bytes: int = 0
    """Freed by packing anew."""


def keeper(shard: int, since: int, retained: Iterable[Retained]) -> Retained | None:
    """The newest retained version that may need a shard, dead since a version; None: it may go."""
    return max((one for one in retained if one.number < since and shard <= one.last_shard), default=None)


def plan(shards: Sequence[ShardUse], retained: Sequence[Retained], newest: int, mark_since: int) -> Plan:
    """``newest``: the number of the newest version; ``mark_since``: what a shard that is marked now gets."""
    mark, sweep, dead_bytes, dead_shards = [], [], 0, 0
    waiting: dict[int, list[ShardUse]] = {}
    for shard in shards:
        if shard.live_bytes:
            continue
        if shard.dead_since is None:
            mark.append(shard.number)
        since = mark_since if shard.dead_since is None else shard.dead_since
        kept_by = keeper(shard.number, since, retained)
        if kept_by is not None:
            waiting.setdefault(kept_by.number, []).append(shard)
            continue
        dead_shards, dead_bytes = dead_shards + 1, dead_bytes + shard.stored_bytes
        if shard.dead_since is not None and since <= newest:
            sweep.append(shard.number)
    repack = _repacked(shards, retained)
    return Plan(
        mark=tuple(mark),
        sweep=tuple(sweep),
        repack=tuple(shard.number for shard in repack),
        waiting=tuple(_waiting(version, held) for version, held in sorted(waiting.items())),
        dead_shards=dead_shards,
        dead_bytes=dead_bytes,
        repack_bytes=sum(map(_freed, repack)),
    )


def _waiting(version: int, held: Sequence[ShardUse]) -> Waiting:
    return Waiting(version, len(held), sum(shard.stored_bytes for shard in held))


def _repacked(shards: Sequence[ShardUse], retained: Sequence[Retained]) -> list[ShardUse]:
    """The emptiest first.

    A version made by hand may stay for ever, and the old shard with it: then a new one frees nothing. Others go in
    time, so the copy is an investment.
    """
    held = max((version.last_shard for version in retained if version.by_hand), default=0)
    worth = [shard for shard in shards if shard.number > held and _is_sparse(shard)]
    chosen: list[ShardUse] = []
    fetched_bytes = 0
    for shard in sorted(worth, key=lambda one: one.live_bytes / one.plain_bytes):
        fetched_bytes += shard.plain_bytes
        if fetched_bytes > REPACKED_BYTES:
            break
        chosen.append(shard)
    return chosen


def _is_sparse(shard: ShardUse) -> bool:
    return 0 < shard.live_bytes * SPARSE < shard.plain_bytes and _freed(shard) >= LEAST_FREED_BYTES


def _freed(shard: ShardUse) -> int:
    return shard.stored_bytes - shard.stored_bytes * shard.live_bytes // shard.plain_bytes
