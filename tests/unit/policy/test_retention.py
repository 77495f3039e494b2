"""The schedule over random lives: what must stay stays, what was chosen is not exchanged, no clock costs the past."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from layrfs.policy.retention import DAY_MS, HOUR_MS, MONTH_MS, SECOND_MS, Retained, dropped

Life = list[tuple[int, int]]
"""Of each version how long after the one before it was made, in milliseconds, and its blocks that were on no host."""

PAUSES = st.one_of(
    st.integers(1, 20 * SECOND_MS), st.integers(1, 2 * HOUR_MS), st.integers(1, 3 * DAY_MS), st.integers(1, 90 * DAY_MS)
)
LIVES = st.lists(st.tuples(PAUSES, st.sampled_from([0, 0, 1, 5])), min_size=1, max_size=80)
START_MS = 1_700_000_000_000


def lived(life: Life) -> list[Retained]:
    """Every version there ever was."""
    versions, now = [], START_MS
    for number, (pause, unsent) in enumerate(life, 1):
        now += pause
        versions.append(Retained(number, now, unsent, None))
    return versions


def pruned(versions: list[Retained], now_ms: int) -> list[Retained]:
    """What is left."""
    gone = dropped(versions, now_ms)
    return [version for version in versions if version.number not in gone]


def step_by_step(versions: list[Retained]) -> list[list[Retained]]:
    """What is left after each version was made."""
    kept: list[list[Retained]] = [[]]
    for version in versions:
        kept.append(pruned([*kept[-1], version], version.time_ms))
    return kept[1:]


@given(LIVES)
def test_pruning_all_along_keeps_what_pruning_once_keeps(life: Life) -> None:
    versions = lived(life)
    newest = versions[-1]
    assert step_by_step(versions)[-1] == pruned(versions, newest.time_ms)


@given(LIVES)
def test_all_of_the_last_hour_is_there(life: Life) -> None:
    versions = lived(life)
    now = versions[-1].time_ms
    seconds = {version.time_ms // SECOND_MS for version in versions if version.time_ms > now - HOUR_MS}
    assert seconds <= {version.time_ms // SECOND_MS for version in step_by_step(versions)[-1]}


@given(LIVES, st.sampled_from([(HOUR_MS, DAY_MS), (DAY_MS, 31 * DAY_MS), (MONTH_MS, 365 * DAY_MS)]))
def test_no_hour_day_or_month_is_without_the_best_it_had(life: Life, tier: tuple[int, int]) -> None:
    bucket_ms, span_ms = tier
    versions = lived(life)
    now, kept = versions[-1].time_ms, step_by_step(versions)[-1]
    for bucket in {version.time_ms // bucket_ms for version in versions if version.time_ms > now - span_ms}:
        there = [version for version in versions if version.time_ms // bucket_ms == bucket]
        best = max(there, key=lambda version: (-version.unsent, version.number))
        assert best in kept


@given(LIVES)
def test_there_are_never_many(life: Life) -> None:
    versions = lived(life)
    for now, kept in zip(versions, step_by_step(versions), strict=True):
        old = [version for version in kept if version.time_ms < now.time_ms - 2 * HOUR_MS]
        assert len(old) <= 25 + 32 + 13 + 1


@given(LIVES, st.lists(st.integers(-400 * DAY_MS, 400 * DAY_MS), min_size=1, max_size=20))
def test_what_was_pruned_once_loses_nothing_at_the_same_or_an_earlier_time(life: Life, jumps: list[int]) -> None:
    versions = lived(life)
    now = versions[-1].time_ms
    for jump in jumps:
        versions = pruned(versions, now + jump)
        assert versions == pruned(versions, now + jump)
        assert versions == pruned(versions, now + jump - 5 * DAY_MS)


@given(LIVES, st.sampled_from([5 * SECOND_MS, 2 * DAY_MS, 200 * DAY_MS, 500 * DAY_MS, 60 * 365 * DAY_MS]))
def test_a_clock_that_jumps_ahead_leaves_the_newest_and_a_year_of_months(life: Life, jump: int) -> None:
    versions = step_by_step(lived(life))[-1]
    kept = pruned(versions, versions[-1].time_ms + jump)
    assert versions[-1] in kept
    months = sorted({version.time_ms // MONTH_MS for version in versions})[-12:]
    assert set(months) <= {version.time_ms // MONTH_MS for version in kept}


@given(LIVES, st.integers(1, 500 * DAY_MS))
def test_a_clock_that_goes_back_drops_nothing_of_before(life: Life, back: int) -> None:
    before = step_by_step(lived(life))[-1]
    now = before[-1].time_ms - back
    after = [Retained(before[-1].number + step, now + step * 10 * SECOND_MS, 0, None) for step in range(1, 30)]
    kept = before
    for version in after:
        kept = pruned([*kept, version], version.time_ms)
    assert {version.time_ms // HOUR_MS for version in before} <= {version.time_ms // HOUR_MS for version in kept}
    assert {version.time_ms // SECOND_MS for version in after} <= {version.time_ms // SECOND_MS for version in kept}


@given(LIVES, st.sets(st.integers(1, 80)), st.sets(st.integers(1, 80)))
def test_names_and_those_who_look_keep_versions(life: Life, named: set[int], in_use: set[int]) -> None:
    versions = [
        version._replace(name=f"name {version.number}" if version.number in named else None) for version in lived(life)
    ]
    gone = dropped(versions, versions[-1].time_ms + 9 * 365 * DAY_MS, in_use)
    assert not set(gone) & (named | in_use)


def test_ten_seconds_apart_for_a_week() -> None:
    kept: list[Retained] = []
    for number in range(7 * 24 * 360):
        kept.append(Retained(number, START_MS + number * 10 * SECOND_MS, number % 3, None))
        if number % 30 == 0:
            kept = pruned(kept, kept[-1].time_ms)
    kept = pruned(kept, now := kept[-1].time_ms)
    older = [version for version in kept if version.time_ms < now - HOUR_MS - SECOND_MS]
    assert 350 <= len(kept) - len(older) <= 362
    assert 24 + 5 <= len(older) <= 25 + 7
    assert all(version.unsent == 0 for version in older[:-1]), "one whose contents were on hosts is worth more"
    assert all(later.time_ms - earlier.time_ms <= 2 * DAY_MS for earlier, later in pairwise(kept))


def test_nothing_to_drop_of_nothing() -> None:
    assert dropped([], START_MS) == []
