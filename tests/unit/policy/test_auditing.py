"""The schedule finds what it says, comes to every piece, and never costs more than its budget."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from layrfs.ids import PieceId
from layrfs.policy.auditing import (
    DEFAULT_BUDGET,
    LEAVES_PER_DAY,
    MEASURED,
    RETRIEVALS_PER_DAY,
    SWEEP_DAYS,
    VISIT_SECONDS,
    Budget,
    Due,
    Plan,
    detection_probability,
    drawn,
    due,
    leaves_needed,
    load,
    next_visit_seconds,
    plan,
    swept,
)
from layrfs.policy.trust import UNOBSERVED_SECONDS

DAY = 86_400.0
unit_dice = st.floats(0, 1, exclude_max=True)
TIB_MIRRORED = [39_322] * 20
"""1 TiB as 4 MiB shards, three copies, on 20 hosts."""


def test_one_percent_is_found_within_a_day_with_99_percent() -> None:
    assert leaves_needed(0.01, 0.99) == 459
    assert detection_probability(0.01, 459) >= 0.99 > detection_probability(0.01, 458)
    assert LEAVES_PER_DAY >= 459
    assert detection_probability(1.0, 1) == 1.0
    assert detection_probability(0.0, 1000) == 0.0


def test_the_formula_is_what_drawing_finds_whole_pieces_or_leaves() -> None:
    """A host with 500 pieces of different sizes drops 1 % of its leaves, in whole pieces."""
    dice = random.Random(4)
    leaf_counts = [dice.choice([1, 17, 256]) for _ in range(2000)]
    dropped: set[int] = set()
    while sum(leaf_counts[place] for place in dropped) < sum(leaf_counts) / 100:
        dropped.add(dice.randrange(len(leaf_counts)))
    share = sum(leaf_counts[place] for place in dropped) / sum(leaf_counts)
    days = 500
    found = sum(not dropped.isdisjoint(drawn(leaf_counts, [dice.random() for _ in range(100)])) for _ in range(days))
    assert found / days == pytest.approx(detection_probability(share, 100), abs=0.07)


@given(st.lists(st.integers(1, 1000), max_size=50), st.lists(unit_dice, max_size=20))
def test_draws_one_piece_for_each_throw(leaf_counts: list[int], dice: list[float]) -> None:
    places = drawn(leaf_counts, dice)
    assert len(places) == (len(dice) if leaf_counts else 0)
    assert all(0 <= place < len(leaf_counts) for place in places)


def test_draws_by_leaves() -> None:
    assert drawn([1, 0, 3], [0.0, 0.24, 0.25, 0.99]) == [0, 0, 2, 2]


@given(st.lists(st.integers(0, 200_000), max_size=300), st.floats(10, 1e6), st.floats(1e-6, 1))
@example([0, 0, 2528], 600.0, 1.0)  # rounded up to more than all
def test_no_plan_costs_more_than_its_budget(pieces: list[int], bytes_per_second: float, cpu_share: float) -> None:
    budget = Budget(bytes_per_second, cpu_share)
    made = plan(pieces, budget=budget)
    assert load(made, pieces).share_of(budget) <= 1 + 1e-9
    assert made.leaves_per_day <= LEAVES_PER_DAY
    assert made.sweep_days >= SWEEP_DAYS
    if load(Plan(), pieces).share_of(budget) <= 1:
        assert made == Plan()
    elif made.leaves_per_day < LEAVES_PER_DAY:
        assert load(made, pieces).share_of(budget) >= 0.49


def test_a_tebibyte_on_twenty_hosts_is_audited_in_full_for_less_than_a_percent() -> None:
    assert plan(TIB_MIRRORED) == Plan()
    cost = load(Plan(), TIB_MIRRORED, MEASURED)
    assert cost.bytes_per_second * 8 < 0.01 * 10e6
    assert cost.cpu_share < 0.01
    coded = plan([104_858] * 20)
    assert coded.leaves_per_day == LEAVES_PER_DAY
    assert SWEEP_DAYS < coded.sweep_days < 60
    assert load(coded, [104_858] * 20).share_of(DEFAULT_BUDGET) == pytest.approx(1)


@given(st.integers(1, 10_000), st.floats(1, DAY))
def test_short_visits_come_to_the_same_as_a_long_one(pieces: int, gap: float) -> None:
    throws = [due(Plan(), pieces, gap, step / 1000) for step in range(1000)]
    assert sum(one.samples for one in throws) / 1000 == pytest.approx(gap / DAY * LEAVES_PER_DAY, abs=0.002)
    assert sum(one.swept for one in throws) / 1000 == pytest.approx(gap / DAY * pieces / SWEEP_DAYS, abs=0.002)


def test_a_day_and_a_long_pause() -> None:
    assert due(Plan(), 3000, DAY, 0.0) == Due(LEAVES_PER_DAY, 100, int(RETRIEVALS_PER_DAY))
    assert due(Plan(), 3000, 40 * DAY, 0.0) == due(Plan(), 3000, DAY, 0.0)
    assert due(Plan(), 3000, -5.0, 0.5) == Due(0, 0, 0)
    assert due(Plan(), 0, DAY, 0.9) == Due(0, 0, 0)
    assert due(Plan(sweep_days=0.01), 7, DAY, 0.0).swept == 7


@given(unit_dice)
def test_no_time_goes_unobserved_between_two_visits(jitter: float) -> None:
    assert 0 < next_visit_seconds(jitter) <= 1.5 * VISIT_SECONDS < UNOBSERVED_SECONDS


@given(st.sets(st.integers(0, 255), min_size=1, max_size=40), st.integers(1, 12))
def test_the_sweep_comes_to_every_piece(names: set[int], count: int) -> None:
    pieces = sorted(PieceId(bytes([name])) for name in names)
    cursor, seen = None, []
    while len(seen) < len(pieces):
        seen += swept(pieces, cursor, count)
        cursor = seen[-1]
    assert seen[: len(pieces)] == pieces


def test_the_sweep_misses_none_when_others_come_and_go() -> None:
    first, second, third = (PieceId(bytes([name])) for name in (10, 20, 30))
    assert swept([first, third], second, 1) == [third]
    assert swept([first, second, third], third, 2) == [first, second]
    assert swept([first], first, 5) == [first]
    assert swept([], None, 5) == []
