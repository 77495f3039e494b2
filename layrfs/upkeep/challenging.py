"""One host is asked for one piece of ours, at one of three levels, and the answer becomes one word.

Owns the call, its second try, and the meaning of every error. Must not know why it asks, which piece is next, or what
follows from the answer. Invariant: the word speaks of the host only when the host had its chance: silence is asked a
second time, for the same piece, where the host is then; what went wrong on this machine is ``unknown``; and a proof
that does not fit is only held against a host that has not the piece either, because it could be our own mistake.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

import msgspec
import trio

from layrfs import tempo
from layrfs.crypto.challenges import NONCE_BYTES
from layrfs.errors import BadMessage, LayrError, MissingPiece, Refused, RemoteError, TimedOut, Unreachable, WrongBytes
from layrfs.ids import NodeId, PieceId
from layrfs.model.answers import PieceAnswer, Question
from layrfs.model.audits import Level
from layrfs.model.records import HostAddress, NodeRecord
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.network.links import HostLinks
from layrfs.pipeline.answering import new_answers
from layrfs.pipeline.finding import HostFinder
from layrfs.policy.trust import Outcome
from layrfs.storage.answers import KeptAnswers
from layrfs.upkeep.asking import address_of

CALLS_AT_ONCE = 8
"""Most of the time of an audit is the way there and back; a deep one has 4 MiB in memory."""

AGAIN_SECONDS = 3.0
"""Between the two tries: a host that was started again, or a line that was full, has recovered by then."""

PROOF_SECONDS = 20.0
ANSWER_SECONDS = 30.0
"""A host may have to read 4 MiB for it."""

FETCH_SECONDS = 600.0
"""As long as readers give; it ends as soon as it stalls."""

LEAVES_OF_ONE = 1
"""Of one proof: two leaves of a piece say little more than one, two pieces twice as much."""

SILENT: frozenset[Outcome] = frozenset({"offline", "timed out"})
PROBES = 6
PROBE_SECONDS = 10.0
NOBODYS_PIECE = PieceId(bytes(32))
"""To ask for when any answer will do."""

T = TypeVar("T")
Demand = Callable[[HostAddress], Awaitable[None]]
"""Returns when the host has shown what it was asked for. Raises a ``LayrError`` that says what happened."""

_log = logging.getLogger(__name__)


class HeldPiece(msgspec.Struct, frozen=True):
    """A piece that a host should have, as its owner has it on record."""

    shard: ShardRecord
    piece: PieceRecord

    @property
    def piece_bytes(self) -> int:
        """How long the piece is."""
        return self.shard.redundancy.piece_bytes(self.shard.sealed_bytes)


class Challenger(Protocol):
    """What an auditor asks; ``HostChallenger``, or a fake."""

    async def ask(self, held: HeldPiece, level: Level) -> Outcome:
        """How the host answers for its piece. Raises nothing."""
        ...

    async def reaches_another(self, host: NodeId) -> bool:
        """Whether any other host answers now: if none does, it is our line that is down."""
        ...


class HostChallenger:
    """The real one."""

    def __init__(self, links: HostLinks, finder: HostFinder, answers: KeptAnswers, mask: bytes) -> None:
        """``mask``: the volume's key, for new answers about what was fetched."""
        self._links = links
        self._finder = finder
        self._answers = answers
        self._mask = mask
        self._limiter = trio.CapacityLimiter(CALLS_AT_ONCE)

    async def ask(self, held: HeldPiece, level: Level) -> Outcome:
        """See ``Challenger``. ``unknown`` also when no answer is left, or a wrong proof was our mistake."""
        demand = self._demand_of(held, level)
        if demand is None:
            return "unknown"
        outcome = await self._try(held, demand)
        if outcome in SILENT:
            await tempo.sleep(AGAIN_SECONDS)
            outcome = await self._try(held, demand)
        if outcome == "failed" and level != "deep" and await self._try(held, self._demand_of_all(held)) == "passed":
            _log.warning("host %s has a piece that it does not prove", held.piece.host.hex()[:12])
            return "unknown"
        return outcome

    async def reaches_another(self, host: NodeId) -> bool:
        """See ``Challenger``."""
        others = [record for record in self._finder.known_hosts() if record.node_id != host and record.tcp_port]
        reached = False

        async def probe(record: NodeRecord) -> None:
            nonlocal reached
            if await self._is_there(record.address):
                reached = True
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for record in others[:PROBES]:
                nursery.start_soon(probe, record)
        return reached

    async def _is_there(self, address: HostAddress) -> bool:
        """Whether anybody says anything, be it a refusal or nonsense."""
        try:
            await self._call(partial(self._links.has, address, [NOBODYS_PIECE], deadline_seconds=PROBE_SECONDS))
        except LayrError as error:
            return isinstance(error, RemoteError) and not isinstance(error, Unreachable)
        return True

    async def _try(self, held: HeldPiece, demand: Demand) -> Outcome:
        try:
            await demand(await address_of(self._finder, held.piece.host))
        except LayrError as error:
            _log.debug("host %s, piece %s: %s", held.piece.host.hex()[:12], held.piece.id.hex()[:12], error)
            if isinstance(error, Unreachable):
                self._finder.suspect(held.piece.host)
            return outcome_of(error)
        return "passed"

    def _demand_of(self, held: HeldPiece, level: Level) -> Demand | None:
        """One demand for both tries: the host may have heard the question already."""
        match level:
            case "prove":
                return partial(self._prove, held, secrets.token_bytes(NONCE_BYTES))
            case "deep":
                return self._demand_of_all(held)
        question = self._answers.take(held.piece.id)
        return None if question is None else partial(self._compare, question)

    def _demand_of_all(self, held: HeldPiece) -> Demand:
        return partial(self._fetch, held)

    async def _prove(self, held: HeldPiece, nonce: bytes, address: HostAddress) -> None:
        asked = held.piece.id, held.piece_bytes, nonce, LEAVES_OF_ONE
        await self._call(partial(self._links.prove, address, *asked, deadline_seconds=PROOF_SECONDS))

    async def _compare(self, question: Question, address: HostAddress) -> None:
        asked = question.piece, question.salt, question.kind
        digest = await self._call(partial(self._links.answer, address, *asked, deadline_seconds=ANSWER_SECONDS))
        if not question.is_met_by(digest):
            raise WrongBytes("a host answered with another digest than that of the piece")

    async def _fetch(self, held: HeldPiece, address: HostAddress) -> None:
        piece, count = held.piece.id, self._answers.lacking(held.shard.id, held.piece.id)

        def fetch() -> list[PieceAnswer]:
            data = self._links.retrieve(address, piece, deadline_seconds=FETCH_SECONDS)
            return new_answers(self._mask, piece, data, count)

        self._answers.keep(await self._call(fetch))

    async def _call(self, call: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=self._limiter)


def outcome_of(error: LayrError) -> Outcome:
    """What an error says about the host that was asked; ``unknown`` when that is nothing."""
    match error:
        case WrongBytes() | BadMessage():
            return "failed"
        case MissingPiece():
            return "missing"
        case Refused():
            return "refused"
        case TimedOut():
            return "timed out"
        case Unreachable():
            return "offline"
        case _:
            return "unknown"
