"""Hosts are judged by what was proven and what was observed, in this order of weight, and every judgement ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from layrfs.policy.patching import piece_state
from layrfs.policy.trust import (
    DAY_SECONDS,
    EXCLUDING_INTEGRITY,
    EXCLUSION_SECONDS,
    GRACE_SECONDS,
    HOUR_SECONDS,
    NEW_HOST,
    SHORTEST_DOUBT_SECONDS,
    SUSPENDING_INTEGRITY,
    SUSPENSION_SECONDS,
    VETTED_AUDITS,
    Outcome,
    Trust,
    after,
    doubt_seconds,
    silent_seconds,
    standing,
)

START = 1.7e9
outcomes = st.sampled_from(get_args(Outcome))
harmless = st.sampled_from(["passed", "offline", "timed out", "refused", "unknown"])
steps = st.floats(0, 40 * DAY_SECONDS) | st.floats(0, 3 * HOUR_SECONDS)


def history(
    events: Iterable[tuple[Outcome, float]], trust: Trust = NEW_HOST, now: float = START
) -> tuple[Trust, float]:
    """Outcomes, each so many seconds after the one before."""
    for outcome, seconds in events:
        now += seconds
        trust = after(trust, outcome, now)
    return trust, now


def every(seconds: float, outcome: Outcome, times: int) -> list[tuple[Outcome, float]]:
    return [(outcome, seconds)] * times


def old_friend() -> tuple[Trust, float]:
    return history(every(HOUR_SECONDS, "passed", 2000))


@given(st.lists(st.tuples(harmless, steps), max_size=60))
def test_without_a_proof_nobody_is_excluded_and_no_piece_doubted_beyond_silence(
    events: Sequence[tuple[Outcome, float]],
) -> None:
    trust, now = history(events)
    assert trust.excluded_at is None
    assert standing(trust, now) != "excluded"
    if not trust.silent:
        assert piece_state(trust, now) == "good"


@given(st.lists(st.tuples(outcomes, steps, st.booleans()), max_size=80))
def test_suspension_comes_before_exclusion(events: Sequence[tuple[Outcome, float, bool]]) -> None:
    trust, now = NEW_HOST, START
    for outcome, seconds, retrieval in events:
        now += seconds
        before = trust
        trust = after(trust, outcome, now, retrieval=retrieval)
        if standing(trust, now) == "excluded" and before.excluded_at is None:
            assert before.suspended_at is not None
            assert outcome not in {"passed", "offline", "unknown"}


@given(st.lists(st.tuples(outcomes, steps), max_size=60))
def test_there_is_always_a_way_back(events: Sequence[tuple[Outcome, float]]) -> None:
    trust, now = history(events)
    trust, now = history([("passed", EXCLUSION_SECONDS), *every(HOUR_SECONDS, "passed", 24 * 30)], trust, now)
    assert standing(trust, now) in {"new", "good"}
    assert piece_state(trust, now) == "good"


@given(st.lists(st.tuples(outcomes, steps), max_size=60))
def test_time_alone_ends_an_exclusion_also_when_the_clock_was_wrong(events: Sequence[tuple[Outcome, float]]) -> None:
    trust, now = history(events)
    assert standing(trust, now + EXCLUSION_SECONDS) != "excluded"
    assert standing(trust, now - 10 * EXCLUSION_SECONDS) != "excluded"


@given(st.lists(st.tuples(outcomes, st.floats(-400 * DAY_SECONDS, 400 * DAY_SECONDS)), max_size=40))
def test_any_clock_gives_shares_between_nothing_and_all(events: Sequence[tuple[Outcome, float]]) -> None:
    trust, now = history(events)
    assert 0 <= trust.integrity <= 1
    assert 0 <= trust.presence <= 1
    assert 0 <= trust.serving <= 1
    assert silent_seconds(trust, now) >= 0
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(trust), type=Trust) == trust


@given(st.lists(st.tuples(harmless, steps), max_size=40), st.integers(0, 40), outcomes)
def test_a_pass_in_place_of_anything_else_never_harms_integrity(
    events: Sequence[tuple[Outcome, float]], place: int, worse: Outcome
) -> None:
    better, _ = history([*events[:place], ("passed", 60), *events[place:]])
    other, _ = history([*events[:place], (worse, 60), *events[place:]])
    assert better.integrity >= other.integrity


def test_one_timeout_changes_little_and_one_lie_suspends() -> None:
    for trust, now in ((NEW_HOST, START), old_friend()):
        late, then = history([("timed out", HOUR_SECONDS)], trust, now)
        assert standing(late, then) == standing(trust, now)
        assert piece_state(late, then) == "good"
        assert trust.presence - late.presence < 0.01
        lied, then = history([("failed", HOUR_SECONDS)], trust, now)
        assert standing(lied, then) == "suspended"
        assert piece_state(lied, then) == "doubtful"


def test_three_lies_exclude_who_is_new_and_who_was_good_for_months() -> None:
    for known in ((NEW_HOST, START), old_friend()):
        told = [history(every(60, "failed", lies), *known) for lies in (1, 2, 3)]
        assert [standing(*each) for each in told] == ["suspended", "suspended", "excluded"]
        assert piece_state(*told[-1]) == "gone"


def test_a_wiped_disk_is_known_after_a_few_audits_and_a_rotten_piece_costs_nothing() -> None:
    trust, now = old_friend()
    seen = []
    for _ in range(28):
        trust, now = history([("missing", 60)], trust, now)
        seen.append(standing(trust, now))
    assert (seen.index("suspended") + 1, seen.index("excluded") + 1) == (9, 27)
    rotten, now = history([*every(60, "passed", 999), ("missing", 60)] * 20)
    assert standing(rotten, now) == "good"
    losing, now = history([*every(60, "passed", 99), ("missing", 60)] * 20)
    assert standing(losing, now) == "suspended"


def test_no_single_outcome_leaps_over_suspension() -> None:
    almost = msgspec.structs.replace(NEW_HOST, broken=1000 / SUSPENDING_INTEGRITY - 1000)
    assert after(almost, "failed", START).integrity > EXCLUDING_INTEGRITY


def test_a_host_that_mends_is_let_go_after_a_week() -> None:
    trust, now = history([("failed", 0)])
    trust, now = history(every(60, "passed", 1000), trust, now)
    assert standing(trust, now) == "suspended", "a thousand audits in a day do not buy it off"
    trust, now = history(every(SUSPENSION_SECONDS, "passed", 1), trust, now)
    assert standing(trust, now) == "good"


def test_one_slip_after_a_suspension_that_is_made_good_does_not_exclude() -> None:
    trust, now = history([("failed", 0), *every(SUSPENSION_SECONDS / 1000, "passed", 1001)])
    made_good, now = history([("missing", 60)], msgspec.structs.replace(trust, suspended_at=START), now)
    assert made_good.integrity > SUSPENDING_INTEGRITY
    assert standing(made_good, now) == "good"
    going_on, now = history([("failed", 0), *every(SUSPENSION_SECONDS / 10, "passed", 10), ("missing", 60)])
    assert standing(going_on, now) == "excluded"


def test_who_proves_everything_and_hands_out_nothing_is_suspended_by_the_eleventh_retrieval() -> None:
    trust, now = NEW_HOST, START
    refusals = 0
    while standing(trust, now) == "new":
        trust, now = history(every(60, "passed", 5), trust, now)
        trust = after(trust, "refused", now, retrieval=True)
        refusals += 1
    assert refusals == 10
    assert standing(trust, now) == "suspended"
    trust = after(trust, "refused", now + SUSPENSION_SECONDS, retrieval=True)
    assert standing(trust, now + SUSPENSION_SECONDS) == "excluded"


def test_a_laptop_that_sleeps_at_night_is_doubted_in_its_first_night_and_never_again() -> None:
    day = [*every(HOUR_SECONDS, "passed", 15), *every(HOUR_SECONDS, "offline", 9)]
    trust, now = history([*day[:-1]])
    assert piece_state(trust, now) == "doubtful"
    for _ in range(30):
        trust, now = history([("offline", HOUR_SECONDS), ("passed", HOUR_SECONDS)], trust, now)
        for event in [*day[1:-1]]:
            trust, now = history([event], trust, now)
            assert piece_state(trust, now) == "good"
    assert standing(trust, now) == "good"
    trust, now = history(every(HOUR_SECONDS, "offline", 8), trust, now)
    assert piece_state(trust, now) == "doubtful", "it oversleeps"


def test_a_weekend_is_forgiven_and_a_longer_silence_is_the_end_of_counting_on_it() -> None:
    trust, now = old_friend()
    trust, now = history(every(HOUR_SECONDS, "offline", 62), trust, now)
    assert piece_state(trust, now) == "doubtful"
    trust, now = history(every(HOUR_SECONDS, "offline", 12), trust, now)
    assert silent_seconds(trust, now) >= GRACE_SECONDS
    assert piece_state(trust, now) == "gone"
    assert standing(trust, now) == "suspended"
    trust, now = history([("passed", HOUR_SECONDS)], trust, now)
    assert piece_state(trust, now) == "good"
    assert doubt_seconds(trust) == GRACE_SECONDS


def test_an_owner_who_was_away_blames_nobody() -> None:
    trust, now = history(every(60, "offline", 2))
    assert silent_seconds(trust, now) == 60
    back = now + 30 * DAY_SECONDS
    assert silent_seconds(trust, back) < 7 * HOUR_SECONDS
    assert piece_state(after(trust, "offline", back), back) != "gone"
    assert silent_seconds(after(trust, "refused", back), back) == 0


def test_a_reboot_is_not_noticed() -> None:
    trust, now = history([*every(60, "passed", 3), ("offline", 60)])
    assert piece_state(trust, now + SHORTEST_DOUBT_SECONDS - 1) == "good"
    assert piece_state(trust, now + SHORTEST_DOUBT_SECONDS) == "doubtful"


def test_who_is_hardly_ever_there_is_suspended_after_a_month_but_its_pieces_are_not_doubted_for_it() -> None:
    day = [*every(HOUR_SECONDS, "passed", 4), *every(HOUR_SECONDS, "offline", 20)]
    trust, now = history(day * 20)
    assert standing(trust, now) != "suspended"
    trust, now = history([*day * 20, ("passed", HOUR_SECONDS)], trust, now)
    assert standing(trust, now) == "suspended"
    assert piece_state(trust, now) == "good"
    trust, now = history(every(HOUR_SECONDS, "passed", 24 * 20), trust, now)
    assert standing(trust, now) == "good"


def test_new_until_vetted() -> None:
    assert standing(NEW_HOST, START) == "new"
    trust, now = history(every(60, "passed", int(VETTED_AUDITS)))
    assert standing(trust, now) == "good"
