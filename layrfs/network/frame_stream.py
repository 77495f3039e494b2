"""Frames over one TLS socket, blocking, each under a deadline.

Owns the reading and writing of whole frames; must not know what they mean. Used from both ends.
Invariant: nothing is read into memory before its announced size passed the limits, and nothing waits past its deadline,
however slowly the other end feeds bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import select
import socket
import ssl
import struct
import termios
import time
from collections.abc import Callable, Iterator

from layrfs.crypto.digests import Buffer
from layrfs.wire.frames import PREFIX_BYTES, pack_prefix, parse_prefix_untrusted

_JOIN_BYTES = 16 * 1024 - 512
"""A header and a body up to this size together go out as one TLS record."""

_QUEUED = struct.Struct("@i")

STEP_BYTES = 256 * 1024
"""Of a long body, for which there may be a time of its own: who sends nothing shows it by then, and not at the end."""

LOOK_SECONDS = 1.0
"""How often it is looked whether a long body arrives."""


class ConnectionEnded(Exception):
    """The other end closed between two frames, as it may."""


class IdleTooLong(TimeoutError):
    """No frame began while it was waited for."""


class Progress:
    """How a long body goes: it may take long, but never long with nothing of it arriving.

    ``moved`` is called about once a second while bytes arrive at the other end, in the thread that sends them.
    """

    def __init__(self, stall_seconds: float, moved: Callable[[], None]) -> None:
        self._stall_seconds = stall_seconds
        self._moved = moved
        self._arrived = 0
        self._arrived_at = self._looked_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time to look."""
        return time.monotonic() - self._looked_at >= LOOK_SECONDS

    def look(self, arrived: int) -> None:
        """The other end's kernel has so many bytes. Raises TimeoutError when it has had no more for too long."""
        now = self._looked_at = time.monotonic()
        if arrived > self._arrived:
            self._arrived, self._arrived_at = arrived, now
            self._moved()
        elif now - self._arrived_at >= self._stall_seconds:
            raise TimeoutError("nothing arrives at the other end any more")


class FrameStream:
    """One connection. Not safe for concurrent use, except `abort`, which any thread may call at any time."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection
        self._armed_seconds = 0.0
        self._progress: Progress | None = None
        self._sent = 0

    @contextlib.contextmanager
    def watched(self, progress: Progress) -> Iterator[None]:
        """Until this ends, what is sent and its answer must also make progress, besides keeping their deadlines."""
        self._progress, self._sent = progress, 0
        try:
            yield
        finally:
            self._progress = None

    def send(self, header: bytes, body: Buffer, deadline: float, step_seconds: float = math.inf) -> None:
        """Send one frame before `deadline` (monotonic seconds), each `STEP_BYTES` of its body within `step_seconds`.

        TimeoutError or OSError when that fails.
        """
        start = pack_prefix(len(header), len(body)) + header
        if len(start) + len(body) <= _JOIN_BYTES:
            self._send_all(memoryview(start + bytes(body)), deadline)
            return
        self._send_all(memoryview(start), deadline)
        for few in _steps(memoryview(body)):
            self._send_all(few, min(deadline, time.monotonic() + step_seconds))

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

    def receive_into(self, view: memoryview, deadline: float, step_seconds: float = math.inf) -> None:
        """Fill `view` before `deadline`, and each `STEP_BYTES` of it within `step_seconds`.

        ConnectionResetError when the stream ends first.
        """
        for few in _steps(view):
            self.receive_slowly_into(few, min(deadline, time.monotonic() + step_seconds), math.inf, lambda: None)

    def receive_slowly_into(
        self, view: memoryview, deadline: float, stall_seconds: float, arrived: Callable[[], None]
    ) -> None:
        """Like ``receive_into``, never `stall_seconds` with nothing coming; `arrived` is called when something did."""
        at, wanted = 0, len(view)
        while at < wanted:
            got = self._receive_some(view[at:], min(deadline, time.monotonic() + stall_seconds))
            if got == 0:
                raise ConnectionResetError("the connection ended in the middle of a frame")
            at += got
            arrived()

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
            sent = self._in_time(deadline, lambda: self._connection.send(view[at:]))  # noqa: B023 - called at once
            at += sent
            self._sent += sent
            if self._progress is not None and self._progress.is_due():
                self._progress.look(self._arrived())

    def _receive_some(self, view: memoryview, deadline: float) -> int:
        try:
            return self._in_time(deadline, lambda: self._connection.recv_into(view))
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return 0

    def _in_time(self, deadline: float, call: Callable[[], int]) -> int:
        """Before the deadline; while somebody watches the progress, in short waits with a look at it in between."""
        while True:
            self._arm(deadline)
            try:
                return call()
            except TimeoutError:
                if self._progress is None or time.monotonic() >= deadline:
                    raise
                self._progress.look(self._arrived())

    def _arrived(self) -> int:
        """Bytes that the other end's kernel has; what lies in ours would say nothing of a slow line."""
        (waiting,) = _QUEUED.unpack(fcntl.ioctl(self._connection.fileno(), termios.TIOCOUTQ, bytes(_QUEUED.size)))
        return self._sent - int(waiting)

    def _arm(self, deadline: float) -> None:
        """Give the socket its timeout. Setting it is a system call, so only when it would be off by a quarter."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        left = left if self._progress is None else min(left, LOOK_SECONDS)
        if not left <= self._armed_seconds <= left * 1.25:
            self._connection.settimeout(left)
            self._armed_seconds = left


def _steps(view: memoryview) -> Iterator[memoryview]:
    return (view[at : at + STEP_BYTES] for at in range(0, len(view), STEP_BYTES))


def tune(connection: socket.socket) -> None:
    """Small frames go out at once. Buffer sizes are left to the kernel, whose own tuning measured faster than ours."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def abort_socket(connection: socket.socket) -> None:
    """Wake whoever waits on this socket. Not `SSLSocket.shutdown`: that pulls the TLS state from under a reader."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
