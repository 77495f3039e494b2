"""Which clean blocks leave the cache, and how much room writers and readers have.

Pure: facts in, a choice out. Invariant: only what is handed in as evictable is chosen, least recently used first, and
no more than needed (the last one may overshoot).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

UNPINNED_SHARE = 8


class Candidate(msgspec.Struct, frozen=True):
    """Something evictable: one block of an open file, or (``block`` None) all clean blocks of a closed one."""

    inode: int
    block: int | None
    clean_bytes: int
    used: float


def choose(candidates: Iterable[Candidate], needed_bytes: int) -> list[Candidate]:
    """The least recently used candidates that together free ``needed_bytes``, or all when they don't."""
    chosen = []
    for candidate in sorted(candidates, key=lambda one: one.used):
        if needed_bytes <= 0:
            break
        chosen.append(candidate)
        needed_bytes -= candidate.clean_bytes
    return chosen


def room(*, limit_bytes: int, cached_bytes: int, free_bytes: int, keep_free_bytes: int) -> int:
    """How many bytes the cache may still grow: within its limit, leaving the disk some free space. May be negative."""
    return min(limit_bytes - cached_bytes, free_bytes - keep_free_bytes)


def limit_with_pins(*, limit_bytes: int, pinned_bytes: int) -> int:
    """The cache's limit while so much of it is pinned: pins that leave less than an eighth of the limit raise it.

    So what is pinned stays, and everything else always has a minimum of room; only the disk bounds both.
    """
    return max(limit_bytes, pinned_bytes + limit_bytes // UNPINNED_SHARE)


def to_free(*, room_bytes: int, wanted_bytes: int, limit_bytes: int) -> int:
    """How much to evict so that ``wanted_bytes`` fit: nothing while they do, else some more so that it is seldom."""
    if room_bytes >= wanted_bytes:
        return 0
    return wanted_bytes - room_bytes + limit_bytes // 20
