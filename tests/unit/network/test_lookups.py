"""The decision of a lookup, over networks drawn by hypothesis; then its timing on the virtual clock."""

from __future__ import annotations

import random
from collections import Counter

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from layrfs.ids import NodeId
from layrfs.network.addresses import Address
from layrfs.network.lookups import ALPHA, HARD_SECONDS, MOST_ASKED, MOST_PER_ADDRESS, Peer, Search, look_up

WIDTH = 8
TARGET = bytes(20)


def peers(count: int, seed: int = 1) -> list[Peer]:
    dice = random.Random(seed)
    return [
        Peer(NodeId(dice.randbytes(20)), Address(f"10.0.{number // 256}.{number % 256}", 1)) for number in range(count)
    ]


def nearest(of: list[Peer], target: bytes, count: int) -> list[Peer]:
    goal = int.from_bytes(target, "big")
    return sorted(of, key=lambda peer: int.from_bytes(peer.node_id, "big") ^ goal)[:count]


def drive(search: Search, everyone: list[Peer], dead: set[NodeId]) -> Counter[Peer]:
    """Carry a search out one request at a time, everybody knowing the 2 x WIDTH living nearest to the target."""
    asked: Counter[Peer] = Counter()
    living = [peer for peer in everyone if peer.node_id not in dead]
    while (peer := search.next()) is not None:
        asked[peer] += 1
        if peer.node_id in dead:
            search.failed(peer)
        else:
            search.answered(peer, nearest(living, search.target, 2 * WIDTH))
    assert search.finished
    return asked


@given(st.integers(0, 10_000), st.integers(1, 80), st.binary(min_size=20, max_size=20), st.data())
def test_the_nearest_living_are_found_and_nobody_is_asked_twice(
    seed: int, count: int, target: bytes, data: st.DataObject
) -> None:
    everyone = peers(count, seed)
    dead = set(data.draw(st.lists(st.sampled_from([peer.node_id for peer in everyone]), max_size=20)))
    living = [peer for peer in everyone if peer.node_id not in dead]
    start = data.draw(st.lists(st.sampled_from(everyone), min_size=1, max_size=5))
    search = Search(target, start, width=WIDTH)
    asked = drive(search, everyone, dead)
    assert max(asked.values(), default=1) == 1
    if any(peer.node_id not in dead for peer in start):
        assert search.result() == [peer.node_id for peer in nearest(living, target, WIDTH)]
    else:
        assert search.result() == []


def test_a_search_ends_when_the_one_sought_has_answered() -> None:
    everyone = peers(50)
    sought = nearest(everyone, TARGET, 1)[0]
    search = Search(TARGET, everyone[:3], width=WIDTH, until=sought.node_id)
    asked = drive(search, everyone, set())
    assert search.result()[0] == sought.node_id
    assert len(asked) <= 4


def test_reach_is_known_only_when_the_width_was_filled() -> None:
    everyone = peers(WIDTH - 1)
    small = Search(TARGET, everyone, width=WIDTH)
    drive(small, everyone, set())
    assert small.reach() is None
    everyone = peers(50)
    large = Search(TARGET, everyone[:1], width=WIDTH)
    drive(large, everyone, set())
    assert large.reach() == int.from_bytes(nearest(everyone, TARGET, WIDTH)[-1].node_id, "big")


def test_the_dead_count_for_reach() -> None:
    """Others would have named more nodes had the dead not filled their answers."""
    everyone = peers(WIDTH)
    search = Search(TARGET, everyone, width=WIDTH)
    drive(search, everyone, {peer.node_id for peer in everyone[:4]})
    assert len(search.result()) == WIDTH - 4
    assert search.reach() is not None


def test_endless_new_names_end_at_the_limit() -> None:
    dice = random.Random(1)
    search = Search(TARGET, peers(1), width=WIDTH)
    asked = 0
    while (peer := search.next()) is not None:
        asked += 1
        inventions = [Peer(NodeId(bytes(10) + dice.randbytes(10)), Address(f"10.{asked}.0.{n}", 1)) for n in range(30)]
        if asked == 1:
            search.answered(peer, inventions)
        else:
            search.offer(inventions)
            search.failed(peer)
    assert asked == MOST_ASKED
    assert search.finished


def test_one_address_is_not_asked_for_everybody() -> None:
    search = Search(TARGET, [Peer(peer.node_id, Address("10.0.0.1", 1)) for peer in peers(30)], width=WIDTH)
    asked = 0
    while (peer := search.next()) is not None:
        asked += 1
        search.failed(peer)
    assert asked == MOST_PER_ADDRESS


async def test_five_dead_nodes_cost_the_hard_time_once(autojump_clock: trio.testing.MockClock) -> None:
    everyone = peers(40)
    slow = {peer.node_id for peer in nearest(everyone, TARGET, 10)[::2]}
    at_once = 0
    most_at_once = 0

    async def ask(peer: Peer, target: bytes) -> list[Peer] | None:
        nonlocal at_once, most_at_once
        at_once += 1
        most_at_once = max(most_at_once, at_once)
        await trio.sleep(HARD_SECONDS if peer.node_id in slow else 0.02)
        at_once -= 1
        return None if peer.node_id in slow else nearest(everyone, target, 16)

    began = trio.current_time()
    found = await look_up(Search(TARGET, everyone[:5], width=WIDTH), ask)
    living = [peer for peer in everyone if peer.node_id not in slow]
    assert found == [peer.node_id for peer in nearest(living, TARGET, WIDTH)]
    assert HARD_SECONDS <= trio.current_time() - began < 1.5 * HARD_SECONDS
    assert most_at_once > ALPHA


async def test_quick_answers_never_have_more_than_alpha_in_flight(autojump_clock: trio.testing.MockClock) -> None:
    everyone = peers(60)
    at_once = 0

    async def ask(_peer: Peer, target: bytes) -> list[Peer]:
        nonlocal at_once
        at_once += 1
        assert at_once <= ALPHA
        await trio.sleep(0.1)
        at_once -= 1
        return nearest(everyone, target, 16)

    found = await look_up(Search(TARGET, everyone[:1], width=WIDTH), ask)
    assert found == [peer.node_id for peer in nearest(everyone, TARGET, WIDTH)]


async def test_nobody_to_ask(autojump_clock: trio.testing.MockClock) -> None:
    async def ask(_peer: Peer, _target: bytes) -> list[Peer]:
        raise AssertionError("there is nobody")

    assert await look_up(Search(TARGET, [], width=WIDTH), ask) == []
