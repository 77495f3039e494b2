"""The real `Transfers`: worker processes and TLS, with hosts in memory on loopback and no DHT."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from layrfs.crypto.identity import NodeIdentity
from layrfs.crypto.keys import VolumeKeys
from layrfs.ids import NodeId, PieceId, ShardId
from layrfs.model.answers import PieceAnswer
from layrfs.pipeline.jobs import Outcome, WorkerKeys
from layrfs.pipeline.pool import WorkerPool
from layrfs.pipeline.pooled import PooledTransfers
from layrfs.pipeline.transfers import FindContent
from tests.fakes.hosts import NETWORK_ID, FakeFinder, TlsHost
from tests.fakes.market import FakeMarket
from tests.fakes.transfers import nothing_stored

KEYS = VolumeKeys(content=b"c" * 32, mask=b"m" * 32, root_private=b"r" * 32, wallet_private=b"w" * 32)


def worker_keys() -> WorkerKeys:
    node = NodeIdentity.generate()
    return WorkerKeys.of(KEYS, node.private, NETWORK_ID)


class MemoryAnswers:
    """An ``AnswerBook`` in memory, about the pieces of shards that a test makes known."""

    per_piece = 0

    def __init__(self) -> None:
        self.kept: dict[PieceId, list[PieceAnswer]] = {}
        self.known: set[ShardId] = set()

    def lacking(self, shard: ShardId, piece: PieceId) -> int:
        return max(0, self.per_piece - len(self.kept.get(piece, ()))) if shard in self.known else 0

    def keep(self, answers: Iterable[PieceAnswer]) -> None:
        for answer in answers:
            self.kept.setdefault(answer.piece, []).append(answer)

    def forget(self, pieces: Iterable[PieceId]) -> None:
        for piece in pieces:
            self.kept.pop(piece, None)


@dataclass
class RealTransfers:
    transfers: PooledTransfers
    pool: WorkerPool
    hosts: list[TlsHost]
    finder: FakeFinder
    asked: threading.Event
    """Set when any host is asked for anything; cleared by `break_hosts`."""
    bad: list[tuple[ShardId, PieceId, NodeId, str]] = field(default_factory=list)
    suspended: set[NodeId] = field(default_factory=set)
    attempts: list[tuple[NodeId, Outcome]] = field(default_factory=list)
    answers: MemoryAnswers = field(default_factory=MemoryAnswers)
    market: FakeMarket = field(default_factory=FakeMarket)

    def use_hosts(self, count: int) -> None:
        """The network consists of the first `count` hosts, as they are now."""
        self.finder.records = [host.record() for host in self.hosts[:count]]

    def host(self, node: NodeId) -> TlsHost:
        return next(host for host in self.hosts if host.node_id == node)

    def break_hosts(self, fault: str) -> None:
        for host in self.hosts:
            host.shelf.fault = fault
        self.asked.clear()

    def mend_hosts(self) -> None:
        for host in self.hosts:
            host.mend()


@asynccontextmanager
async def real_transfers(
    *, find_content: FindContent = nothing_stored, workers: int = 2, patience_seconds: float = 0.1
) -> AsyncIterator[RealTransfers]:
    hosts = [TlsHost() for _ in range(5)]
    asked = threading.Event()
    for host in hosts:
        host.shelf.arrived = asked
        host.start()
    finder, pool = FakeFinder([host.record() for host in hosts]), WorkerPool(worker_keys(), workers)
    bad: list[tuple[ShardId, PieceId, NodeId, str]] = []
    suspended: set[NodeId] = set()
    attempts: list[tuple[NodeId, Outcome]] = []
    answers, market = MemoryAnswers(), FakeMarket(seconds=0)
    transfers = PooledTransfers(
        pool,
        finder,
        find_content=find_content,
        on_bad_piece=lambda *report: bad.append(report),
        on_attempt=lambda *attempt: attempts.append(attempt),
        suspended=lambda: suspended,
        answers=answers,
        market=market,
        patience_seconds=patience_seconds,
    )
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(transfers.run)
            yield RealTransfers(transfers, pool, hosts, finder, asked, bad, suspended, attempts, answers, market)
            nursery.cancel_scope.cancel()
    finally:
        for host in hosts:
            host.stop()
