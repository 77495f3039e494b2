"""Just enough of HTTP for `curl --unix-socket`, and for what scrapes through it: GET of a page, one for a connection.

Owns the shapes of request and answer. Must not know sockets, or what is on the pages.
"""

from __future__ import annotations

from http import HTTPStatus

METHOD = b"GET "
END = b"\r\n\r\n"


def is_request(received: bytes | bytearray) -> bool:
    """Whether this is how a request for a page begins; commands are JSON and begin otherwise."""
    return received.startswith(METHOD)


def path_of(request: bytes) -> str:
    """The path asked for, without a query; empty when there is none."""
    words = request.split(b"\r\n", 1)[0].split()
    return words[1].partition(b"?")[0].decode("ascii", "replace") if len(words) > 1 else ""


def answer(status: HTTPStatus, content_type: str, body: str) -> bytes:
    """All bytes of an answer, after which the connection ends."""
    data = body.encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(data)}",
        "Connection: close",
    )
    return "\r\n".join(head).encode() + END + data
