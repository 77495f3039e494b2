"""Hosts that keep one root record between them."""

from __future__ import annotations

from layrfs.errors import Unavailable, Unreachable
from layrfs.history.roots import Kept
from layrfs.model.root_record import RootRecord


class OneRecord:
    """``hosts`` 0: nobody answers; ``deaf``: they keep it and say nothing."""

    def __init__(self) -> None:
        self.hosts = 3
        self.deaf = False
        self.kept: RootRecord | None = None
        self.offers = 0

    async def publish(self, record: RootRecord) -> Kept:
        self.offers += 1
        if not self.hosts:
            return Kept(0, stale=False)
        if self.kept is not None and self.kept != record and self.kept.version >= record.version:
            return Kept(0, stale=True)
        self.kept = record
        if self.deaf:
            raise Unreachable("no answer")
        return Kept(self.hosts, stale=False)

    async def fetch(self) -> RootRecord | None:
        if not self.hosts:
            raise Unavailable("nobody answers")
        return self.kept
