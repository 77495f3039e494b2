"""The listening end of piece transfers: one thread per connection, every stranger under a bound and a deadline.

Owns the listening socket, connections and their threads; must not know what requests mean (`PieceService` does).
Invariant: whatever a peer sends or fails to send ends that peer's connection at most, and is counted.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import secrets
import socket
import ssl
import threading
import time
from collections import Counter
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from layrfs.crypto.digests import Buffer
from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import BadMessage
from layrfs.ids import NodeId
from layrfs.network.frame_stream import STEP_BYTES, ConnectionEnded, FrameStream, IdleTooLong, abort_socket, tune
from layrfs.network.tls import peer_node_id, server_context
from layrfs.wire import messages
from layrfs.wire.codec import encode
from layrfs.wire.contracts import COVERED_PIECES_LIMIT, PIECE_ID_BYTES, Cover
from layrfs.wire.delegation import DIGESTS_BYTES, Delegate, Entrust
from layrfs.wire.messages import CHALLENGE_BYTES, PROTOCOL_VERSION, Reason, Request, Response

_log = logging.getLogger(__name__)

_BACKLOG = 128
_HAS_BODY = messages.Store | messages.PutRoot | Delegate | Entrust | Cover
_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Limits(msgspec.Struct, frozen=True):
    """How much of us strangers may hold, and for how long."""

    connections: int = 256
    connections_per_address: int = 64
    bodies: int = 16
    """Requests that bring a piece at one time, and as many again that read one; more wait, then hear `busy`."""
    bodies_per_peer: int = 8
    bodies_per_address: int = 12
    """Node ids are free. Several drives behind one address share these, and are served no slower for it."""
    listings: int = 2
    """Inventories made at one time; each reads the disk for a second at most."""
    questions: int = 20
    questions_per_address: int = 10
    """In a minute: requests of strangers for which the ledger's servers, that count them too, may have to be asked."""
    questions_per_tenant: int = 60
    """In ten minutes: such requests of who has a contract, if they come to nothing."""
    queue_seconds: float = 20.0
    handshake_seconds: float = 10.0
    idle_seconds: float = 90.0
    header_seconds: float = 10.0
    body_seconds: float = 10.0
    """For a body of no size; `slowest_bytes_per_second` adds to it."""
    slowest_bytes_per_second: int = 16 * 1024

    def body_deadline(self, body_bytes: int) -> float:
        """Until when (monotonic) a body may be on its way."""
        return time.monotonic() + self._seconds(body_bytes)

    @property
    def step_seconds(self) -> float:
        """How long each `STEP_BYTES` of a body may take."""
        return self._seconds(STEP_BYTES)

    def _seconds(self, body_bytes: int) -> float:
        return self.body_seconds + body_bytes / self.slowest_bytes_per_second


class Visit:
    """One connection, from its handshake on: who, from where, and what its signatures are bound to."""

    def __init__(self, node_id: NodeId, address: str) -> None:
        self.node_id = node_id
        self.address = address
        self.challenge = secrets.token_bytes(CHALLENGE_BYTES)
        self._signed = 0

    def next_number(self) -> int:
        """The number that the next signed request has to have. Never given out twice: nothing can be replayed."""
        self._signed += 1
        return self._signed - 1


class Answer(msgspec.Struct, frozen=True):
    """What goes back."""

    header: Response
    body: Buffer = b""


class PieceService(Protocol):
    """Decides and does what requests ask. Called from many threads; must not raise for anything a stranger sends."""

    def hold(self, visit: Visit, request: Request, body_bytes: int) -> AbstractContextManager[Reason | None]:
        """Room for this request while it lasts: None, or why there is none. May wait a bounded time."""
        ...

    def answer(self, visit: Visit, request: Request, body: memoryview) -> Answer:
        """Carry it out."""
        ...


