from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import LayrError, LocalError, Unavailable
from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.records import HostAddress, NodeRecord
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.pipeline.jobs import Outcome, Wish
from layrfs.pipeline.placing import Placement, Placer, avoided
from layrfs.pipeline.transfers import Slot
from layrfs.policy.backoff import FIRST_PAUSE_SECONDS
from layrfs.policy.hedging import UNKNOWN, HostMemory
from tests.fakes.hosts import FAR_FUTURE, FakeFinder
from tests.fakes.market import FakeMarket, salts_for


def record(number: int, *, price: int = 0, host: str = "127.0.0.1") -> NodeRecord:
    identity = NodeIdentity.from_private(bytes([number]) * 32)
    return NodeRecord.sign(
        identity,
        host=host,
        udp_port=number,
        tcp_port=number,
        free_bytes=1 << 30,
        expires=FAR_FUTURE,
        price=price,
    )


RECORDS = [record(number) for number in range(1, 6)]


def wish(position: int, failed: HostAddress | None = None, outcome: Outcome = "unreachable") -> Wish:
    piece = PieceId(bytes([position]) * 32)
    return Wish(Slot(position, 0), piece, 1000, None if failed is None else failed.node_id, outcome)


async def found(placement: Placement, wishes: Sequence[Wish]) -> list[HostAddress | None]:
    return [None if place is None else place.host for place in await placement.find(wishes)]


async def three(placement: Placement) -> list[HostAddress]:
    places = await found(placement, [wish(position) for position in range(3)])
    return [place for place in places if place is not None]


async def test_pieces_go_to_different_hosts() -> None:
    places = await three(Placer(FakeFinder(RECORDS), {}).begin())
    assert len({place.node_id for place in places}) == 3


async def test_a_failed_host_is_replaced_by_one_that_holds_no_other_piece() -> None:
    placement = Placer(FakeFinder(RECORDS), {}).begin()
    places = await three(placement)
    (second,) = await found(placement, [wish(1, failed=places[1])])
    assert second is not None
    assert second.node_id not in {place.node_id for place in places}
    (third,) = await found(placement, [wish(1, failed=second)])
    assert third is not None
    assert await found(placement, [wish(1, failed=third)]) == [None]


async def test_a_failed_host_is_not_tried_twice_for_one_shard(autojump_clock: object) -> None:
    placement = Placer(FakeFinder(RECORDS[:1]), {}).begin()
    (place,) = await found(placement, [wish(0)])
    assert place is not None
    assert await found(placement, [wish(0, failed=place)]) == [None]
    await trio.sleep(FIRST_PAUSE_SECONDS)
    assert await found(placement, [wish(0)]) == [None]


async def test_starting_again_frees_the_hosts_of_the_first_time() -> None:
    placement = Placer(FakeFinder(RECORDS[:3]), {}).begin()
    first = await three(placement)
    placement.restart()
    assert {place.node_id for place in await three(placement)} == {place.node_id for place in first}


async def test_two_pieces_that_fail_together_never_meet_on_one_host() -> None:
    placement = Placer(FakeFinder(RECORDS), {}).begin()
    places = await three(placement)
    again = [(await found(placement, [wish(position, failed=places[position])]))[0] for position in range(3)]
    given = [place.node_id for place in again if place is not None]
    assert len(given) == len(set(given)) == 2


async def test_a_host_that_failed_rests_for_other_shards_too(autojump_clock: object) -> None:
    placer = Placer(FakeFinder(RECORDS[:3]), {})
    placement = placer.begin()
    places = await three(placement)
    await found(placement, [wish(0, failed=places[0])])
    assert {place.node_id for place in await three(placer.begin())} == {place.node_id for place in places[1:]}
    await trio.sleep(FIRST_PAUSE_SECONDS)
    assert len(await three(placer.begin())) == 3


async def test_when_all_hosts_rest_they_are_asked_all_the_same() -> None:
    placer = Placer(FakeFinder(RECORDS[:3]), {}, excluded=lambda: [RECORDS[2].node_id])
    for record in RECORDS[:2]:
        placer.failed(record.node_id)
    placement = placer.begin()
    first, second = await three(placement)
    assert {first.node_id, second.node_id} == {record.node_id for record in RECORDS[:2]}
    assert await found(placement, [wish(0, failed=first)]) == [None], "but none twice for one shard"


async def test_a_host_that_failed_is_suspected_and_forgiven_when_it_takes_a_piece() -> None:
    finder = FakeFinder(RECORDS[:1])
    placer = Placer(finder, {})
    placement = placer.begin()
    (place,) = await found(placement, [wish(0)])
    assert place is not None
    await found(placement, [wish(0, failed=place)])
    assert finder.suspected == [place.node_id]
    placer.succeeded(place.node_id)
    assert await found(placer.begin(), [wish(0)]) == [place]


async def test_a_host_that_failed_to_deliver_gets_no_pieces() -> None:
    memories: dict[NodeId, HostMemory] = {RECORDS[0].node_id: UNKNOWN.after_failure(trio.current_time())}
    places = await three(Placer(FakeFinder(RECORDS[:3]), memories).begin())
    assert RECORDS[0].node_id not in {place.node_id for place in places}
    assert len(places) == 2


