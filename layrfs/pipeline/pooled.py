"""`Transfers` with real workers and real hosts: what the main process decides about each transfer.

Owns, per transfer: which hosts are asked and in which order, what happens when all of them failed, and what is
remembered of how hosts did. Must not touch bulk bytes: workers do.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

import msgspec
import trio

from layrfs.errors import Unavailable
from layrfs.ids import NodeId, PieceId
from layrfs.model.answers import PieceAnswer
from layrfs.model.notes import CONTENT, Purpose
from layrfs.model.payables import Salts
from layrfs.model.records import HostAddress
from layrfs.model.redundancy import DEFAULT_REDUNDANCY, Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.pipeline.answering import AnswerBook, NoAnswers
from layrfs.pipeline.finding import AddressBook, HostFinder
from layrfs.pipeline.jobs import (
    Attempt,
    Candidate,
    Discard,
    Done,
    Download,
    Examine,
    Failed,
    FetchPlan,
    Identify,
    Job,
    Moving,
    News,
    Outcome,
    TargetFile,
    TopUp,
    Tried,
    Upload,
)
from layrfs.pipeline.office import JobOffice
from layrfs.pipeline.paying import Market, OnlyFree
from layrfs.pipeline.placing import Placement, Placer, avoided
from layrfs.pipeline.pool import Lane, WorkerPool
from layrfs.pipeline.transfers import Examined, FindContent, OnBadPiece, Slot, SourcePart, TargetPart, Uploaded
from layrfs.policy.backoff import NO_FAILURES
from layrfs.policy.hedging import UNKNOWN, HostMemory, hedge_of_several, order
from layrfs.policy.pacing import SMALL_BYTES, Pace, copies_at_once

FETCH_DEADLINE_SECONDS = 600.0
"""Of one round of asking all holders: 4 MiB at 7 KB/s. One at which nothing arrives ends in `links`' time."""

PATIENCE_SECONDS = 20.0
"""As long as this after the first failure, a fetch is tried again: a host may be starting."""

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 0.5
"""A reader waits, and a look-up in a small network costs next to nothing."""

_ORPHANS_WAITING = 64
_NO_COPY = "No good copy of the shard can be reached."

_log = logging.getLogger(__name__)


