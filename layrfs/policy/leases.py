"""How long hosts keep pieces that nobody asks them to keep, and when owners ask. Pure: times are arguments, in seconds.

A host forgets a piece only when its owner has been silent for the lease and the host's grace: about a year in which the
host could be asked, and an owner who is there asks ten times during the lease alone. So what is lost this way is
what was given up, and garbage whose owner forgot about it.
"""

from __future__ import annotations

DAY_SECONDS = 86_400
LEASE_SECONDS = 275 * DAY_SECONDS
"""From storing or renewing a piece. Part of the protocol: owners rely on it."""

DEFAULT_GRACE_SECONDS = 90 * DAY_SECONDS
"""What a host adds of its own accord: 365 days in all."""

RENEW_SECONDS = LEASE_SECONDS // 10


def oldest_kept(now: float, grace_seconds: float) -> float:
    """What was last renewed before this may be forgotten. Both by the clock of the host's leases."""
    return now - LEASE_SECONDS - grace_seconds


def renewal_due(renewed: float | None, now: float) -> bool:
    """Whether pieces should be renewed that all were at ``renewed``; None: nobody knows when.

    A time in the future says that a clock was set back, and nothing else.
    """
    return renewed is None or not 0 <= now - renewed < RENEW_SECONDS
