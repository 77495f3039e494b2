"""A web server that says what a test has it say, in a thread of its own: strangers' answers, slow ones, none."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Canned(NamedTuple):
    """One answer; `cut`: the connection ends in the middle of it."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}
    cut: bool = False


Answerer = Callable[[str, str, bytes], Canned]
"""From method, path (with query) and body."""


@contextlib.contextmanager
def canned_server(answer: Answerer) -> Iterator[str]:
    """Its address while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one segment, or the other end waits for the second

        def do_GET(self) -> None:
            self._say("GET", b"")

        def do_POST(self) -> None:
            self._say("POST", self.rfile.read(int(self.headers.get("Content-Length", "0"))))

        def log_message(self, *_words: object) -> None:
            """Nobody reads it."""

        def _say(self, method: str, body: bytes) -> None:
            said = answer(method, self.path, body)
            self.send_response(said.status)
            for name, value in {"Content-Length": str(len(said.body)), **said.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said.body[: len(said.body) // 2] if said.cut else said.body)
            self.close_connection = said.cut

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
