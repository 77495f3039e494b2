"""What follows from hosts' answers, and who is asked for what and when. Virtual time, no hosts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from trio.abc import Instrument

from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.history import Segment
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.policy.auditing import DAY_SECONDS, LEAVES_PER_DAY, VISIT_SECONDS
from layrfs.policy.trust import NEW_HOST
from layrfs.storage.audits import Round, Rounds
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.trust import Trusts
from layrfs.upkeep.auditor import MOST_TIMEOUTS, Auditor, PieceResult
from layrfs.upkeep.challenging import HeldPiece
from layrfs.upkeep.holdings import Holdings
from layrfs.upkeep.rounds import (
    BACK_SECONDS,
    FIRST_SECONDS,
    LONGEST_VISIT_SECONDS,
    LOOK_SECONDS,
    MOST_UNKNOWN,
    RECOUNT_SECONDS,
    VANISHED_SECONDS,
    AuditRounds,
)
from tests.fakes.challenging import FakeChallenger

ONE, TWO, THREE = (NodeId(bytes([number]) * 20) for number in (1, 2, 3))
SHARDS = 12
T = TypeVar("T")


class World:
    """A volume of some shards with a copy at each of three hosts, and a segment at one of them."""

    def __init__(self, path: Path) -> None:
        self.database = Database(str(path / "metadata.db"))
        self.catalog = Catalog(self.database)
        self.records = [record(number, ONE, TWO, THREE) for number in range(1, SHARDS + 1)]
        for shard in self.records:
            self.catalog.add_shard(shard)
        self.database.commit()
        self.segment = Segment("changes", 3, 10, (record(10_000_000, THREE),))
        self.challenger = FakeChallenger(others={ONE, TWO, THREE})
        self.living = {ONE, TWO, THREE}
        self.lost: list[tuple[PieceId, NodeId, str]] = []
        self.held: list[PieceId] = []
        self.trusts = Trusts(self.database, self.now)
        self.looks = 0
        self.holdings = Holdings(self.database.path, self.catalog, lambda: [self.segment, self.segment], self.here)
        self.auditor = Auditor(
            challenger=self.challenger,
            trusts=self.trusts,
            holdings=self.holdings,
            on_lost=self.give_up,
            on_held=lambda _shard, piece: self.held.append(piece),
        )
        self.rounds = AuditRounds(
            rounds=Rounds(self.database),
            holdings=self.holdings,
            trusts=self.trusts,
            auditor=self.auditor,
            living_hosts=lambda: self.living,
            now=self.now,
            dice=random.Random(1).random,
        )

    def now(self) -> float:
        return 1_900_000_000.0 + trio.current_time()

    async def here(self, look: Callable[[], T], /) -> T:
        """Without a thread: virtual time does not wait for one."""
        self.looks += 1
        await trio.lowlevel.checkpoint()
        return look()

    def give_up(self, shard: ShardId, piece: PieceId, host: NodeId, kind: str) -> None:
        self.lost.append((piece, host, kind))
        self.catalog.pieces.drop(shard, piece)
        self.database.commit()

    async def audited(self) -> list[PieceResult]:
        heard: list[PieceResult] = []
        shards = (self.catalog.shard(number) for number in range(1, SHARDS + 1))
        await self.auditor.audit(shards, "prove", heard.append)
        return heard

    async def pass_time(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self.rounds.run()


def record(number: int, *hosts: NodeId) -> ShardRecord:
    name = number.to_bytes(4, "big") * 8
    pieces = tuple(PieceRecord(at, 0, PieceId(bytes([at]) + name[1:]), host) for at, host in enumerate(hosts))
    return ShardRecord(ShardId(name), Salt(bytes(16)), 100_000, 100_100, Redundancy(1, len(hosts)), pieces)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.database.close()


# ------------------------------------------------------------------------------------------------ what follows


async def test_every_piece_is_asked_for_and_passing_is_remembered(world: World, autojump_clock: object) -> None:
    heard = await world.audited()
    assert Counter(result.outcome for result in heard) == {"passed": 3 * SHARDS}
    assert {result.piece for result in heard} == {piece.id for shard in world.records for piece in shard.pieces}
    assert world.trusts.get(ONE).passed == SHARDS
    assert world.lost == []


async def test_what_is_wrong_or_missing_is_given_up_and_held_against_the_host(
    world: World, autojump_clock: object
) -> None:
    wrong, missing = world.records[3].pieces[1], world.records[5].pieces[2]
    world.challenger.pieces = {wrong.id: "failed", missing.id: "missing"}
    heard = await world.audited()
    assert Counter(result.outcome for result in heard) == {"passed": 3 * SHARDS - 2, "failed": 1, "missing": 1}
    assert sorted(world.lost) == sorted([(wrong.id, TWO, "wrong"), (missing.id, THREE, "missing")])
    assert world.trusts.get(TWO).integrity < world.trusts.get(THREE).integrity < 1 == world.trusts.get(ONE).integrity


async def test_a_silent_host_costs_its_time_once_and_is_held_against_while_others_answer(
    world: World, autojump_clock: object
) -> None:
    world.challenger.hosts = {TWO: "offline", THREE: "timed out"}
    heard = await world.audited()
    assert Counter((result.host, result.outcome) for result in heard) == {
        (ONE, "passed"): SHARDS, (TWO, "offline"): SHARDS, (THREE, "timed out"): SHARDS,
    }  # fmt: skip
    asked = Counter(host for host, _piece, _level in world.challenger.asked)
    assert asked == {ONE: SHARDS, TWO: 1, THREE: MOST_TIMEOUTS}
    assert world.trusts.get(TWO).silent
    assert world.trusts.get(THREE).silent
    assert world.lost == []


async def test_when_nobody_answers_nobody_is_blamed(world: World, autojump_clock: object) -> None:
    world.challenger.hosts = dict.fromkeys((ONE, TWO, THREE), "offline")
    heard = await world.audited()
    assert {result.outcome for result in heard} == {"offline"}
    assert all(world.trusts.get(host) == NEW_HOST for host in (ONE, TWO, THREE))


async def test_our_own_faults_say_nothing_and_refusals_cost_no_piece(world: World, autojump_clock: object) -> None:
    world.challenger.hosts = {ONE: "unknown", TWO: "refused"}
    await world.audited()
    assert world.trusts.get(ONE) == NEW_HOST
    assert not world.trusts.get(TWO).silent
    assert world.lost == []


async def test_an_answer_about_a_piece_that_was_given_up_meanwhile_counts_for_nothing(
    world: World, autojump_clock: object
) -> None:
    world.challenger.hosts = {TWO: "missing"}

    def patched(held: HeldPiece) -> None:
        if held.piece.host == TWO:
            world.catalog.pieces.drop(held.shard.id, held.piece.id)

    world.challenger.meanwhile = patched
    heard = await world.audited()
    assert TWO not in {result.host for result in heard}
    assert world.trusts.get(TWO) == NEW_HOST
    assert world.lost == []


async def test_what_stays_on_record_though_it_is_lost_counts_once_and_may_be_found_again(
    world: World, autojump_clock: object
) -> None:
    world.challenger.hosts = {THREE: "missing"}
    shards = [world.segment.shards[0]] * 5
    heard: list[PieceResult] = []
    await world.auditor.audit(shards, "prove", heard.append)
    assert [result.outcome for result in heard] == ["missing"] * 5
    assert len(world.lost) == 5, "told each time: who hears it forgets it when the host comes back"
    assert world.held == []
    once = world.trusts.get(THREE)
    assert 0.99 < once.integrity < 1
    world.challenger.hosts = {THREE: "passed"}
    await world.auditor.audit(shards[:1], "prove", heard.append)
    assert world.trusts.get(THREE).passed == 1
    assert world.held == [world.segment.shards[0].pieces[0].id]
    world.challenger.hosts = {THREE: "missing"}
    await world.auditor.audit(shards[:1], "prove", heard.append)
    assert world.trusts.get(THREE).integrity < once.integrity


# -------------------------------------------------------------------------------------------------------- rounds


async def test_one_lost_piece_that_nobody_can_make_anew_does_not_exclude_its_host(
    world: World, autojump_clock: object
) -> None:
    world.challenger.pieces = {world.segment.shards[0].pieces[0].id: "missing"}
    await world.pass_time(DAY_SECONDS / 2)
    assert world.trusts.standing(THREE) in {"new", "good"}
    assert len(set(world.lost)) == 1
    assert sum(host == THREE for host, _piece, _level in world.challenger.asked) < 3 * LEAVES_PER_DAY


async def test_each_host_is_asked_as_often_as_the_plan_says_metadata_included(
    world: World, autojump_clock: object
) -> None:
    await world.pass_time(DAY_SECONDS)
    asked = Counter(host for host, _piece, _level in world.challenger.asked)
    for host in (ONE, TWO, THREE):
        assert 0.8 * LEAVES_PER_DAY < asked[host] < 1.3 * LEAVES_PER_DAY
    pieces = Counter(piece for _host, piece, _level in world.challenger.asked)
    assert len(pieces) == 3 * SHARDS + 1
    assert pieces[world.segment.shards[0].pieces[0].id] > 1
    assert {level for _host, _piece, level in world.challenger.asked} == {"prove", "deep"}


async def test_the_sweep_goes_on_over_restarts(world: World, autojump_clock: object) -> None:
    rounds = Rounds(world.database)
    order = sorted(piece.id for shard in world.records for piece in shard.pieces if piece.host == ONE)
    rounds.end(ONE, Round(int(world.now() - DAY_SECONDS), order[-2]))
    await world.rounds.visit(ONE)
    await world.rounds.visit(ONE)
    assert rounds.of(ONE) is not None
    assert Rounds(world.database).of(ONE) == rounds.of(ONE)
    seen = rounds.of(ONE)
    assert seen is not None
    assert seen.visited >= int(world.now()) - 1_000
    assert seen.cursor in order


async def test_a_piece_of_which_nothing_is_known_holds_up_no_other(world: World, autojump_clock: object) -> None:
    rounds = Rounds(world.database)
    order = sorted(piece.id for shard in world.records for piece in shard.pieces if piece.host == ONE)
    world.challenger.pieces = {order[5]: "unknown"}
    rounds.end(ONE, Round(int(world.now() - DAY_SECONDS), order[4]))
    for _ in range(10):
        await world.rounds.visit(ONE)
        seen = rounds.of(ONE)
        assert seen is not None
        rounds.end(ONE, Round(int(world.now() - DAY_SECONDS), seen.cursor))
    assert seen.cursor != order[4], "the sweep goes on behind it"
    asked = Counter(piece for host, piece, _level in world.challenger.asked if host == ONE)
    assert asked[order[5]] <= 2 * 10, "each costs a whole fetch"
    assert min(asked[piece] for piece in order if piece != order[5]) > 100


async def test_a_host_of_which_nothing_is_known_costs_a_few_questions_a_visit(
    world: World, autojump_clock: object
) -> None:
    world.challenger.hosts = {TWO: "offline"}
    await world.pass_time(FIRST_SECONDS + 100)
    assert world.trusts.get(TWO).silent
    world.challenger.hosts = {TWO: "unknown"}
    before = len(world.challenger.asked)
    await world.pass_time(FIRST_SECONDS + 4 * VISIT_SECONDS)
    asked = [host for host, _piece, _level in world.challenger.asked[before:]].count(TWO)
    assert asked <= 8 * (MOST_UNKNOWN + 1)
    world.challenger.hosts.clear()
    await world.pass_time(FIRST_SECONDS + 2 * VISIT_SECONDS)
    assert not world.trusts.get(TWO).silent


async def test_a_host_that_lost_everything_is_excluded_within_minutes(world: World, autojump_clock: object) -> None:
    for number in range(100, 200):
        world.catalog.add_shard(record(number, ONE, TWO, THREE))
    world.database.commit()
    world.challenger.hosts = {TWO: "missing"}
    await world.pass_time(1_800)
    assert world.trusts.standing(TWO) == "excluded"
    assert {host for _piece, host, _kind in world.lost} == {TWO}
    assert world.trusts.excluded() == {TWO}


async def test_a_silent_host_is_left_alone_and_visited_when_it_is_seen_again(
    world: World, autojump_clock: object
) -> None:
    world.challenger.hosts = {TWO: "offline"}
    world.living.discard(TWO)
    await world.pass_time(FIRST_SECONDS + 1_500)
    assert world.trusts.get(TWO).silent
    assert sum(host == TWO for host, _piece, _level in world.challenger.asked) == 1
    world.challenger.hosts.clear()
    world.living.add(TWO)
    await world.pass_time(FIRST_SECONDS + LOOK_SECONDS + BACK_SECONDS)
    assert not world.trusts.get(TWO).silent


async def test_a_host_that_is_seen_and_says_nothing_costs_one_question_at_a_time(
    world: World, autojump_clock: object
) -> None:
    world.challenger.hosts = {TWO: "offline"}
    await world.pass_time(FIRST_SECONDS + 3_000)
    asked = sum(host == TWO for host, _piece, _level in world.challenger.asked)
    assert 80 < asked < 110
    assert world.looks < 3_000 / RECOUNT_SECONDS + 20, "all of its pieces are not looked through each time"


async def test_a_visit_that_takes_too_long_is_not_made_up_for_for_ever(world: World, autojump_clock: object) -> None:
    for number in range(100, 200):
        world.catalog.add_shard(record(number, ONE, TWO, THREE))
    world.database.commit()
    world.challenger.slow = {TWO: 30.0}
    Rounds(world.database).end(TWO, Round(int(world.now() - DAY_SECONDS), None))
    began = world.now()
    await world.pass_time(FIRST_SECONDS + LONGEST_VISIT_SECONDS + 10)
    asked = sum(host == TWO for host, _piece, _level in world.challenger.asked)
    assert 0.9 * LONGEST_VISIT_SECONDS / 30 < asked <= LONGEST_VISIT_SECONDS / 30
    seen = Rounds(world.database).of(TWO)
    assert seen is not None
    assert seen.visited >= int(began)


async def test_a_slow_host_keeps_nobody_waiting(world: World, autojump_clock: object) -> None:
    for number in range(100, 200):
        world.catalog.add_shard(record(number, ONE, TWO, THREE))
    world.database.commit()
    Rounds(world.database).end(TWO, Round(int(world.now() - DAY_SECONDS), None))
    world.challenger.slow, world.challenger.hosts = {TWO: 300.0}, {ONE: "missing"}
    await world.pass_time(FIRST_SECONDS + LONGEST_VISIT_SECONDS / 2)
    assert world.trusts.standing(ONE) == "excluded"


async def test_looking_at_what_is_known_to_be_lost_lets_others_in(world: World, autojump_clock: object) -> None:
    world.segment = Segment("changes", 3, 10, tuple(record(10_000_000 + number, ONE) for number in range(300)))
    world.challenger.hosts = {ONE: "missing"}
    await world.auditor.audit(world.segment.shards, "prove", lambda _result: None)
    Rounds(world.database).end(ONE, Round(int(world.now() - DAY_SECONDS), None))
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    await world.rounds.visit(ONE)
    assert turns.count > 300


class Turns(Instrument):
    """How often any task gave way."""

    def __init__(self) -> None:
        self.count = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - trio's name for it
        """See trio."""
        self.count += 1


async def test_a_host_that_vanishes_is_asked_long_before_its_hour(world: World, autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.rounds.run)
        await trio.sleep(200)
        assert not world.trusts.get(TWO).silent
        world.challenger.hosts = {TWO: "offline"}
        world.living.discard(TWO)
        await trio.sleep(VANISHED_SECONDS + 60)
        assert world.trusts.get(TWO).silent
        nursery.cancel_scope.cancel()


async def test_a_host_without_pieces_and_an_empty_volume_are_nobodys_business(
    world: World, autojump_clock: object
) -> None:
    world.database.write("DELETE FROM piece", ())
    world.database.commit()
    world.segment = Segment("changes", 3, 10, (record(10_000_000, ONE),))
    await world.pass_time(7_200)
    assert {host for host, _piece, _level in world.challenger.asked} == {ONE}


async def test_a_clock_that_was_ahead_does_not_end_audits(world: World, autojump_clock: object) -> None:
    Rounds(world.database).end(ONE, Round(int(world.now() + 365 * DAY_SECONDS), None))
    await world.pass_time(3_600)
    assert sum(host == ONE for host, _piece, _level in world.challenger.asked) >= 10
