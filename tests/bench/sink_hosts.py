"""A program: five hosts that answer as real ones do, and keep the first few pieces in memory instead of all of them
on a disk.

What an owner's machine can do by itself is measured against these. Prints their addresses as JSON and ends when its
standard input does.
"""

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Iterator

from layrfs.crypto.identity import NodeIdentity
from layrfs.ids import PieceId
from layrfs.network.piece_server import Answer, Counts, Limits, PieceServer, Visit
from layrfs.wire import messages
from layrfs.wire.messages import Reason, Request

HOSTS = 5
KEPT_PIECES = 16
NETWORK_ID = bytes(32)


class Sink:
    """A piece service without a disk."""

    def __init__(self) -> None:
        self.kept: dict[PieceId, memoryview] = {}
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def hold(self, *_: object) -> Iterator[Reason | None]:
        """There is always room."""
        yield None

    def answer(self, _visit: Visit, request: Request, body: memoryview) -> Answer:
        """Stored, or what was stored."""
        if isinstance(request, messages.Store):
            with self.lock:
                if len(self.kept) < KEPT_PIECES:
                    self.kept[request.piece] = body
            return Answer(messages.Stored())
        if isinstance(request, messages.Retrieve) and request.piece in self.kept:
            piece = self.kept[request.piece]
            return Answer(messages.Retrieved(len(piece)), piece)
        return Answer(messages.Refused("missing"))


def main() -> None:
    """Serve until nobody wants it any more."""
    servers, addresses = [], []
    for _ in range(HOSTS):
        identity, listener = NodeIdentity.generate(), socket.socket()
        listener.bind(("127.0.0.1", 0))
        servers.append(PieceServer(identity, NETWORK_ID, listener, Sink(), limits=Limits(), dropped=Counts()))
        servers[-1].start()
        addresses.append([identity.node_id.hex(), "127.0.0.1", listener.getsockname()[1]])
    print(json.dumps(addresses), flush=True)
    sys.stdin.read()
    for server in servers:
        server.close()


if __name__ == "__main__":
    main()
