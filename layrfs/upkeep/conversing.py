"""What is said to one delegate: one conversation at a time, which whoever cannot wait for its end may break off.

Owns that order, and what is known of whether the delegate rests: wall time, as both machines may sleep. Must not know
what is said. Invariant: while ``greeting`` is held nobody else tells the delegate to begin or to go on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from layrfs.errors import Unavailable


class Line:
    """To one delegate."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.talking = trio.Lock()
        self.greeting = trio.Lock()
        self._now = now
        self._talk = trio.CancelScope()
        self._rests_until = 0.0
        self._has_rested = False

    async def talk(self, say: Callable[[], Awaitable[None]]) -> None:
        """Say it when nothing else is said. Raises ``Unavailable`` when something else was more urgent."""
        async with self.talking:
            with trio.CancelScope() as self._talk:
                return await say()
        raise Unavailable("The conversation with the delegate was broken off.")

    def break_off(self) -> None:
        """Whatever is said now."""
        self._talk.cancel()

    def began(self) -> None:
        """It was just greeted, and is about to be asked what it made."""
        self._has_rested = True

    def greeted(self, rests_until: float) -> None:
        """It was told to rest until then, and has answered."""
        self._has_rested &= self._now() <= self._rests_until
        self._rests_until = rests_until

    def check_rests(self) -> None:
        """Raises ``Unavailable`` when what it said it made may not be all of it."""
        if not (self._has_rested and self._now() <= self._rests_until):
            raise Unavailable("The delegate did not hear for too long that its owner is there; it is asked anew.")
