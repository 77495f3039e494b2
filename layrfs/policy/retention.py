"""Which of the volume's past versions stay. Pure.

Time is cut into buckets, fine ones for the last hour, coarse ones for the last year, and each keeps the version that
is worth most: the fewest blocks that were on no host then, and of equals the latest. What is worth most in a bucket is
worth most in every smaller bucket it lies in, so a version is never dropped that a coarser bucket wants later; and
buckets live or die as a whole, so none changes its mind because it is cut in two. Versions with a name stay.

A clock that jumps must not cost the past: the last twelve months *with versions* stay however long ago they were, and
so does the newest version, which is what the change under way replaces. Times in the future are in their buckets.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

SECOND_MS = 1000
HOUR_MS = 3600 * SECOND_MS
DAY_MS = 24 * HOUR_MS
MONTH_MS = 30 * DAY_MS


class Retained(NamedTuple):
    """What is to be known of a version."""

    number: int
    time_ms: int
    unsent: int
    name: str | None


class Tier(NamedTuple):
    """One version for each ``bucket_ms`` of the last ``span_ms``; the ``least`` newest buckets in any case."""

    bucket_ms: int
    span_ms: int
    least: int


SCHEDULE = (
    Tier(SECOND_MS, HOUR_MS, 0),
    Tier(HOUR_MS, DAY_MS, 0),
    Tier(DAY_MS, 31 * DAY_MS, 0),
    Tier(MONTH_MS, 365 * DAY_MS, 12),
)
"""All of the last hour (a second is as fine as their names tell), hourly for a day, daily, monthly for a year."""


def dropped(versions: Sequence[Retained], now_ms: int, in_use: Collection[int] = ()) -> list[int]:
    """The numbers of versions that go; never one with a name, one in use or the newest."""
    unnamed = [version for version in versions if version.name is None]
    kept = {max((version.number for version in versions), default=0), *in_use}
    for tier in SCHEDULE:
        kept |= _kept(unnamed, now_ms, tier)
    return [version.number for version in unnamed if version.number not in kept]


def _kept(versions: Sequence[Retained], now_ms: int, tier: Tier) -> set[int]:
    best: dict[int, Retained] = {}
    for version in versions:
        bucket = version.time_ms // tier.bucket_ms
        best[bucket] = max(version, best.get(bucket, version), key=_worth)
    oldest = (now_ms - tier.span_ms) // tier.bucket_ms
    newest_first = sorted(best, reverse=True)
    return {best[bucket].number for place, bucket in enumerate(newest_first) if bucket >= oldest or place < tier.least}


def _worth(version: Retained) -> tuple[int, int]:
    return -version.unsent, version.number
