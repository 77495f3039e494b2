"""Hosts that keep root records, without a network: each keeps the first record of a version, as the real ones do.

``silent`` hosts do not answer; ``pause`` is awaited before every call, so that a test can have calls overtake another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from layrfs.errors import Unavailable
from layrfs.history.roots import Kept
from layrfs.model.root_record import RootRecord, newest


class FakeRoots:
    """What `layrfs.history.roots.Roots` is, for several machines at once."""

    def __init__(self, hosts: int = 3, pause: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint) -> None:
        self.kept: list[RootRecord | None] = [None] * hosts
        self.silent: set[int] = set()
        self.published: list[RootRecord] = []
        self.pause = pause

    @property
    def newest(self) -> RootRecord | None:
        """Of all hosts."""
        return newest(record for record in self.kept if record is not None)

    async def publish(self, record: RootRecord) -> Kept:
        self.published.append(record)
        outcomes = []

        async def put(host: int) -> None:
            await self.pause()
            if host in self.silent:
                return
            kept = self.kept[host]
            outcomes.append(kept is None or kept == record or kept.version < record.version)
            if outcomes[-1]:
                self.kept[host] = record

        async with trio.open_nursery() as nursery:
            for host in range(len(self.kept)):
                nursery.start_soon(put, host)
        return Kept(sum(outcomes), stale=not all(outcomes))

    async def fetch(self) -> RootRecord | None:
        found: list[RootRecord] = []
        for host, record in enumerate(self.kept):
            await self.pause()
            if host not in self.silent and record is not None:
                found.append(record)
        if len(self.silent) == len(self.kept):
            raise Unavailable("nobody answers")
        return newest(found)
