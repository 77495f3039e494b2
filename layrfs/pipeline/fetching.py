"""Getting a shard from the hosts that hold its pieces: a staggered race. Blocking.

Owns the race: as many hosts are asked as pieces are needed, one more for each that is late or has failed; as soon as
enough good pieces are there the others are hung up on. A host that sends is late only after longer than in the past:
on a slow line, asking others as well would make all of them slower. A piece is good when it matches its id (the links
see to that) and when what is made of it is what was sealed: pieces that do not fit together, each being what the
records say it is, are tried in other company, and named when it is known which of them are wrong. Must not know in
which order, or how long, is wise: `policy.hedging` says so in the plan.
Shape: trio's happy eyeballs, with threads.
"""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from layrfs.crashpoints import reached
from layrfs.crypto.digests import Buffer, shard_id
from layrfs.errors import MissingPiece, Refused, RemoteError, Unavailable, WrongBytes
from layrfs.ids import PieceId
from layrfs.model.answers import PieceAnswer
from layrfs.model.payables import PieceDigests, digests_of
from layrfs.model.shard_format import Part
from layrfs.network.connections import Cancellation
from layrfs.pipeline.answering import new_answers
from layrfs.pipeline.coding import disagreeing, sealed_of, unmask
from layrfs.pipeline.jobs import Attempt, Candidate, Done, Download, Examine, FetchPlan, Outcome
from layrfs.pipeline.ports import Calls, Foreman, Tools
from layrfs.pipeline.sealing import unseal, unseal_with_table, write_targets
from layrfs.pipeline.transfers import Examined, ExaminedPart, Slot, TargetPart

T = TypeVar("T")
Accept = Callable[[Buffer], T]
"""Turns a sealed shard into what is wanted; raises WrongBytes when it is none."""

MOST_TRIES = 100
"""Combinations of pieces: with two wrong pieces among eight, of which four are needed, 15 of 70 are good."""


def download(tools: Tools, foreman: Foreman, job: Download, attempts: list[Attempt]) -> Done:
    """Fetch, open, write to all targets; raises Unavailable, LocalError."""
    shard = job.plan.shard

    payload = fetch(tools, foreman.calls, job.plan, partial(unseal, tools.keys, shard.salt), attempts)
    foreman.calls.check()
    write_targets(payload, job.targets)
    reached("block fetched")
    return Done(job.job, attempts=tuple(attempts))


def examine(tools: Tools, foreman: Foreman, job: Examine, attempts: list[Attempt]) -> Done:
    """Fetch and open a shard of which only the salt is known; raises Unavailable, LocalError."""
    salt = job.plan.shard.salt

    def opened(sealed: Buffer) -> tuple[Buffer, tuple[Part, ...], memoryview]:
        return sealed, *unseal_with_table(tools.keys, salt, sealed)

    sealed, parts, payload = fetch(tools, foreman.calls, job.plan, opened, attempts)
    foreman.calls.check()
    if job.target is not None:
        write_targets(payload, [TargetPart(job.target.path, job.target.offset, 0, len(payload))])
    examined = Examined(shard_id(sealed), len(payload), len(sealed), _described(tools, parts, payload))
    return Done(job.job, examined=examined, attempts=tuple(attempts))


def _described(tools: Tools, parts: tuple[Part, ...], payload: memoryview) -> tuple[ExaminedPart, ...]:
    ends = list(itertools.accumulate((part.length for part in parts), initial=0))
    digest = tools.keys.digester.digest
    return tuple(
        ExaminedPart(part.inode, part.block, part.block_bytes, digest(payload[start:end]), start, part.length)
        for part, start, end in zip(parts, ends[:-1], ends[1:], strict=True)
    )


def fetch(tools: Tools, calls: Calls, plan: FetchPlan, accept: Accept[T], attempts: list[Attempt]) -> T:
    """What `accept` makes of the first good pieces; `attempts` learns how each host did. Raises Unavailable."""
    return _Race(tools, calls, plan, accept, attempts).run()


def outcome_of(error: RemoteError) -> Outcome:
    """What a failed call says about the host."""
    match error:
        case WrongBytes():
            return "wrong"
        case MissingPiece():
            return "missing"
        case Refused():
            return "refused"
        case _:
            return "unreachable"


class _Runner:
    """One host that was asked: when, when it last sent something, how to hang up, and its answer to come.

    One that was ``late`` once does not count any more, though its answer does.
    """

    def __init__(self, tools: Tools, position: int, get: Callable[[_Runner], bytearray]) -> None:
        self.started = self.sent_at = time.monotonic()
        self.position = position
        self.late = False
        self.call = Cancellation()
        self.answer: Future[bytearray] = tools.hands.submit(get, self)

    def arrived(self) -> None:
        self.sent_at = time.monotonic()


class _Held(NamedTuple):
    """A piece that has come: which candidate's, after how long, and the fragment in it."""

    candidate: int
    seconds: float
    fragment: bytearray


