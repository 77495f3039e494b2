"""The routing table over the package's k-buckets."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from layrfs.ids import NodeId
from layrfs.network.addresses import Address
from layrfs.network.routing import FAILURES_UNTIL_GONE, MOST_OF_ONE_NETWORK, MOST_REPLACEMENTS, K, Table

OWN = NodeId(bytes(20))


def random_ids(count: int, seed: int = 1) -> list[NodeId]:
    dice = random.Random(seed)
    return [NodeId(dice.randbytes(20)) for _ in range(count)]


def at(number: int) -> Address:
    return Address(f"10.0.{number // 256}.{number % 256}", 4000)


def full_table(ids: list[NodeId]) -> Table:
    table = Table(OWN)
    for number, node_id in enumerate(ids):
        table.heard_from(node_id, at(number), now=1.0)
    return table


def distance(node_id: bytes, target: bytes) -> int:
    return int.from_bytes(node_id, "big") ^ int.from_bytes(target, "big")


@given(st.integers(0, 1000), st.integers(1, 100), st.binary(min_size=20, max_size=20))
def test_closest_is_exact_over_all_contacts(seed: int, count: int, target: bytes) -> None:
    table = full_table(random_ids(count, seed))
    known = [contact.node_id for contact in table.contacts()]
    found = [contact.node_id for contact in table.closest(target, 7)]
    assert found == sorted(known, key=lambda node_id: distance(node_id, target))[:7]


@given(st.integers(0, 1000))
def test_the_nearest_are_always_kept(seed: int) -> None:
    ids = random_ids(400, seed)
    table = full_table(ids)
    nearest = sorted(ids, key=lambda node_id: distance(node_id, OWN))[:K]
    assert [contact.node_id for contact in table.closest(OWN, K)] == nearest
    assert len(table) < 200


def test_a_small_network_is_known_completely() -> None:
    ids = random_ids(K)
    assert {contact.node_id for contact in full_table(ids).contacts()} == set(ids)


def test_ids_on_the_edge_of_a_bucket_are_found_again() -> None:
    table = full_table([NodeId(b"\x01" + node_id[1:]) for node_id in random_ids(K + 1)])
    for number in (2**159, 2**159 + 1, 2**158, 2**160 - 1):
        edge = NodeId(number.to_bytes(20, "big"))
        assert table.wants(edge, at(1))
        table.heard_from(edge, at(1), 1.0)
        assert table.get(edge) is not None
        assert not table.wants(edge, at(1))


def test_we_are_not_our_own_contact() -> None:
    table = Table(OWN)
    table.heard_from(OWN, at(1), 1.0)
    assert len(table) == 0
    assert not table.wants(OWN, at(1))


def test_two_failures_and_a_contact_is_gone_and_a_replacement_moves_up() -> None:
    near = [NodeId(b"\x01" + node_id[1:]) for node_id in random_ids(K)]
    far = [NodeId(b"\x80" + node_id[1:]) for node_id in random_ids(K + 5)]
    table = full_table([*near, *far])
    assert len(table) == 2 * K
    assert not table.knows_address(at(2 * K + 1))
    victim = table.contacts()[-1]
    assert table.failed(victim.node_id, 2.0) is None
    assert victim.node_id not in {contact.node_id for contact in table.closest(victim.node_id)}
    table.heard_from(victim.node_id, victim.address, 3.0)
    for _ in range(FAILURES_UNTIL_GONE - 1):
        assert table.failed(victim.node_id, 4.0) is None
    assert table.failed(victim.node_id, 4.0) is victim
    assert len(table) == 2 * K
    assert table.get(victim.node_id) is None
    assert not table.knows_address(victim.address)
    assert table.failed(victim.node_id, 5.0) is None


def test_a_full_far_bucket_wants_nobody_else() -> None:
    far = [NodeId(b"\x80" + node_id[1:]) for node_id in random_ids(K + MOST_REPLACEMENTS)]
    newcomer = NodeId(b"\x80" + b"\x01" * 19)
    near = [NodeId(b"\x01" + node_id[1:]) for node_id in random_ids(K)]
    assert full_table(near).wants(newcomer, at(9))
    assert full_table(far).wants(newcomer, at(9)), "where everybody is far, the far are our neighbours"
    table = full_table([*near, *far])
    assert not table.wants(newcomer, at(999))
    assert table.wants(far[0], at(999)), "a contact that moved is asked at its new address"


def test_a_contact_that_moved_has_its_new_address() -> None:
    [node_id] = random_ids(1)
    table = full_table([node_id])
    table.heard_from(node_id, at(77), 2.0)
    contact = table.get(node_id)
    assert contact is not None
    assert contact.address == at(77)
    assert table.knows_address(at(77))
    assert not table.knows_address(at(0))
    assert len(table) == 1


def test_one_public_network_gets_few_places_in_a_bucket() -> None:
    table = Table(OWN)
    for number, node_id in enumerate(random_ids(12)):
        table.heard_from(node_id, Address(f"8.8.8.{number}", 1), 1.0)
    assert len(table) == MOST_OF_ONE_NETWORK
    table.heard_from(random_ids(13)[-1], Address("8.8.9.1", 1), 1.0)
    assert len(table) == MOST_OF_ONE_NETWORK + 1


def test_neglected_buckets_are_those_no_lookup_has_touched() -> None:
    table = full_table(random_ids(200))
    targets = table.neglected(before=10.0)
    assert len(targets) > 2
    for target in targets:
        table.looked_up(target, 20.0)
    assert table.neglected(before=10.0) == []
    assert len(table.neglected(before=30.0)) == len(targets)


def test_doubt_hides_a_contact_until_it_is_heard_from() -> None:
    [node_id] = random_ids(1)
    table = full_table([node_id])
    table.doubt(node_id, 1.0)
    table.doubt(node_id, 1.0)
    assert table.closest(OWN) == []
    assert table.get(node_id) is not None
    table.heard_from(node_id, at(0), 2.0)
    assert len(table.closest(OWN)) == 1
