"""Which of several servers for the same thing is asked, and for how long one that failed is left alone. Pure.

The invariant: a server that asked for rest gets it, and none is given up for good.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from layrfs.policy.backoff import NO_FAILURES, Failures

LONGEST_REST_SECONDS = 3600.0


class EndpointRecord(msgspec.Struct, frozen=True):
    """How one server did."""

    failures: Failures = NO_FAILURES
    asked_for_rest_until: float = 0.0

    def after_failure(self, now_seconds: float, rest_seconds: float = 0.0) -> EndpointRecord:
        """`rest_seconds`: how long it says it wants to be left alone."""
        rest = now_seconds + min(rest_seconds, LONGEST_REST_SECONDS)
        return EndpointRecord(self.failures.after_failure(now_seconds), max(self.asked_for_rest_until, rest))

    def ready_at(self) -> float:
        """When it may be asked again."""
        return max(self.failures.last_seconds + self.failures.pause_seconds(), self.asked_for_rest_until)


FRESH = EndpointRecord()


def in_order(records: Sequence[EndpointRecord], now_seconds: float) -> list[int]:
    """Positions of those that may be asked now: as somebody listed them, those that failed lately last."""
    ready = [index for index, record in enumerate(records) if record.ready_at() <= now_seconds]
    return sorted(ready, key=lambda index: records[index].failures.in_a_row)


def rest_seconds(records: Sequence[EndpointRecord], now_seconds: float) -> float:
    """How long until the first of them may be asked."""
    return max(0.0, min(record.ready_at() for record in records) - now_seconds)
