"""What is made anew, when, and in which order: a volume's shards on the fake network, on the virtual clock."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from layrfs.errors import Unavailable
from layrfs.ids import BlockNumber, InodeNumber, NodeId, PieceId
from layrfs.model.redundancy import DEFAULT_REDUNDANCY, Redundancy
from layrfs.pipeline.transfers import SourcePart, Stored
from layrfs.policy.patching import PieceState
from layrfs.storage.changes import ChangeLog
from layrfs.storage.content import NewContent
from layrfs.storage.garbage import Garbage
from layrfs.upkeep.needs import SLICE, Need
from layrfs.upkeep.patcher import DELAY_SECONDS, FRUITLESS, HANDS, Mended
from tests.caches import BLOCK, FILE, Cache, running
from tests.fakes.transfers import FakeTransfers

OTHER = InodeNumber(8)
DAY_SECONDS = 24 * 3600.0


def host(number: int) -> NodeId:
    """As the fake network numbers them: the first ones are given pieces first."""
    return NodeId(bytes([number + 1]) * 20)


@asynccontextmanager
async def patching(directory: str, transfers: FakeTransfers) -> AsyncIterator[Cache]:
    """A volume with nobody at work but the patcher, so that virtual days cost nothing."""
    cache = Cache(directory, transfers)
    async with trio.open_nursery() as nursery:
        await nursery.start(cache.patcher.run)
        yield cache
        nursery.cancel_scope.cancel()
    cache.database.close()


@pytest.fixture
async def cache(tmp_path: Path, autojump_clock: object) -> AsyncIterator[Cache]:
    async with patching(str(tmp_path / "volume"), FakeTransfers(hosts=6)) as cache:
        yield cache


@pytest.fixture
async def busy_cache(tmp_path: Path, autojump_clock: object) -> AsyncIterator[Cache]:
    async with running(str(tmp_path / "volume"), FakeTransfers(hosts=6)) as cache:
        yield cache


async def put(cache: Cache, inode: InodeNumber = FILE, redundancy: Redundancy = DEFAULT_REDUNDANCY) -> int:
    """A file on hosts, with a shard of its own; the shard's number."""
    path, length = f"{cache.directory}/source", 5000
    with open(path, "wb") as file:
        file.write(os.urandom(length))
    cache.make(inode, length)
    uploaded = await cache.transfers.upload([SourcePart(inode, 0, path, 0, length)], redundancy)
    assert uploaded.shard is not None
    (stored,) = uploaded.outcomes
    assert isinstance(stored, Stored)
    shard = cache.catalog.add_shard(uploaded.shard)
    (content,) = cache.catalog.add_content(shard, [NewContent(stored.part.digest, 0, length)])
    cache.catalog.put_blocks([(inode, BlockNumber(0), content, length)])
    return shard


def holders(cache: Cache, shard: int) -> list[NodeId]:
    return [piece.host for piece in cache.catalog.shard(shard).pieces]


def lose(cache: Cache, shard: int, position: int, *, said: bool = True) -> PieceId:
    """A host has no longer what it had, and (``said``) that is known."""
    record = cache.catalog.shard(shard)
    piece = next(piece for piece in record.pieces if piece.position == position)
    cache.transfers.drop([piece.id])
    if said:
        cache.patcher.piece_lost(record.id, piece.id)
    return piece.id


def retired(cache: Cache) -> dict[PieceId, NodeId]:
    return dict(cache.database.rows("SELECT piece, host FROM local_retired"))


