"""Which host is asked first for a copy, and after how long the next one is asked as well.

Pure: memories of hosts in, an order and a delay out. A memory is the smoothed time a host takes for a full piece and
how far it strays from that (the estimator of TCP's retransmission timer, RFC 6298), plus its failures in a row.
Invariant: ``order`` answers every candidate exactly once, however bad its memory: a bad host is better than none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from layrfs.ids import NodeId
from layrfs.policy.backoff import NO_FAILURES, Failures

FULL_PIECE_BYTES = 4 << 20
SMALLEST_COUNTED_BYTES = 256 << 10
"""Pieces smaller than this cost what this costs: a round trip, not their bytes."""

UNKNOWN_SECONDS = 0.5
"""What a host nobody has asked yet is believed to take: optimistic, so that it gets its chance."""

SHORTEST_HEDGE_SECONDS = 0.3
LONGEST_HEDGE_SECONDS = 120.0
"""Past fetches over a slow line all took long: asking others as well would only make the line slower."""

UNKNOWN_HEDGE_SECONDS = 30.0
"""A host nobody has asked yet and that sends may be behind a slow line."""

LONGEST_SILENCE_SECONDS = 4.0
AS_GOOD = 2.0
"""Hosts within this factor of the fastest share the load in turn."""


class HostMemory(msgspec.Struct, frozen=True):
    """What past fetches say about one host; ``expected_seconds`` 0 means never fetched from."""

    expected_seconds: float = 0.0
    deviation_seconds: float = 0.0
    failures: Failures = NO_FAILURES

    def after_success(self, seconds: float, piece_bytes: int) -> HostMemory:
        """A good piece arrived after ``seconds``."""
        sample = seconds * FULL_PIECE_BYTES / max(piece_bytes, SMALLEST_COUNTED_BYTES)
        if not self.expected_seconds:
            return HostMemory(sample, sample / 2)
        deviation = 0.75 * self.deviation_seconds + 0.25 * abs(sample - self.expected_seconds)
        return HostMemory(0.875 * self.expected_seconds + 0.125 * sample, deviation)

    def after_lateness(self, seconds: float, piece_bytes: int) -> HostMemory:
        """Another host was quicker; this one would have taken at least ``seconds``. Never an improvement."""
        later = self.after_success(seconds, piece_bytes)
        return HostMemory(max(later.expected_seconds, self.expected_seconds), later.deviation_seconds, self.failures)

    def after_failure(self, now_seconds: float) -> HostMemory:
        return HostMemory(self.expected_seconds, self.deviation_seconds, self.failures.after_failure(now_seconds))


UNKNOWN = HostMemory()


def order(
    candidates: Sequence[NodeId], memories: Mapping[NodeId, HostMemory], now_seconds: float, turn: int
) -> list[NodeId]:
    """Candidates, best first: healthy before failing, quick before slow; equally quick ones rotate by ``turn``."""
    healthy = [host for host in candidates if not _memory(memories, host).failures.resting(now_seconds)]
    resting = [host for host in candidates if host not in healthy]
    healthy.sort(key=lambda host: _believed_seconds(memories, host))
    resting.sort(key=lambda host: _memory(memories, host).failures.in_a_row)
    return _rotated(healthy, memories, turn) + resting


class Hedge(msgspec.Struct, frozen=True):
    """When the next host is asked as well: in all, and with nothing arriving, this many seconds after the last was."""

    in_all_seconds: float
    silent_seconds: float

    def late_in(self, asked_seconds: float, silent_seconds: float) -> float:
        """How long until a host is late that was asked, and last sent bytes, so many seconds ago."""
        return min(self.in_all_seconds - asked_seconds, self.silent_seconds - silent_seconds)


def hedge(memory: HostMemory, piece_bytes: int) -> Hedge:
    """How long to wait for a host before the next one is asked as well."""
    if not memory.expected_seconds:
        return Hedge(UNKNOWN_HEDGE_SECONDS, 2 * UNKNOWN_SECONDS)
    share = max(piece_bytes, SMALLEST_COUNTED_BYTES) / FULL_PIECE_BYTES
    wanted = (memory.expected_seconds + 4 * memory.deviation_seconds) * share
    in_all = min(LONGEST_HEDGE_SECONDS, max(SHORTEST_HEDGE_SECONDS, wanted))
    return Hedge(in_all, min(in_all, LONGEST_SILENCE_SECONDS))


def hedge_of_several(memories: Sequence[HostMemory], piece_bytes: int) -> Hedge:
    """The same for hosts that are asked together: each may take as long as the slowest of them does."""
    hedges = [hedge(memory, piece_bytes) for memory in memories]
    return Hedge(max(one.in_all_seconds for one in hedges), max(one.silent_seconds for one in hedges))


def _rotated(healthy: list[NodeId], memories: Mapping[NodeId, HostMemory], turn: int) -> list[NodeId]:
    if not healthy:
        return []
    limit = _believed_seconds(memories, healthy[0]) * AS_GOOD
    equals = sum(1 for host in healthy if _believed_seconds(memories, host) <= limit)
    start = turn % equals
    return healthy[start:equals] + healthy[:start] + healthy[equals:]


def _memory(memories: Mapping[NodeId, HostMemory], host: NodeId) -> HostMemory:
    return memories.get(host, UNKNOWN)


def _believed_seconds(memories: Mapping[NodeId, HostMemory], host: NodeId) -> float:
    return _memory(memories, host).expected_seconds or UNKNOWN_SECONDS
