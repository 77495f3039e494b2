"""Shards are fetched once for all that is lacking of them, and nothing else is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from trio.testing import MockClock

from layrfs.errors import Unavailable
from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.history import Segment
from layrfs.model.payables import Salts
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.upkeep.holdings import Holdings
from layrfs.upkeep.refilling import Refiller, pause_seconds

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
        assert await refiller.refill(HOSTS[0]) == 2
        assert digester.asked == [
            (first.id, {piece.id for piece in first.pieces}),
            (of_metadata.id, {of_metadata.pieces[0].id}),
        ]
        assert await refiller.refill(HOSTS[0]) == 0, "nothing is lacking"
        lacking.pieces.add(second.pieces[0])
        assert await refiller.refill(HOSTS[0]) == 0, "it cannot be fetched now"
        assert await refiller.refill(HOSTS[1]) == 1


def test_what_is_due_soon_is_not_put_off() -> None:
    assert pause_seconds(2.0, math.inf) == 6.0
    assert pause_seconds(2.0, 10.0) == 3.0, "half of the time is kept in reserve"
    assert pause_seconds(2.0, 1.0) == 0.0
