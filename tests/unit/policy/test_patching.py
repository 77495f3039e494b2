"""Which pieces are made anew: laws for every redundancy, and the cases that people meet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.model.redundancy import Redundancy, is_possible
from layrfs.policy.patching import URGENCIES, PieceState, critical, endangered, patch_below, repair

states = st.sampled_from(["good", "doubtful", "leaving", "gone"])
WORSE: dict[PieceState, list[PieceState]] = {
    "good": ["doubtful", "leaving"],
    "doubtful": ["leaving", "gone"],
    "leaving": ["gone"],
}


@st.composite
def shards(draw: st.DrawFn) -> tuple[Redundancy, dict[int, PieceState]]:
    """Any redundancy up to 20 pieces and any state of it."""
    total = draw(st.integers(1, 20))
    redundancy = Redundancy(draw(st.integers(1, total).filter(lambda needed: is_possible(needed, total))), total)
    return redundancy, draw(st.dictionaries(st.integers(0, total + 1), states, max_size=total + 2))


def within(redundancy: Redundancy, pieces: dict[int, PieceState]) -> dict[int, PieceState]:
    return {position: state for position, state in pieces.items() if position < redundancy.total}


@given(shards())
def test_never_gives_up_a_piece_that_leaves_too_few(shard: tuple[Redundancy, dict[int, PieceState]]) -> None:
    redundancy, pieces = shard
    plan = repair(redundancy, pieces)
    assert not any(pieces.get(position) == "good" for position in plan.positions)
    if plan.urgency != "lost" and any(position in pieces for position in plan.positions):
        sources = [state for state in within(redundancy, pieces).values() if state != "gone"]
        assert len(sources) >= redundancy.needed
    if any(pieces.get(position) == "doubtful" for position in plan.positions):
        assert list(within(redundancy, pieces).values()).count("good") >= redundancy.needed


@given(shards(), st.data())
def test_fewer_good_pieces_are_never_less_urgent(
    shard: tuple[Redundancy, dict[int, PieceState]], data: st.DataObject
) -> None:
    redundancy, pieces = shard
    candidates = [position for position, state in within(redundancy, pieces).items() if state != "gone"]
    if not candidates:
        return
    position = data.draw(st.sampled_from(candidates))
    worse = pieces | {position: data.draw(st.sampled_from(WORSE[pieces[position]]))}
    before, then = repair(redundancy, pieces), repair(redundancy, worse)
    assert URGENCIES.index(then.urgency) >= URGENCIES.index(before.urgency)
    if then.urgency != "lost":
        assert endangered(redundancy, worse) <= endangered(redundancy, pieces)


@given(shards())
def test_a_plan_carried_out_leaves_nothing_that_hurries(shard: tuple[Redundancy, dict[int, PieceState]]) -> None:
    redundancy, pieces = shard
    plan = repair(redundancy, pieces)
    if plan.urgency == "lost" or list(within(redundancy, pieces).values()).count("good") < redundancy.needed:
        return
    after = repair(redundancy, pieces | dict.fromkeys(plan.positions, "good"))
    assert after.urgency == "none"
    assert after.positions == ()


@given(shards())
def test_what_leaves_is_made_anew_as_if_it_were_gone_while_it_can_be_read(
    shard: tuple[Redundancy, dict[int, PieceState]],
) -> None:
    redundancy, pieces = shard
    plan, there = repair(redundancy, pieces), within(redundancy, pieces)
    leaving = {position for position, state in there.items() if state == "leaving"}
    if plan.urgency != "lost":
        assert leaving <= set(plan.positions)
    as_gone = repair(redundancy, pieces | dict.fromkeys(leaving, "gone"))
    if as_gone.urgency != "lost":
        assert (plan.urgency, set(plan.positions)) == (as_gone.urgency, set(as_gone.positions))


@given(shards())
def test_absent_and_gone_are_the_same_in_urgency(shard: tuple[Redundancy, dict[int, PieceState]]) -> None:
    redundancy, pieces = shard
    without = {position: state for position, state in pieces.items() if state != "gone"}
    assert repair(redundancy, pieces).urgency == repair(redundancy, without).urgency
    assert endangered(redundancy, pieces) == endangered(redundancy, without)


@given(shards())
def test_positions_are_asked_for_once_and_exist(shard: tuple[Redundancy, dict[int, PieceState]]) -> None:
    redundancy, pieces = shard
    positions = repair(redundancy, pieces).positions
    assert len(set(positions)) == len(positions)
    assert all(0 <= position < redundancy.total for position in positions)


LETTERS: dict[str, PieceState] = {"g": "good", "d": "doubtful", "l": "leaving", "x": "gone"}
M2, M3, M4, RS, WIDE = Redundancy(1, 2), Redundancy(1, 3), Redundancy(1, 4), Redundancy(4, 8), Redundancy(10, 20)


@pytest.mark.parametrize(
    ("redundancy", "pieces", "urgency", "positions"),
    [
        (Redundancy(1, 1), "g", "none", ()),
        (Redundancy(1, 1), "d", "now", ()),
        (M2, "gg", "none", ()),
        (M2, "gd", "now", (1,)),
        (M2, "gx", "now", (1,)),
        (M2, "g-", "now", (1,)),
        (M2, "dd", "now", ()),
        (M2, "dx", "now", (1,)),
        (M2, "x-", "lost", (1,)),
        (M3, "ggg", "none", ()),
        (M3, "ggd", "none", ()),
        (M3, "gdd", "now", (1,)),
        (M3, "ggx", "soon", (2,)),
        (M3, "gxd", "now", (1,)),
        (M3, "gx-", "now", (1, 2)),
        (Redundancy(1, 1), "l", "now", (0,)),
        (M2, "ll", "now", (0, 1)),
        (M3, "lll", "now", (0, 1, 2)),
        (M3, "lld", "now", (0, 1)),
        (M3, "lxd", "now", (1, 0)),
        (M3, "gdl", "now", (2,)),
        (M3, "ggl", "soon", (2,)),
        (WIDE, "g" * 19 + "l", "later", (19,)),
        (M3, "ldd", "now", (0,)),
        (RS, "llllllll", "now", (0, 1, 2, 3, 4, 5, 6, 7)),
        (RS, "gggldddd", "now", (3,)),
        (RS, "lllxxxxx", "lost", ()),
        (M4, "gggd", "none", ()),
        (M4, "ggdd", "none", ()),
        (M4, "gddd", "now", (1,)),
        (RS, "ggggggdd", "none", ()),
        (RS, "gggggggx", "soon", (7,)),
        (RS, "ggggggxx", "soon", (6, 7)),
        (RS, "gggggddd", "now", (5,)),
        (RS, "ggggdddd", "now", (4, 5)),
        (RS, "gggggxxx", "now", (5, 6, 7)),
        (RS, "ggggxddd", "now", (4, 5)),
        (RS, "gggddddd", "now", ()),
        (RS, "gggxxxxx", "lost", ()),
        (RS, "ggg-xxxx", "lost", (3,)),
        (WIDE, "g" * 19 + "x", "later", (19,)),
        (WIDE, "g" * 18 + "xx", "soon", (18, 19)),
        (WIDE, "g" * 12 + "d" * 8, "now", (12,)),
    ],
)
def test_what_is_done(redundancy: Redundancy, pieces: str, urgency: str, positions: tuple[int, ...]) -> None:
    states = {place: LETTERS[letter] for place, letter in enumerate(pieces) if letter != "-"}
    assert repair(redundancy, states) == (urgency, positions)


def test_thresholds_of_what_people_use() -> None:
    assert [(patch_below(each), critical(each)) for each in (M2, M3, M4, RS, WIDE)] == [
        (2, 1),
        (3, 1),
        (4, 1),
        (8, 5),
        (19, 12),
    ]


def test_most_endangered_first_and_lost_last() -> None:
    shards = {
        "one copy": (M3, {0: "good"}),
        "one copy and a doubtful one": (M3, {0: "good", 1: "doubtful"}),
        "nothing good": (M3, {0: "doubtful"}),
        "two copies": (M3, {0: "good", 1: "good"}),
        "five of 4/8": (RS, dict.fromkeys(range(5), "good")),
        "lost": (RS, dict.fromkeys(range(3), "good")),
    }
    ordered = sorted(shards, key=lambda name: endangered(*shards[name]))
    assert ordered == [
        "nothing good",
        "one copy",
        "one copy and a doubtful one",
        "two copies",
        "five of 4/8",
        "lost",
    ]
