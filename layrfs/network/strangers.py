"""What somebody we know nothing about may cost us: so many requests a second, so many bytes of memory.

Plain values and arithmetic; the time is an argument. Invariant: every container here has a fixed largest size, and
when it is full the oldest entry goes: strangers can make each other forgotten, they cannot make us grow.
"""

from __future__ import annotations

import functools
import ipaddress
from collections import OrderedDict


class TokenBucket:
    """``per_second`` on average, ``burst`` at once."""

    __slots__ = ("_burst", "_left", "_per_second", "_when")

    def __init__(self, per_second: float, burst: float, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._when = now

    def take(self, now: float) -> bool:
        """One token, if there is one."""
        self._left = min(self._burst, self._left + max(0.0, now - self._when) * self._per_second)
        self._when = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Allowances:
    """A token bucket for each source address that was active lately."""

    def __init__(self, per_second: float, burst: float, most_sources: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._most_sources = most_sources
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, ip: str, now: float) -> bool:
        """Whether one more request of this source is within its allowance."""
        source = source_of(ip)
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = TokenBucket(self._per_second, self._burst, now)
            if len(self._buckets) > self._most_sources:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(source)
        return bucket.take(now)


class ReplayMemory:
    """Whether something was seen within a time window, as far back as ``most`` entries reach."""

    def __init__(self, window_seconds: float, most: int) -> None:
        self._window_seconds = window_seconds
        self._most = most
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def __contains__(self, key: bytes) -> bool:
        return key in self._seen

    def add(self, key: bytes, now: float) -> None:
        """Remember ``key``, forget what is too old."""
        self._seen[key] = now
        while self._seen:
            oldest = next(iter(self._seen.values()))
            if len(self._seen) <= self._most and now - oldest <= self._window_seconds:
                break
            self._seen.popitem(last=False)


@functools.lru_cache(maxsize=4096)
def source_of(ip: str) -> str:
    """Who is behind a canonical IP literal, for counting: the IPv4 address, the /64 of an IPv6 one."""
    if ":" not in ip:
        return ip
    return str(ipaddress.IPv6Network((ip, 64), strict=False).network_address)
