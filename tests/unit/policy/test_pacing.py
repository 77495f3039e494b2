"""The pace on lines of any speed, on a simulated line: whatever is sent at the same time shares it."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.model.redundancy import DEFAULT_REDUNDANCY, Redundancy
from layrfs.network.piece_server import Limits
from layrfs.policy.pacing import (
    FULL_PIECE_BYTES,
    MOST_AT_ONCE,
    SHARE,
    TARGET_SECONDS,
    UNMEASURED_AT_ONCE,
    Pace,
    copies_at_once,
)

MEGABIT = 125_000.0
RATES = [1, 4, 10, 100, 1000]
GIVE_UP_SECONDS = Limits().body_seconds + FULL_PIECE_BYTES / Limits().slowest_bytes_per_second
OVERHEAD_SECONDS = 0.02
"""Of a copy, besides its bytes."""


@dataclass(eq=False)
class Copy:
    shard: int
    started: float
    at_once: float
    left: float


class Line:
    """Shards without end go out over a line; hosts hang up on who takes too long."""

    def __init__(self, pace: Pace | None = None, redundancy: Redundancy = DEFAULT_REDUNDANCY) -> None:
        self.pace = pace or Pace()
        self.redundancy = redundancy
        self.now = 0.0
        self.sent: list[tuple[float, float]] = []
        """When each copy arrived, and after how long."""
        self.failed = 0
        self._waiting: dict[int, int] = {}
        self._flying: list[Copy] = []
        self._next = 0

    def run(self, rate: float, copies: int) -> None:
        """Until so many more copies have arrived."""
        wanted = len(self.sent) + copies
        for _ in range(100_000):
            if len(self.sent) >= wanted:
                return
            self._start()
            share = rate / len(self._flying)
            step = min(self._flying[0].left / share, 5.0)
            self.now += step
            for copy in self._flying:
                copy.left -= step * share
            for copy in self._flying[:]:
                if copy.left <= 1:
                    self._arrived(copy)
                elif copy in self._flying and self.now - copy.started > GIVE_UP_SECONDS:
                    self._given_up(copy)
        raise AssertionError("nothing arrives any more")

    def _start(self) -> None:
        while len(self._waiting) < self.pace.shards_at_once:
            self._next += 1
            self._waiting[self._next] = self.redundancy.total
        for shard, waiting in self._waiting.items():
            flying = sum(copy.shard == shard for copy in self._flying)
            for _ in range(min(waiting, self.redundancy.total if self.pace.copies_together else 1) - flying):
                self._flying.append(Copy(shard, self.now, self._at_once(), FULL_PIECE_BYTES / self.redundancy.needed))
        self._flying.sort(key=lambda copy: copy.left)

    def _at_once(self) -> float:
        return copies_at_once(len(self._waiting), self.redundancy, together=self.pace.copies_together)

    def _arrived(self, copy: Copy) -> None:
        seconds = self.now - copy.started + OVERHEAD_SECONDS
        self.pace = self.pace.after_copy(seconds, FULL_PIECE_BYTES, max(copy.at_once, self._at_once()))
        self.sent.append((self.now, seconds))
        self._flying.remove(copy)
        self._waiting[copy.shard] -= 1
        if not self._waiting[copy.shard]:
            del self._waiting[copy.shard]

    def _given_up(self, copy: Copy) -> None:
        self.pace = self.pace.after_failure(self.now - copy.started)
        self.failed += 1
        self._flying = [other for other in self._flying if other.shard != copy.shard]
        self._waiting.pop(copy.shard, None)


@pytest.mark.parametrize("megabits", RATES)
def test_every_copy_arrives_in_a_while_at_any_speed(megabits: int) -> None:
    line, rate = Line(), megabits * MEGABIT
    line.run(rate, 60)
    alone = FULL_PIECE_BYTES / rate
    assert line.failed == 0
    assert all(seconds < max(2 * TARGET_SECONDS, 1.5 * alone) for _, seconds in line.sent[30:])
    fitting = max(1, min(MOST_AT_ONCE, int(TARGET_SECONDS / alone)))
    assert fitting // 2 <= line.pace.at_once <= fitting


@pytest.mark.parametrize("megabits", RATES)
@pytest.mark.parametrize("code", ["rs:4/8", "rs:2/4", "rs:10/30"])
def test_fragments_of_a_code_arrive_in_a_while_and_use_the_line(megabits: int, code: str) -> None:
    """They are counted by their bytes: eight quarters are two copies."""
    line, rate = Line(redundancy=Redundancy.parse(code)), megabits * MEGABIT
    line.run(rate, 60 * line.redundancy.total)
    alone = FULL_PIECE_BYTES / rate
    assert line.failed == 0
    recent = [seconds for _, seconds in line.sent[30 * line.redundancy.total :]]
    assert all(seconds < max(2 * TARGET_SECONDS, 1.5 * alone) for seconds in recent)
    fitting = max(1, min(MOST_AT_ONCE, int(TARGET_SECONDS / alone)))
    assert fitting // 2 <= line.pace.at_once <= fitting


def test_a_quick_line_is_used_in_full_after_two_shards() -> None:
    line = Line()
    line.run(1000 * MEGABIT, 2 * SHARE)
    assert line.pace.at_once == MOST_AT_ONCE


@pytest.mark.parametrize("megabits", RATES)
@pytest.mark.parametrize("before", RATES)
def test_a_line_that_changes_is_followed(before: int, megabits: int) -> None:
    line = Line()
    line.run(before * MEGABIT, 30)
    line.run(megabits * MEGABIT, 60)
    fitting = max(1, min(MOST_AT_ONCE, int(TARGET_SECONDS * megabits * MEGABIT / FULL_PIECE_BYTES)))
    assert fitting // 2 <= line.pace.at_once <= fitting
    assert max(seconds for _, seconds in line.sent[-20:]) < GIVE_UP_SECONDS


@given(
    st.lists(
        st.one_of(st.tuples(st.floats(0, 1e4), st.integers(0, FULL_PIECE_BYTES), st.integers(0, 50)), st.floats(0, 1e4))
    )
)
def test_something_is_sent_whatever_happens(
    events: list[tuple[float, int, int] | float],
) -> None:
    pace = Pace()
    for event in events:
        pace = pace.after_failure(event) if isinstance(event, float) else pace.after_copy(*event)
        assert 1 <= pace.at_once <= MOST_AT_ONCE
        assert 1 <= pace.shards_at_once <= MOST_AT_ONCE // SHARE


def test_small_pieces_and_quick_failures_say_nothing_of_the_line() -> None:
    pace = Pace(6, 0.5)
    assert pace.after_copy(100.0, 1000, 1) == pace
    assert pace.after_failure(1.0) == pace
    assert Pace().after_copy(0.1, 1000, 1).at_once == UNMEASURED_AT_ONCE, "two shards at once are never too many"
