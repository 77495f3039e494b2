"""Answers commands on a unix socket: one JSON line in, progress lines and one last line out, and the line is closed.

It also hands out pages to whoever asks in HTTP (``layrfs.control.http``), by the same door and under the same lock.

Owns connections and their tasks; must not know what any command does. The socket is 0600, and only the user who runs
the drive and root are heard. The invariant: whatever one connection sends or a handler raises, the others and the
drive go on.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import NamedTuple

import msgspec
import trio

from layrfs.control import http
from layrfs.control.address import short_address
from layrfs.control.commands import REQUEST_LIMIT_BYTES, Bound, Envelope, Failure, Progress, Reply
from layrfs.errors import LayrError, LocalError, StateInUse, innermost
from layrfs.logs import printable
from layrfs.model.status import ProgressReport

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 64 << 10
_BACKLOG = 64
_PEER = struct.Struct("iII")  # struct ucred: process, user, group
_PROGRESS_SECONDS = 0.1
_SEND_SECONDS = 5.0
"""A client that reads nothing for so long is gone. Short, because sending outlives even the drive's cancellation."""
_REQUEST_SECONDS = 30.0


class Page(NamedTuple):
    """What can be had in HTTP: ``text`` makes it."""

    content_type: str
    text: Callable[[], Awaitable[str]]


class ControlServer:
    """Serves ``commands`` at ``path``; the socket is there when ``run`` has started and gone when it ends."""

    def __init__(self, path: str, commands: Iterable[Bound], pages: Mapping[str, Page] | None = None) -> None:
        """``pages`` by the path they are asked for under: ``/metrics``."""
        self._path = path
        self._commands = {command.name: command for command in commands}
        self._pages = pages or {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Raises StateInUse when somebody answers there already, LocalError when it cannot be made."""
        listener = await self._listen()
        try:
            task_status.started()
            await trio.serve_listeners(self._serve, [listener])
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    async def _listen(self) -> trio.SocketListener:
        try:
            with short_address(self._path) as address:
                _clear_abandoned(self._path, address)
                return await _bound_listener(address)
        except OSError as error:
            raise LocalError(f"the control socket {self._path} cannot be made: {error.strerror}") from error

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            request = await _receive_request(stream) if _is_welcome(stream) else None
            if request is None:
                return
            if http.is_request(request):
                await _Sender(stream).send_bytes(await self._page(request))
            else:
                await self._converse(stream, request)

    async def _converse(self, stream: trio.SocketStream, line: bytes) -> None:
        sender = _Sender(stream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_at_hangup, stream, nursery.cancel_scope)
            nursery.start_soon(sender.send_progress)
            await sender.send(await self._reply(line, sender.report))
            nursery.cancel_scope.cancel()

    async def _page(self, request: bytes) -> bytes:
        """Raises nothing either."""
        page = self._pages.get(http.path_of(request))
        if page is None:
            return http.answer(HTTPStatus.NOT_FOUND, "text/plain", "".join(f"{path}\n" for path in self._pages))
        try:
            return http.answer(HTTPStatus.OK, page.content_type, await page.text())
        except Exception as error:  # noqa: BLE001  a bug in one page must not end the drive
            return http.answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", f"{_explain(error).message}\n")

    async def _reply(self, line: bytes, progress: Progress) -> Reply:
        """Raises nothing but cancellation: here the tasks of people's commands are supervised."""
        try:
            envelope = msgspec.json.decode(line, type=Envelope)
            if (command := self._commands.get(envelope.do)) is None:
                text = f"the running drive knows no command {envelope.do!r}; mount it again"
                return Reply(error=_failure("NotSupported", text))
            return Reply(result=msgspec.Raw(await command.handle(bytes(envelope.arguments), progress)))
        except Exception as error:  # noqa: BLE001  a bug in one command must not end the drive
            return Reply(error=_explain(innermost(error)))


class _Sender:
    """The only writer of a connection: whole lines, and of progress the newest, at most ten a second."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._lock = trio.Lock()
        self._newest: ProgressReport | None = None
        self._changed = trio.Event()

    def report(self, progress: ProgressReport) -> None:
        self._newest = msgspec.structs.replace(progress, text=printable(progress.text))
        self._changed.set()

    async def send_progress(self) -> None:
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            await self.send(Reply(progress=self._newest))
            await trio.sleep(_PROGRESS_SECONDS)

    async def send(self, reply: Reply) -> None:
        """One whole line."""
        await self.send_bytes(msgspec.json.encode(reply) + b"\n")

    async def send_bytes(self, data: bytes) -> None:
        """Half a line would spoil what follows, so cancellation waits for this."""
        with trio.move_on_after(_SEND_SECONDS, shield=True), contextlib.suppress(trio.BrokenResourceError):
            async with self._lock:
                await self._stream.send_all(data)


async def _bound_listener(address: str) -> trio.SocketListener:
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await sock.bind(address)
        os.chmod(address, 0o600)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(sock)


async def _receive_request(stream: trio.SocketStream) -> bytes | None:
    """The request; None when the client hangs up, dawdles or sends more than a request can be."""
    received = bytearray()
    with trio.move_on_after(_REQUEST_SECONDS), contextlib.suppress(trio.BrokenResourceError):
        while not received.endswith(http.END if http.is_request(received) else b"\n"):
            chunk = await stream.receive_some(_CHUNK_BYTES)
            if not chunk or len(received) > REQUEST_LIMIT_BYTES:
                return None
            received += chunk
        return bytes(received)
    return None


async def _cancel_at_hangup(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    """Whatever comes after the request is ignored; its end ends the command."""
    with contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some(_CHUNK_BYTES):
            pass
    scope.cancel()


def _is_welcome(stream: trio.SocketStream) -> bool:
    credentials = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _process, user, _group = _PEER.unpack(credentials)
    return user in {0, os.geteuid()}


def _clear_abandoned(path: str, address: str) -> None:
    """Remove the socket of a drive that was killed; raises StateInUse when it lives."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(0)
        outcome = probe.connect_ex(address)
    if outcome in {0, errno.EAGAIN, errno.EINPROGRESS}:
        raise StateInUse(f"a running drive answers at {path} already")
    if outcome != errno.ENOENT:
        os.unlink(path)


def _explain(error: BaseException) -> Failure:
    match error:
        case LayrError():
            return _failure(type(error).__name__, str(error))
        case msgspec.MsgspecError():
            return _failure("UsageError", f"the request is malformed: {error}")
        case OSError():
            return _failure("LocalError", error.strerror or str(error))
    _log.error("a control command failed", exc_info=error)
    return _failure("LocalError", "an internal error of the drive; its log has the details")


def _failure(kind: str, message: str) -> Failure:
    """File names in sentences may hold what neither JSON nor a terminal takes."""
    return Failure(kind, printable(message))
