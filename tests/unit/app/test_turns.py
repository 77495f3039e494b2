"""Turns: the most urgent is next, and none is lost."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from layrfs.app.turns import Turns, Urgency


async def test_of_those_who_wait_the_most_urgent_is_next_and_equals_as_they_came(autojump_clock: MockClock) -> None:
    turns, had = Turns(), list[str]()

    async def take(name: str, urgency: Urgency) -> None:
        async with turns.turn(urgency):
            had.append(name)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for name, urgency in (("first", (1, 9)), ("whose fault", (1, 0)), ("later", (0, 7)), ("soon", (0, 3)),
                              ("soon too", (0, 3))):  # fmt: skip
            nursery.start_soon(take, name, urgency)
            await wait_all_tasks_blocked()
    assert had == ["first", "soon", "soon too", "later", "whose fault"]


async def test_who_is_cancelled_while_waiting_or_just_then_keeps_no_turn() -> None:
    turns, had = Turns(), list[str]()

    async def take(name: str, scope: trio.CancelScope) -> None:
        with scope:
            async with turns.turn((0, 0)):
                had.append(name)

    waiting, just_then, free = trio.CancelScope(), trio.CancelScope(), trio.CancelScope()
    async with trio.open_nursery() as nursery:
        async with turns.turn((0, 0)):
            for name, scope in (("waiting", waiting), ("just then", just_then), ("free", free)):
                nursery.start_soon(take, name, scope)
                await wait_all_tasks_blocked()
            waiting.cancel()
            await wait_all_tasks_blocked()
        just_then.cancel()
    assert had in (["free"], ["just then", "free"])
    async with turns.turn((0, 0)):
        had.append("again")
    assert had[-1] == "again"
