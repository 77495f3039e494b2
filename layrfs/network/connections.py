"""The client's end of connections to hosts: made, proven, pooled, and cut when a call is no longer wanted.

Owns sockets and their reuse; must not know what is asked over them (`layrfs.network.links` does).
Invariant: a connection goes back to the pool only after a complete answer; anything else closes it.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time

import msgspec

from layrfs.crypto.digests import Buffer
from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import Refused, Unreachable
from layrfs.ids import NodeId, PieceId
from layrfs.model.records import HostAddress
from layrfs.network.frame_stream import FrameStream, abort_socket, tune
from layrfs.network.tls import client_context, peer_node_id
from layrfs.wire import messages
from layrfs.wire.codec import encode
from layrfs.wire.contracts import ContractRequest, contract_statement
from layrfs.wire.delegation import DelegationRequest, delegation_statement
from layrfs.wire.messages import Reason, Request, Response

IDLE_PER_HOST = 8
IDLE_SECONDS = 45.0
"""Less than a server's patience with idle clients, so that a pooled connection is rarely found closed."""


CONNECT_SECONDS = 20.0
"""A host that says nothing for so long is not there, however long its answer may take once it is."""


class HostRefused(Refused):
    """A host said no; `reason` is one of the protocol's words, to decide on."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"the host refused: {reason}")
        self.reason: Reason = reason


class Cancellation:
    """Hand it to one call at a time, keep it, and `cancel` from any thread: the call ends at once with Unreachable."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """End the call in flight, and any later one as soon as it starts."""
        with self._lock:
            self.cancelled = True
            if self._socket is not None:
                abort_socket(self._socket)

    def watch(self, connection: socket.socket) -> None:
        """From now on `cancel` ends waits on this socket. Raises Unreachable when it was called already."""
        with self._lock:
            if self.cancelled:
                raise Unreachable("the call is no longer wanted")
            self._socket = connection

    def release(self) -> None:
        """The socket is no longer this call's; from now on `cancel` cannot touch it."""
        with self._lock:
            self._socket = None


class Connection:
    """One TLS connection to a host, which has proven to be that host."""

    def __init__(self, connection: ssl.SSLSocket, host: NodeId, network_id: bytes) -> None:
        self.socket = connection
        self.stream = FrameStream(connection)
        self.idle_since = 0.0
        self._host = host
        self._network_id = network_id
        self._challenge: bytes | None = None
        self._signed = 0

    def introduce(self, deadline: float) -> None:
        """Name the network. The answer is read with the first request's, which saves a round trip."""
        self.stream.send(encode(messages.Hello(self._network_id)), b"", deadline)

    def ask(self, request: Request, body: Buffer, deadline: float) -> tuple[Response, int]:
        """Send a request; its answer's header, and the size of the body that the caller has to read."""
        self.stream.send(encode(request), body, deadline)
        self._read_challenge(deadline)
        return self._response(deadline)

    def sign_delete(self, pieces: tuple[PieceId, ...], tenant: NodeIdentity, deadline: float) -> messages.Delete:
        """A request to forget pieces, good as the next signed request of this connection and nowhere else."""
        challenge = self._read_challenge(deadline)
        statement = messages.delete_statement(self._network_id, self._host, challenge, self._signed, pieces)
        self._signed += 1
        return messages.Delete(pieces, tenant.public_key, tenant.sign(statement))

    def sign_renew(self, pieces: tuple[PieceId, ...], tenant: NodeIdentity, deadline: float) -> messages.Renew:
        """A request to go on keeping pieces, good once like the above."""
        challenge = self._read_challenge(deadline)
        statement = messages.renew_statement(self._network_id, self._host, challenge, self._signed, pieces)
        self._signed += 1
        return messages.Renew(pieces, tenant.public_key, tenant.sign(statement))

    def sign_inventory(self, after: PieceId, tenant: NodeIdentity, deadline: float) -> messages.Inventory:
        """A request to list a tenant's pieces, good once like the above."""
        challenge = self._read_challenge(deadline)
        statement = messages.inventory_statement(self._network_id, self._host, challenge, self._signed, after)
        self._signed += 1
        return messages.Inventory(tenant.public_key, tenant.sign(statement), after)

    def sign_delegation(
        self, request: DelegationRequest, body: Buffer, volume: NodeIdentity, deadline: float
    ) -> DelegationRequest:
        """A request about a delegation, good once like the above; `volume` is its root key."""
        challenge = self._read_challenge(deadline)
        statement = delegation_statement(self._network_id, self._host, challenge, self._signed, request, body)
        self._signed += 1
        return msgspec.structs.replace(request, signature=volume.sign(statement))

    def sign_contract(
        self, request: ContractRequest, body: Buffer, tenant: NodeIdentity, deadline: float
    ) -> ContractRequest:
        """A request about a contract, good once like the above."""
        challenge = self._read_challenge(deadline)
        statement = contract_statement(self._network_id, self._host, challenge, self._signed, request, body)
        self._signed += 1
        return msgspec.structs.replace(request, signature=tenant.sign(statement))

    def _read_challenge(self, deadline: float) -> bytes:
        if self._challenge is None:
            answer, body_bytes = self._response(deadline)
            if isinstance(answer, messages.Refused):
                raise HostRefused(answer.reason)
            if not isinstance(answer, messages.Welcome) or body_bytes > 0:
                raise Unreachable("what answers there does not speak LayrFS's protocol")
            self._challenge = answer.challenge
        return self._challenge

    def _response(self, deadline: float) -> tuple[Response, int]:
        header, body_bytes = self.stream.receive_start(deadline, deadline - time.monotonic())
        return messages.response_untrusted(header), body_bytes