class Counts:
    """How often what happened; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, what: str) -> None:
        """Once more."""
        with self._lock:
            self._counts[what] += 1

    def snapshot(self) -> dict[str, int]:
        """A copy."""
        with self._lock:
            return dict(self._counts)


class _Open:
    """A connection being served: its socket as it is now (plain, then TLS), and where it came from."""

    def __init__(self, connection: socket.socket, address: str) -> None:
        self.socket = connection
        self.address = address


class PieceServer:
    """Serves one listening socket as one node until closed."""

    def __init__(
        self,
        identity: NodeIdentity,
        network_id: bytes,
        listener: socket.socket,
        service: PieceService,
        *,
        limits: Limits,
        dropped: Counts,
    ) -> None:
        self._context = server_context(identity)
        self._network_id = network_id
        self._listener = listener
        self._service = service
        self._limits = limits
        self._dropped = dropped
        self._lock = threading.Lock()
        self._open: dict[threading.Thread, _Open] = {}
        self._closing = threading.Event()
        self._acceptor = threading.Thread(target=self._accept_all, name="accept pieces", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._listener.listen(_BACKLOG)
        self._listener.settimeout(None)
        self._acceptor.start()

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._open)

    def close(self, wait_seconds: float = 5.0) -> None:
        """Accept nothing more, cut every connection, and wait for the threads, which finish what they do on disk."""
        self._closing.set()
        abort_socket(self._listener)
        if self._acceptor.is_alive():
            self._acceptor.join(wait_seconds)
        self._listener.close()
        with self._lock:
            threads = list(self._open)
            for open_one in self._open.values():
                abort_socket(open_one.socket)
        deadline = time.monotonic() + wait_seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _accept_all(self) -> None:
        while not self._closing.is_set():
            try:
                connection, address = self._listener.accept()
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    self._dropped.add("out of resources")
                    self._closing.wait(0.1)
                continue
            self._admit(connection, str(address[0]))

    def _admit(self, connection: socket.socket, address: str) -> None:
        """Give the connection a thread of its own, or close it when there are enough."""
        thread = threading.Thread(target=self._serve, args=(connection, address), name="serve pieces", daemon=True)
        with self._lock:
            from_there = sum(other.address == address for other in self._open.values())
            full = len(self._open) >= self._limits.connections or from_there >= self._limits.connections_per_address
            if not full:
                self._open[thread] = _Open(connection, address)
        if full:
            self._dropped.add("too many connections")
            connection.close()
            return
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads
            self._dropped.add("out of resources")
            self._forget(thread)
            connection.close()

    def _forget(self, thread: threading.Thread) -> None:
        with self._lock:
            del self._open[thread]

    def _serve(self, raw: socket.socket, address: str) -> None:
        """The whole life of a connection. The one place where everything that can go wrong with it ends."""
        try:
            with contextlib.closing(self._secure(raw)) as connection:
                self._converse(FrameStream(connection), Visit(peer_node_id(connection), address))
        except (ConnectionEnded, IdleTooLong):
            pass
        except BadMessage as error:
            self._drop("bad message", address, error)
        except TimeoutError as error:
            self._drop("too slow", address, error)
        except ssl.SSLError as error:
            self._drop("failed handshake or cipher", address, error)
        except OSError as error:
            self._drop("cut off", address, error)
        except Exception:  # noqa: BLE001 - supervises the thread: one connection is the most a mistake may cost
            self._dropped.add("our mistake")
            _log.exception("A connection ended because of a mistake of ours")
        finally:
            raw.close()
            self._forget(threading.current_thread())

    def _drop(self, what: str, address: str, error: Exception) -> None:
        if not self._closing.is_set():
            self._dropped.add(what)
            _log.debug("Dropped %s: %s (%s)", address, what, error)

    def _secure(self, raw: socket.socket) -> ssl.SSLSocket:
        tune(raw)
        raw.settimeout(self._limits.handshake_seconds)
        connection = self._context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._open[threading.current_thread()].socket = connection
        try:
            connection.do_handshake()
        except BaseException:
            connection.close()
            raise
        return connection

    def _converse(self, stream: FrameStream, visit: Visit) -> None:
        refusal = self._greeting(stream)
        answer = Answer(messages.Welcome(visit.challenge) if refusal is None else messages.Refused(refusal))
        self._send(stream, answer)
        if refusal is not None:
            self._dropped.add(f"wrong {refusal}")
            return
        while True:
            self._serve_one(stream, visit)

    def _greeting(self, stream: FrameStream) -> Reason | None:
        """Hear which network and version the client means; why it is not ours, or None."""
        try:
            header, body_bytes = self._receive(stream, self._limits.handshake_seconds)
        except IdleTooLong:
            raise TimeoutError("no hello came") from None
        request = messages.hello_untrusted(header)
        if body_bytes > 0:
            raise BadMessage("a hello with a body")
        if request.network != self._network_id:
            return "network"
        return None if request.version == PROTOCOL_VERSION else "version"

    def _serve_one(self, stream: FrameStream, visit: Visit) -> None:
        """One request. What it holds in memory counts until its answer is sent; one that is refused holds nothing."""
        header, body_bytes = self._receive(stream, self._limits.idle_seconds)
        request = messages.request_untrusted(header)
        _check_body(request, body_bytes)
        with self._service.hold(visit, request, body_bytes) as refusal:
            if refusal is None:
                body = memoryview(bytearray(body_bytes))
                stream.receive_into(body, self._limits.body_deadline(body_bytes), self._limits.step_seconds)
                self._send(stream, self._service.answer(visit, request, body))
                return
        stream.discard(body_bytes, self._limits.body_deadline(body_bytes))
        self._send(stream, Answer(messages.Refused(refusal)))

    def _receive(self, stream: FrameStream, wait_seconds: float) -> tuple[bytearray, int]:
        return stream.receive_start(time.monotonic() + wait_seconds, self._limits.header_seconds)

    def _send(self, stream: FrameStream, answer: Answer) -> None:
        deadline = self._limits.body_deadline(len(answer.body))
        stream.send(encode(answer.header), answer.body, deadline, self._limits.step_seconds)


def _check_body(request: Request, body_bytes: int) -> None:
    """Only some requests have one, and most of those a small one."""
    if isinstance(request, messages.PutRoot) and body_bytes > messages.ROOT_LIMIT_BYTES:
        raise BadMessage("a root record that is too long")
    if isinstance(request, Delegate) and body_bytes != DIGESTS_BYTES:
        raise BadMessage("a delegation without its digests")
    if isinstance(request, Cover) and body_bytes > COVERED_PIECES_LIMIT * PIECE_ID_BYTES:
        raise BadMessage("a cover of too many pieces")
    if body_bytes > 0 and not isinstance(request, _HAS_BODY):
        raise BadMessage("a body where none belongs")