async def test_pieces_of_a_host_that_is_gone_are_made_anew_and_the_old_ones_retired(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    shard = await put(cache)
    old = cache.catalog.shard(shard).pieces[1]
    cache.states[host(1)] = "gone"
    await trio.sleep(100)
    record = cache.catalog.shard(shard)
    assert [(piece.position, piece.generation) for piece in record.pieces] == [(0, 0), (1, 1), (2, 0)]
    assert len({*holders(cache, shard), host(1)}) == 4, "on a host that had nothing of it"
    assert retired(cache) == {old.id: host(1)}
    assert cache.patcher.found == {}


async def test_the_old_piece_counts_until_the_new_one_is_on_a_host(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    shard = await put(cache)
    cache.states[host(1)] = "gone"
    cache.transfers.hold()
    await trio.sleep(200)
    assert cache.transfers.waiting == 1
    assert holders(cache, shard) == [host(0), host(1), host(2)]
    assert retired(cache) == {}
    cache.transfers.release()
    await trio.sleep(1)
    assert host(1) not in holders(cache, shard)


async def test_a_host_that_only_sleeps_keeps_what_it_has(cache: Cache, autojump_clock: trio.testing.MockClock) -> None:
    shard = await put(cache)
    cache.states[host(1)] = "doubtful"
    await trio.sleep(DAY_SECONDS)
    assert holders(cache, shard) == [host(0), host(1), host(2)]
    assert cache.transfers.top_ups == []


async def test_with_one_good_piece_left_a_sleeping_host_is_not_waited_for(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    shard = await put(cache)
    cache.states |= {host(0): "doubtful", host(1): "doubtful"}
    await trio.sleep(100)
    assert len(set(holders(cache, shard)) & {host(0), host(1)}) == 1


async def test_when_all_hosts_of_a_shard_are_going_to_let_it_go_others_get_it_first(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    shard = await put(cache)
    leaving = holders(cache, shard)
    cache.states |= dict.fromkeys(leaving, "leaving")
    await trio.sleep(100)
    assert not set(holders(cache, shard)) & set(leaving)
    assert len(retired(cache)) == 3


async def test_one_host_that_leaves_hands_over_and_keeps_its_piece_until_another_has_it(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    shard = await put(cache)
    cache.states[host(1)] = "leaving"
    cache.transfers.full = cache.transfers.living_hosts()
    await trio.sleep(100)
    assert holders(cache, shard) == [host(0), host(1), host(2)]
    assert not retired(cache)
    cache.transfers.full.clear()
    await trio.sleep(200)
    assert set(holders(cache, shard)) > {host(0), host(2)}
    assert list(retired(cache).values()) == [host(1)]


async def test_nothing_is_fetched_for_a_host_that_leaves_while_every_host_with_room_has_a_piece(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    shard = await put(cache)
    cache.states |= {host(0): "leaving", host(5): "leaving"}
    cache.without_room = {host(0), host(3), host(4), host(5)}
    await trio.sleep(DAY_SECONDS / 24)
    assert cache.transfers.top_ups == []
    cache.without_room = {host(0), host(5)}
    await trio.sleep(400)
    assert len(set(holders(cache, shard)) - {host(0)}) == 3


async def test_what_no_host_takes_is_fetched_less_and_less_often_until_hosts_appear(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    shard = await put(cache)
    leaving = holders(cache, shard)
    cache.states |= dict.fromkeys(leaving, "leaving")
    cache.transfers.full = cache.transfers.living_hosts()
    await trio.sleep(DAY_SECONDS / 24)
    assert 10 <= len(cache.transfers.top_ups) <= 20
    cache.patcher._in_vain = 100_000  # a year of it
    await trio.sleep(1_000)
    cache.transfers.full.clear()
    cache.patcher.hosts_appeared()
    await trio.sleep(10)
    assert not set(holders(cache, shard)) & set(leaving)


async def test_while_no_host_is_there_nothing_is_patched_and_nothing_called_lost(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    shard = await put(cache)
    cache.states |= {host(number): "gone" for number in range(6)}
    cache.transfers.gone, cache.transfers.hosts = {host(number) for number in range(6)}, 0
    await trio.sleep(DAY_SECONDS)
    assert cache.transfers.top_ups == []
    assert cache.lost.sentence is None
    cache.transfers.gone, cache.transfers.hosts = set(), 6
    cache.states.clear()
    cache.patcher.hosts_appeared()
    await trio.sleep(100)
    assert holders(cache, shard) == [host(0), host(1), host(2)]


async def test_who_may_not_write_makes_nothing(cache: Cache, autojump_clock: trio.testing.MockClock) -> None:
    shard = await put(cache)
    cache.log.may_write = False
    cache.states[host(1)] = "gone"
    await trio.sleep(DAY_SECONDS)
    await cache.patcher.finish()
    assert holders(cache, shard) == [host(0), host(1), host(2)]


async def test_the_most_endangered_go_first(cache: Cache, autojump_clock: trio.testing.MockClock) -> None:
    shards = [await put(cache, InodeNumber(100 + number)) for number in range(4)]
    cache.transfers.failure = Unavailable("checked below")
    lose(cache, shards[0], 0)
    lose(cache, shards[2], 0)
    lose(cache, shards[2], 1)
    lose(cache, shards[3], 0)
    await trio.sleep(DELAY_SECONDS["soon"] / 2)
    assert {cache.catalog.number_of(shard) for shard in cache.transfers.top_ups} == {shards[2]}, "others wait a moment"
    cache.transfers.failure = None
    cache.transfers.top_ups.clear()
    await cache.patcher.finish()
    order = [cache.catalog.number_of(shard) for shard in cache.transfers.top_ups]
    assert order[0] == shards[2]
    assert set(order) == {shards[0], shards[2], shards[3]}


async def test_a_wide_code_with_one_piece_less_waits_for_the_next_loss(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    cache.transfers.hosts = 16
    shard = await put(cache, redundancy=Redundancy(4, 12))
    lose(cache, shard, 3)
    await trio.sleep(DELAY_SECONDS["later"] / 2)
    assert cache.transfers.top_ups == []
    lose(cache, shard, 5)
    await trio.sleep(100)
    assert len(cache.transfers.top_ups) == 1, "both from one fetch"
    assert len(holders(cache, shard)) == 12
    lose(cache, shard, 0)
    await trio.sleep(DELAY_SECONDS["later"] + 100)
    assert len(holders(cache, shard)) == 12, "but not for ever"


async def test_what_no_host_takes_is_tried_again_when_one_appears(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    shard = await put(cache)
    lose(cache, shard, 0)
    cache.transfers.hosts = 3  # all of which have a piece, or had
    cache.states[host(0)] = "good"
    await trio.sleep(100)
    assert len(holders(cache, shard)) == 3, "the host that lost it may have another"
    cache.states[host(1)] = "gone"
    await trio.sleep(1000)
    tries = len(cache.transfers.top_ups)
    assert host(1) in holders(cache, shard)
    cache.transfers.hosts = 4
    cache.patcher.hosts_appeared()
    await trio.sleep(2)
    assert host(1) not in holders(cache, shard)
    assert len(cache.transfers.top_ups) == tries + 1


async def test_a_piece_that_comes_back_is_retired(cache: Cache, autojump_clock: trio.testing.MockClock) -> None:
    shard = await put(cache)
    old = lose(cache, shard, 2)
    await trio.sleep(100)
    assert retired(cache) == {old: host(2)}, "should its host find it again, it is to be dropped"
    assert old not in {piece.id for piece in cache.catalog.shard(shard).pieces}


@pytest.mark.parametrize("state", ["doubtful", "gone", "unreachable"])
async def test_a_piece_said_to_be_missing_is_not_given_up_while_the_others_are_not_sure(
    cache: Cache, state: str, autojump_clock: trio.testing.MockClock
) -> None:
    """A disk that is not there yet: the host says missing, and has the piece when it is."""
    shard = await put(cache)
    record, others = cache.catalog.shard(shard), {host(1), host(2)}
    cache.transfers.hosts = 1
    cache.transfers.gone |= others
    if state != "unreachable":
        cache.states |= dict.fromkeys(others, "doubtful" if state == "doubtful" else "gone")
    cache.patcher.piece_lost(record.id, record.pieces[0].id)
    await trio.sleep(DAY_SECONDS)
    assert record.pieces[0].host in holders(cache, shard)
    assert retired(cache) == {}, "or its host would drop the last copy, on our own order"
    cache.transfers.hosts = 6
    cache.patcher.piece_held(record.id, record.pieces[0].id)
    cache.patcher.hosts_appeared()
    await trio.sleep(100)
    assert record.pieces[0].id not in retired(cache)
    assert len(holders(cache, shard)) == 3


async def test_what_was_kept_as_the_last_is_given_up_when_the_others_are_back(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    cache.transfers.hosts = 3
    shard = await put(cache)
    old = cache.catalog.shard(shard).pieces[0]
    cache.states |= dict.fromkeys({host(1), host(2)}, "doubtful")
    assert lose(cache, shard, 0) == old.id
    assert old in cache.catalog.shard(shard).pieces
    cache.states.clear()
    cache.patcher.hosts_appeared()
    await trio.sleep(100)
    assert retired(cache) == {old.id: host(0)}
    assert len(holders(cache, shard)) == 3, "its host may have another"


async def test_a_piece_that_is_shown_after_all_counts_again(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    shard = await put(cache)
    record = cache.catalog.shard(shard)
    cache.states |= dict.fromkeys({host(1), host(2)}, "doubtful")
    for piece in record.pieces:
        cache.patcher.piece_lost(record.id, piece.id)
    cache.transfers.failure = Unavailable("checked below")
    await trio.sleep(100)
    assert [need.urgency for need in cache.patcher.found.values()] == ["lost"]
    cache.patcher.piece_held(record.id, record.pieces[0].id)
    await trio.sleep(100)
    assert [need.urgency for need in cache.patcher.found.values()] == ["now"]


async def test_the_last_piece_stays_on_record_and_the_loss_is_said_with_names(
    cache: Cache, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    shard = await put(cache)
    cache.database.write("INSERT INTO entry VALUES(5, 1, ?, ?)", (b"precious", FILE))
    for position in range(3):
        lose(cache, shard, position)
    await trio.sleep(100)
    assert len(holders(cache, shard)) == 1
    assert cache.lost.sentence is not None
    assert "1 shards are on no host any more: parts of /precious" in cache.lost.sentence
    assert caplog.text.count("are on no host any more") == 1, "said once"
    (need,) = cache.patcher.found.values()
    assert need.urgency == "lost"
    await trio.sleep(DAY_SECONDS)
    assert caplog.text.count("are on no host any more") == 1


async def test_a_lost_shard_heals_when_its_host_comes_back(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    shard = await put(cache)
    record = cache.catalog.shard(shard)
    for position in range(3):
        lose(cache, shard, position)
    await trio.sleep(100)
    assert cache.lost.sentence is not None
    last = cache.catalog.shard(shard).pieces[0]
    cache.transfers.pieces[last.id] = last.host
    cache.patcher.piece_held(record.id, last.id)
    await trio.sleep(100)
    assert cache.lost.sentence is None
    assert len(holders(cache, shard)) == record.redundancy.total


async def test_what_nothing_needs_any_more_is_neither_lost_nor_mended_and_counts_for_no_other_file(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    older, lost, degraded = [await put(cache, InodeNumber(number)) for number in (7, 8, 9)]
    for position in range(3):
        lose(cache, older, position)
        lose(cache, lost, position)
    await trio.sleep(100)
    assert cache.patcher.found.keys() == {older, lost}
    cache.database.write("INSERT INTO version VALUES(1, 0, ?, 0, NULL, x'90')", (older,))
    digests = [row[0] for row in cache.database.rows("SELECT digest FROM content")]
    cache.database.write("DELETE FROM block")
    lose(cache, degraded, 0)
    assert cache.patcher.waiting == 1
    await trio.sleep(100)
    assert cache.catalog.pieces.degraded == {older, lost, degraded}
    assert cache.patcher.waiting == 0
    assert cache.patcher.found.keys() == {older}, "a snapshot may need it"
    assert [need.shard for need in await cache.patcher.plan(None)] == [older]
    assert cache.patcher.made_anew == 0
    assert [number for number, _length in cache.catalog.find_content(digests).values()] == [degraded]
    cache.states |= dict.fromkeys(holders(cache, degraded), "gone")
    await trio.sleep(100)
    assert cache.patcher.found.keys() == {older}
    assert cache.catalog.find_content(digests) == {}, "not even as bytes that are stored already"


async def test_what_is_lost_and_in_the_cache_goes_to_hosts_again(
    busy_cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    cache = busy_cache
    data = os.urandom(3 * BLOCK)
    await cache.put(FILE, data)
    await cache.put(OTHER, data[:BLOCK])
    await cache.contents.flush_to_network(None)
    shard = int(cache.database.value("SELECT max(number) FROM shard"))
    for position in range(3):
        lose(cache, shard, position)
    await trio.sleep(100)
    assert cache.lost.sentence is None
    assert cache.patcher.found == {}, "nothing needs the old shard"
    assert cache.contents.state(FILE) == cache.contents.state(OTHER) == "safe"
    await cache.contents.drop_clean()
    assert await cache.get(FILE, 0, len(data)) == data
    assert await cache.get(OTHER, 0, BLOCK) == data[:BLOCK]
    cache.check_sums()


async def test_what_is_lost_and_not_on_hosts_again_stays_in_the_cache_and_counts_for_no_other_file(
    busy_cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    cache, data = busy_cache, os.urandom(2 * BLOCK)
    await cache.put(FILE, data)
    await cache.contents.flush_to_network(None)
    (shard,) = cache.catalog.shards_of(FILE)
    for position in range(3):
        lose(cache, shard, position)
    cache.transfers.uploads_left = 0
    await trio.sleep(100)
    await cache.contents.drop_clean()
    assert await cache.get(FILE, 0, len(data)) == data, "the only copy was in the cache"
    cache.transfers.uploads_left = None
    await cache.put(OTHER, data)
    await cache.contents.flush_to_network(None)
    assert cache.on_hosts(OTHER, 0, BLOCK) == cache.on_hosts(FILE, 0, BLOCK) == data[:BLOCK]


async def test_what_changes_in_the_cache_while_it_is_sent_again_does_not_count(
    busy_cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    cache = busy_cache
    await cache.put(FILE, b"old" * 1000)
    await cache.contents.flush_to_network(None)
    shard = int(cache.database.value("SELECT max(number) FROM shard"))
    for position in range(3):
        lose(cache, shard, position)
    with open(cache.path(FILE), "r+b") as file:
        file.write(b"new")
    await trio.sleep(100)
    assert cache.database.value("SELECT count(*) FROM content WHERE shard = ?", (shard,)) == 1
    assert cache.contents.state(FILE) == "lost"


async def test_a_file_is_not_called_safe_while_a_piece_that_is_not_there_is_on_record(
    busy_cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    cache = busy_cache
    await cache.put(FILE, os.urandom(BLOCK))
    await cache.contents.flush_to_network(None)
    (shard,) = cache.catalog.shards_of(FILE)
    record = cache.catalog.shard(shard)
    cache.states |= dict.fromkeys(holders(cache, shard)[1:], "doubtful")
    cache.transfers.failure = Unavailable("nothing can be made")
    assert cache.contents.state(FILE) == "safe"
    cache.patcher.piece_lost(record.id, record.pieces[0].id)
    assert cache.catalog.shard(shard) == record, "kept, as the others are not sure"
    assert cache.contents.state(FILE) == "degraded"
    await trio.sleep(100)
    assert [need.urgency for need in cache.patcher.found.values()] == ["now"]
    cache.patcher.piece_held(record.id, record.pieces[0].id)
    assert cache.contents.state(FILE) == "safe"


async def test_one_damaged_piece_does_not_keep_its_hosts_other_shards_from_being_copied(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    cache.transfers.hosts = 1
    shards = [await put(cache, InodeNumber(100 + number)) for number in range(5)]
    cache.transfers.lost = {cache.catalog.shard(shards[0]).id}
    cache.transfers.hosts = 3
    cache.patcher.hosts_appeared()
    await trio.sleep(10)
    assert [len(holders(cache, shard)) for shard in shards] == [1, 3, 3, 3, 3]


async def test_patching_some_shards_now_tells_what_came_of_each(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    first, second = await put(cache), await put(cache, OTHER)
    for shard in (first, second):
        lose(cache, shard, 1)
    (need,) = plan = await cache.patcher.plan([second])
    assert (need.shard, need.urgency, need.positions) == (second, "soon", (1,))
    told: list[Mended] = []
    await cache.patcher.patch(plan, told.append)
    (mended,) = told
    assert (mended.shard, mended.wanted, mended.problem) == (second, (1,), "")
    assert [(piece.position, piece.generation) for piece in mended.made] == [(1, 1)]
    assert [need.shard for need in await cache.patcher.plan(None)] == [first]
    cache.transfers.failure = Unavailable("No good piece.")
    await cache.patcher.patch(await cache.patcher.plan(None), told.append)
    assert told[-1].problem == "No good piece."
    cache.transfers.failure = None


async def test_two_who_patch_the_same_shard_do_it_one_after_the_other(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    shard = await put(cache)
    lose(cache, shard, 0)
    cache.transfers.delay_seconds, cache.transfers.most_running = 5, 0
    told: list[Mended] = []
    need = Need(0, shard, "soon", (0,))
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(cache.patcher.patch, [need], told.append)
    assert cache.transfers.most_running == 1
    assert sorted(len(mended.made) for mended in told) == [0, 0, 1]


async def test_a_shard_that_was_given_up_meanwhile_leaves_nothing_but_orders_to_drop(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    shard = await put(cache)
    lose(cache, shard, 0)
    cache.transfers.hold()
    await trio.sleep(50)
    assert cache.transfers.waiting
    cache.database.write("DELETE FROM block")
    cache.database.write("INSERT INTO dead VALUES(?, 1)", (shard,))
    Garbage(cache.database, cache.catalog).sweep(shard, 1)
    before = set(cache.transfers.pieces)
    cache.transfers.release()
    await trio.sleep(1)
    assert set(cache.transfers.pieces) - before <= retired(cache).keys()


async def test_looking_at_many_shards_lets_others_in(cache: Cache, autojump_clock: trio.testing.MockClock) -> None:
    """No step of any task looks at more than a slice of the volume."""
    count = 3000
    rows = [(number, b"%032d" % number, bytes(16)) for number in range(1, count + 1)]
    cache.database.write_many("INSERT INTO shard VALUES(?, ?, ?, 10, 20, 1, 2, 0)", rows)
    for position in (0, 1):
        names = [(number, position, b"%031d%d" % (number, position), position + 1) for number in range(1, count + 1)]
        cache.database.write_many("INSERT INTO piece VALUES(?, ?, 0, ?, ?)", names)
    cache.database.write("INSERT INTO host(number, node_id) VALUES(1, ?), (2, ?)", (host(0), host(1)))
    cache.database.write("INSERT INTO version VALUES(1, 0, ?, 0, NULL, x'90')", (count,))
    cache.states[host(1)] = "gone"
    turns, done = 0, trio.Event()

    async def others() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        found = await cache.patcher.plan(None)
        done.set()
    assert len(found) == count
    assert turns >= count // SLICE


# --- whatever happens


EVENTS = ("lost", "lost unsaid", "silent", "asleep", "back", "patched", "dropped", "new host", "away")


@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 7), st.integers(0, 2)), max_size=25))
def test_patching_never_leaves_fewer_pieces_and_never_drops_one_that_counts(
    history: list[tuple[str, int, int]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        trio.run(_live, directory, history, clock=trio.testing.MockClock(autojump_threshold=0))


async def _live(directory: str, history: list[tuple[str, int, int]]) -> None:
    async with patching(directory, FakeTransfers(hosts=5)) as cache:
        shards = [await put(cache, InodeNumber(100 + number)) for number in range(3)]
        for event, number, which in history:
            await _happens(cache, event, number, shards[which])
            for shard in shards:
                record = cache.catalog.shard(shard)
                assert len({piece.host for piece in record.pieces}) == len(record.pieces) >= 1


async def _happens(cache: Cache, event: str, number: int, shard: int) -> None:
    record, node = cache.catalog.shard(shard), host(number)
    states: dict[str, PieceState] = {"silent": "gone", "asleep": "doubtful"}
    if event.startswith("lost"):
        piece = record.pieces[number % len(record.pieces)]
        cache.transfers.drop([piece.id])
        if event == "lost":
            cache.patcher.piece_lost(record.id, piece.id)
    elif event in states:
        cache.states[node] = states[event]
    elif event == "back":
        cache.states.pop(node, None)
        for piece in record.pieces:
            if cache.transfers.pieces.get(piece.id) == piece.host == node:
                cache.patcher.piece_held(record.id, piece.id)
        cache.patcher.hosts_appeared()
    elif event == "new host":
        cache.transfers.hosts += 1
    elif event == "dropped":
        orders = retired(cache)
        named = {(piece.id, piece.host) for piece in record.pieces}
        assert not named & set(orders.items()), "an order to drop what is needed"
        cache.transfers.drop(piece for piece, holder in orders.items() if cache.transfers.pieces.get(piece) == holder)
        for piece, holder in orders.items():
            ChangeLog(cache.database).forget_retired(holder, [piece])
    else:
        before = _readable(cache)
        if event == "patched":
            await cache.patcher.finish()
        else:
            await trio.sleep(120)
        after = _readable(cache)
        assert all(after[number] >= count for number, count in before.items())


def _readable(cache: Cache) -> dict[int, int]:
    """Of each shard, the recorded pieces that hosts really have."""
    return {
        number: sum(cache.transfers.pieces.get(piece.id) == piece.host for piece in cache.catalog.shard(number).pieces)
        for (number,) in list(cache.database.rows("SELECT number FROM shard"))
    }


async def test_where_no_host_takes_anything_each_shard_is_not_fetched_again_and_again(
    cache: Cache, autojump_clock: trio.testing.MockClock
) -> None:
    cache.transfers.hosts = 4
    shards = [await put(cache, InodeNumber(100 + number)) for number in range(40)]
    for shard in shards:
        lose(cache, shard, 0)
    cache.transfers.full = {host(number) for number in range(4)}
    await trio.sleep(50)
    assert FRUITLESS <= len(cache.transfers.top_ups) <= FRUITLESS + 2
    await trio.sleep(2_000)
    assert {cache.catalog.shard(shard).id for shard in shards} == set(cache.transfers.top_ups), "each has its turn"
    assert len(cache.transfers.top_ups) <= 12 * (FRUITLESS + 2), "less and less often"
    cache.transfers.full.clear()
    cache.patcher.hosts_appeared()
    await trio.sleep(5)
    assert all(len(holders(cache, shard)) == 3 for shard in shards)


async def test_a_damaged_database_ends_no_patching(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    shards = [await put(cache, InodeNumber(100 + number)) for number in range(HANDS + 2)]
    for shard in shards:
        lose(cache, shard, 0)
    cache.transfers.hold()
    await trio.sleep(50)
    assert cache.transfers.waiting == HANDS
    monkeypatch.setattr(cache.database, "_damage", "The database is damaged.")
    cache.transfers.release()
    await trio.sleep(1000)
    monkeypatch.undo()
    await trio.sleep(100)
    assert all(len(holders(cache, shard)) == 3 for shard in shards)
