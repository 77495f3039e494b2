"""`python -m tests.bench.audits`: what audits cost, on the wire and of processors; a table on standard output.

A real `layrfs host run` over TLS on loopback, behind a relay that counts bytes. "New" pieces are those that the host
has not read since it started: it verifies all of such a piece before it shows a leaf. A second part is what making
answers adds to an upload.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from layrfs.crypto import challenges, merkle
from layrfs.ids import PieceId
from layrfs.model.records import HostAddress
from layrfs.network.links import HostLinks
from tests.bench.alone import in_a_worker
from tests.bench.table import Row, markdown
from tests.hosts.processes import SECONDS, Child
from tests.hosts.test_host_run import TENANT, address_of, first_host, links_to

PIECE_BYTES = 4 << 20
SEGMENT_BYTES, HEADERS_BYTES = 1448, 52
"""Of TCP over IPv4 on Ethernet, with timestamps; every second segment is acknowledged."""

KIB, MS = 1024.0, 1000.0


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.audits")
    parser.add_argument("--pieces", type=int, default=100, help="of 4 MiB (default: %(default)s)")
    count = parser.parse_args().pieces
    scratch = tempfile.mkdtemp(prefix="layrfs-audits-")
    try:
        rows = [
            *host_rows(Path(scratch), count),
            *in_a_worker("answers", os.path.join(scratch, "answers"), count * PIECE_BYTES),
        ]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(markdown(rows))


# --- a host -----------------------------------------------------------------------------------------------------------


class Relay:
    """Passes bytes between one client and a host, and counts them."""

    def __init__(self, target: HostAddress) -> None:
        self.carried = 0
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = HostAddress(target.node_id, "127.0.0.1", self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            far = socket.create_connection((self._target.ip, self._target.port))
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.carried += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def on_the_wire(carried: float) -> float:
    """With the headers of TCP and IP, acknowledgements included."""
    return carried + 1.5 * HEADERS_BYTES * -(-carried // SEGMENT_BYTES)


def host_cpu_seconds(process: Child) -> float:
    """Of all its threads, those that have ended included."""
    fields = Path(f"/proc/{process.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def host_rows(scratch: Path, count: int) -> Iterator[Row]:
    """Every kind of audit of every piece once, one after the other, over one connection."""
    with first_host(scratch / "host", "--space", "100G") as process:
        process.says("ready")
        direct = address_of(scratch / "host")
        relay = Relay(direct)
        links = links_to(scratch / "host")
        pieces = [stored(links, direct, number) for number in range(count)]
        time.sleep(2.0)  # whatever the host does after storing is no audit

        def prove(piece: PieceId, leaves: int = 1) -> None:
            nonce = secrets.token_bytes(32)
            links.prove(relay.address, piece, PIECE_BYTES, nonce, leaves, deadline_seconds=SECONDS)

        def answer(kind: challenges.AnswerKind) -> Callable[[PieceId], object]:
            def ask(piece: PieceId) -> object:
                return links.answer(relay.address, piece, secrets.token_bytes(32), kind, deadline_seconds=SECONDS)

            return ask

        def deep(piece: PieceId) -> object:
            return links.retrieve(relay.address, piece, deadline_seconds=SECONDS)

        def alone(piece: PieceId) -> None:
            own = links_to(scratch / "host")
            own.prove(relay.address, piece, PIECE_BYTES, secrets.token_bytes(32), 1, deadline_seconds=SECONDS)
            own.close()

        prove(pieces[0])  # the connection is there
        kinds: list[tuple[str, Callable[[PieceId], object]]] = [
            ("prove, 1 leaf of a new piece", prove),
            ("prove, 1 leaf of a piece read lately", prove),
            ("prove, 1 leaf, over a new connection", alone),
            ("prove, 32 leaves", lambda piece: prove(piece, 32)),
            ("answer, 16 leaves", answer("leaves")),
            ("answer, whole piece", answer("whole")),
            ("deep", deep),
        ]
        for name, ask in kinds:
            yield from audited(name, ask, pieces, relay, process)
        links.close()


def stored(links: HostLinks, address: HostAddress, number: int) -> PieceId:
    """A piece that the host has."""
    data = random.Random(number).randbytes(PIECE_BYTES)
    piece = merkle.piece_id(data)
    links.store(address, piece, data, tenant_private=TENANT, deadline_seconds=SECONDS)
    return piece


def audited(
    name: str, ask: Callable[[PieceId], object], pieces: Sequence[PieceId], relay: Relay, process: Child
) -> Iterator[Row]:
    """Bytes, the host's processor time, and the asker's, for each piece."""
    print(name, file=sys.stderr)
    carried, host, own = relay.carried, host_cpu_seconds(process), time.thread_time()
    for piece in pieces:
        ask(piece)
    own = (time.thread_time() - own) / len(pieces)
    time.sleep(0.1)
    wire = on_the_wire((relay.carried - carried) / len(pieces))
    host = (host_cpu_seconds(process) - host) / len(pieces)
    is_bar = name.startswith("prove, 1 leaf")
    yield Row(f"{name}: on the wire", "KiB", wire / KIB, better="less", bar=25.0 if is_bar else None)
    yield Row(f"{name}: host's CPU", "ms", host * MS, better="less", bar=5.0 if is_bar else None)
    yield Row(f"{name}: asker's CPU", "ms", own * MS, better="less")


if __name__ == "__main__":
    main()