class PooledTransfers:
    """The real `Transfers`; `run` must be running."""

    def __init__(
        self,
        pool: WorkerPool,
        finder: HostFinder,
        *,
        find_content: FindContent,
        on_bad_piece: OnBadPiece,
        answers: AnswerBook | None = None,
        market: Market | None = None,
        excluded: Callable[[], Collection[NodeId]] = tuple,
        suspended: Callable[[], Collection[NodeId]] = tuple,
        on_attempt: Callable[[NodeId, Outcome], None] = lambda _host, _outcome: None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """`excluded` hosts get no pieces, `suspended` ones none that others take; both are asked after all others.

        `answers` gets what can be asked of hosts later, made wherever a piece is at hand anyway; `market` says who is
        paid, and gets what that takes.
        `on_attempt` is told how each host did that was asked for a piece which it should have.
        """
        self._pool = pool
        self._find_content = find_content
        self._on_bad_piece = on_bad_piece
        self._on_attempt = on_attempt
        self._answers = answers or NoAnswers()
        self._market = market or OnlyFree()
        self._patience_seconds = patience_seconds
        self._memories: dict[NodeId, HostMemory] = {}
        self._finder = finder
        self._book = AddressBook(finder)
        self._excluded, self._suspended = excluded, suspended
        self._placer = Placer(finder, self._memories, excluded, suspended, self._market)
        self._turns = itertools.count()
        self._pace = Pace()
        self._shards = trio.CapacityLimiter(self._pace.shards_at_once)
        self._last_moved = -math.inf
        self._orphans, self._to_discard = trio.open_memory_channel[tuple[tuple[HostAddress, PieceId], ...]](
            _ORPHANS_WAITING
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the workers and the small chores going until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._pool.run)
            nursery.start_soon(self._discard_orphans)
            task_status.started()

    async def upload(
        self,
        parts: Sequence[SourcePart],
        redundancy: Redundancy,
        purpose: Purpose = CONTENT,
        *,
        deduplicate: bool = True,
    ) -> Uploaded:
        """See `Transfers.upload`."""
        if purpose != CONTENT or sum(part.length for part in parts) <= SMALL_BYTES:
            return await self._upload(parts, redundancy, purpose, deduplicate=deduplicate)
        async with self._shards:
            return await self._upload(parts, redundancy, purpose, deduplicate=deduplicate)

    async def _upload(
        self, parts: Sequence[SourcePart], redundancy: Redundancy, purpose: Purpose, *, deduplicate: bool
    ) -> Uploaded:
        placement = self._placer.begin()
        kept: tuple[PieceRecord, ...] = ()
        late: tuple[Attempt, ...] = ()
        count = self._answers_for(purpose)
        try:
            office = self._office(placement, self._find_content if deduplicate else _nothing_stored, redundancy)
            answer = await self._pool.do(
                Lane.UPLOAD,
                lambda job: Upload(job, tuple(parts), redundancy, purpose, self._pace.copies_together, count),
                office,
            )
            if isinstance(answer, Failed):
                raise answer.error()
            if answer.uploaded is None:
                raise AssertionError("an upload answers with what it stored")
            late = answer.attempts
            if answer.uploaded.shard is not None:
                kept = answer.uploaded.shard.pieces
            self._answers.keep(answer.answers)
            self._market.keep(answer.digests)
            return answer.uploaded
        finally:
            self._end(placement, kept)
            for attempt in late:  # not before: they are asked to forget what they may have got
                self._placer.failed(attempt.host)

    async def download(self, shard: ShardRecord, targets: Sequence[TargetPart], *, urgent: bool) -> None:
        """See `Transfers.download`."""
        lane = Lane.URGENT if urgent else Lane.AHEAD
        office = self._office()
        await self._fetch(lane, shard, office, lambda job, plan: Download(job, plan, tuple(targets)))

    async def examine(self, shard: ShardRecord, path: str | None = None, offset: int = 0) -> Examined:
        """What a shard says of itself, of which the record knows only salt and pieces; its payload goes into a file.

        Raises ``Unavailable``, ``LocalError``, ``WorkerLost``.
        """
        office = self._office()
        target = None if path is None else TargetFile(path, offset)
        done = await self._fetch(Lane.AHEAD, shard, office, lambda job, plan: Examine(job, plan, target))
        if done.examined is None:
            raise AssertionError("an examination answers with what was found")
        return done.examined

    async def top_up(
        self, shard: ShardRecord, slots: Sequence[Slot], purpose: Purpose = CONTENT
    ) -> tuple[PieceRecord, ...]:
        """See `Transfers.top_up`."""
        placement = self._placer.begin(avoided(shard, {slot.position for slot in slots}, self._book.address_of))
        office = self._office(placement, redundancy=shard.redundancy)
        count = self._answers_for(purpose)
        candidates = await self._book.looked_up(shard)
        # Once, without patience: who wants copies tries again anyway, and other shards wait meanwhile.
        done = await self._ask(
            Lane.UPLOAD,
            shard,
            candidates,
            office,
            lambda job, plan: TopUp(job, plan, tuple(slots), purpose, self._pace.copies_together, count),
        )
        if done is None:
            raise Unavailable(_NO_COPY)
        # Nothing is discarded: made again it is the same piece, and another top-up may just have recorded it.
        placement.end({(piece.host, piece.id) for piece in done.pieces})
        self._keep(shard, done.answers)
        self._market.keep(done.digests)
        return done.pieces

    async def identify(self, shard: ShardRecord, slots: Sequence[Slot]) -> tuple[PieceId, ...]:
        """The ids of the pieces that slots make, from the shard itself: to compare with what somebody else made.

        Raises ``Unavailable`` when the shard cannot be fetched now, ``WorkerLost``.
        """
        candidates, office = await self._book.looked_up(shard), self._office()
        done = await self._ask(
            Lane.AHEAD, shard, candidates, office, lambda job, plan: Identify(job, plan, tuple(slots))
        )
        if done is None:
            raise Unavailable(_NO_COPY)
        return done.ids

    async def digest(self, shard: ShardRecord, wanted: Sequence[tuple[PieceRecord, Salts]]) -> None:
        """Have pieces of a shard digested that hosts have; all of them are made anew from what is fetched once.

        Raises ``Unavailable`` when the shard cannot be fetched now, ``WorkerLost``.
        """
        candidates, office = await self._book.looked_up(shard), self._office()
        slots = tuple(Slot(piece.position, piece.generation) for piece, _salts in wanted)
        salts = tuple(salts for _piece, salts in wanted)
        done = await self._ask(
            Lane.AHEAD, shard, candidates, office, lambda job, plan: Identify(job, plan, slots, salts)
        )
        if done is None:
            raise Unavailable(_NO_COPY)
        recorded = {piece.id for piece, _salts in wanted}
        self._market.keep([digests for digests in done.digests if digests.piece in recorded])

    @property
    def last_moved(self) -> float:
        """See `Transfers.last_moved`."""
        return self._last_moved

    def forgive(self, hosts: Iterable[NodeId]) -> None:
        """These hosts have just appeared, or come back: what went wrong before says nothing now."""
        for host in hosts:
            self._placer.succeeded(host)
            if host in self._memories:
                self._memories[host] = msgspec.structs.replace(self._memories[host], failures=NO_FAILURES)

    def discard(self, pieces: Sequence[PieceRecord]) -> None:
        """See `Transfers.discard`."""
        self._answers.forget(piece.id for piece in pieces)
        known = [(self._book.address_of(piece.host), piece.id) for piece in pieces]
        self._forget(tuple((address, piece) for address, piece in known if address is not None))

    def _office(
        self,
        placement: Placement | None = None,
        find_content: FindContent | None = None,
        redundancy: Redundancy = DEFAULT_REDUNDANCY,
    ) -> JobOffice:
        hear = partial(self._hear, redundancy)
        return JobOffice(placement or self._placer.begin(), find_content or self._find_content, hear)

    def _copies_at_once(self, redundancy: Redundancy) -> float:
        """As if all shards on their way had this redundancy, which is mostly so."""
        shards, _waiting = self._pool.counts()[Lane.UPLOAD]
        return copies_at_once(shards, redundancy, together=self._pace.copies_together)

    def _hear(self, redundancy: Redundancy, news: News, at_once_before: float) -> float:
        """Change the pace by what is heard; how many copies are on their way now."""
        at_once = self._copies_at_once(redundancy)
        if isinstance(news, Moving) or news.well:
            self._last_moved = trio.current_time()
        if isinstance(news, Tried):
            if news.well:
                copy_bytes = news.piece_bytes * redundancy.needed
                self._pace = self._pace.after_copy(news.seconds, copy_bytes, max(at_once, at_once_before))
            else:
                self._pace = self._pace.after_failure(news.seconds)
            self._shards.total_tokens = self._pace.shards_at_once
        return at_once

    async def _fetch(
        self, lane: Lane, shard: ShardRecord, office: JobOffice, make: Callable[[int, FetchPlan], Job]
    ) -> Done:
        """Ask where the records say; then look the hosts up afresh, and ask again while there is patience."""
        candidates = self._book.recorded(shard)
        pause_seconds, give_up = _FIRST_PAUSE_SECONDS, trio.current_time() + self._patience_seconds
        while True:
            done = await self._ask(lane, shard, candidates, office, make)
            if done is not None:
                return done
            if trio.current_time() >= give_up:
                raise Unavailable(_NO_COPY)
            await trio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
            candidates = await self._book.looked_up(shard)

    async def _ask(
        self,
        lane: Lane,
        shard: ShardRecord,
        candidates: Sequence[Candidate],
        office: JobOffice,
        make: Callable[[int, FetchPlan], Job],
    ) -> Done | None:
        """One round; None when the candidates had too few good pieces."""
        if len({candidate.piece.position for candidate in candidates}) < shard.redundancy.needed:
            return None
        plan = self._plan(shard, candidates)
        answer = await self._pool.do(lane, lambda job: make(job, plan), office)
        self._remember(shard, answer.attempts, opened=isinstance(answer, Done))
        if isinstance(answer, Done):
            return answer
        if answer.kind != Unavailable.__name__:
            raise answer.error()
        return None

    def _plan(self, shard: ShardRecord, candidates: Sequence[Candidate]) -> FetchPlan:
        hosts = list(dict.fromkeys(_host(candidate) for candidate in candidates))
        hosts = order(hosts, self._memories, trio.current_time(), next(self._turns))
        hosts.sort(key=frozenset((*self._excluded(), *self._suspended())).__contains__)
        first = [self._memories.get(host, UNKNOWN) for host in hosts[: shard.redundancy.needed]]
        candidates = [self._to_digest(shard, each) for each in candidates]
        return FetchPlan(
            shard,
            tuple(sorted(candidates, key=lambda candidate: (_is_stray(candidate), hosts.index(_host(candidate))))),
            hedge_of_several(first, _piece_bytes(shard)),
            FETCH_DEADLINE_SECONDS,
        )

    def _to_digest(self, shard: ShardRecord, candidate: Candidate) -> Candidate:
        """With what is to be made of the piece when it comes."""
        answers, salts = self._answers.lacking(shard.id, candidate.piece.id), self._market.lacking(candidate.piece)
        return msgspec.structs.replace(candidate, answers=answers, salts=salts)

    def _remember(self, shard: ShardRecord, attempts: Iterable[Attempt], *, opened: bool) -> None:
        """What does not fit is a bad piece when others did fit: when none did, it may be the shard's record that is."""
        now, recorded = trio.current_time(), {(piece.id, piece.host) for piece in shard.pieces}
        piece_bytes = _piece_bytes(shard)
        for attempt in attempts:
            self._keep(shard, attempt.answers)
            self._market.keep([attempt.digests] if attempt.digests else ())
            if (attempt.piece, attempt.host) in recorded:
                self._on_attempt(attempt.host, attempt.outcome)
            memory = self._memories.get(attempt.host, UNKNOWN)
            match attempt.outcome:
                case "good" | "misfit":
                    memory = memory.after_success(attempt.seconds, piece_bytes)
                    if attempt.outcome == "misfit" and opened and (attempt.piece, attempt.host) in recorded:
                        self._on_bad_piece(shard.id, attempt.piece, attempt.host, attempt.outcome)
                case "late":
                    memory = memory.after_lateness(attempt.seconds, piece_bytes)
                case _ if (attempt.piece, attempt.host) in recorded:
                    memory = memory.after_failure(now)
                    if attempt.outcome == "unreachable":
                        self._finder.suspect(attempt.host)
                    self._on_bad_piece(shard.id, attempt.piece, attempt.host, attempt.outcome)
                case _:
                    continue  # nobody said that this host had the piece
            self._memories[attempt.host] = memory

    def _answers_for(self, purpose: Purpose) -> int:
        return self._answers.per_piece if purpose == CONTENT else 0

    def _keep(self, shard: ShardRecord, answers: Iterable[PieceAnswer]) -> None:
        """Those that are still lacking: others may have fetched the piece at the same time, or removed the shard."""
        self._answers.keep([answer for answer in answers if self._answers.lacking(shard.id, answer.piece)])

    def _end(self, placement: Placement, kept: Iterable[PieceRecord]) -> None:
        """Pieces that no record will name are discarded: of a worker that died, of a transfer that failed."""
        self._forget(placement.end({(piece.host, piece.id) for piece in kept}))

    def _forget(self, orphans: tuple[tuple[HostAddress, PieceId], ...]) -> None:
        if orphans:
            try:
                self._orphans.send_nowait(orphans)
            except trio.WouldBlock:
                _log.info("%d pieces are left on hosts that nobody needs", len(orphans))

    async def _discard_orphans(self) -> None:
        office = self._office()
        async for orphans in self._to_discard:
            await self._pool.do(Lane.AHEAD, partial(Discard, pieces=orphans), office)


def _nothing_stored(_digests: Sequence[bytes]) -> Mapping[bytes, tuple[int, int]]:
    return {}


def _piece_bytes(shard: ShardRecord) -> int:
    return shard.redundancy.piece_bytes(shard.sealed_bytes)


def _host(candidate: Candidate) -> NodeId:
    return candidate.address.node_id


def _is_stray(candidate: Candidate) -> bool:
    """Whether this is a host that the records do not name."""
    return candidate.piece.host != candidate.address.node_id
