"""What one audit costs: bytes between two sockets, processor time on either side, of a real host over TLS."""

import os
import random
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from layrfs.crypto import merkle
from layrfs.crypto.challenges import NONCE_BYTES
from layrfs.crypto.identity import NodeIdentity
from layrfs.ids import PieceId
from layrfs.model.records import HostAddress
from layrfs.network.links import HostLinks
from layrfs.policy.auditing import UnitCost
from tests.hosts.local_host import NETWORK, LocalHost, local_host

PIECE_BYTES = 4 << 20
TENANT = bytes([5]) * 32
DEADLINE_SECONDS = 60.0
PROOFS, FETCHES, COUNTED = 400, 20, 20


@dataclass(slots=True)
class Relay:
    """Passes on what it is sent, and counts it."""

    port: int
    carried_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one leaf of a piece of 4 MiB, and of a whole one."""

    leaf_bytes: float
    owner_seconds: float
    host_seconds: float
    owner_seconds_per_fetched_byte: float

    @property
    def unit(self) -> UnitCost:
        """What a plan is made from: only the owner's part."""
        return UnitCost(self.leaf_bytes, self.owner_seconds, PIECE_BYTES, self.owner_seconds_per_fetched_byte)


def measure() -> Measured:
    """About ten seconds."""
    data = random.Random(1).randbytes(PIECE_BYTES)
    piece = merkle.piece_id(data)
    with tempfile.TemporaryDirectory(prefix="layrfs-audits-") as directory, local_host(Path(directory)) as host:
        links = HostLinks(NodeIdentity.generate(), NETWORK)
        try:
            links.store(host.address, piece, data, tenant_private=TENANT, deadline_seconds=DEADLINE_SECONDS)
            prove(links, host.address, piece)
            whole, own = time.process_time(), time.thread_time()
            for _ in range(PROOFS):
                prove(links, host.address, piece)
            own, whole = time.thread_time() - own, time.process_time() - whole
            fetching = time.thread_time()
            for _ in range(FETCHES):
                links.retrieve(host.address, piece, deadline_seconds=DEADLINE_SECONDS)
            fetching = time.thread_time() - fetching
            carried = carried_bytes(links, host, piece)
        finally:
            links.close()
    return Measured(carried, own / PROOFS, (whole - own) / PROOFS, fetching / FETCHES / PIECE_BYTES)


def prove(links: HostLinks, host: HostAddress, piece: PieceId) -> None:
    """One leaf that a fresh nonce chooses, as the auditor does."""
    links.prove(host, piece, PIECE_BYTES, os.urandom(NONCE_BYTES), 1, deadline_seconds=DEADLINE_SECONDS)


def carried_bytes(links: HostLinks, host: LocalHost, piece: PieceId) -> float:
    """Both ways for each proof, TLS records and frames included, over a connection that is there already."""
    with relay(host.address.port) as between:
        address = HostAddress(host.address.node_id, host.address.ip, between.port)
        prove(links, address, piece)
        before = between.carried_bytes
        for _ in range(COUNTED):
            prove(links, address, piece)
        return (between.carried_bytes - before) / COUNTED


@contextmanager
def relay(port: int) -> Iterator[Relay]:
    """To a port on loopback, one connection after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        counted = Relay(listener.getsockname()[1])
        threading.Thread(target=accept, args=(listener, port, counted), daemon=True).start()
        yield counted


def accept(listener: socket.socket, port: int, counted: Relay) -> None:
    """Until the listener is closed."""
    while True:
        try:
            near, _ = listener.accept()
        except OSError:
            return
        far = socket.create_connection(("127.0.0.1", port))
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=pump, args=(source, sink, counted), daemon=True).start()


def pump(source: socket.socket, sink: socket.socket, counted: Relay) -> None:
    """One way, until either end is gone."""
    try:
        while data := source.recv(1 << 16):
            counted.carried_bytes += len(data)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return
