"""What a run of the collector does, from facts alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layrfs.policy.collecting import LEAST_FREED_BYTES, REPACKED_BYTES, Plan, Retained, ShardUse, Waiting, keeper, plan

MIB = 1 << 20
RETAINED = st.lists(st.builds(Retained, st.integers(0, 9), st.integers(0, 9), st.booleans()), max_size=4)
SHARDS = st.lists(
    st.builds(
        ShardUse,
        st.integers(1, 9),
        st.integers(0, 3 * MIB),
        st.just(MIB),
        st.sampled_from([0, 0, 1, MIB // 8, MIB]),
        st.one_of(st.none(), st.integers(1, 9)),
    ),
    unique_by=lambda shard: shard.number,
)


def dead(number: int, since: int | None) -> ShardUse:
    return ShardUse(number, 30, 10, 0, since)


def test_nothing_is_done_about_nothing() -> None:
    assert plan([], [], 5, 6) == Plan()


def test_marked_first_then_published_then_swept() -> None:
    assert plan([dead(1, None)], [], 5, 6).mark == (1,)
    assert plan([dead(1, 6)], [], 5, 6).sweep == (), "hosts have no version without it"
    assert plan([dead(1, 6)], [], 6, 6).sweep == (1,)


def test_what_a_version_keeps_waits_for_the_newest_of_them() -> None:
    versions = [
        Retained(3, 9, by_hand=False),
        Retained(4, 9, by_hand=True),
        Retained(7, 9, by_hand=False),
        Retained(5, 1, by_hand=False),
    ]
    found = plan([dead(2, 6), dead(3, None), dead(11, 6)], versions, 7, 8)
    assert found.waiting == (Waiting(4, 1, 30), Waiting(7, 1, 30))
    assert (found.mark, found.sweep, found.dead_shards, found.dead_bytes) == ((3,), (11,), 1, 30)


def test_nearly_empty_shards_are_packed_anew_the_emptiest_first() -> None:
    shards = [ShardUse(1, 9 * MIB, 3 * MIB, 1000, None), ShardUse(2, 9 * MIB, 3 * MIB, 10, None)]
    shards += [ShardUse(3, 9 * MIB, 3 * MIB, MIB, None), ShardUse(4, LEAST_FREED_BYTES - 1, 100_000, 1, None)]
    assert plan(shards, [], 5, 6).repack == (2, 1)
    assert plan(shards, [Retained(1, 1, by_hand=True)], 5, 6).repack == (2,), (
        "a snapshot made by hand keeps the old one"
    )
    assert plan(shards, [Retained(1, 1, by_hand=False)], 5, 6).repack == (2, 1), "this one goes in time"


def test_one_run_packs_only_so_much() -> None:
    shards = [ShardUse(number, 12 * MIB, 4 * MIB, 1, None) for number in range(1, 100)]
    assert len(plan(shards, [], 5, 6).repack) == REPACKED_BYTES // (4 * MIB)


@given(shards=SHARDS, retained=RETAINED, newest=st.integers(0, 9), pending=st.booleans())
def test_nothing_that_a_version_may_need_is_swept(
    shards: list[ShardUse], retained: list[Retained], newest: int, pending: bool
) -> None:
    found = plan(shards, retained, newest, newest + pending)
    for shard in shards:
        if shard.number in found.sweep:
            assert shard.live_bytes == 0
            assert shard.dead_since is not None
            assert shard.dead_since <= newest
            assert keeper(shard.number, shard.dead_since, retained) is None
            needed = [one for one in retained if one.number < shard.dead_since and one.last_shard >= shard.number]
            assert needed == []
        assert (shard.number in found.mark) == (shard.live_bytes == 0 and shard.dead_since is None)
