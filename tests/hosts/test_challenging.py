"""One piece at a real host, asked for at each level: what is said of a host that has it, and of hosts that do not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
import trio

from layrfs.crypto.identity import NodeIdentity
from layrfs.crypto.merkle import piece_id
from layrfs.errors import LocalError, WorkerLost
from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.audits import Level
from layrfs.model.records import HostAddress, NodeRecord
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.network.links import HostLinks
from layrfs.network.piece_server import Answer, Counts, Visit
from layrfs.pipeline.answering import new_answers
from layrfs.storage.answers import KeptAnswers
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.upkeep import challenging
from layrfs.upkeep.challenging import HeldPiece, HostChallenger, outcome_of
from layrfs.wire import messages
from tests.drive import piece_files
from tests.fakes.hosts import FAR_FUTURE, FakeFinder
from tests.hosts.local_host import NETWORK, Fixed, LocalHost, SilentLater, local_host, serving

MASK = b"m" * 32
DATA = os.urandom(200_000)
LEVELS: tuple[Level, ...] = ("prove", "answer", "deep")


class Place:
    """A host with one piece, its owner's records, and the ways to it."""

    def __init__(self, directory: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(challenging, "AGAIN_SECONDS", 0.01)
        self.directory = directory / "host"
        self.directory.mkdir()
        self.stack, self.host_stack = stack, stack.enter_context(ExitStack())
        self.host = self.host_stack.enter_context(local_host(self.directory))
        self.links = HostLinks(NodeIdentity.generate(), NETWORK)
        stack.callback(self.links.close)
        self.finder = FakeFinder([record(self.host)])
        database = stack.enter_context(Database(str(directory / "metadata.db")))
        self.answers = KeptAnswers(database, MASK, per_piece=3)
        self.piece = piece_id(DATA)
        pieces = (PieceRecord(0, 0, self.piece, self.host.identity.node_id),)
        shard = ShardRecord(ShardId(b"s" * 32), Salt(bytes(16)), len(DATA), len(DATA), Redundancy(1, 1), pieces)
        Catalog(database).add_shard(shard)
        self.answers.keep(new_answers(MASK, self.piece, DATA, 3))
        self.held = HeldPiece(shard, pieces[0])
        self.challenger = HostChallenger(self.links, self.finder, self.answers, MASK)
        tenant = NodeIdentity.generate().private
        self.links.store(self.host.address, self.piece, DATA, tenant_private=tenant, deadline_seconds=20)

    async def outcomes(self) -> list[str]:
        return [await self.challenger.ask(self.held, level) for level in LEVELS]

    def file(self) -> Path:
        (path,) = piece_files(str(self.directory))
        return Path(path)

    def replace(self, service: Fixed) -> LocalHost:
        """Another service with the same identity at the same address."""
        address = self.host.address
        self.host_stack.close()
        self.links.close()
        self.links = HostLinks(NodeIdentity.generate(), NETWORK)
        self.stack.callback(self.links.close)
        self.challenger = HostChallenger(self.links, self.finder, self.answers, MASK)
        return self.stack.enter_context(serving(service, Counts(), identity=self.host.identity, port=address.port))


def record(host: LocalHost) -> NodeRecord:
    return NodeRecord.sign(
        host.identity, host="127.0.0.1", udp_port=host.address.port, tcp_port=host.address.port, free_bytes=1,
        expires=FAR_FUTURE,
    )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path, stack, monkeypatch)


async def test_a_host_that_has_it_passes_at_every_level(place: Place) -> None:
    assert await place.outcomes() == ["passed"] * 3


async def test_a_host_that_has_it_not_says_so(place: Place) -> None:
    place.file().unlink()
    assert await place.outcomes() == ["missing"] * 3


async def test_rot_is_found_by_all_of_it_and_never_called_good(place: Place) -> None:
    data = bytearray(place.file().read_bytes())
    data[-100_000:] = bytes(100_000)
    place.file().write_bytes(data)
    assert await place.challenger.ask(place.held, "deep") in {"failed", "missing"}


