"""The simulator of tests/bench/durability against the closed formula, and against what it stands for."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from layrfs.model.redundancy import Redundancy
from layrfs.policy import trust
from layrfs.policy.patching import piece_state
from layrfs.policy.trust import NEW_HOST, Trust, after
from tests.bench.durability.formula import losses_per_shard_year
from tests.bench.durability.hosts import present_until
from tests.bench.durability.plot import Point, svg
from tests.bench.durability.rules import rules
from tests.bench.durability.simulation import Simulation
from tests.bench.durability.tables import Size, budget, described, played
from tests.bench.durability.world import DAY, HOME, HOUR, IMMORTAL_SESSION, SERVER, YEAR, Kind, Line, World

PATCH_SECONDS = 6 * DAY


def independent(hosts: int, kind: Kind = IMMORTAL_SESSION) -> World:
    """On until they die, each for itself."""
    return World(hosts, (kind,), hosts_per_subnet=1, outages_per_subnet_year=0, wiped=0, rot_per_piece_year=0)


@pytest.mark.parametrize(("redundancy", "shards"), [(Redundancy(1, 3), 300), (Redundancy(2, 4), 150)])
def test_as_many_are_lost_as_the_formula_says(redundancy: Redundancy, shards: int) -> None:
    """Hosts live for 30 days and a patch takes six: hundreds of losses, so that a wrong rate shows."""
    with rules(GRACE_SECONDS=1.0, SHORTEST_DOUBT_SECONDS=1.0):
        line = Line(exponential_seconds=PATCH_SECONDS)
        result = Simulation(independent(400), redundancy, shards=shards, line=line, visit_seconds=0).run(1)
        expected = losses_per_shard_year(
            redundancy, IMMORTAL_SESSION.life_seconds, {"soon": PATCH_SECONDS, "now": PATCH_SECONDS}
        )
    assert result.losses > 200
    assert result.losses / result.shard_years == pytest.approx(expected, rel=0.25)


def test_the_formula_for_two_copies_by_hand() -> None:
    """T = (1/2λ + 1/(λ+μ)) (λ+μ)/λ with λ = 1/30 and μ = 1/6 a day: 120 days; without patching H(n) lives."""
    assert losses_per_shard_year(Redundancy(1, 2), 30 * DAY, {"now": 6 * DAY}) == pytest.approx(YEAR / (120 * DAY))
    assert losses_per_shard_year(Redundancy(2, 4), YEAR, {}) == pytest.approx(1 / (1 / 4 + 1 / 3 + 1 / 2))
    assert losses_per_shard_year(Redundancy(1, 1), YEAR, {"now": DAY}) == pytest.approx(1)


def test_hosts_that_stay_cost_nothing() -> None:
    result = played(independent(50, Kind("rock", float("inf"), HOUR, 1e15, 1)), Redundancy(4, 8), Size(20, 1))
    assert (result.losses, result.patches, result.readable) == (0, 0, result.asked)
    assert described(result)[1:3] == ("0.0", "0.0")


def test_the_same_seed_plays_the_same_and_patching_keeps_what_hosts_lose() -> None:
    world = World(60, (HOME, SERVER))
    first, again = (played(world, Redundancy(1, 3), Size(20, 0.5, seed=7)) for _ in range(2))
    assert first == again
    assert first.made_anew > 20
    with rules(GRACE_SECONDS=1e12, SHORTEST_DOUBT_SECONDS=1e12):
        nobody_looks = played(world, Redundancy(1, 3), Size(20, 3, seed=7))
    assert nobody_looks.losses > 5 * played(world, Redundancy(1, 3), Size(20, 3, seed=7)).losses


def test_shared_networks_count_only_where_placement_cannot_see_them() -> None:
    """The line is quick here: what counts is what goes down together."""
    seen = World(200, (SERVER,), hosts_per_subnet=50, outages_per_subnet_year=10, final_outages=1.0)
    lost = [
        Simulation(world, Redundancy(1, 3), shards=100, volume_bytes=1e9).run(1).losses
        for world in (seen, replace(seen, public=False))
    ]
    assert lost[0] < 5
    assert lost[1] > 20


def test_a_step_over_hours_that_were_passed_is_the_same_as_passing_each() -> None:
    slow = after(NEW_HOST, "passed", 0.0)
    quick = slow
    for hour in range(1, 1001):
        slow = after(slow, "passed", hour * HOUR)
    quick = present_until(quick, 1000 * HOUR)
    for name in ("present_seconds", "absent_seconds", "passed", "asked_at", "habit_seconds"):
        assert getattr(quick, name) == pytest.approx(getattr(slow, name))


def test_other_rules_end_with_their_block() -> None:
    silent = Trust(silent=True, asked_at=0.0, silence_seconds=10 * HOUR)
    with rules(GRACE_SECONDS=HOUR):
        assert piece_state(silent, 0.0) == "gone"
    assert piece_state(silent, 0.0) == "doubtful"
    with pytest.raises(NameError), rules(NO_SUCH_NUMBER=1):
        pass
    assert trust.GRACE_SECONDS >= 24 * HOUR


def test_the_table_of_what_auditing_costs() -> None:
    (table,) = budget()
    tebibyte = next(row for row in table.rows if row[:2] == ("1 TiB mirror:3", "20"))
    assert float(tebibyte[-2].rstrip("%")) < 1
    assert float(tebibyte[-1].rstrip("%")) < 1


def test_the_plot_is_a_picture() -> None:
    points = [
        Point("formula: a & b", 2.0, 1e-3, "mirror:2"),
        Point("c", 3.0, 0.5, "<rs>"),
    ]
    picture = svg(points, "title", "across", "up")
    assert picture.startswith("<svg ")
    assert picture.count("<circle") == 2
    assert picture.count('fill="none"') == 1
    assert {"formula: a &amp; b", "&lt;rs&gt;", "1e-3"} <= set(re.findall(">([^<]+)</text>", picture))
