"""Who need not be asked again, as far as one pass over many shards has learned. Pure but for what it remembers.

Of a shard that cannot be fetched it is known which hosts have its pieces, not which of them were at fault: one damaged
piece must not keep all other shards of an honest host from being copied, and a host that is away must not be waited
for once for each of its shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Set

from layrfs.ids import NodeId

MOST_FAILURES = 2
"""Shards that could not be fetched from a host before it counts as silent, none having been."""


class Silence:
    """Of one pass."""

    def __init__(self) -> None:
        self._failures: Counter[NodeId] = Counter()
        self._good: set[NodeId] = set()

    @property
    def hosts(self) -> Set[NodeId]:
        """They are believed not to answer."""
        return {host for host, count in self._failures.items() if count >= MOST_FAILURES and host not in self._good}

    def failed(self, holders: Iterable[NodeId]) -> None:
        """A shard whose pieces these hosts have could not be fetched."""
        self._failures.update(set(holders))

    def answered(self, holders: Iterable[NodeId]) -> None:
        """A shard was fetched from some of these."""
        self._good.update(holders)
