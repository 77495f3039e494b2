"""Frames over one TLS socket, blocking, each under a deadline.

Owns the reading and writing of whole frames; must not know what they mean. Used from both ends.
Invariant: nothing is read into memory before its announced size passed the limits, and nothing waits past its deadline,
however slowly the other end feeds bytes.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time

from layrfs.crypto.digests import Buffer
from layrfs.wire.frames import PREFIX_BYTES, pack_prefix, parse_prefix_untrusted

_JOIN_BYTES = 16 * 1024 - 512
"""A header and a body up to this size together go out as one TLS record."""


class ConnectionEnded(Exception):
    """The other end closed between two frames, as it may."""


class IdleTooLong(TimeoutError):
    """No frame began while it was waited for."""


class FrameStream:
    """One connection. Not safe for concurrent use, except `abort`, which any thread may call at any time."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection
        self._armed_seconds = 0.0

    def send(self, header: bytes, body: Buffer, deadline: float) -> None:
        """Send one frame before `deadline` (monotonic seconds); TimeoutError or OSError when that fails."""
        start = pack_prefix(len(header), len(body)) + header
        if len(start) + len(body) <= _JOIN_BYTES:
            self._send_all(memoryview(start + bytes(body)), deadline)
            return
        self._send_all(memoryview(start), deadline)
        self._send_all(memoryview(body), deadline)

    def receive_start(self, wait_until: float, frame_seconds: float) -> tuple[bytearray, int]:
        """The next frame's header, and how many bytes of body follow.

        Waits for the first byte until `wait_until`, then `frame_seconds` for the rest of the header. Raises
        BadMessage, ConnectionEnded (a clean end between frames), IdleTooLong, TimeoutError, OSError.
        """
        prefix = bytearray(PREFIX_BYTES)
        try:
            got = self._receive_some(memoryview(prefix), wait_until)
        except TimeoutError:
            raise IdleTooLong("nothing came") from None
        if got == 0:
            raise ConnectionEnded
        deadline = time.monotonic() + frame_seconds
        self.receive_into(memoryview(prefix)[got:], deadline)
        header_bytes, body_bytes = parse_prefix_untrusted(prefix)
        header = bytearray(header_bytes)
        self.receive_into(memoryview(header), deadline)
        return header, body_bytes

    def receive_into(self, view: memoryview, deadline: float) -> None:
        """Fill `view` before `deadline`; ConnectionResetError when the stream ends first."""
        at, wanted = 0, len(view)
        while at < wanted:
            got = self._receive_some(view[at:], deadline)
            if got == 0:
                raise ConnectionResetError("the connection ended in the middle of a frame")
            at += got

    def discard(self, count: int, deadline: float) -> None:
        """Read and forget `count` bytes, so that the answer to a refused body is not lost in a reset."""
        scratch = memoryview(bytearray(min(count, 64 * 1024)))
        while count:
            step = min(count, len(scratch))
            self.receive_into(scratch[:step], deadline)
            count -= step

    def is_quiet(self) -> bool:
        """Whether an idle connection is still usable: anything to read would be its end or a breach of protocol."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        return not poll.poll(0)

    def abort(self) -> None:
        """Make every wait on this connection end at once, from any thread. The owner still has to `close`."""
        abort_socket(self._connection)

    def close(self) -> None:
        """Let go of the socket; nothing more can be sent or received."""
        with contextlib.suppress(OSError):
            self._connection.close()

    def _send_all(self, view: memoryview, deadline: float) -> None:
        """Not `sendall`, whose timeout starts anew with every record that a slow reader takes."""
        at = 0
        while at < len(view):
            self._arm(deadline)
            at += self._connection.send(view[at:])

    def _receive_some(self, view: memoryview, deadline: float) -> int:
        self._arm(deadline)
        try:
            return self._connection.recv_into(view)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return 0

    def _arm(self, deadline: float) -> None:
        """Give the socket its timeout. Setting it is a system call, so only when it would be off by a quarter."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        if not left <= self._armed_seconds <= left * 1.25:
            self._connection.settimeout(left)
            self._armed_seconds = left


def tune(connection: socket.socket) -> None:
    """Small frames go out at once. Buffer sizes are left to the kernel, whose own tuning measured faster than ours."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def abort_socket(connection: socket.socket) -> None:
    """Wake whoever waits on this socket. Not `SSLSocket.shutdown`: that pulls the TLS state from under a reader."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
