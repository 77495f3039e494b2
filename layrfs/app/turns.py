"""Turns at something that one at a time may use: of those who wait, the most urgent is next.

Owns who waits. Must not know what for. Invariant: whoever has the turn gives it on, also when cancelled.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
from collections.abc import AsyncIterator

import trio

Urgency = tuple[int, int]
"""Less is sooner; of equals the one that has waited longest."""


class Turns:
    """On the trio thread."""

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: list[tuple[Urgency, int, trio.Event]] = []
        self._numbers = itertools.count()

    @contextlib.asynccontextmanager
    async def turn(self, urgency: Urgency) -> AsyncIterator[None]:
        """The caller's while the block runs."""
        if self._is_taken:
            await self._wait(urgency)
        self._is_taken = True
        try:
            yield
        finally:
            self._give_on()

    async def _wait(self, urgency: Urgency) -> None:
        entry = urgency, next(self._numbers), trio.Event()
        heapq.heappush(self._waiting, entry)
        try:
            await entry[2].wait()
        except trio.Cancelled:
            if entry[2].is_set():
                self._give_on()
            else:
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)
            raise

    def _give_on(self) -> None:
        if self._waiting:
            heapq.heappop(self._waiting)[2].set()
        else:
            self._is_taken = False
