"""Composition root of a worker process: the hands of the mount. `python -m layrfs.worker FD`, FD being one end of a
socket pair whose other end the main process holds.

Owns threads: one reads the socket, jobs run in others, calls to hosts in yet others. Holds no state that matters: the
process may be killed at any point and its jobs be done again. How many jobs run at once, and so how much memory they
take, is the main process's decision (`layrfs.pipeline.pool`).
Invariant: the process ends when the socket does, whatever its threads are doing.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from layrfs import logs
from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import BadMessage, LayrError
from layrfs.network.links import HostLinks
from layrfs.pipeline.fetching import download, examine
from layrfs.pipeline.jobs import (
    Answer,
    Attempt,
    Cancel,
    ContentAnswer,
    ContentQuestion,
    Discard,
    Done,
    Download,
    Examine,
    Failed,
    FromWorker,
    Identify,
    Job,
    Moving,
    Place,
    PlacesAnswer,
    PlacesQuestion,
    Question,
    Start,
    TopUp,
    ToWorker,
    Tried,
    Unpacker,
    Upload,
    Wish,
    WorkerKeys,
    pack,
    to_worker_untrusted,
)
from layrfs.pipeline.ports import Calls, Cancelled, Tools
from layrfs.pipeline.sealing import SealingKeys
from layrfs.pipeline.storing import discard, identify, top_up, upload

JOB_THREADS = 32
CALL_THREADS = 96
"""Never the bound that matters: the main process gives far fewer jobs than this, and a job opens a few calls."""

_READ_BYTES = 256 << 10

NICENESS = 10
"""When the cores are busy, whoever waits for the mount goes first; idle cores are used all the same."""

_log = logging.getLogger(__name__)


class Line:
    """The foreman of one job: carries its questions to the main process and the answers back."""

    def __init__(self, job: int, send: Callable[[FromWorker], None]) -> None:
        self._job = job
        self._send = send
        self._lock = threading.Lock()
        self._open: dict[int, SimpleQueue[Answer | None]] = {}
        self._asked = 0
        self._calls = Calls()

    @property
    def calls(self) -> Calls:
        """The job's open calls to hosts."""
        return self._calls

    def find_content(self, digests: Sequence[bytes]) -> Mapping[bytes, tuple[int, int]]:
        """Which blocks the volume stores already."""
        if not digests:
            return {}
        answer = self._ask(lambda question: ContentQuestion(self._job, question, tuple(digests)))
        if not isinstance(answer, ContentAnswer):
            raise BadMessage("an answer does not fit the question")
        return {digest: (content, length) for digest, content, length in answer.found}

    def find_places(self, wishes: Sequence[Wish]) -> Sequence[Place | None]:
        """A host for each piece, or None."""
        answer = self._ask(lambda question: PlacesQuestion(self._job, question, tuple(wishes)))
        if not isinstance(answer, PlacesAnswer) or len(answer.places) != len(wishes):
            raise BadMessage("an answer does not fit the question")
        return answer.places

    def moving(self) -> None:
        """Bytes of a piece arrive at a host."""
        self._send(Moving(self._job))

    def tried(self, piece_bytes: int, seconds: float, *, well: bool) -> None:
        """A host has a piece now, or has not, after so long."""
        self._send(Tried(self._job, piece_bytes, seconds, well))

    def deliver(self, answer: Answer) -> None:
        """An answer has come; nobody may be waiting for it any more."""
        with self._lock:
            waiting = self._open.pop(answer.question, None)
        if waiting is not None:
            waiting.put(answer)

    def cancel(self) -> None:
        """End the job's calls and questions."""
        self._calls.cancel()
        with self._lock:
            waiting = list(self._open.values())
            self._open.clear()
        for one in waiting:
            one.put(None)

    def _ask(self, make: Callable[[int], Question]) -> Answer:
        answered: SimpleQueue[Answer | None] = SimpleQueue()
        with self._lock:
            self._calls.check()
            self._asked += 1
            question = self._asked
            self._open[question] = answered
        self._send(make(question))
        answer = answered.get()
        if answer is None:
            raise Cancelled
        return answer


