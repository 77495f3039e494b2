"""When an upload stops waiting for the hosts that are much later than the others.

Pure: when pieces arrived in, how long to go on waiting out. What is missing then is made later, from others, so it
costs more than waiting a little: only outliers are given up, and only of codes. Of copies each is waited for.
Invariant: an upload never stops with fewer pieces than are needed and half of those that may be lost besides.
"""

from __future__ import annotations

from collections.abc import Sequence

from layrfs.model.redundancy import Redundancy

LATE_FACTOR = 3.0
"""Hosts that take so many times as long as the slowest of those that are enough are outliers. Pieces of a shard share
the line and are equally long: without disks that pause they arrive together."""

LEAST_SECONDS = 5.0
"""A disk that writes something else first is no outlier."""


def enough(redundancy: Redundancy) -> int:
    """With how many pieces an upload may stop."""
    if redundancy.mirrors:
        return redundancy.total
    return redundancy.needed + (redundancy.total - redundancy.needed + 1) // 2


def stops_in(redundancy: Redundancy, arrived_seconds: Sequence[float], elapsed_seconds: float) -> float | None:
    """How long to wait for the others; None: until each has come or failed.

    ``arrived_seconds``: when pieces arrived, in that order, counted like ``elapsed_seconds`` from when all were sent.
    """
    least = enough(redundancy)
    if len(arrived_seconds) < least or least == redundancy.total:
        return None
    return max(0.0, max(LEAST_SECONDS, LATE_FACTOR * arrived_seconds[least - 1]) - elapsed_seconds)
