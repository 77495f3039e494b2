"""The collector: what no retained version of the volume needs goes from hosts.

Owns the order: nearly empty shards are packed anew; shards that nothing needs are marked with the first version of the
volume that is known not to need them; marked ones are removed from the tables when there is that version; an hour
after hosts have a version without them, they are told to drop the pieces. Each step is a transaction that looks again
at what it rests on, so a crash between any two of them costs time only. Must not know why versions are retained.

It works once an hour, so that a quiet volume is published two more times after what was deleted last, and then no more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio

from layrfs.crashpoints import reached
from layrfs.errors import LayrError
from layrfs.model.status import Collected, Waits
from layrfs.policy.collecting import RETENTION_SECONDS, Plan, Retained, Waiting, plan
from layrfs.storage.changes import ChangeLog
from layrfs.storage.database import Database
from layrfs.storage.garbage import Garbage, survey
from layrfs.storage.journal import Journal
from layrfs.storage.versions import Versions
from layrfs.upkeep.dropping import Dropped, Dropper
from layrfs.upkeep.repacking import Repacker

INTERVAL_SECONDS = 3600.0
LOOK_SECONDS = 60.0
"""How often it is looked whether the last run was so long ago: that may have been before a restart."""

LONGEST_REST = 31
"""What no hosts take as safely is fetched and offered twice as seldom each time, at last after so many more runs."""

MARK = "collected"
TOGETHER = 8
"""Shards marked between two looks at what else there is to do; removing one takes up to 20 ms, marking 2 ms."""

_log = logging.getLogger(__name__)

Say = Callable[[str], None]


class VersionLog(Protocol):
    """``layrfs.history.publishing.Publisher``, or a fake."""

    def between_versions(self) -> AbstractAsyncContextManager[int]: ...
    async def flush(self) -> None: ...
    async def confirm(self) -> None: ...
    def expired(self) -> Collection[int]: ...
    def prune(self) -> None: ...


class Collector:
    """One volume's; ``run`` once."""

    def __init__(
        self,
        *,
        database: Database,
        garbage: Garbage,
        log: VersionLog,
        repacker: Repacker,
        dropper: Dropper,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._marks = Journal(database)
        self._changes = ChangeLog(database)
        self._versions = Versions(database)
        self._garbage = garbage
        self._log = log
        self._repacker = repacker
        self._dropper = dropper
        self._now = now
        self._lock = trio.Lock()
        self._rest = self._resting = 0

    async def run(self) -> None:
        """Collect now and then, until cancelled."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            try:
                if 0 <= self._now() - int(self._marks.mark(MARK) or 0) < INTERVAL_SECONDS:
                    continue
                self._marks.set_mark(MARK, int(self._now()))
                await self._collect_a_little()
            except LayrError as error:
                _log.info("nothing is collected now: %s", error)

    async def look(self) -> Collected:
        """What `collect` would do now; changes nothing."""
        found = await self._plan()
        return self._report(found, found, Dropped())

    async def collect(self, retention_seconds: float, say: Say) -> Collected:
        """Do all that can be done now, and publish it. Waits for hosts; raises ``Superseded``, ``LocalError``."""
        async with self._lock:
            await self._log.flush()
            say("looking for what nothing needs")
            first = found = await self._plan()
            if found.repack:
                say(f"packing {len(found.repack)} nearly empty shards anew")
                await self._repacker.repack(found.repack)
                await self._log.flush()
                found = await self._plan()
            await self._mark(found)
            await self._log.flush()
            found = await self._plan()
            say(f"removing {len(found.sweep)} shards")
            await self._sweep(found)
            await self._log.flush()
            dropped = await self._drop(retention_seconds, say)
            return self._report(first, await self._plan(), dropped)

    async def _collect_a_little(self) -> None:
        """One step of each kind, so that the volume changes once."""
        async with self._lock:
            found = await self._plan()
            await self._repack_a_little(found)
            await self._sweep(found)
            await self._mark(found)
            await self._drop(RETENTION_SECONDS, _log.debug)

    async def _repack_a_little(self, found: Plan) -> None:
        """Not in every run, while nothing can be moved."""
        if not found.repack or self._resting:
            self._resting = max(0, self._resting - 1)
            return
        moved = await self._repacker.repack(found.repack)
        self._rest = 0 if moved else min(2 * self._rest + 1, LONGEST_REST)
        self._resting = self._rest

    async def _plan(self) -> Plan:
        self._database.commit()
        shards = await trio.to_thread.run_sync(survey, self._database.path)
        async with self._log.between_versions() as newest:
            return plan(shards, self._retained(), newest, self._since(newest))

    def _retained(self) -> list[Retained]:
        expired = set(self._log.expired())
        return [version for version in self._garbage.retained() if version.number not in expired]

    def _since(self, newest: int) -> int:
        """The number of the first version that says what the tables say now. Nothing may be published meanwhile."""
        self._database.commit()
        return newest + self._changes.has_pending()

    async def _mark(self, found: Plan) -> None:
        async with self._log.between_versions() as newest:
            for at in range(0, len(found.mark), TOGETHER):
                since = self._since(newest)  # anew: what was needed at the last look may have been deleted meanwhile
                for shard in found.mark[at : at + TOGETHER]:
                    self._garbage.mark(shard, since)
                await trio.lowlevel.checkpoint()
            reached("shards marked")

    async def _sweep(self, found: Plan) -> None:
        """Versions that have expired stay until the next one is prepared, unless that frees something."""
        if not found.sweep:
            return
        async with self._log.between_versions() as newest:
            self._log.prune()
            for shard in found.sweep:
                self._changes.retire(self._garbage.sweep(shard, newest), newest + 1)
                await trio.lowlevel.checkpoint()
            reached("shards removed")

    async def _drop(self, retention_seconds: float, say: Say) -> Dropped:
        """Not before hosts said once more that the volume is what this machine takes it for."""
        if not self._dropper.is_due(retention_seconds):
            return Dropped()
        await self._log.confirm()
        return await self._dropper.drop_due(retention_seconds, lambda pieces: say(f"{pieces} pieces are gone"))

    def _report(self, first: Plan, last: Plan, dropped: Dropped) -> Collected:
        return Collected(
            dead_shards=first.dead_shards,
            dead_bytes=first.dead_bytes,
            repacked_shards=len(first.repack),
            repacked_bytes=first.repack_bytes,
            dropped_pieces=dropped.pieces,
            retired_pieces=self._changes.retired_count(),
            silent_hosts=dropped.silent_hosts,
            waiting=tuple(map(self._waits, last.waiting)),
        )

    def _waits(self, one: Waiting) -> Waits:
        names = {version.number: name for name, version in self._versions.by_name().items()}
        return Waits(one.version, names.get(one.version, ""), one.shards, one.stored_bytes)
