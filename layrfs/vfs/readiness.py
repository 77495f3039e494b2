"""Whether a dirty block may go to hosts by itself.

Owns the moment. Must not know uploads. A block goes when its file was closed ``CLOSED_SECONDS`` ago, or was not written
for ``OPEN_SECONDS`` though open, or when the cache is half full of dirty data.
Invariant: no block waits longer than ``OVERDUE_SECONDS`` for a rest that whoever writes it never takes.
"""

from __future__ import annotations

import trio

from layrfs.storage.journal import BlockKey
from layrfs.vfs.blocks import Ledger
from layrfs.vfs.eviction import Evictor

CLOSED_SECONDS = 2.0
OPEN_SECONDS = 10.0
OVERDUE_SECONDS = 300.0


class Readiness:
    """Plain code: asked of every dirty block of every sweep."""

    def __init__(self, ledger: Ledger, evictor: Evictor, closed_seconds: float) -> None:
        self._ledger = ledger
        self._evictor = evictor
        self._closed_seconds = closed_seconds
        self._waiting: dict[BlockKey, float] = {}
        self._waiting_before: dict[BlockKey, float] = {}
        """Blocks met that were not ready, and since when on trio's clock: in two generations."""
        self._renewed_at = 0.0

    def is_ready(self, key: BlockKey) -> bool:
        return self._is_pressing() or self._is_resting(key) or self._is_late(key)

    def is_overdue(self, key: BlockKey) -> bool:
        """Whether it goes though it is being written."""
        since = self._waiting.get(key, self._waiting_before.get(key))
        return since is not None and trio.current_time() - since >= OVERDUE_SECONDS

    def sent(self, key: BlockKey) -> None:
        """Hosts have bytes of the block that are not older than the last question about it."""
        self._waiting.pop(key, None)
        self._waiting_before.pop(key, None)

    def swept(self) -> None:
        """All dirty blocks have been asked about; those that end between two sweeps are forgotten some time later.

        Not at once: a file that is emptied and written anew all the time has no block for moments.
        """
        if (now := trio.current_time()) - self._renewed_at >= OPEN_SECONDS:
            self._waiting_before, self._waiting = self._waiting, {}
            self._renewed_at = now

    def _is_pressing(self) -> bool:
        ledger = self._ledger
        return self._evictor.writers_waiting > 0 or ledger.dirty_bytes * 2 > ledger.room + ledger.cached_bytes

    def _is_resting(self, key: BlockKey) -> bool:
        inode, block = key
        ledger = self._ledger
        file = ledger.open.get(inode)
        if file is not None:
            return ledger.now - file.written.get(block, ledger.now) >= OPEN_SECONDS
        return ledger.now - ledger.closed_at(inode) >= self._closed_seconds

    def _is_late(self, key: BlockKey) -> bool:
        now = trio.current_time()
        since = self._waiting.setdefault(key, self._waiting_before.get(key, now))
        return now - since >= OVERDUE_SECONDS
