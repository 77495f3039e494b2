"""Times in which a host was not there, or its ledger was not: they are not counted against owners.

Owns since when a host that comes back was away. Must not know contracts or pieces. On the trio thread. Invariant: a
time that was away is added once to each deadline that had begun to run before it, in the transaction that says so.
"""

from __future__ import annotations

import logging

from layrfs.app.trade import Trade
from layrfs.model.ledger import LedgerHead
from layrfs.policy import earning

_log = logging.getLogger(__name__)


class Outages:
    """One host's."""

    def __init__(self, trade: Trade) -> None:
        self._clock = trade.clock
        self._record = trade.record
        self._is_away = True

    async def ask(self, round_seconds: float) -> tuple[LedgerHead, int]:
        """The ledger's head and time; deadlines are right by then. Raises what the ledger does, and LocalError."""
        is_back, self._is_away = self._is_away, True
        head, now = await self._clock.ask(), await self._clock.now()
        if is_back:
            self._allow_for(now, round_seconds)
        self.note(now, round_seconds)
        self._is_away = False
        return head, now

    def note(self, now: int, round_seconds: float) -> None:
        """Both are there. Without a deadline nothing is written: a disk that is full must not be needed for it."""
        seen = self._record.last_round
        if not self._record.has_deadlines():
            if seen is not None:
                self._record.set_last_round(None)
        elif seen is None or earning.is_round_to_note(seen, now, round_seconds):
            self._record.set_last_round(now)

    def _allow_for(self, now: int, round_seconds: float) -> None:
        seen = self._record.last_round
        if seen is not None and earning.was_away(seen, now, round_seconds):
            self._record.postpone(now - seen)
            self._record.set_last_round(now)
            _log.info("The host or its ledger was away for %d s: pieces are kept so much longer", now - seen)
