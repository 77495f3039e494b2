"""A real host in this process: TLS on loopback, pieces on disk, gone at the end. And services that are no real host."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from layrfs.crypto.identity import NodeIdentity
from layrfs.host.service import HostService
from layrfs.model.records import HostAddress
from layrfs.network.connections import Connection
from layrfs.network.piece_server import Answer, Counts, Limits, PieceServer, PieceService, Visit
from layrfs.network.tls import client_context
from layrfs.storage.piece_store import PieceStore
from layrfs.storage.root_store import RootStore
from layrfs.wire.messages import Held, Reason, Request

NETWORK = bytes(range(32))
SPACE_BYTES = 64 << 20
SECONDS = 20.0
"""How long a test waits for what has to come; nothing waits this long when all is well."""


class LocalHost:
    """A server on loopback and where to find it."""

    def __init__(self, server: PieceServer, identity: NodeIdentity, port: int, counts: Counts) -> None:
        self.server = server
        self.identity = identity
        self.address = HostAddress(identity.node_id, "127.0.0.1", port)
        self.counts = counts

    def dropped(self, what: str) -> int:
        """How often."""
        return self.counts.snapshot().get(what, 0)


@contextlib.contextmanager
def serving(
    service: PieceService,
    counts: Counts,
    *,
    identity: NodeIdentity | None = None,
    limits: Limits | None = None,
    port: int = 0,
    server: type[PieceServer] = PieceServer,
) -> Iterator[LocalHost]:
    """A piece server for any service."""
    identity = identity or NodeIdentity.generate()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    running = server(identity, NETWORK, listener, service, limits=limits or Limits(), dropped=counts)
    running.start()
    try:
        yield LocalHost(running, identity, listener.getsockname()[1], counts)
    finally:
        running.close()
        assert running.connections == 0, "every connection's thread has ended"


@contextlib.contextmanager
def local_host(
    directory: Path,
    *,
    space_bytes: int = SPACE_BYTES,
    identity: NodeIdentity | None = None,
    limits: Limits | None = None,
    port: int = 0,
) -> Iterator[LocalHost]:
    """A host as `layrfs host run` makes one, without the DHT."""
    identity, limits, counts = identity or NodeIdentity.generate(), limits or Limits(), Counts()
    store = PieceStore(str(directory), space_bytes=space_bytes)
    service = HostService(identity, NETWORK, store, RootStore(str(directory)), limits=limits, dropped=counts)
    with serving(service, counts, identity=identity, limits=limits, port=port) as host:
        yield host


class Fixed:
    """A service with one answer for everything; None: it never answers, until `released`."""

    def __init__(self, answer: Answer | None) -> None:
        self.fixed = answer
        self.released = threading.Event()
        self.asked = threading.Event()

    @contextlib.contextmanager
    def hold(self, _visit: Visit, _request: Request, _body_bytes: int) -> Iterator[Reason | None]:
        """There is always room."""
        yield None

    def answer(self, _visit: Visit, _request: Request, _body: memoryview) -> Answer:
        """The one."""
        self.asked.set()
        if self.fixed is None:
            self.released.wait(SECONDS)
            raise TimeoutError
        return self.fixed


class SilentLater(Fixed):
    """Says so many times at once that it has not a piece, so that there are connections; then it says nothing."""

    def __init__(self, times: int = 1) -> None:
        super().__init__(None)
        self._together = threading.Barrier(times)
        self._greetings = iter(range(times))

    def answer(self, visit: Visit, request: Request, body: memoryview) -> Answer:
        """All those that are waited for get theirs together."""
        if next(self._greetings, None) is None:
            return super().answer(visit, request, body)
        self._together.wait(SECONDS)
        return Answer(Held((False,)))


@contextlib.contextmanager
def raw_tls(host: LocalHost, identity: NodeIdentity | None = None) -> Iterator[ssl.SSLSocket]:
    """A TLS connection by which anything can be sent."""
    context = client_context(identity or NodeIdentity.generate())
    with dialled(host) as raw, context.wrap_socket(raw) as secured:
        yield secured


def dialled(host: LocalHost) -> socket.socket:
    """A plain connection, for those who do not even speak TLS."""
    return socket.create_connection(("127.0.0.1", host.address.port), SECONDS)


@contextlib.contextmanager
def greeted(host: LocalHost, identity: NodeIdentity | None = None) -> Iterator[tuple[ssl.SSLSocket, Connection]]:
    """The same, after a proper hello."""
    with raw_tls(host, identity) as secured:
        connection = Connection(secured, host.identity.node_id, NETWORK)
        connection.introduce(deadline())
        connection._read_challenge(deadline())
        yield secured, connection


def deadline() -> float:
    """Monotonic."""
    return time.monotonic() + SECONDS


def ends(connection: socket.socket) -> bool:
    """Whether the other end closes the connection without another byte."""
    connection.settimeout(SECONDS)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def wait_for(true: Callable[[], bool]) -> None:
    """Until it is; fails after a while."""
    until = deadline()
    while not true():
        assert time.monotonic() < until, "it never became true"
        time.sleep(0.01)
