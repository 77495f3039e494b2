"""How fast the time of upkeep goes: hourly visits and days of silence within seconds, where a test wants to see them.

Owns one number, from the environment: with ``LAYRFS_TEMPO=100`` a day of upkeep's lasts fourteen minutes. Hosts, lines
and people are as fast as ever, so nothing that waits for them asks here: who is visited when, and for how long somebody
was silent, but no deadline. Invariant: without that variable upkeep's time is everybody's.
"""

from __future__ import annotations

import os
import time

import trio

VARIABLE = "LAYRFS_TEMPO"
TEMPO = float(os.environ.get(VARIABLE, "1"))


def now_seconds() -> float:
    """Unix time, times the tempo: what is remembered of hosts is in these seconds."""
    return time.time() * TEMPO


def current_time() -> float:
    """Trio's, likewise."""
    return trio.current_time() * TEMPO


def lasting(seconds: float) -> float:
    """How long so many seconds of upkeep's are."""
    return seconds / TEMPO


async def sleep(seconds: float) -> None:
    """As long as so many seconds of upkeep's."""
    await trio.sleep(lasting(seconds))
