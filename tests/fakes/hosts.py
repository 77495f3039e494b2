"""Hosts for tests of transfers: a shelf in memory with faults, reachable without sockets or over real TLS.

`Shelf.fault` is one of: "" (fine), "refuse", "wrong" (other bytes than the piece), "lose" (says it has nothing),
"hang" (answers when the call is given up, or the fault is mended), "hang stores" (only those; over TLS only),
"cut" (unreachable; without sockets only), "slow" (sends for half a second; without sockets only).
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Sequence

from layrfs.crypto.digests import Buffer
from layrfs.crypto.identity import NodeIdentity
from layrfs.crypto.merkle import piece_id
from layrfs.errors import MissingPiece, Refused, Unreachable, WrongBytes
from layrfs.ids import NodeId, PieceId
from layrfs.model.records import HostAddress, NodeRecord
from layrfs.network.connections import Cancellation
from layrfs.network.piece_server import Answer, Counts, Limits, PieceServer, Visit
from layrfs.wire import messages
from layrfs.wire.messages import Reason, Request

NETWORK_ID = bytes(range(32))
FAR_FUTURE = 4_000_000_000


class Shelf:
    """The pieces of one host."""

    def __init__(self) -> None:
        self.pieces: dict[PieceId, bytes] = {}
        self.notes: dict[PieceId, bytes] = {}
        self.tenants: set[bytes] = set()
        self.fault = ""
        self.asked = 0
        self.offered = 0
        self.arrived = threading.Event()
        self._changed = threading.Condition()
        self.given_up = threading.Event()

    def store(self, piece: PieceId, data: Buffer, note: bytes = b"") -> None:
        with self._changed:
            self.pieces[piece] = bytes(data)
            self.notes[piece] = note
            self._changed.notify_all()

    def forget(self, pieces: Sequence[PieceId]) -> int:
        """How many of them were here."""
        with self._changed:
            self._changed.notify_all()
            return sum(self.pieces.pop(piece, None) is not None for piece in pieces)

    def wait_until_only(self, pieces: Collection[PieceId]) -> bool:
        """Until there is nothing but these; False after 20 seconds of something else."""
        with self._changed:
            return self._changed.wait_for(lambda: set(self.pieces) <= set(pieces), 20)

    def served(self, piece: PieceId) -> bytes | None:
        """What is sent for a piece, None when it is said to be missing."""
        if self.fault == "lose" or piece not in self.pieces:
            return None
        data = self.pieces[piece]
        return data if self.fault != "wrong" else bytes([data[0] ^ 1]) + data[1:]


class FakeLinks:
    """`Links` straight to shelves, by node id."""

    def __init__(self, shelves: dict[NodeId, Shelf]) -> None:
        self.shelves = shelves

    def store(
        self,
        host: HostAddress,
        piece: PieceId,
        data: Buffer,
        *,
        tenant_private: bytes,
        deadline_seconds: float,  # noqa: ARG002 - shelves answer at once or never
        stall_seconds: float,  # noqa: ARG002 - the real link has it; nothing stalls here
        moved: Callable[[], None],
        note: bytes,
        cancellation: Cancellation | None = None,
    ) -> None:
        shelf = self._reach(host, cancellation)
        if shelf.fault == "refuse":
            raise Refused("the host is full")
        moved()
        shelf.tenants.add(tenant_private)
        shelf.store(piece, data, note)

    def retrieve(
        self,
        host: HostAddress,
        piece: PieceId,
        *,
        deadline_seconds: float,  # noqa: ARG002 - shelves answer at once or never
        arrived: Callable[[], None],
        cancellation: Cancellation | None = None,
    ) -> bytearray:
        shelf = self._reach(host, cancellation)
        if shelf.fault == "slow":
            _send_slowly(arrived)
        data = shelf.served(piece)
        if data is None:
            raise MissingPiece("the host does not have the piece")
        if piece_id(data) != piece:
            raise WrongBytes("not the piece")
        return bytearray(data)

    def delete(self, host: HostAddress, pieces: Sequence[PieceId], tenant_private: bytes) -> int:
        shelf = self._reach(host, None)
        if tenant_private not in shelf.tenants:
            return 0
        return shelf.forget(pieces)

    def _reach(self, host: HostAddress, cancellation: Cancellation | None) -> Shelf:
        shelf = self.shelves[host.node_id]
        shelf.asked += 1
        if shelf.fault == "hang":
            _wait_for_cancellation(cancellation or Cancellation())
            shelf.given_up.set()
        if shelf.fault in {"hang", "cut"}:
            raise Unreachable("nobody answers")
        return shelf


def _send_slowly(arrived: Callable[[], None]) -> None:
    never = threading.Event()
    for _ in range(50):
        never.wait(0.01)
        arrived()


def _wait_for_cancellation(cancellation: Cancellation) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        cancellation.watch(ours)
        ours.recv(1)
        cancellation.release()


class TlsHost:
    """A shelf behind the real piece server, on a loopback port of its own."""

    def __init__(self) -> None:
        self.identity = NodeIdentity.generate()
        self.shelf = Shelf()
        self._mended = threading.Event()
        self._server: PieceServer | None = None
        self.port = 0

    @property
    def node_id(self) -> NodeId:
        return self.identity.node_id

    def start(self) -> None:
        """Listen; again on another port after `stop`."""
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self._mended.clear()
        self._server = PieceServer(
            self.identity, NETWORK_ID, listener, self, limits=Limits(queue_seconds=1), dropped=Counts()
        )
        self._server.start()

    def mend(self) -> None:
        """No fault any more; whoever hangs goes on."""
        self.shelf.fault = ""
        self._mended.set()

    def stop(self) -> None:
        self._mended.set()
        if self._server is not None:
            self._server.close()
        self._server = None

    def record(self, price: int = 0, *, leaving: bool = False) -> NodeRecord:
        return NodeRecord.sign(
            self.identity,
            host="127.0.0.1",
            udp_port=self.port,
            tcp_port=self.port,
            free_bytes=1 << 40,
            expires=FAR_FUTURE,
            price=price,
            leaving=leaving,
        )

    @contextlib.contextmanager
    def hold(self, _visit: Visit, request: Request, _body_bytes: int) -> Iterator[Reason | None]:
        self.shelf.asked += 1
        self.shelf.offered += isinstance(request, messages.Store)
        self.shelf.arrived.set()
        if self.shelf.fault == "hang" or (self.shelf.fault == "hang stores" and isinstance(request, messages.Store)):
            self._mended.wait()
        yield "full" if self.shelf.fault == "refuse" and isinstance(request, messages.Store) else None

    def answer(self, _visit: Visit, request: Request, body: memoryview) -> Answer:
        match request:
            case messages.Store():
                self.shelf.store(request.piece, body, request.note)
                return Answer(messages.Stored())
            case messages.Retrieve():
                data = self.shelf.served(request.piece)
                return (
                    Answer(messages.Refused("missing")) if data is None else Answer(messages.Retrieved(len(data)), data)
                )
            case messages.Delete():
                return Answer(messages.Deleted(self.shelf.forget(request.pieces)))
            case messages.Renew():
                return Answer(messages.Renewed(tuple(piece in self.shelf.pieces for piece in request.pieces)))
            case _:
                return Answer(messages.Refused("not allowed"))


class FakeFinder:
    """`HostFinder` that knows a list of records. `forgotten` hosts are found only by asking for them."""

    def __init__(self, records: Sequence[NodeRecord] = ()) -> None:
        self.records = list(records)
        self.forgotten: set[NodeId] = set()
        self.lookups = 0
        self.suspected: list[NodeId] = []

    async def closest_hosts(self, key: bytes, count: int) -> list[NodeRecord]:
        def distance(record: NodeRecord) -> int:
            return int.from_bytes(record.node_id, "big") ^ int.from_bytes(key, "big")

        return sorted(self.records, key=distance)[:count]

    async def find_node(self, node: NodeId) -> NodeRecord | None:
        self.lookups += 1
        return next((record for record in self.records if record.node_id == node), None)

    def known_hosts(self) -> list[NodeRecord]:
        return [record for record in self.records if record.node_id not in self.forgotten]

    def is_leaving(self, node: NodeId) -> bool:
        return any(record.leaving for record in self.records if record.node_id == node)

    def suspect(self, node: NodeId) -> None:
        self.suspected.append(node)
