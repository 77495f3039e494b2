"""What nothing needs is dropped by the hosts that have it.

Owns the rows of ``local_retired`` from the day hosts have the version that does without them. Must not know why they
are there. A host that does not answer is asked again by the next run; one that is away for months finds out by
itself, because nobody renews those pieces.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from layrfs.crashpoints import reached
from layrfs.errors import RemoteError
from layrfs.policy.collecting import GIVE_UP_SECONDS
from layrfs.storage.changes import ChangeLog
from layrfs.upkeep.asking import TOGETHER, Asker

_log = logging.getLogger(__name__)


class Dropped(msgspec.Struct, frozen=True):
    """What came of it."""

    pieces: int = 0
    silent_hosts: int = 0


class Dropper:
    """One volume's."""

    def __init__(self, changes: ChangeLog, asker: Asker, now: Callable[[], float] = time.time) -> None:
        self._changes = changes
        self._asker = asker
        self._now = now

    def is_due(self, retention_seconds: float) -> bool:
        """Whether there is something to drop."""
        return bool(self._changes.retired_hosts(self._until(retention_seconds)))

    async def drop_due(self, retention_seconds: float, progress: Callable[[int], None]) -> Dropped:
        """Drop what hosts have had a version without for so long; ``progress`` is told how many pieces are gone."""
        pieces = silent_hosts = 0
        until = self._until(retention_seconds)
        for host in self._changes.retired_hosts(until):
            try:
                while batch := self._changes.retired(host, until, TOGETHER):
                    await self._asker.delete(host, batch)
                    reached("retired pieces dropped")
                    self._changes.forget_retired(host, batch)
                    pieces += len(batch)
                    progress(pieces)
            except RemoteError as error:
                _log.info("host %s did not drop what nothing needs: %s", host.hex()[:12], error)
                silent_hosts += 1
        self._changes.forget_long_retired(int(self._now()) - GIVE_UP_SECONDS)
        return Dropped(pieces, silent_hosts)

    def _until(self, retention_seconds: float) -> int:
        return int(self._now() - retention_seconds)
