"""The worker processes: started, fed, and replaced when they die. The trio side of `layrfs.worker`.

Owns which job runs where, and how many at once: each lane (urgent reads, read-ahead, uploads) has its own places in
every worker, so that nothing waits behind work it does not compete with, and memory is bounded by counting.
Must not know what a job does or what the answers to its questions mean: those come from the `Office` of the job.
Invariant: a job given to `run` is in exactly one of: waiting, running in one worker, answered; and when `run` returns
or raises, no worker is doing the job any more.
"""

from __future__ import annotations

import enum
import itertools
import logging
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import trio

import layrfs
from layrfs.errors import BadMessage, LayrError, WorkerLost
from layrfs.pipeline.jobs import (
    Answer,
    Cancel,
    Done,
    Failed,
    FromWorker,
    Job,
    Moving,
    News,
    Question,
    Start,
    ToWorker,
    Tried,
    Unpacker,
    WorkerKeys,
    from_worker_untrusted,
    pack,
)

WORKERS = 2
TRIES = 3
"""A job is given to a worker this often; the last time alone, so that no job is blamed for its neighbour."""

CANCEL_SECONDS = 5.0
"""A cancelled job that has not ended by then costs its worker's life."""

LONGEST_PAUSE_SECONDS = 10.0
"""Between the starts of workers that die at once (no memory, a broken installation)."""

KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}
"""For glibc, in processes that move pieces: keep freed megabytes for the next job. Left alone, it hands them back to
the kernel, which zeroes them again at the next use: measured, that was a third of an upload's CPU time."""

_READ_BYTES = 64 << 10

_log = logging.getLogger(__name__)


class Lane(enum.Enum):
    """Kinds of work that do not wait for each other."""

    URGENT = "urgent"
    AHEAD = "ahead"
    UPLOAD = "upload"


PLACES = {Lane.URGENT: 2, Lane.AHEAD: 2, Lane.UPLOAD: 3}
"""How many jobs of a lane a worker does at once. A fetch holds up to 16 MiB (fragments, sealed, plain), an upload up to
20 (sealed and coded, then the pieces): together just above 100 MiB for a worker."""

_OUTBOX_MESSAGES = 256
"""A worker's jobs, one answer for every copy of each, and their cancellations are far fewer."""


class Office(Protocol):
    """Who answers the questions of one job."""

    async def answer(self, question: Question) -> Answer:
        """Raises a LayrError when the job cannot go on; it fails with that."""
        ...

    def restarted(self) -> None:
        """The job starts again in another worker; what it did so far is lost."""
        ...

    def hear(self, news: News) -> None:
        """How the job's pieces travel."""
        ...


class _Task:
    """One job from `do` until its answer."""

    def __init__(self, job: Job, lane: Lane, office: Office) -> None:
        self.job, self.lane, self.office = job, lane, office
        self.tries = 0
        self.worker: _Worker | None = None
        self.unwanted = False
        self.answer: Done | Failed | None = None
        self.ended = trio.Event()

    def end(self, answer: Done | Failed) -> None:
        self.worker = None
        self.answer = self.answer or answer
        self.ended.set()