class Worker:
    """Takes messages from the main process until it goes away."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._lines: dict[int, Line] = {}
        self._jobs = ThreadPoolExecutor(JOB_THREADS, "job")
        self._hands = ThreadPoolExecutor(CALL_THREADS, "call")

    def serve(self) -> None:
        """Returns when the socket ends."""
        messages = self._messages()
        first = next(messages, None)
        if not isinstance(first, Start):
            return
        tools = self._tools(first.keys)
        for message in messages:
            self._take(tools, message)

    def _messages(self) -> Iterator[ToWorker]:
        unpacker = Unpacker()
        while data := self._receive():
            unpacker.feed(data)
            for body in unpacker.bodies_untrusted():
                yield to_worker_untrusted(body)

    def _receive(self) -> bytes:
        try:
            return self._connection.recv(_READ_BYTES)
        except ConnectionError:
            return b""

    def _tools(self, keys: WorkerKeys) -> Tools:
        links = HostLinks(NodeIdentity.from_private(keys.node_private), keys.network_id)
        return Tools(SealingKeys(keys.content, keys.digest, keys.volume), keys.mask, links, self._hands)

    def _take(self, tools: Tools, message: ToWorker) -> None:
        match message:
            case Upload() | Download() | Examine() | TopUp() | Identify() | Discard():
                line = Line(message.job, self._send)
                self._lines[message.job] = line
                self._jobs.submit(self._work, tools, line, message)
            case ContentAnswer() | PlacesAnswer():
                if (asking := self._lines.get(message.job)) is not None:
                    asking.deliver(message)
            case Cancel():
                if (unwanted := self._lines.get(message.job)) is not None:
                    unwanted.cancel()
            case Start():
                raise BadMessage("a worker starts once")

    def _work(self, tools: Tools, line: Line, job: Job) -> None:
        """Supervises one job: whatever happens in it, the main process gets exactly one answer."""
        attempts: list[Attempt] = []
        try:
            answer: Done | Failed = _do(tools, line, job, attempts)
        except Cancelled:
            answer = Failed(job.job, "WorkerLost", "The transfer was cancelled.", tuple(attempts))
        except LayrError as error:
            answer = Failed(job.job, type(error).__name__, str(error), tuple(attempts))
        except Exception as error:  # noqa: BLE001 - the supervisor of all jobs
            _log.exception("a job of a worker failed in a way nobody foresaw")
            answer = Failed(job.job, "LocalError", f"A worker failed: {error!r}.", tuple(attempts))
        self._lines.pop(job.job, None)
        self._send(answer)

    def _send(self, message: FromWorker) -> None:
        data = pack(message)
        try:
            with self._sending:
                self._connection.sendall(data)
        except OSError:
            os._exit(0)


def _do(tools: Tools, line: Line, job: Job, attempts: list[Attempt]) -> Done:
    match job:
        case Upload():
            return upload(tools, line, job)
        case Download():
            return download(tools, line, job, attempts)
        case Examine():
            return examine(tools, line, job, attempts)
        case TopUp():
            return top_up(tools, line, job, attempts)
        case Identify():
            return identify(tools, line, job, attempts)
        case Discard():
            return discard(tools, job)


def main() -> None:
    """Serve the socket whose number is the only argument."""
    # Ctrl-C and the end of a session go to the whole process group. The main process decides what they mean: it may
    # need its workers for the last upload, and they end with its socket anyway.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    logs.configure(None, verbose=False)
    status = 1
    try:
        Worker(socket.socket(fileno=int(sys.argv[1]))).serve()
        status = 0
    except Exception:  # noqa: BLE001 - the last one who can tell
        _log.exception("a worker ends: it cannot go on")
    finally:
        # Threads may be in the middle of calls to hosts; nothing of theirs is worth waiting for.
        os._exit(status)


if __name__ == "__main__":
    main()
