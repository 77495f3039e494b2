"""When a mount follows, and by which way it gets from one version to another."""

from hypothesis import given
from hypothesis import strategies as st

from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.history import Kind, Segment
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.policy.following import (
    LONGEST_LOOK_SECONDS,
    LOOK_SECONDS,
    LocalState,
    Rebuild,
    Replay,
    pause_seconds,
    reason_not_to_follow,
    way,
)


def segment(number: int, kind: Kind = "changes", *, salt: int = 0, host: int = 1) -> Segment:
    piece = PieceRecord(position=0, generation=0, id=PieceId(bytes(32)), host=NodeId(bytes([host]) * 20))
    shard = ShardRecord(
        id=ShardId(bytes([number, salt]) * 16),
        salt=Salt(bytes(16)),
        plain_bytes=9,
        sealed_bytes=25,
        redundancy=Redundancy(1, 5),
        pieces=(piece,),
    )
    return Segment(kind, number, 9, (shard,))


def history(found: list[tuple[int, bool, int]]) -> list[Segment]:
    """A checkpoint can only be the first."""
    kinds: list[Kind] = ["checkpoint" if first and not at else "changes" for at, (_, first, _) in enumerate(found)]
    return [segment(number, kind, salt=salt) for (number, _, salt), kind in zip(found, kinds, strict=True)]


numbers = st.tuples(st.integers(1, 9), st.booleans(), st.integers(0, 1))
lists = st.lists(numbers, max_size=6, unique_by=lambda one: one[0]).map(history)


@given(lists, lists, st.sets(st.integers(1, 9)))
def test_what_is_undone_and_done_leads_from_one_list_to_the_other(
    old: list[Segment], new: list[Segment], kept: set[int]
) -> None:
    found = way(old, new, kept)
    if isinstance(found, Replay):
        stays = old[: len(old) - len(found.undone)]
        assert old[len(stays) :] == list(found.undone)
        assert [*stays, *found.done] == new
        assert {one.number for one in found.undone} <= kept
        assert all(one.kind == "changes" for one in found.done)
        if found.undone and found.done:
            assert old[len(stays)] != found.done[0], "what both have is neither undone nor done"
    else:
        common = next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        beyond = [*old[common:], *new[common:]]
        assert any(one.kind == "checkpoint" for one in beyond) or not {one.number for one in old[common:]} <= kept


def test_pieces_made_anew_are_no_other_segment() -> None:
    assert way([segment(1)], [segment(1, host=2), segment(2)], set()) == Replay((), (segment(2),))
    assert way([segment(1)], [segment(1, salt=1)], {1}) == Replay((segment(1),), (segment(1, salt=1),))
    assert way([segment(1)], [segment(1, salt=1)], set()) == Rebuild()


@given(st.builds(LocalState))
def test_only_a_pure_copy_follows(state: LocalState) -> None:
    nothing = LocalState(pending_changes=False, dirty_blocks=False, unannounced=False, crashed=False)
    assert (reason_not_to_follow(state) is None) == (state == nothing)


@given(st.integers(0, 1000))
def test_pauses_grow_and_are_bounded(failures: int) -> None:
    assert LOOK_SECONDS <= pause_seconds(failures) <= pause_seconds(failures + 1) <= LONGEST_LOOK_SECONDS
