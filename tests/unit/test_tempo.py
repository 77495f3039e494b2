"""Upkeep's time may be made to go faster; nobody else's."""

import time

import pytest
import trio

from layrfs import tempo


async def test_everything_that_asks_here_is_faster(monkeypatch: pytest.MonkeyPatch, autojump_clock: object) -> None:
    monkeypatch.setattr(tempo, "TEMPO", 100.0)
    began, shown = trio.current_time(), tempo.current_time()
    await tempo.sleep(3600)
    assert trio.current_time() - began == pytest.approx(36)
    assert tempo.current_time() - shown == pytest.approx(3600)
    assert tempo.lasting(3600) == 36
    assert tempo.now_seconds() == pytest.approx(100 * time.time())


def test_without_a_word_time_is_time() -> None:
    assert tempo.lasting(3600) == 3600
    assert tempo.now_seconds() == pytest.approx(time.time())
