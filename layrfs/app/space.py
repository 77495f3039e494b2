"""How much room there is: what ``df`` shows of hosts, and how much of this disk the cache takes.

Must not know who asks. Numbers are of a few seconds ago, of a huge volume up to half a minute.
"""

from __future__ import annotations

import os
import time

from layrfs.app.membership import Membership
from layrfs.storage.content import Catalog
from layrfs.vfs.statfs import Space

CACHE_SHARE = 0.1
LARGEST_DEFAULT_CACHE_BYTES = 20 << 30
SMALLEST_DEFAULT_CACHE_BYTES = 256 << 20
SPACE_SECONDS = 5.0
COUNTING_SHARE = 100
"""Of its time it spends one part in so many with counting, which takes 0.1 s for a million shards."""


class SpaceGauge:
    """What ``df`` shows: what hosts hold for us and still offer, counted in bytes of the owner's data.

    What was deleted does not count, also while hosts have it for the sake of a snapshot.
    """

    def __init__(self, catalog: Catalog, membership: Membership, directory: str) -> None:
        self._catalog = catalog
        self._membership = membership
        self._directory = directory
        self._measured = -SPACE_SECONDS
        self._took_seconds = 0.0
        self._space = Space(0, 0)

    def measure(self) -> Space:
        """At once; asks at most every few seconds."""
        now = time.monotonic()
        if now - self._measured > max(SPACE_SECONDS, COUNTING_SHARE * self._took_seconds):
            used = self._catalog.live_bytes()
            free = self._free_bytes()
            self._space = Space(used + free, free)
            self._measured = time.monotonic()
            self._took_seconds = self._measured - now
        return self._space

    def _free_bytes(self) -> int:
        """A third of what hosts offer (three copies); without hosts, what fits onto this disk."""
        offered = sum(record.free_bytes for record in self._membership.known_hosts())
        if offered:
            return offered // 3
        disk = os.statvfs(self._directory)
        return disk.f_bavail * disk.f_frsize


def default_cache_bytes(directory: str) -> int:
    """A tenth of the free disk, at most 20 GiB."""
    disk = os.statvfs(directory)
    tenth = int(disk.f_bavail * disk.f_frsize * CACHE_SHARE)
    return max(SMALLEST_DEFAULT_CACHE_BYTES, min(tenth, LARGEST_DEFAULT_CACHE_BYTES))
