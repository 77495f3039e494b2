"""Getting one good copy of a shard: a staggered race between the hosts that hold one. Blocking.

Owns the race: the first host is asked, the next when it is late or has failed, the first good answer wins and the
others are hung up on. A host that sends is late only after longer than in the past: on a slow line, asking others as
well would make all of them slower. A copy is good when it matches its piece id (the links see to that) and when what
is made of it is what was sealed. Must not know in which order, or how long, is wise: `policy.hedging` says so in the
plan.
Shape: trio's happy eyeballs, with threads.
"""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Generic, TypeVar

from layrfs.crashpoints import reached
from layrfs.crypto.digests import shard_id
from layrfs.errors import MissingPiece, Refused, RemoteError, Unavailable, WrongBytes
from layrfs.model.shard_format import Part
from layrfs.model.shards import PieceRecord
from layrfs.network.connections import Cancellation
from layrfs.pipeline.coding import unmask
from layrfs.pipeline.jobs import Attempt, Candidate, Done, Download, Examine, FetchPlan, Outcome
from layrfs.pipeline.ports import Calls, Foreman, Tools
from layrfs.pipeline.sealing import unseal, unseal_with_table, write_targets
from layrfs.pipeline.transfers import Examined, ExaminedPart, Slot, TargetPart

T = TypeVar("T")
Accept = Callable[[PieceRecord, bytearray], T]
"""Turns a piece's bytes, which are its own, into what is wanted; raises WrongBytes when they are not good after all."""


def download(tools: Tools, foreman: Foreman, job: Download, attempts: list[Attempt]) -> Done:
    """Fetch, open, write to all targets; raises Unavailable, LocalError."""
    shard = job.plan.shard

    def payload_of(piece: PieceRecord, data: bytearray) -> memoryview:
        unmask(tools.mask, shard.salt, Slot(piece.position, piece.generation), data)
        return unseal(tools.keys, shard.salt, data)

    payload = fetch(tools, foreman.calls, job.plan, payload_of, attempts)
    foreman.calls.check()
    write_targets(payload, job.targets)
    reached("block fetched")
    return Done(job.job, attempts=tuple(attempts))


def examine(tools: Tools, foreman: Foreman, job: Examine, attempts: list[Attempt]) -> Done:
    """Fetch and open a shard of which only the salt is known; raises Unavailable, LocalError."""
    salt = job.plan.shard.salt

    def opened(piece: PieceRecord, data: bytearray) -> tuple[bytearray, tuple[Part, ...], memoryview]:
        unmask(tools.mask, salt, Slot(piece.position, piece.generation), data)
        return data, *unseal_with_table(tools.keys, salt, data)

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
    """What `accept` makes of the first good copy; `attempts` learns how each host did. Raises Unavailable."""
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
    """One host that was asked: when, when it last sent something, how to hang up, and its answer to come."""

    def __init__(self, tools: Tools, get: Callable[[_Runner], bytearray]) -> None:
        self.started = self.sent_at = time.monotonic()
        self.call = Cancellation()
        self.answer: Future[bytearray] = tools.hands.submit(get, self)

    def arrived(self) -> None:
        self.sent_at = time.monotonic()


class _Race(Generic[T]):
    def __init__(self, tools: Tools, calls: Calls, plan: FetchPlan, accept: Accept[T], attempts: list[Attempt]) -> None:
        self._tools, self._calls, self._plan = tools, calls, plan
        self._accept, self._attempts = accept, attempts
        self._deadline = time.monotonic() + plan.deadline_seconds
        self._waiting = list(reversed(plan.candidates))
        self._running: dict[int, _Runner] = {}
        self._finished: queue.SimpleQueue[int] = queue.SimpleQueue()

    def run(self) -> T:
        won = False
        try:
            while self._keep_going():
                result = self._next_result()
                if result is not None:
                    won = True
                    return result
        finally:
            self._hang_up("late" if won else "unreachable")
        raise Unavailable("No good copy of the shard can be reached.")

    def _keep_going(self) -> bool:
        """Ask the next host: called at the start, when a host is late, and when one has failed."""
        self._calls.check()
        if time.monotonic() >= self._deadline:
            return False
        if self._waiting:
            self._ask(self._waiting.pop())
        return bool(self._running)

    def _next_result(self) -> T | None:
        """What came first; None when it was no good, or when another host should be asked."""
        while True:
            try:
                return self._judge(self._finished.get(timeout=max(0.0, self._patience_seconds())))
            except queue.Empty:
                if self._patience_seconds() <= 0:
                    return None

    def _patience_seconds(self) -> float:
        now = time.monotonic()
        left = self._deadline - now
        if not self._waiting:
            return left
        newest = max(self._running.values(), key=lambda runner: runner.started)
        return min(left, self._plan.hedge.late_in(now - newest.started, now - newest.sent_at))

    def _ask(self, candidate: Candidate) -> None:
        index = self._plan.candidates.index(candidate)
        runner = self._running[index] = _Runner(self._tools, partial(self._retrieve, candidate))
        runner.answer.add_done_callback(lambda _: self._finished.put(index))

    def _retrieve(self, candidate: Candidate, runner: _Runner) -> bytearray:
        with self._calls.one(runner.call):
            return self._tools.links.retrieve(
                candidate.address,
                candidate.piece.id,
                deadline_seconds=max(0.1, self._deadline - time.monotonic()),
                arrived=runner.arrived,
                cancellation=runner.call,
            )

    def _judge(self, index: int) -> T | None:
        """The result, or None when this host's answer is not one."""
        runner = self._running.pop(index)
        seconds = time.monotonic() - runner.started
        try:
            result = self._accept(self._plan.candidates[index].piece, runner.answer.result())
        except RemoteError as error:
            self._calls.check()
            self._note(index, outcome_of(error), seconds)
            return None
        self._note(index, "good", seconds)
        return result

    def _hang_up(self, outcome: Outcome) -> None:
        """End the calls that nobody waits for any more."""
        now = time.monotonic()
        for index, runner in self._running.items():
            runner.call.cancel()
            self._note(index, outcome, now - runner.started)

    def _note(self, index: int, outcome: Outcome, seconds: float) -> None:
        candidate = self._plan.candidates[index]
        self._attempts.append(Attempt(candidate.piece.id, candidate.address.node_id, outcome, seconds))
