"""How many copies are sent at the same time, so that every one arrives in a while also over a slow line.

Pure: how long past copies took in, a number out. What is sent at the same time shares the line: a copy takes as many
times longer as there are others beside it, and whoever waits for it (a host, a writer without room, the owner) sees
nothing happen meanwhile. On a quick line disk and processor are the bound, and many at a time keep them busy.
Invariant: at least one copy at a time is sent, however slow the line.
"""

from __future__ import annotations

import msgspec

from layrfs.model.redundancy import Redundancy

FULL_PIECE_BYTES = 4 << 20
TARGET_SECONDS = 15.0
"""A copy should take no longer; on a line on which one alone takes longer, each is sent alone."""

SHARE = 3
"""Copies of one shard that go out together, when more than one does."""

FIRST_AT_ONCE = SHARE
MOST_AT_ONCE = 6 * SHARE
SMALL_BYTES = 512 << 10
"""What pieces up to this take says more about round trips and disks than about the line, and they do not fill it for
long: shards of no more are not counted, and their copies always go out together."""

UNMEASURED_AT_ONCE = 2 * SHARE
"""While nothing but small pieces has gone out."""


def copies_at_once(shards: int, redundancy: Redundancy, *, together: bool) -> float:
    """What so many shards have on their way, counted in whole copies; a fragment is a part of one."""
    return shards * (redundancy.total if together else 1) / redundancy.needed


class Pace(msgspec.Struct, frozen=True):
    """``at_once`` copies; ``alone_seconds`` is what a full one is believed to take alone, 0 while nobody knows."""

    at_once: int = FIRST_AT_ONCE
    alone_seconds: float = 0.0

    @property
    def shards_at_once(self) -> int:
        """How many shards are on their way at the same time."""
        return max(1, self.at_once // SHARE)

    @property
    def copies_together(self) -> bool:
        """Whether the copies of one shard go out at the same time, or one after the other."""
        return self.at_once >= SHARE

    def after_copy(self, seconds: float, piece_bytes: int, at_once: float) -> Pace:
        """A copy of ``piece_bytes`` has arrived, or a fragment of one, which takes as many times less; ``at_once`` were
        on their way, itself included."""
        if piece_bytes <= SMALL_BYTES:
            return self if self.alone_seconds else Pace(UNMEASURED_AT_ONCE)
        alone = seconds * FULL_PIECE_BYTES / piece_bytes / (at_once or 1)
        alone = (alone + self.alone_seconds) / 2 if self.alone_seconds else alone
        wanted = int(TARGET_SECONDS / max(alone, TARGET_SECONDS / MOST_AT_ONCE))
        return Pace(max(1, min(wanted, 2 * self.at_once)), alone)

    def after_failure(self, seconds: float) -> Pace:
        """A copy did not arrive; when many ``seconds`` were spent on it, the line may be too slow for so many."""
        if seconds < TARGET_SECONDS:
            return self
        return Pace(max(1, self.at_once // 2), max(2 * self.alone_seconds, TARGET_SECONDS / self.at_once))