async def test_holders_of_other_pieces_and_our_own_node_are_left_out() -> None:
    placer = Placer(FakeFinder(RECORDS), {}, excluded=lambda: [RECORDS[0].node_id])
    places = await three(placer.begin([RECORDS[1].address]))
    assert {place.node_id for place in places} == {record.node_id for record in RECORDS[2:]}


async def test_who_stands_where_a_lost_host_was_takes_its_piece() -> None:
    """A new machine, or the same with a new disk, at the address of one that has gone: in a circle of few friends
    nobody else may be left."""
    lost, left, new = record(1, host="8.8.8.1"), record(2, host="8.8.9.1"), record(3, host="8.8.8.2")
    redundancy = Redundancy(needed=1, total=2)
    pieces = tuple(
        PieceRecord(place, 0, PieceId(bytes([place]) * 32), one.node_id) for place, one in enumerate((lost, left))
    )
    shard = ShardRecord(ShardId(bytes(32)), Salt(bytes(16)), 1, 1, redundancy, pieces)
    addresses = {one.node_id: one.address for one in (lost, left)}
    placer = Placer(FakeFinder([lost, left, new]), {})
    for position, taker in ((0, new.address), (1, None)):
        placement = placer.begin(avoided(shard, {position}, addresses.get))
        assert await found(placement, [wish(position)]) == [taker]


async def test_nobody_is_paid_without_a_market() -> None:
    places = await three(Placer(FakeFinder([record(1), record(2, price=1)]), {}).begin())
    assert [place.node_id for place in places] == [RECORDS[0].node_id]


async def test_hosts_that_are_paid_are_agreed_with_together_and_say_what_to_digest(autojump_clock: object) -> None:
    records = [record(1, price=5), record(2, price=10), record(3), record(4, price=11)]
    market = FakeMarket()
    places = await Placer(FakeFinder(records), {}, market=market).begin().find([wish(at) for at in range(4)])
    given = {place.host.node_id: place.salts for place in places if place is not None}
    paid = {each.node_id: salts_for(each.node_id) for each in records[:2]}
    assert given == {**paid, records[2].node_id: None}
    assert sorted((host, length) for host, _piece, length in market.asked) == sorted((host, 1000) for host in paid)
    assert trio.current_time() == pytest.approx(1), "both at the same time"


async def test_where_a_host_does_not_agree_another_takes_its_piece(autojump_clock: object) -> None:
    dear, cheap, free = record(1, price=10), record(2, price=1), record(3)
    placement = Placer(FakeFinder([dear, cheap, free]), {}, market=FakeMarket(unwilling=[cheap])).begin()
    places = await found(placement, [wish(0), wish(1)])
    assert places == [free.address, dear.address]
    assert {address for address, _ in placement.end(set())} == set(places), "nothing was sent to the other"


@pytest.mark.parametrize("refusal", [Unavailable("no contract"), LocalError("the database failed")])
async def test_when_nobody_agrees_the_piece_has_no_place(autojump_clock: object, refusal: LayrError) -> None:
    priced = record(1, price=1)
    market = FakeMarket(unwilling=[priced])
    market.refusal = refusal
    placer = Placer(FakeFinder([priced]), {}, market=market)
    assert await found(placer.begin(), [wish(0)]) == [None]


async def test_what_no_record_names_is_an_orphan() -> None:
    placement = Placer(FakeFinder(RECORDS), {}).begin()
    lost = await three(placement)
    placement.restart()
    kept = await found(placement, [Wish(Slot(0, 0), PieceId(b"k" * 32), 10)])
    assert kept[0] is not None
    orphans = placement.end({(kept[0].node_id, PieceId(b"k" * 32))})
    assert set(orphans) == {(place, PieceId(bytes([position]) * 32)) for position, place in enumerate(lost)}


async def test_a_host_that_just_failed_is_not_bothered_with_orphans() -> None:
    placement = Placer(FakeFinder(RECORDS), {}).begin()
    (place,) = await found(placement, [wish(0)])
    assert place is not None
    await found(placement, [wish(0, failed=place)])
    assert place not in {address for address, _ in placement.end(set())}


async def test_a_suspended_host_gets_nothing_while_others_take_it() -> None:
    suspended: set[NodeId] = set()
    placer = Placer(FakeFinder(RECORDS[:3]), {}, suspended=lambda: suspended)
    assert len(await three(placer.begin())) == 3
    suspended.add(RECORDS[1].node_id)
    assert {place.node_id for place in await three(placer.begin())} == {RECORDS[0].node_id, RECORDS[2].node_id}
    suspended.update(record.node_id for record in RECORDS)
    assert len(await three(placer.begin())) == 3, "nobody else takes a new shard"
    assert await three(placer.begin([RECORDS[4].address])) == [], "but one that has pieces waits"
    suspended.clear()
    assert len(await three(placer.begin())) == 3
