"""The newest root record, asked for every few seconds without asking everybody every time.

Owns whom to ask. Must not know what a record says. Invariant: whoever could know is asked now and then, so that hosts
which show an old record, by accident or on purpose, are not believed for long.
"""

from __future__ import annotations

from collections.abc import Sequence

from layrfs.errors import Unavailable
from layrfs.history.roots import Roots
from layrfs.model.records import NodeRecord
from layrfs.model.root_record import RootRecord
from layrfs.policy.following import SURVEY_LOOKS

ASKED_TOGETHER = 3


class RootWatch:
    """Of one volume."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._looks = 0
        self._holders: Sequence[NodeRecord] = ()
        """Hosts that showed the newest record when everybody was asked last."""

    async def look(self) -> RootRecord | None:
        """The newest record that those show who are asked now. Raises ``Unavailable`` when nobody answers."""
        at, self._looks = self._looks, self._looks + 1
        if at % SURVEY_LOOKS and self._holders:
            try:
                return (await self._roots.survey(self._turn(at))).record
            except Unavailable:
                pass
        shown = await self._roots.survey()
        self._holders = shown.holders
        self._looks = 1
        return shown.record

    def _turn(self, at: int) -> list[NodeRecord]:
        """A few of them, others every time."""
        count = len(self._holders)
        return [self._holders[(at * ASKED_TOGETHER + step) % count] for step in range(min(count, ASKED_TOGETHER))]
