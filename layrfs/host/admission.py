"""How many pieces may be in memory at one time, in all and for one peer. More wait a little, then hear `busy`.

Owns those counts and nothing else.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

from layrfs.ids import NodeId


class Admission:
    """Thread-safe."""

    def __init__(self, *, total: int, per_peer: int, patience_seconds: float) -> None:
        self._total = total
        self._per_peer = per_peer
        self._patience_seconds = patience_seconds
        self._changed = threading.Condition()
        self._held: Counter[NodeId] = Counter()

    @contextlib.contextmanager
    def place(self, peer: NodeId) -> Iterator[bool]:
        """Whether there is a place for one more piece; it is held until the block ends."""
        with self._changed:
            admitted = self._changed.wait_for(lambda: self._has_place(peer), self._patience_seconds)
            if admitted:
                self._held[peer] += 1
        try:
            yield admitted
        finally:
            if admitted:
                self._leave(peer)

    def _has_place(self, peer: NodeId) -> bool:
        return self._held.total() < self._total and self._held[peer] < self._per_peer

    def _leave(self, peer: NodeId) -> None:
        with self._changed:
            self._held[peer] -= 1
            self._held += Counter()  # drops peers that hold nothing, so that strangers leave nothing behind
            self._changed.notify_all()
