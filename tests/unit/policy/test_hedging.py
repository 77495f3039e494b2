from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layrfs.ids import NodeId
from layrfs.policy.backoff import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, NO_FAILURES
from layrfs.policy.hedging import (
    FULL_PIECE_BYTES,
    LONGEST_HEDGE_SECONDS,
    LONGEST_SILENCE_SECONDS,
    SHORTEST_HEDGE_SECONDS,
    UNKNOWN,
    HostMemory,
    hedge,
    order,
)

HOSTS = [NodeId(bytes([number]) * 20) for number in range(6)]
SECONDS = st.floats(0.001, 100)
NOW = 1000.0


def took(seconds: float) -> HostMemory:
    return UNKNOWN.after_success(seconds, FULL_PIECE_BYTES)


@st.composite
def memories(draw: st.DrawFn) -> HostMemory:
    memory = UNKNOWN
    for kind, seconds in draw(st.lists(st.tuples(st.sampled_from("slf"), SECONDS), max_size=5)):
        match kind:
            case "s":
                memory = memory.after_success(seconds, FULL_PIECE_BYTES)
            case "l":
                memory = memory.after_lateness(seconds, FULL_PIECE_BYTES)
            case _:
                memory = memory.after_failure(NOW - seconds)
    return memory


@given(st.dictionaries(st.sampled_from(HOSTS), memories()), st.integers(0, 100), st.permutations(HOSTS))
def test_every_candidate_is_asked_exactly_once(known: dict[NodeId, HostMemory], turn: int, hosts: list[NodeId]) -> None:
    assert sorted(order(hosts, known, NOW, turn)) == sorted(hosts)


@given(st.dictionaries(st.sampled_from(HOSTS), memories()), st.integers(0, 100))
def test_no_resting_host_comes_before_a_healthy_one(known: dict[NodeId, HostMemory], turn: int) -> None:
    resting = [known.get(host, UNKNOWN).failures.resting(NOW) for host in order(HOSTS, known, NOW, turn)]
    assert resting == sorted(resting)


def test_a_much_slower_host_is_never_first() -> None:
    known = {HOSTS[0]: took(0.1), HOSTS[1]: took(0.15), HOSTS[2]: took(1.0)}
    firsts = {order(HOSTS[:3], known, NOW, turn)[0] for turn in range(10)}
    assert firsts == {HOSTS[0], HOSTS[1]}


def test_a_failed_host_goes_last_and_gets_its_chance_again() -> None:
    known = {HOSTS[0]: took(0.1).after_failure(NOW), HOSTS[1]: took(2.0)}
    assert order(HOSTS[:2], known, NOW + 1, 0) == [HOSTS[1], HOSTS[0]]
    assert order(HOSTS[:2], known, NOW + FIRST_PAUSE_SECONDS, 0) == [HOSTS[0], HOSTS[1]]


def test_one_success_forgives_all_failures() -> None:
    memory = took(0.1).after_failure(NOW).after_failure(NOW + FIRST_PAUSE_SECONDS)
    assert memory.failures.in_a_row == 2
    assert memory.after_success(0.1, FULL_PIECE_BYTES).failures == NO_FAILURES


def test_pauses_double_and_end_somewhere() -> None:
    failures, pauses = NO_FAILURES, []
    for _ in range(12):
        failures = failures.after_failure(failures.last_seconds + failures.pause_seconds())
        pauses.append(failures.pause_seconds())
    assert pauses[:3] == [FIRST_PAUSE_SECONDS, 2 * FIRST_PAUSE_SECONDS, 4 * FIRST_PAUSE_SECONDS]
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


def test_a_burst_of_failures_is_one_outage() -> None:
    once = NO_FAILURES.after_failure(NOW)
    assert once.after_failure(NOW).after_failure(NOW + FIRST_PAUSE_SECONDS / 2) == once


@given(memories(), SECONDS)
def test_being_late_never_makes_a_host_look_quicker(memory: HostMemory, seconds: float) -> None:
    assert memory.after_lateness(seconds, FULL_PIECE_BYTES).expected_seconds >= memory.expected_seconds


@given(memories(), st.integers(0, FULL_PIECE_BYTES))
def test_a_hedge_is_neither_at_once_nor_never(memory: HostMemory, piece_bytes: int) -> None:
    when = hedge(memory, piece_bytes)
    assert SHORTEST_HEDGE_SECONDS <= when.silent_seconds <= LONGEST_SILENCE_SECONDS
    assert when.silent_seconds <= when.in_all_seconds <= LONGEST_HEDGE_SECONDS


@given(memories(), SECONDS, SECONDS)
def test_nobody_is_waited_for_beyond_either_time(memory: HostMemory, asked: float, silent: float) -> None:
    when = hedge(memory, FULL_PIECE_BYTES)
    late = when.late_in(asked, silent)
    assert (late <= 0) == (asked >= when.in_all_seconds or silent >= when.silent_seconds)


def test_over_a_slow_line_a_host_that_sends_is_given_the_time_that_it_took_before() -> None:
    memory = UNKNOWN
    for seconds in (40.0, 60.0, 50.0, 70.0):
        memory = memory.after_success(seconds, FULL_PIECE_BYTES)
    when = hedge(memory, FULL_PIECE_BYTES)
    assert when.late_in(60.0, 0.5) > 0
    assert when.late_in(10.0, LONGEST_SILENCE_SECONDS) <= 0


def test_a_steady_host_is_waited_for_about_as_long_as_it_takes() -> None:
    memory = UNKNOWN
    for _ in range(50):
        memory = memory.after_success(1.0, FULL_PIECE_BYTES)
    assert 1.0 <= hedge(memory, FULL_PIECE_BYTES).in_all_seconds < 1.05


def test_small_pieces_are_measured_by_the_round_trip() -> None:
    assert UNKNOWN.after_success(0.01, 10) == UNKNOWN.after_success(0.01, 1000)
