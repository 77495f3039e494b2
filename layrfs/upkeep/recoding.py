"""Files whose redundancy was changed are coded anew, in the background.

Owns when: soon after a change, and until nothing is left that can be moved; what no host takes is fetched and offered
less and less often. How bytes move is ``repacking``'s, what moves ``policy.recoding``'s. Must not know who changed
what. What is not moved yet is found by looking at the tables, so nothing has to be remembered, and whoever is killed
goes on at the next start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import trio

from layrfs.errors import LayrError
from layrfs.policy.recoding import batches, from_behind, leaving
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.garbage import Garbage
from layrfs.storage.recoding import Recoding, survey
from layrfs.upkeep.collector import VersionLog
from layrfs.upkeep.repacking import Move, Repacker

LOOK_SECONDS = 1.0
"""How often it is looked whether a policy was changed."""

AGAIN_SECONDS = 60.0
"""After something was found, or changed: hosts were away, or blocks were on their way as they were wanted before."""

LONGEST_SECONDS = 3600.0
"""Twice as long each time that nothing of what was found could be moved, up to this."""

INTERVAL_SECONDS = 600.0
"""Otherwise: new files may have bytes that older ones have, which are kept as those wanted."""

STUCK = 2
"""After so many batches in a row of which nothing could be moved the rest waits, and comes first the next time."""

_log = logging.getLogger(__name__)


class Recoded(NamedTuple):
    """Of how many shards something was to be elsewhere, with as many hosts as there are, and how many bytes are."""

    found: int
    moved_bytes: int


class Recoder:
    """One volume's; ``run`` once."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        garbage: Garbage,
        log: VersionLog,
        repacker: Repacker,
        policy_changes: Callable[[], int],
    ) -> None:
        """``policy_changes`` counts; ``repacker`` is nobody else's."""
        self._database = database
        self._catalog = catalog
        self._garbage = garbage
        self._log = log
        self._recoding = Recoding(database)
        self._repacker = repacker
        self._policy_changes = policy_changes
        self._pause_seconds = AGAIN_SECONDS
        self._due = 0.0
        self._stuck_at = 0
        """The last shard that was tried in vain."""

    async def run(self) -> None:
        """Until cancelled."""
        changes = self._policy_changes()
        while True:
            if trio.current_time() >= self._due:
                await self._try()
            await trio.sleep(LOOK_SECONDS)
            if self._policy_changes() != changes:
                changes = self._policy_changes()
                await self._try()
                self._soon()

    def hosts_appeared(self) -> None:
        """What no host took they may take."""
        self._soon()

    def _soon(self) -> None:
        self._pause_seconds = AGAIN_SECONDS
        self._due = min(self._due, trio.current_time() + AGAIN_SECONDS)

    async def _try(self) -> None:
        try:
            found, moved = await self.recode()
        except LayrError as error:
            _log.info("nothing is coded anew now: %s", error)
            found, moved = 1, 0
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_SECONDS) if found and not moved else AGAIN_SECONDS
        self._due = trio.current_time() + (self._pause_seconds if found else INTERVAL_SECONDS)

    async def recode(self) -> Recoded:
        """Move all that can be moved now. Raises ``LocalError``, ``Superseded``, ``ReadOnly``."""
        self._database.commit()
        shards = await trio.to_thread.run_sync(survey, self._database.path)
        found = moved = in_vain = 0
        for batch in batches(from_behind(shards, self._stuck_at)):
            async with self._log.between_versions():
                moves = self._moves(batch)
            found += len(moves)
            if moves:
                moved_now = await self._repacker.move(moves)
                moved, in_vain = moved + moved_now, 0 if moved_now else in_vain + 1
            if in_vain >= STUCK:
                self._stuck_at = batch[-1]
                break
        return Recoded(found, moved)

    def _moves(self, shards: Sequence[int]) -> list[Move]:
        """As it is now: much may have happened since the survey. Not what there are too few hosts for."""
        moves: list[Move] = []
        for number in shards:
            if not self._catalog.has_shard(number):
                continue
            record = self._catalog.shard(number)
            targets = leaving(record.redundancy, self._recoding.wishes(number))
            contents = [content for content in self._garbage.live_contents(number) if content.number in targets]
            for redundancy in sorted(set(targets.values()), key=str):
                if not self._repacker.may_move(number, redundancy):
                    continue
                group = [content for content in contents if targets[content.number] == redundancy]
                moves += [Move(number, tuple(group), redundancy)] if group else []
        return moves