async def test_answers_are_used_up_and_made_anew_by_a_deep_audit(place: Place) -> None:
    assert [await place.challenger.ask(place.held, "answer") for _ in range(4)] == ["passed"] * 3 + ["unknown"]
    assert place.answers.lacking(place.held.shard.id, place.piece) == 3
    assert await place.challenger.ask(place.held, "deep") == "passed"
    assert place.answers.lacking(place.held.shard.id, place.piece) == 0
    assert await place.challenger.ask(place.held, "answer") == "passed"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer(messages.Refused("busy")), "refused"),
        (Answer(messages.Refused("missing")), "missing"),
        (Answer(messages.Stored()), "failed"),
    ],
)
async def test_what_a_host_says_instead(place: Place, answer: Answer, outcome: str) -> None:
    place.replace(Fixed(answer))
    assert await place.outcomes() == [outcome] * 3


async def test_other_bytes_and_another_digest_are_failures(place: Place) -> None:
    place.replace(Fixed(Answer(messages.Answered(bytes(32)))))
    assert await place.challenger.ask(place.held, "answer") == "failed"


@pytest.mark.parametrize(
    ("retrieved", "body", "outcomes"),
    [
        (messages.Retrieved(len(DATA)), DATA, ["unknown", "unknown", "passed"]),
        (messages.Refused("busy"), b"", ["failed", "failed", "refused"]),
    ],
)
async def test_a_wrong_proof_is_held_against_a_host_that_has_not_the_piece_either(
    place: Place, retrieved: messages.Response, body: bytes, outcomes: list[str]
) -> None:
    place.replace(WrongProof(Answer(retrieved, body)))
    assert await place.outcomes() == outcomes


class WrongProof(Fixed):
    """Answers what it is asked to retrieve, and proves nothing."""

    def answer(self, visit: Visit, request: messages.Request, body: memoryview) -> Answer:
        """Nonsense, but for the piece."""
        if isinstance(request, messages.Retrieve):
            return super().answer(visit, request, body)
        return Answer(messages.Answered(bytes(32)))


async def test_one_that_says_nothing_timed_out(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(challenging, "PROOF_SECONDS", 0.5)
    silent = SilentLater(times=2)
    replaced = place.replace(silent)
    await reach_twice_at_once(place.links, replaced.address)  # a connection for each try: who it is was shown then
    assert await place.challenger.ask(place.held, "prove") == "timed out"
    assert place.finder.suspected == [place.host.identity.node_id] * 2, "it was asked twice"
    silent.released.set()


async def reach_twice_at_once(links: HostLinks, host: HostAddress) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(trio.to_thread.run_sync, links.has, host, [PieceId(bytes(32))])


async def test_a_host_that_moved_is_found_at_the_second_try(place: Place) -> None:
    right = place.finder.records[0]
    moved = MovedHost(right)
    place.challenger = HostChallenger(place.links, moved, place.answers, MASK)
    assert await place.challenger.ask(place.held, "prove") == "passed"
    assert moved.suspected == [right.node_id]


class MovedHost(FakeFinder):
    """Where the host is becomes known when somebody had trouble with it."""

    def __init__(self, right: NodeRecord) -> None:
        super().__init__([msgspec.structs.replace(right, tcp_port=1)])
        self._right = right

    def suspect(self, node: NodeId) -> None:
        super().suspect(node)
        self.records = [self._right]


async def test_nobody_there(place: Place) -> None:
    place.finder.records = []
    assert await place.outcomes() == ["offline"] * 3
    assert not await place.challenger.reaches_another(place.host.identity.node_id)


async def test_whether_another_host_answers(place: Place, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with local_host(tmp_path / "other") as other:
        place.finder.records.append(record(other))
        assert await place.challenger.reaches_another(place.host.identity.node_id)
    assert not await place.challenger.reaches_another(place.host.identity.node_id)


@pytest.mark.parametrize("answer", [messages.Refused("busy"), messages.Stored()])
async def test_who_refuses_or_talks_nonsense_is_there(place: Place, answer: messages.Response) -> None:
    with serving(Fixed(Answer(answer)), Counts()) as rude:
        place.finder.records.append(record(rude))
        assert await place.challenger.reaches_another(place.host.identity.node_id)


def test_faults_of_this_machine_say_nothing() -> None:
    assert outcome_of(LocalError("no memory")) == outcome_of(WorkerLost("gone")) == "unknown"


def test_the_piece_of_a_code_is_as_long_as_it_is() -> None:
    pieces = (PieceRecord(0, 0, PieceId(bytes(32)), NodeIdentity.generate().node_id),)
    coded = ShardRecord(ShardId(bytes(32)), Salt(bytes(16)), 1, 4 << 20, Redundancy(4, 8), pieces)
    assert HeldPiece(coded, pieces[0]).piece_bytes == Redundancy(4, 8).piece_bytes(4 << 20) < 2 << 20
