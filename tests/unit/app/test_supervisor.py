"""A child of ours that ends, or cannot be started, is started again; whoever keeps it goes on."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from layrfs.app.supervisor import Supervisor
from layrfs.errors import LocalError

ENDS_AT_ONCE = ("site", "--user-base")


class Starts:
    """Of real processes; some of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *failing: int) -> None:
        self._open = trio.lowlevel.open_process
        self._failing = failing
        self.made = 0
        self.five = trio.Event()
        monkeypatch.setattr(trio.lowlevel, "open_process", self._start)

    async def _start(self, *arguments: Any, **named: Any) -> trio.Process:
        self.made += 1
        if self.made == 5:
            self.five.set()
        if self.made in self._failing:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return await self._open(*arguments, **named)


async def test_a_child_that_cannot_be_started_is_started_later(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = Starts(monkeypatch, 1, 3)
    kept = Supervisor("child", ENDS_AT_ONCE, "/nowhere", lambda: "published")
    async with trio.open_nursery() as nursery:
        assert await nursery.start(kept.run) == "published"
        await starts.five.wait()
        nursery.cancel_scope.cancel()
    assert kept.restarts >= 4


async def test_one_that_was_never_there_and_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(monkeypatch, 1)
    kept = Supervisor[str]("child", ENDS_AT_ONCE, "/nowhere", lambda: None)
    with pytest.raises(LocalError, match=f"the child cannot be started: {os.strerror(errno.EAGAIN)}"):
        await kept.run()
    assert starts.made == 1
