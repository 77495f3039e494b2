"""How much at one time, and how often: in all, for one peer, and from one address. Who wants more hears `busy`.

Owns those counts and nothing else.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator


class Admission:
    """Thread-safe."""

    def __init__(self, *, total: int, per_peer: int, patience_seconds: float, per_address: int | None = None) -> None:
        self._total = total
        self._per_peer = per_peer
        self._per_address = total if per_address is None else per_address
        self._patience_seconds = patience_seconds
        self._changed = threading.Condition()
        self._held: Counter[tuple[bytes, str]] = Counter()

    @contextlib.contextmanager
    def place(self, peer: bytes, address: str = "") -> Iterator[bool]:
        """Whether there is a place for one more; it is held until the block ends. `peer`: a node's id, or a tenant."""
        with self._changed:
            admitted = self._changed.wait_for(lambda: self._has_place(peer, address), self._patience_seconds)
            if admitted:
                self._held[peer, address] += 1
        try:
            yield admitted
        finally:
            if admitted:
                self._leave(peer, address)

    def _has_place(self, peer: bytes, address: str) -> bool:
        by_peer = sum(count for (holder, _from), count in self._held.items() if holder == peer)
        from_there = sum(count for (_holder, place), count in self._held.items() if place == address)
        return self._held.total() < self._total and by_peer < self._per_peer and from_there < self._per_address

    def _leave(self, peer: bytes, address: str) -> None:
        with self._changed:
            self._held[peer, address] -= 1
            self._held += Counter()  # drops peers that hold nothing, so that strangers leave nothing behind
            self._changed.notify_all()


class Quota:
    """So many in any `seconds`, in all (None: any number) and for one address or other name. Thread-safe."""

    def __init__(
        self,
        *,
        total: int | None,
        per_address: int,
        seconds: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._per_address = per_address
        self._seconds = seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._taken: deque[tuple[float, str]] = deque()

    def take(self, address: str) -> bool:
        """Whether there is one more for this address; it is counted when there is."""
        with self._lock:
            now = self._monotonic()
            while self._taken and self._taken[0][0] <= now - self._seconds:
                self._taken.popleft()
            from_there = sum(taken_by == address for _when, taken_by in self._taken)
            is_free = (self._total is None or len(self._taken) < self._total) and from_there < self._per_address
            if is_free:
                self._taken.append((now, address))
            return is_free

    def give_back(self, address: str) -> None:
        """The last one of this address counts no more."""
        with self._lock:
            last = next((one for one in reversed(self._taken) if one[1] == address), None)
            if last is not None:
                self._taken.remove(last)