class ConnectionPool:
    """Idle connections of one node, by host, and the way to new ones. Thread-safe."""

    def __init__(self, identity: NodeIdentity, network_id: bytes) -> None:
        self._context = client_context(identity)
        self._network_id = network_id
        self._lock = threading.Lock()
        self._idle: dict[HostAddress, list[Connection]] = {}
        self._closed = False

    def connect(self, host: HostAddress, deadline: float, watch: Cancellation) -> Connection:
        """A new connection that proved to be the host's. Raises Unreachable, BadMessage, OSError."""
        deadline = min(deadline, time.monotonic() + CONNECT_SECONDS)
        secured = self._context.wrap_socket(self._dial(host, deadline, watch), do_handshake_on_connect=False)
        try:
            watch.watch(secured)
            secured.settimeout(_left(deadline))
            secured.do_handshake()
            _check_identity(secured, host)
            connection = Connection(secured, host.node_id, self._network_id)
            connection.introduce(deadline)
        except BaseException:
            watch.release()
            secured.close()
            raise
        return connection

    def take(self, host: HostAddress) -> Connection | None:
        """An idle connection that looks alive, if there is one."""
        oldest = time.monotonic() - IDLE_SECONDS
        while True:
            with self._lock:
                pool = self._idle.get(host)
                connection = pool.pop() if pool else None
            if connection is None or (connection.idle_since > oldest and connection.stream.is_quiet()):
                return connection
            connection.stream.close()

    def give_back(self, host: HostAddress, connection: Connection) -> None:
        """The connection's last answer was read to its end. Also closes what has been idle for too long."""
        connection.idle_since = time.monotonic()
        with self._lock:
            unwanted = self._take_stale(connection.idle_since - IDLE_SECONDS)
            pool = self._idle.setdefault(host, [])
            (unwanted if self._closed or len(pool) >= IDLE_PER_HOST else pool).append(connection)
        for old in unwanted:
            old.stream.close()

    def close(self) -> None:
        """Close idle connections now, and those in use when they are given back."""
        with self._lock:
            self._closed = True
            idle = [connection for pool in self._idle.values() for connection in pool]
            self._idle.clear()
        for connection in idle:
            connection.stream.close()

    def _dial(self, host: HostAddress, deadline: float, watch: Cancellation) -> socket.socket:
        raw = socket.socket(socket.AF_INET6 if ":" in host.ip else socket.AF_INET, socket.SOCK_STREAM)
        try:
            watch.watch(raw)
            raw.settimeout(_left(deadline))
            raw.connect((host.ip, host.port))
            tune(raw)
        except BaseException:
            watch.release()
            raw.close()
            raise
        return raw

    def _take_stale(self, oldest: float) -> list[Connection]:
        """Connections idle for too long. Hosts that are not spoken to any more leave nothing behind."""
        stale: list[Connection] = []
        for host, pool in list(self._idle.items()):
            stale += [connection for connection in pool if connection.idle_since <= oldest]
            pool[:] = [connection for connection in pool if connection.idle_since > oldest]
            if not pool:
                del self._idle[host]
        return stale


def _check_identity(connection: ssl.SSLSocket, host: HostAddress) -> None:
    if peer_node_id(connection) != host.node_id:
        raise Unreachable(f"another node answers at {host.ip} port {host.port}")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left
