"""The clock by which a host's leases run: it goes only while the host serves.

Owns the file `leases`. Must not know pieces. Wall clocks jump, and a host may be switched off for two years; by such a
clock all pieces would expire at once, before any owner had a chance to renew them. This one starts where the
directory was last used and then counts the seconds of being there.
Invariant: it never goes faster than time does; what a crash takes back is at most what passed since the last `save`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from layrfs.durable import write_atomically
from layrfs.errors import LocalError

_READ_BYTES = 32


class LeaseClock:
    """One host directory's; thread-safe."""

    def __init__(self, directory: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = os.path.join(directory, "leases")
        self._monotonic = monotonic
        self._started = monotonic()
        saved = _saved(self._path)
        self._before = _last_stored(os.path.join(directory, "pieces")) if saved is None else saved

    def now(self) -> float:
        """Seconds since the epoch of a machine that has been on all the time."""
        return self._before + self._monotonic() - self._started

    def save(self) -> None:
        """For the next start. A disk that is full now does not matter."""
        with contextlib.suppress(LocalError):
            write_atomically(self._path, f"{int(self.now())}\n".encode())


def _saved(path: str) -> float | None:
    """None when there is no such file, or no number in it."""
    try:
        with open(path, "rb") as file:
            return float(int(file.read(_READ_BYTES)))
    except (OSError, ValueError):
        return None


def _last_stored(pieces: str) -> float:
    """When a piece last came or went, as far as the file system knows; now, when there are none."""
    try:
        with os.scandir(pieces) as directories:
            return max((entry.stat().st_mtime for entry in directories), default=time.time())
    except OSError:
        return time.time()