class _Race(Generic[T]):
    def __init__(self, tools: Tools, calls: Calls, plan: FetchPlan, accept: Accept[T], attempts: list[Attempt]) -> None:
        self._tools, self._calls, self._plan = tools, calls, plan
        self._accept, self._attempts = accept, attempts
        self._deadline = time.monotonic() + plan.deadline_seconds
        self._waiting = list(plan.candidates)
        self._running: dict[int, _Runner] = {}
        self._answers: dict[PieceId, list[PieceAnswer]] = {}
        self._digests: dict[PieceId, PieceDigests] = {}
        self._finished: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._redundancy = plan.shard.redundancy
        self._held: dict[int, _Held] = {}
        """By position, in the order in which they came."""
        self._wanted = self._redundancy.needed
        self._tries = 0

    def run(self) -> T:
        won = False
        try:
            while self._keep_going():
                position = self._next_piece()
                result = None if position is None else self._combined(position)
                if result is not None:
                    won = True
                    return result
        finally:
            self._note_held()
            self._hang_up("late" if won else "unreachable")
        raise Unavailable("No good copy of the shard can be reached.")

    def _keep_going(self) -> bool:
        """Ask as many as are lacking: at first, when a host is late, when one has failed, when pieces do not fit."""
        self._calls.check()
        if time.monotonic() >= self._deadline:
            return False
        while self._wanted > len(self._held) + len(self._expected()) and (candidate := self._next()) is not None:
            self._waiting.remove(candidate)
            self._ask(candidate)
        return bool(self._running)

    def _expected(self) -> set[int]:
        """The positions of pieces that are on their way in good time."""
        return {runner.position for runner in self._running.values() if not runner.late} - self._held.keys()

    def _next(self) -> Candidate | None:
        """The best that brings a new piece; one whose piece a late host was asked for only when there is no other."""
        unneeded, asked = self._expected() | self._held.keys(), {runner.position for runner in self._running.values()}
        useful = [candidate for candidate in self._waiting if candidate.piece.position not in unneeded]
        return min(useful, key=lambda candidate: candidate.piece.position in asked, default=None)

    def _next_piece(self) -> int | None:
        """The position of the piece that came first; None when it was no good, or when another host should be asked."""
        while True:
            try:
                return self._judge(self._finished.get(timeout=max(0.0, self._patience_seconds())))
            except queue.Empty:
                if self._patience_seconds() <= 0:
                    self._note_late()
                    return None

    def _patience_seconds(self) -> float:
        now = time.monotonic()
        left = self._deadline - now
        if not self._waiting:
            return left
        return min([left, *(self._late_in(runner, now) for runner in self._running.values() if not runner.late)])

    def _late_in(self, runner: _Runner, now: float) -> float:
        return self._plan.hedge.late_in(now - runner.started, now - runner.sent_at)

    def _note_late(self) -> None:
        now = time.monotonic()
        for runner in self._running.values():
            runner.late = runner.late or self._late_in(runner, now) <= 0

    def _ask(self, candidate: Candidate) -> None:
        index = self._plan.candidates.index(candidate)
        get = partial(self._retrieve, candidate)
        runner = self._running[index] = _Runner(self._tools, candidate.piece.position, get)
        runner.answer.add_done_callback(lambda _: self._finished.put(index))

    def _retrieve(self, candidate: Candidate, runner: _Runner) -> bytearray:
        piece = candidate.piece
        with self._calls.one(runner.call):
            data = self._tools.links.retrieve(
                candidate.address,
                piece.id,
                deadline_seconds=max(0.1, self._deadline - time.monotonic()),
                arrived=runner.arrived,
                cancellation=runner.call,
            )
        self._answers[piece.id] = new_answers(self._tools.mask, piece.id, data, candidate.answers)
        if candidate.salts is not None:
            self._digests[piece.id] = digests_of(candidate.salts, piece.id, data)
        unmask(self._tools.mask, self._plan.shard.salt, Slot(piece.position, piece.generation), data)
        return data

    def _judge(self, index: int) -> int | None:
        """The position of a piece that is there now, or None when this host's answer is not one."""
        runner = self._running.pop(index)
        seconds = time.monotonic() - runner.started
        try:
            fragment = runner.answer.result()
        except RemoteError as error:
            self._calls.check()
            self._note(index, outcome_of(error), seconds)
            return None
        if runner.position in self._held:
            self._note(index, "good", seconds)
            return None
        self._held[runner.position] = _Held(index, seconds, fragment)
        return runner.position

    def _combined(self, newest: int) -> T | None:
        """What becomes of the pieces; None when more are needed, or they do not fit together in any company."""
        needed = self._redundancy.needed
        others = [position for position in self._held if position != newest]
        for company in itertools.combinations(others, needed - 1):
            if self._tries >= MOST_TRIES:
                break
            self._tries += 1
            try:
                return self._opened((newest, *company))
            except WrongBytes:
                continue
        if len(self._held) >= needed:
            self._no_good(newest)
        return None

    def _opened(self, positions: tuple[int, ...]) -> T:
        fragments = {position: held.fragment for position, held in self._held.items()}
        sealed = sealed_of(self._redundancy, {position: fragments[position] for position in positions})
        result = self._accept(sealed)
        if self._wanted > self._redundancy.needed:
            for position in disagreeing(self._redundancy, fragments, sealed):
                self._drop(position)
        return result

    def _no_good(self, newest: int) -> None:
        """A copy alone is to blame itself; of several pieces it shows when more have come."""
        if self._redundancy.mirrors:
            self._drop(newest)
        else:
            self._wanted = len(self._held) + 1

    def _drop(self, position: int) -> None:
        held = self._held.pop(position)
        self._note(held.candidate, "misfit", held.seconds)

    def _note_held(self) -> None:
        for held in self._held.values():
            self._note(held.candidate, "good", held.seconds)

    def _hang_up(self, outcome: Outcome) -> None:
        """End the calls that nobody waits for any more."""
        now = time.monotonic()
        for index, runner in self._running.items():
            runner.call.cancel()
            self._note(index, outcome, now - runner.started)

    def _note(self, index: int, outcome: Outcome, seconds: float) -> None:
        candidate = self._plan.candidates[index]
        piece, host = candidate.piece.id, candidate.address.node_id
        answers = tuple(self._answers.pop(piece, ())) if outcome == "good" else ()
        digests = self._digests.pop(piece, None) if outcome == "good" else None
        self._attempts.append(Attempt(piece, host, outcome, seconds, answers, digests))
