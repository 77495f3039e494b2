"""A worker's jobs without a worker: shelves for hosts, a foreman with prepared answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from layrfs.crypto.keys import VolumeKeys
from layrfs.ids import NodeId
from layrfs.model.payables import Salts
from layrfs.model.records import HostAddress
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import ShardRecord
from layrfs.pipeline.jobs import Candidate, FetchPlan, Place, Upload, Wish
from layrfs.pipeline.ports import Calls, Tools
from layrfs.pipeline.sealing import SealingKeys
from layrfs.pipeline.storing import upload
from layrfs.pipeline.transfers import SourcePart
from layrfs.policy.hedging import Hedge
from tests.fakes.hosts import FakeLinks, Shelf

VOLUME_KEYS = VolumeKeys(content=b"c" * 32, mask=b"m" * 32, root_private=b"r" * 32, wallet_private=b"w" * 32)


def host(number: int) -> HostAddress:
    return HostAddress(NodeId(bytes([number]) * 20), "127.0.0.1", number)


class FakeForeman:
    """Hands out hosts 1, 2, 3, … in turn, each once; knows no content."""

    def __init__(self, hosts: int) -> None:
        self.calls = Calls()
        self.free = [host(number) for number in range(1, hosts + 1)]
        self.wishes: list[Wish] = []
        self.salts: Salts | None = None
        self.moves = 0
        self.tries: list[tuple[int, float, bool]] = []

    def find_content(self, _digests: Sequence[bytes]) -> Mapping[bytes, tuple[int, int]]:
        return {}

    def find_places(self, wishes: Sequence[Wish]) -> Sequence[Place | None]:
        self.wishes += wishes
        return [Place(self.free.pop(0), self.salts) if self.free else None for _ in wishes]

    def moving(self) -> None:
        self.moves += 1

    def tried(self, piece_bytes: int, seconds: float, *, well: bool) -> None:
        self.tries.append((piece_bytes, seconds, well))


class Bench:
    """Shelves by host number, and the tools that reach them."""

    def __init__(self, tools: Tools, shelves: dict[NodeId, Shelf]) -> None:
        self.tools, self._shelves = tools, shelves

    def shelf(self, number: int) -> Shelf:
        return self._shelves[host(number).node_id]

    def stored(self, path: str, length: int, copies: int = 3) -> ShardRecord:
        """A shard whose copies are at hosts 1, 2, 3, …"""
        return self.coded(path, length, Redundancy(1, copies))

    def coded(self, path: str, length: int, redundancy: Redundancy) -> ShardRecord:
        """A shard whose pieces are at hosts 1, 2, 3, …"""
        job = Upload(1, (SourcePart(2, 0, path, 0, length),), redundancy)
        done = upload(self.tools, FakeForeman(redundancy.total), job)
        assert done.uploaded is not None
        assert done.uploaded.shard is not None
        return done.uploaded.shard


@contextmanager
def bench(hosts: int = 5) -> Iterator[Bench]:
    shelves = {host(number).node_id: Shelf() for number in range(1, hosts + 1)}
    with ThreadPoolExecutor(16) as hands:
        yield Bench(Tools(SealingKeys.of(VOLUME_KEYS), VOLUME_KEYS.mask, FakeLinks(shelves), hands), shelves)


PATIENT = Hedge(30.0, 30.0)


def plan(shard: ShardRecord, *, hedge: Hedge = PATIENT, deadline_seconds: float = 30.0) -> FetchPlan:
    """Ask the copies in order of position."""
    candidates = tuple(Candidate(piece, HostAddress(piece.host, "127.0.0.1", 1)) for piece in shard.pieces)
    return FetchPlan(shard, candidates, hedge, deadline_seconds)
