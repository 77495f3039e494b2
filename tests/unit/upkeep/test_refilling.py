"""Shards are fetched once for all that is lacking of them, and nothing else is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import trio
from trio.testing import MockClock

from layrfs.errors import LocalError, Unavailable
from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.history import Segment
from layrfs.model.payables import Salts
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.upkeep.holdings import Holdings
from layrfs.upkeep.refilling import LONGEST_PAUSE_SECONDS, Refiller, RefillRounds, pause_seconds

T = TypeVar("T")
HOSTS = [NodeId(bytes([number]) * 20) for number in range(3)]


def shard(number: int) -> ShardRecord:
    """With a piece on each of three hosts."""
    pieces = (PieceRecord(at, 0, PieceId(bytes([number, at]) * 16), host) for at, host in enumerate(HOSTS))
    return ShardRecord(ShardId(bytes([number]) * 32), Salt(bytes(16)), 1, 1, Redundancy(1, 3), tuple(pieces))


class Lacking:
    """What was not digested yet."""

    def __init__(self, pieces: Sequence[PieceRecord]) -> None:
        self.pieces = set(pieces)

    def lacking(self, piece: PieceRecord) -> Salts | None:
        return Salts(1, 0, (b"s" * 32,)) if piece in self.pieces else None

    def seconds_left(self, host: NodeId) -> float:
        return math.inf if host in HOSTS else 0.0


class Digester:
    """Notes what it was asked for; ``bad`` shards cannot be fetched."""

    def __init__(self, lacking: Lacking, bad: Sequence[ShardId] = ()) -> None:
        self.lacking, self.bad = lacking, bad
        self.asked: list[tuple[ShardId, set[PieceId]]] = []

    async def digest(self, shard: ShardRecord, wanted: Sequence[tuple[PieceRecord, Salts]]) -> None:
        self.asked.append((shard.id, {piece.id for piece, _salts in wanted}))
        if shard.id in self.bad:
            raise Unavailable("no good copy")
        self.lacking.pieces -= {piece for piece, _salts in wanted}


async def here(look: Callable[[], T]) -> T:
    return look()


async def test_a_shard_is_fetched_once_for_all_of_its_pieces(autojump_clock: MockClock, tmp_path: Path) -> None:
    first, second, third, of_metadata = (shard(number) for number in range(4))
    with Database(str(tmp_path / "metadata.db")) as database:
        catalog = Catalog(database)
        for one in (first, second, third):
            catalog.add_shard(one)
        database.commit()
        segment = Segment("checkpoint", 1, 1, (of_metadata,))
        lacking = Lacking([*first.pieces, third.pieces[1], of_metadata.pieces[0]])
        digester = Digester(lacking, [second.id])
        refiller = Refiller(
            holdings=Holdings(database.path, catalog, lambda: (segment,), here), market=lacking, digester=digester
        )
        assert await refiller.refill(HOSTS[0]) == (2, 0)
        assert digester.asked == [
            (first.id, {piece.id for piece in first.pieces}),
            (of_metadata.id, {of_metadata.pieces[0].id}),
        ]
        assert await refiller.refill(HOSTS[0]) == (0, 0), "nothing is lacking"
        lacking.pieces.add(second.pieces[0])
        assert await refiller.refill(HOSTS[0]) == (0, 1), "it cannot be fetched now"
        assert await refiller.refill(HOSTS[1]) == (1, 0)


class Rounds:
    """Rounds over hosts and the looks they took, each with the contract there was."""

    def __init__(self, database: Database, bad: Sequence[ShardId] = (), digester: type[Digester] = Digester) -> None:
        catalog = Catalog(database)
        catalog.add_shard(shard(0))
        database.commit()
        self.lacking = Lacking(shard(0).pieces)
        self.digester = digester(self.lacking, bad)
        self.hosts: list[NodeId] = []
        self.contract: int | None = 1
        self.asked: list[NodeId] = []
        self.failures: list[LocalError] = []
        self.refills = 0
        self.looks = 0
        self.rounds = RefillRounds(
            refiller=Refiller(
                holdings=Holdings(database.path, catalog, lambda: (), self.look),
                market=self.lacking,
                digester=self.digester,
            ),
            hosts=lambda: self.hosts,
            contract_with=self.contract_with,
            refilled=self.refilled,
            again_seconds=40_000.0,
        )

    async def look(self, look: Callable[[], T]) -> T:
        self.looks += 1
        if self.failures:
            raise self.failures.pop()
        return look()

    async def contract_with(self, host: NodeId) -> int | None:
        self.asked.append(host)
        return self.contract

    def refilled(self) -> None:
        self.refills += 1


async def test_hosts_are_refilled_when_they_appear_or_have_a_new_contract_and_not_looked_at_all_the_time(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    with Database(str(tmp_path / "metadata.db")) as database:
        one = Rounds(database)
        nursery.start_soon(one.rounds.run)
        await trio.sleep(2)
        assert one.looks == 0
        one.hosts = HOSTS[:1]
        one.rounds.hosts_appeared()
        await trio.sleep(1)
        assert (one.looks, one.refills) == (1, 1)
        await trio.sleep(10 * LONGEST_PAUSE_SECONDS)
        assert one.looks == 1, "it was complete"
        one.contract = 2
        one.lacking.pieces = set(shard(0).pieces)
        await trio.sleep(LONGEST_PAUSE_SECONDS)
        assert (one.looks, one.refills) == (2, 2)
        await trio.sleep(40_000 + LONGEST_PAUSE_SECONDS)
        assert one.looks == 3


async def test_what_could_not_be_fetched_or_read_is_tried_again_soon(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    with Database(str(tmp_path / "metadata.db")) as database:
        one = Rounds(database, [shard(0).id])
        one.hosts, one.failures = HOSTS[:1], [LocalError("the database failed")]
        nursery.start_soon(one.rounds.run)
        await trio.sleep(1)
        await trio.sleep(LONGEST_PAUSE_SECONDS)
        assert (one.looks, one.refills) == (2, 0)
        one.digester.bad = ()
        await trio.sleep(LONGEST_PAUSE_SECONDS + 10)
        assert (one.looks, one.refills) == (3, 1)


async def test_all_hosts_have_contracts_while_the_first_is_refilled_for_days(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    class Slow(Digester):
        async def digest(self, shard: ShardRecord, wanted: Sequence[tuple[PieceRecord, Salts]]) -> None:
            await super().digest(shard, wanted)
            await trio.sleep(10 * LONGEST_PAUSE_SECONDS)

    with Database(str(tmp_path / "metadata.db")) as database:
        one = Rounds(database, digester=Slow)
        one.hosts = HOSTS
        nursery.start_soon(one.rounds.run)
        await trio.sleep(1)
        assert set(one.asked) == set(HOSTS)
        assert len(one.digester.asked) == 1


async def test_what_fails_for_one_host_keeps_nothing_from_others(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    with Database(str(tmp_path / "metadata.db")) as database:
        one = Rounds(database)
        one.hosts, one.failures = HOSTS, [LocalError("the database failed")]
        nursery.start_soon(one.rounds.run)
        await trio.sleep(100)
        assert one.looks == len(HOSTS)
        assert len(one.digester.asked) == 1


def test_what_is_due_soon_is_not_put_off() -> None:
    assert pause_seconds(2.0, math.inf) == 6.0
    assert pause_seconds(2.0, 10.0) == 3.0, "half of the time is kept in reserve"
    assert pause_seconds(2.0, 1.0) == 0.0
