"""Turns at something that one at a time may use: of those who wait, the most urgent is next, and nobody is kept out.

Owns who waits, and how many turns each had. Must not know what for. Invariants: whoever has the turn gives it on, also
when cancelled; of turns of one kind those who wait get equally many, however much each of them wants.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator

import trio
from msgspec import Struct

Urgency = tuple[int, int]
"""Its kind, and when it has to be: less is sooner. Of equals the one that has waited longest."""


class _Waiting(Struct, frozen=True, eq=False):
    whose: bytes
    urgency: Urgency
    number: int
    called: trio.Event


class Turns:
    """On the trio thread."""

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: list[_Waiting] = []
        self._numbers = itertools.count()
        self._had = Counter[bytes]()
        self._least = 0
        """What those count as who come while others wait: nobody is owed turns for when it wanted none."""

    @contextlib.asynccontextmanager
    async def turn(self, whose: bytes, urgency: Urgency) -> AsyncIterator[None]:
        """The caller's while the block runs."""
        if self._is_taken:
            await self._wait(_Waiting(whose, urgency, next(self._numbers), trio.Event()))
        self._is_taken = True
        self._least = self._count(whose)
        self._had[whose] = self._least + 1
        try:
            yield
        finally:
            self._give_on()

    async def _wait(self, entry: _Waiting) -> None:
        self._waiting.append(entry)
        try:
            await entry.called.wait()
        except trio.Cancelled:
            if entry.called.is_set():
                self._give_on()
            else:
                self._waiting.remove(entry)
            raise

    def _count(self, whose: bytes) -> int:
        return max(self._had[whose], self._least)

    def _give_on(self) -> None:
        if not self._waiting:
            self._is_taken = False
            return
        kinds = ((one.urgency[0], self._count(one.whose), one.urgency[1], one.number, one) for one in self._waiting)
        chosen = min(kinds)[-1]
        self._waiting.remove(chosen)
        chosen.called.set()
