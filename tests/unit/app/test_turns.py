"""Turns: the most urgent is next, and none is lost."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from layrfs.app.turns import Turns, Urgency


async def test_of_those_who_wait_the_most_urgent_is_next_and_equals_as_they_came(autojump_clock: MockClock) -> None:
    turns, had = Turns(), list[str]()

    async def take(name: str, urgency: Urgency) -> None:
        async with turns.turn(b"one", urgency):
            had.append(name)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for name, urgency in (("first", (1, 9)), ("whose fault", (1, 0)), ("later", (0, 7)), ("soon", (0, 3)),
                              ("soon too", (0, 3))):  # fmt: skip
            nursery.start_soon(take, name, urgency)
            await wait_all_tasks_blocked()
    assert had == ["first", "soon", "soon too", "later", "whose fault"]


async def test_who_wants_many_turns_keeps_nobody_out_nor_is_kept_out_by_who_comes_later(
    autojump_clock: MockClock,
) -> None:
    turns, had = Turns(), list[bytes]()

    async def take(whose: bytes, times: int, urgency: Urgency) -> None:
        for _ in range(times):
            async with turns.turn(whose, urgency):
                had.append(whose)
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(take, b"many", 2, (0, 1))
            await wait_all_tasks_blocked()
        nursery.start_soon(take, b"few", 2, (0, 9))
        await trio.sleep(5.5)
        for _ in range(3):
            nursery.start_soon(take, b"new", 1, (0, 0))
    assert b"few" in had[1:3]
    assert had[:6].count(b"few") == 2
    assert had[6:10] == [b"new", b"new", b"many", b"new"], "it is owed one turn, not six"


async def test_who_is_cancelled_while_waiting_or_just_then_keeps_no_turn() -> None:
    turns, had = Turns(), list[str]()

    async def take(name: str, scope: trio.CancelScope) -> None:
        with scope:
            async with turns.turn(b"one", (0, 0)):
                had.append(name)

    waiting, just_then, free = trio.CancelScope(), trio.CancelScope(), trio.CancelScope()
    async with trio.open_nursery() as nursery:
        async with turns.turn(b"one", (0, 0)):
            for name, scope in (("waiting", waiting), ("just then", just_then), ("free", free)):
                nursery.start_soon(take, name, scope)
                await wait_all_tasks_blocked()
            waiting.cancel()
            await wait_all_tasks_blocked()
        just_then.cancel()
    assert had in (["free"], ["just then", "free"])
    async with turns.turn(b"one", (0, 0)):
        had.append("again")
    assert had[-1] == "again"
