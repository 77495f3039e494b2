"""Which cache files a start looks through after an unclean stop, and what it may believe of them.

Owns the choice. Must not know rows or disks: what was found of a file is an argument. All times are seconds since the
epoch, as the kernel stamps cache files. The invariant: a file is left alone only when its bytes, its length and its
rows are known to have been on the disk (after ``kill -9``: in the kernel's memory) together.
"""

from __future__ import annotations

from typing import Literal

CLOCK_SLACK_SECONDS = 2.0
POWER_CUT_SECONDS = 600.0
"""What was written longer ago than this before the last commit is on the disk."""

Look = Literal["no", "new bytes are new", "new bytes were cut off"]
"""What to make of a file; "new bytes" are those that no row speaks for."""


def doubtful_since(*, written: float, power_cut: bool, trusted: float | None, other_versions: bool) -> float:
    """What was changed before this is as its rows say. ``written``: when something was last committed, 0: never.

    ``trusted`` is given when a flush of the cache has failed: when all of it was last known to be on the disk.
    ``other_versions``: what another version of the volume has replaced may lie in the cache, untouched for long.
    """
    if other_versions:
        return 0.0
    since = written - (POWER_CUT_SECONDS if power_cut else CLOCK_SLACK_SECONDS)
    return since if trusted is None else min(since, trusted - CLOCK_SLACK_SECONDS)


def look(*, changed: float, since: float, used: bool, too_long: bool, power_cut: bool) -> Look:
    """``used``: the rows say that it was used since then; the time of a change may come to the disk long after it."""
    if changed >= since:
        return "new bytes are new"
    if not (used or too_long):
        return "no"
    return "new bytes were cut off" if power_cut else "new bytes are new"
