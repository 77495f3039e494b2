"""How long a host that failed us is left alone: doubling from a few seconds to some minutes, forgiven by one success.

Pure: the time is an argument. Used for placing (``pipeline.placing``) and for fetching (``policy.hedging``).
Invariant: a host is never given up for good; the worst that happens is that others are asked first.
"""

from __future__ import annotations

import msgspec

FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 300.0


class Failures(msgspec.Struct, frozen=True):
    """Failures in a row of one host, and when the last one was."""

    in_a_row: int = 0
    last_seconds: float = 0.0

    def after_failure(self, now_seconds: float) -> Failures:
        """What fails while the host is left alone anyway is the same outage: it does not count again."""
        if self.resting(now_seconds):
            return self
        return Failures(self.in_a_row + 1, now_seconds)

    def pause_seconds(self) -> float:
        """How long the host is left alone, counted from its last failure."""
        if self.in_a_row == 0:
            return 0.0
        return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(self.in_a_row - 1, 16))

    def resting(self, now_seconds: float) -> bool:
        return self.in_a_row > 0 and now_seconds < self.last_seconds + self.pause_seconds()


NO_FAILURES = Failures()
