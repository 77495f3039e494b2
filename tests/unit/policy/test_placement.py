"""Placement rules, one by one, and the promise that no piece is left over that could have been placed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from layrfs.ids import NodeId
from layrfs.model.records import HostAddress, NodeRecord
from layrfs.policy.placement import PRICE_STEPS, Limits, Placement, Wanted, choose_hosts, network_of, price_step


def record(
    number: int, host: str = "127.0.0.1", *, free_bytes: int = 1 << 30, price: int = 0, tcp_port: int = 4000
) -> NodeRecord:
    """An unsigned record: placement sees only verified ones and asks nothing of the signature."""
    return NodeRecord(
        public_key=number.to_bytes(32, "big"),
        host=host,
        udp_port=4000,
        tcp_port=tcp_port,
        free_bytes=free_bytes,
        price=price,
        leaving=False,
        version=1,
        expires=1 << 40,
        signature=bytes(64),
    )


def wanted(candidates: Sequence[NodeRecord], pieces: int = 3, piece_bytes: int = 1000) -> list[Wanted]:
    return [Wanted(position, piece_bytes, candidates) for position in range(pieces)]


def hosts_of(placement: Placement) -> list[NodeId]:
    return [chosen.node_id for chosen in placement.chosen.values()]


def test_nearest_first_and_never_twice() -> None:
    near, middle, far = record(1), record(2), record(3)
    placement = choose_hosts(wanted([near, middle, far]))
    assert placement.chosen == {0: near, 1: middle, 2: far}
    assert placement.unplaced == ()


def test_too_few_hosts_place_what_can_be_placed() -> None:
    placement = choose_hosts(wanted([record(1), record(2)]))
    assert len(placement.chosen) == 2
    assert placement.unplaced == (2,)
    assert choose_hosts(wanted([])).unplaced == (0, 1, 2)


def test_full_dear_excluded_leaving_and_owner_only_nodes_are_passed_over() -> None:
    full, dear, bad, leaving, owner, good = (
        record(1, free_bytes=1099),
        record(2, price=11),
        record(3),
        msgspec.structs.replace(record(6), leaving=True),
        record(4, tcp_port=0),
        record(5, free_bytes=1100, price=10),
    )
    limits = Limits(highest_price=10, excluded={bad.node_id}, spare_bytes=100)
    placement = choose_hosts(wanted([full, dear, bad, leaving, owner, good], pieces=1), limits=limits)
    assert placement.chosen == {0: good}


def test_hosts_that_hold_a_piece_already_are_passed_over() -> None:
    first, second = record(1), record(2)
    placement = choose_hosts(wanted([first, second], pieces=1), already=[HostAddress(first.node_id, first.host, 4000)])
    assert placement.chosen == {0: second}


def test_one_network_gets_one_piece_only_when_it_is_a_public_one() -> None:
    neighbours = [record(1, "8.8.8.1"), record(2, "8.8.8.2"), record(3, "8.8.9.1")]
    assert hosts_of(choose_hosts(wanted(neighbours))) == [neighbours[0].node_id, neighbours[2].node_id]
    sharing = [record(1, "2a00:1::1"), record(2, "2a00:1::2"), record(3, "2a00:2::1")]
    assert hosts_of(choose_hosts(wanted(sharing))) == [sharing[0].node_id, sharing[2].node_id]
    at_home = [record(1, "192.168.1.1"), record(2, "192.168.1.2"), record(3, "192.168.1.3")]
    assert len(choose_hosts(wanted(at_home)).chosen) == 3


def test_the_network_of_a_piece_already_placed_counts() -> None:
    placement = choose_hosts(wanted([record(1, "8.8.8.1")]), already=[HostAddress(NodeId(bytes(20)), "8.8.8.200", 1)])
    assert placement.unplaced == (0, 1, 2)


def test_an_earlier_piece_moves_when_a_later_one_has_no_other_choice() -> None:
    both, only = record(1), record(2)
    pieces = [Wanted(0, 1, [both, only]), Wanted(1, 1, [both])]
    assert choose_hosts(pieces).chosen == {0: only, 1: both}


def test_network_of() -> None:
    assert network_of("8.8.8.8") == "8.8.8.0/24"
    assert network_of("2a00:1450:4001:81b::200e") == "2a00:1450:4001:81b::/64"
    assert network_of("10.1.2.3") is None
    assert network_of("::1") is None


HOSTS = [record(number, f"8.8.{number // 2}.{number}") for number in range(8)]


@given(st.lists(st.lists(st.sampled_from(HOSTS), unique_by=lambda host: host.public_key, max_size=5), max_size=4))
def test_as_many_as_possible_and_within_the_rules(candidates: list[list[NodeRecord]]) -> None:
    placement = choose_hosts([Wanted(index, 1, options) for index, options in enumerate(candidates)])
    assert len({network_of(chosen.host) for chosen in placement.chosen.values()}) == len(placement.chosen)
    assert all(chosen in candidates[position] for position, chosen in placement.chosen.items())
    assert sorted([*placement.chosen, *placement.unplaced]) == list(range(len(candidates)))
    assert len(placement.chosen) == most_possible(candidates)


def most_possible(candidates: list[list[NodeRecord]]) -> int:
    """By trying everything."""
    best = 0
    for combination in itertools.product(*[[None, *options] for options in candidates]):
        networks = [network_of(host.host) for host in combination if host is not None]
        if len(set(networks)) == len(networks):
            best = max(best, len(networks))
    return best


PRICED = [record(number, price=price) for number, price in enumerate([0, 1, 7, 8, 9, 40, 64, 65])]


@given(st.permutations(PRICED), st.integers(1, 5), st.integers(0, 80))
def test_nobody_is_passed_over_for_somebody_dearer(candidates: list[NodeRecord], pieces: int, highest: int) -> None:
    placement = choose_hosts(wanted(candidates, pieces), limits=Limits(highest_price=highest))
    chosen = list(placement.chosen.values())
    passed = [each for each in candidates if each.price <= highest and each not in chosen]
    assert all(each.price <= highest for each in chosen)
    assert len(chosen) == min(pieces, sum(each.price <= highest for each in candidates))
    for one in chosen:
        assert all(price_step(one.price, highest) <= price_step(other.price, highest) for other in passed)


@given(st.permutations([record(number, price=57 + number) for number in range(8)]))
def test_among_prices_that_are_alike_the_nearest_counts(candidates: list[NodeRecord]) -> None:
    limits = Limits(highest_price=64)
    assert hosts_of(choose_hosts(wanted(candidates), limits=limits)) == [each.node_id for each in candidates[:3]]


@given(st.permutations(PRICED))
def test_without_a_limit_prices_do_not_count(candidates: list[NodeRecord]) -> None:
    assert hosts_of(choose_hosts(wanted(candidates))) == [each.node_id for each in candidates[:3]]


def test_steps_of_prices() -> None:
    assert [price_step(price, 16) for price in (0, 1, 2, 3, 15, 16)] == [0, 1, 1, 2, PRICE_STEPS, PRICE_STEPS]