class _Worker:
    """One living process."""

    def __init__(self, process: trio.Process, stream: trio.SocketStream) -> None:
        self.process, self.stream = process, stream
        self.tasks: dict[int, _Task] = {}
        self._outbox, self._to_write = trio.open_memory_channel[bytes](_OUTBOX_MESSAGES)

    def say(self, message: ToWorker) -> None:
        self._outbox.send_nowait(pack(message))

    async def write(self) -> None:
        """Sends what was said. A broken stream is the reader's to notice."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in self._to_write:
                await self.stream.send_all(data)

    def has_place(self, lane: Lane) -> bool:
        alone = any(task.tries == TRIES for task in self.tasks.values())
        return not alone and self.count(lane) < PLACES[lane]

    def count(self, lane: Lane) -> int:
        return sum(1 for task in self.tasks.values() if task.lane is lane)


class WorkerPool:
    """Bounded, restartable jobs in worker processes; `run` must be running for anything to happen."""

    def __init__(self, keys: WorkerKeys, workers: int = WORKERS) -> None:
        self._keys = keys
        self._size = workers
        self._workers: list[_Worker] = []
        self._waiting: dict[Lane, deque[_Task]] = {lane: deque() for lane in Lane}
        self._numbers = itertools.count(1)
        self._closed = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the workers alive until cancelled; then every job in hand ends with WorkerLost."""
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(self._size):
                    await nursery.start(self._keep_one)
                task_status.started()
        finally:
            self._close()

    async def do(self, lane: Lane, make: Callable[[int], Job], office: Office) -> Done | Failed:
        """Have a job done (`make` gets its number); a job whose worker died is done again, up to `TRIES` times.

        When cancelled, returns only after the job has ended.
        """
        if self._closed:
            raise WorkerLost("The workers have been stopped.")
        task = _Task(make(next(self._numbers)), lane, office)
        self._waiting[lane].append(task)
        self._assign()
        try:
            await task.ended.wait()
        except trio.Cancelled:
            await self._abandon(task)
            raise
        if task.answer is None:
            raise AssertionError("a job has ended without an answer")
        return task.answer

    def process_ids(self) -> list[int]:
        """Of the workers that live now."""
        return [worker.process.pid for worker in self._workers]

    def counts(self) -> dict[Lane, tuple[int, int]]:
        """Jobs (running, waiting) in each lane."""
        return {
            lane: (sum(worker.count(lane) for worker in self._workers), len(waiting))
            for lane, waiting in self._waiting.items()
        }

    def _assign(self) -> None:
        """Give waiting jobs to workers with a place for them; called after everything that may have changed that."""
        for waiting in self._waiting.values():
            for task in list(waiting):
                worker = self._worker_for(task)
                if worker is not None:
                    waiting.remove(task)
                    task.tries += 1
                    task.worker = worker
                    worker.tasks[task.job.job] = task
                    worker.say(task.job)

    def _worker_for(self, task: _Task) -> _Worker | None:
        if task.tries == TRIES - 1:
            return next((worker for worker in self._workers if not worker.tasks), None)
        emptying = self._worker_to_empty()
        usable = [worker for worker in self._workers if worker is not emptying and worker.has_place(task.lane)]
        return min(usable, key=lambda worker: (worker.count(task.lane), len(worker.tasks)), default=None)

    def _worker_to_empty(self) -> _Worker | None:
        """A worker that gets nothing new, so that a job on its last try soon has one for itself."""
        last_tries = any(task.tries == TRIES - 1 for waiting in self._waiting.values() for task in waiting)
        return min(self._workers, key=lambda worker: len(worker.tasks), default=None) if last_tries else None

    async def _abandon(self, task: _Task) -> None:
        """The caller is leaving: take the job back, and wait until nobody does it."""
        task.unwanted = True
        if task in self._waiting[task.lane]:
            self._waiting[task.lane].remove(task)
            return
        if task.worker is None:
            return
        task.worker.say(Cancel(task.job.job))
        with trio.move_on_after(CANCEL_SECONDS, shield=True):
            await task.ended.wait()
        if not task.ended.is_set():
            _log.warning("worker %d does not end a cancelled job; replacing it", task.worker.process.pid)
            task.worker.process.kill()
            with trio.CancelScope(shield=True):
                await task.ended.wait()

    async def _keep_one(self, *, task_status: trio.TaskStatus[None]) -> None:
        worker = await self._hire()
        task_status.started()
        pause_seconds = 0.0
        while True:
            born = trio.current_time()
            if worker is not None:
                await self._live(worker)
            short = trio.current_time() - born < LONGEST_PAUSE_SECONDS
            await trio.sleep(pause_seconds)
            pause_seconds = min(LONGEST_PAUSE_SECONDS, max(0.1, 2 * pause_seconds)) if short else 0.0
            worker = await self._hire()

    async def _hire(self) -> _Worker | None:
        """A new worker among the others; None when the system gives us none just now."""
        worker = await _start()
        if worker is not None:
            worker.say(Start(self._keys))
            self._workers.append(worker)
            self._assign()
        return worker

    async def _live(self, worker: _Worker) -> None:
        """The life of one process, until it is gone and its jobs are somebody else's."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker.write)
                await self._read(worker, nursery)
                nursery.cancel_scope.cancel()
        finally:
            self._workers.remove(worker)
            with trio.CancelScope(shield=True):
                await _bury(worker)
            self._hand_back(worker)
        _log.warning("worker %d has ended (status %s); starting another", worker.process.pid, worker.process.returncode)

    async def _read(self, worker: _Worker, nursery: trio.Nursery) -> None:
        """Take what a worker says until it ends."""
        unpacker = Unpacker()
        with suppress(trio.BrokenResourceError):
            while data := await worker.stream.receive_some(_READ_BYTES):
                unpacker.feed(data)
                try:
                    for body in unpacker.bodies_untrusted():
                        self._take(worker, nursery, from_worker_untrusted(body))
                except BadMessage:
                    _log.exception("worker %d talks nonsense; replacing it", worker.process.pid)
                    return

    def _take(self, worker: _Worker, nursery: trio.Nursery, message: FromWorker) -> None:
        task = worker.tasks.get(message.job)
        if task is None:
            raise BadMessage("a worker speaks of a job it does not have")
        if isinstance(message, Done | Failed):
            del worker.tasks[message.job]
            task.end(message)
            self._assign()
        elif isinstance(message, Moving | Tried):
            task.office.hear(message)
        else:
            nursery.start_soon(self._answer, worker, task, message)

    async def _answer(self, worker: _Worker, task: _Task, question: Question) -> None:
        try:
            answer = await task.office.answer(question)
        except LayrError as error:
            task.answer = Failed(task.job.job, type(error).__name__, str(error))
            answer = None
        if worker.tasks.get(task.job.job) is task:
            worker.say(Cancel(task.job.job) if answer is None else answer)

    def _hand_back(self, worker: _Worker) -> None:
        """A process is gone: its jobs wait again, first in line, unless they are not worth it."""
        for task in reversed(worker.tasks.values()):
            if task.unwanted or task.answer or task.tries >= TRIES or self._closed:
                task.end(Failed(task.job.job, WorkerLost.__name__, "The worker process ended during the transfer."))
            else:
                task.worker = None
                task.office.restarted()
                self._waiting[task.lane].appendleft(task)
        worker.tasks.clear()
        self._assign()

    def _close(self) -> None:
        self._closed = True
        for waiting in self._waiting.values():
            while waiting:
                task = waiting.popleft()
                task.end(Failed(task.job.job, WorkerLost.__name__, "The workers have been stopped."))


async def _start() -> _Worker | None:
    """A new process, holding one end of a fresh socket pair. Nothing secret is in its arguments or environment."""
    # -P and an absolute path: what lies in the current directory is never imported by accident.
    package = os.path.dirname(os.path.dirname(os.path.abspath(layrfs.__file__)))
    search_path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    try:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-P", "-m", "layrfs.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **KEEP_MEMORY, "PYTHONPATH": search_path},
            )
    except OSError as error:
        _log.error("a worker cannot be started: %s", error.strerror)
        return None
    return _Worker(process, trio.SocketStream(trio.socket.from_stdlib_socket(ours)))


async def _bury(worker: _Worker) -> None:
    worker.process.kill()
    await worker.stream.aclose()
    await worker.process.wait()
