"""Who becomes a contact, who stays one, whose word counts; the shelf of records; our address by vote."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import BadMessage
from layrfs.model.records import NodeRecord
from layrfs.network.addresses import Address, Scope, may_speak_of, scope
from layrfs.network.lookups import Peer
from layrfs.network.observed import MOST_VOTERS, ObservedAddress
from layrfs.network.peers import HEARSAY_PAUSE_SECONDS, MOST_BANNED, MOST_LOST, PING_SECONDS, Peers
from layrfs.network.routing import K
from layrfs.network.shelf import RecordShelf
from layrfs.wire.datagrams import pack_ip, pack_triple

NOW = 1_800_000_000.0
OWN = NodeIdentity.from_private(random.Random(0).randbytes(32))


def identity(number: int) -> NodeIdentity:
    return NodeIdentity.from_private(random.Random(number).randbytes(32))


def record(
    number: int, host: str = "10.0.0.1", *, tcp_port: int = 1, seconds: int = 3600, free_bytes: int = 1
) -> bytes:
    return NodeRecord.sign(
        identity(number), host=host, udp_port=1, tcp_port=tcp_port, free_bytes=free_bytes, expires=int(NOW) + seconds
    ).to_bytes()


def peer(number: int, host: str = "10.0.0.1") -> Peer:
    return Peer(identity(number).node_id, Address(host, 1))


@pytest.fixture
def known() -> Peers:
    return Peers(OWN.node_id, lambda: NOW, Counter())


def test_an_answer_with_a_valid_record_makes_a_contact(known: Peers) -> None:
    assert known.answered_untrusted(peer(1), record(1), clock=0.0)
    assert known.is_alive(peer(1).node_id)
    assert [kept.node_id for kept in known.records()] == [peer(1).node_id]


@pytest.mark.parametrize(
    ("data", "host"),
    [
        (b"", "10.0.0.1"),
        (b"\x00" * 150, "10.0.0.1"),
        (record(2), "10.0.0.1"),
        (record(1, tcp_port=0), "10.0.0.1"),
        (record(1, seconds=-1), "10.0.0.1"),
        (record(1, host="127.0.0.1"), "10.0.0.1"),
        (record(1, host="10.0.0.1"), "8.8.8.8"),
        (record(1)[:-1] + b"x", "10.0.0.1"),
    ],
    ids=["empty", "noise", "another's", "no host", "expired", "our loopback", "our LAN", "forged"],
)
def test_an_answer_without_a_believable_record_does_not(known: Peers, data: bytes, host: str) -> None:
    assert not known.answered_untrusted(peer(1, host), data, clock=0.0)
    assert len(known.table) == 0
    assert known.shelf.get(peer(1).node_id) is None


def test_a_contact_is_pinged_when_silent_and_lost_after_two_failures(known: Peers) -> None:
    known.answered_untrusted(peer(1), record(1), clock=0.0)
    assert known.due(PING_SECONDS - 1) == []
    assert known.due(PING_SECONDS) == [peer(1)]
    known.failed(peer(1), PING_SECONDS)
    assert known.is_doubtful(peer(1).node_id)
    assert known.records() == []
    assert known.due(PING_SECONDS + 0.5) == []
    assert known.due(PING_SECONDS + 1) == [peer(1)]
    known.failed(peer(1), PING_SECONDS + 1)
    assert known.table.get(peer(1).node_id) is None
    assert known.is_doubtful(peer(1).node_id)


@pytest.mark.parametrize(("others", "first", "longest"), [(K, [2, 6, 14, 30], 300), (K - 1, [2, 6, 14, 24], 10)])
def test_a_lost_contact_is_tried_again_with_growing_pauses(
    known: Peers, others: int, first: list[int], longest: int
) -> None:
    for number in range(2, others + 2):
        known.answered_untrusted(peer(number, f"10.0.{number}.1"), record(number), clock=0.0)
    known.answered_untrusted(peer(1), record(1), clock=0.0)
    known.failed(peer(1), 0.0)
    known.failed(peer(1), 0.0)
    turns = [second for second in range(2000) if peer(1) in known.due(float(second))]
    assert turns[:4] == first
    assert max(later - earlier for earlier, later in itertools.pairwise(turns)) == longest


def test_when_one_lost_contact_is_back_the_others_are_tried_at_once(known: Peers) -> None:
    for number in (1, 2):
        known.answered_untrusted(peer(number, f"10.0.0.{number}"), record(number), clock=0.0)
        known.failed(peer(number, f"10.0.0.{number}"), 0.0)
        known.failed(peer(number, f"10.0.0.{number}"), 0.0)
    for second in range(500):
        known.due(float(second))
    assert known.due(500.0) == []
    known.answered_untrusted(peer(1, "10.0.0.1"), record(1), clock=500.0)
    assert known.due(500.0) == [peer(2, "10.0.0.2")]


def test_hearsay_does_not_bring_back_who_has_just_failed(known: Peers) -> None:
    speaker = Address("10.0.0.9", 1)
    triple = pack_triple(peer(1).node_id, "10.0.0.1", 1)
    assert known.credible_untrusted([triple], speaker, 0.0) == [peer(1)]
    known.failed(peer(1), 0.0)
    assert known.credible_untrusted([triple], speaker, HEARSAY_PAUSE_SECONDS - 1) == []
    assert known.credible_untrusted([triple], speaker, HEARSAY_PAUSE_SECONDS) == [peer(1)]
    known.failed(peer(1), 100.0)
    known.answered_untrusted(peer(1), record(1), clock=101.0)
    assert known.credible_untrusted([triple], speaker, 102.0) == [peer(1)]


def test_a_wrong_address_told_of_a_contact_does_not_hurt_it(known: Peers) -> None:
    known.answered_untrusted(peer(1), record(1), clock=0.0)
    told = known.credible_untrusted([pack_triple(peer(1).node_id, "10.9.9.9", 9)], Address("10.0.0.9", 1), 0.0)
    assert told == [peer(1)]
    for _ in range(3):
        known.failed(Peer(peer(1).node_id, Address("10.9.9.9", 9)), 0.0)
    assert known.is_alive(peer(1).node_id)


def test_nobody_sends_us_to_ourselves_or_into_our_own_networks(known: Peers) -> None:
    triples = [
        pack_triple(OWN.node_id, "10.0.0.5", 1),
        pack_triple(peer(1).node_id, "127.0.0.1", 1),
        pack_triple(peer(2).node_id, "192.168.0.1", 1),
        pack_triple(peer(3).node_id, "8.8.4.4", 1),
        b"nonsense",
    ]
    assert known.credible_untrusted(triples, Address("8.8.8.8", 1), 0.0) == [peer(3, "8.8.4.4")]
    assert len(known.credible_untrusted(triples, Address("192.168.0.9", 1), 0.0)) == 2
    assert len(known.credible_untrusted(triples, Address("127.0.0.1", 1), 0.0)) == 3


def test_memories_are_bounded(known: Peers) -> None:
    for number in range(MOST_BANNED + 50):
        known.failed(Peer(peer(1).node_id, Address("10.0.0.1", number + 1)), 0.0)
    assert len(known._banned) == MOST_BANNED
    for number in range(MOST_LOST + 10):
        known._lose(Peer(identity(number).node_id, Address("10.0.0.1", 1)), 0.0)
    assert len(known._lost) == MOST_LOST


def test_scopes() -> None:
    assert [scope(host) for host in ("127.0.0.1", "::1", "10.1.1.1", "fe80::1", "fd00::1", "8.8.8.8", "2a00::1")] == [
        *[Scope.MACHINE] * 2, *[Scope.SITE] * 3, *[Scope.WORLD] * 2
    ]  # fmt: skip
    assert may_speak_of("127.0.0.1", "8.8.8.8")
    assert not may_speak_of("8.8.8.8", "10.0.0.1")


def test_the_shelf_keeps_the_freshest_and_what_comes_first_hand() -> None:
    shelf = RecordShelf(lambda: NOW)
    node_id = identity(1).node_id
    old, new = record(1, seconds=100, free_bytes=1), record(1, seconds=200, free_bytes=2)
    assert shelf.accept_untrusted(new, node_id, first_hand=False).free_bytes == 2
    assert shelf.accept_untrusted(old, node_id, first_hand=False).free_bytes == 2
    assert shelf.get_bytes(node_id) == new
    assert shelf.accept_untrusted(old, node_id, first_hand=True).free_bytes == 1
    assert shelf.get_bytes(node_id) == old


def test_the_shelf_verifies() -> None:
    shelf = RecordShelf(lambda: NOW)
    for data in (record(2), record(1)[:-1] + b"x", b"", record(1, seconds=-5), record(1, seconds=10**7)):
        with pytest.raises(BadMessage):
            shelf.accept_untrusted(data, identity(1).node_id, first_hand=True)
    assert len(shelf) == 0


def test_expired_records_are_not_given_out() -> None:
    time = [NOW]
    shelf = RecordShelf(lambda: time[0])
    node_id = identity(1).node_id
    shelf.accept_untrusted(record(1, seconds=100), node_id, first_hand=True)
    assert shelf.get(node_id) is not None
    time[0] += 100
    assert shelf.get(node_id) is None
    assert shelf.get_bytes(node_id) == b""
    with pytest.raises(BadMessage):
        shelf.accept_untrusted(record(1, seconds=100), node_id, first_hand=True)


def test_the_shelf_is_bounded() -> None:
    shelf = RecordShelf(lambda: NOW, most=3)
    for number in range(5):
        shelf.accept_untrusted(record(number), identity(number).node_id, first_hand=True)
    assert len(shelf) == 3
    assert shelf.get(identity(0).node_id) is None
    assert shelf.get(identity(4).node_id) is not None


def test_our_address_is_what_most_see_from_farthest_away() -> None:
    observed = ObservedAddress()
    assert observed.best() is None
    observed.vote_untrusted(Address("127.0.0.1", 1), pack_ip("127.0.0.1"))
    assert observed.best() == "127.0.0.1"
    observed.vote_untrusted(Address("8.8.8.8", 1), pack_ip("9.9.9.9"))
    for number in range(3):
        observed.vote_untrusted(Address(f"8.8.4.{number}", 1), pack_ip("9.9.9.1"))
        observed.vote_untrusted(Address("8.8.8.8", number), pack_ip("9.9.9.9"))
    observed.vote_untrusted(Address("8.8.4.1", 1), b"???")
    assert observed.best() == "9.9.9.1"
    for number in range(100):
        observed.vote_untrusted(Address(f"8.8.5.{number}", 1), pack_ip("9.9.9.2"))
    assert len(observed._votes) == MOST_VOTERS
