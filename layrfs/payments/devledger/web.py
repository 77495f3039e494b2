"""HTTP/1.1 for one small service: requests in, answers out, and nobody who connects costs more than his connection.

Owns connections and their bounds; h11 knows the protocol. Must not know what is asked. Invariant: whatever comes in,
or fails to come, ends its connection at most.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
import msgspec
import trio

_log = logging.getLogger(__name__)

FORM = "application/x-www-form-urlencoded"
_CHUNK_BYTES = 64 * 1024
_MOST_FIELDS = 32


class Bounds(msgspec.Struct, frozen=True):
    """How much of us a client may hold, and for how long."""

    connections: int = 128
    header_bytes: int = 32 * 1024
    body_bytes: int = 256 * 1024
    idle_seconds: float = 75.0
    request_seconds: float = 15.0
    """From the first byte of a request to its last."""
    sending_seconds: float = 30.0


class Request(msgspec.Struct, frozen=True):
    """What is asked for."""

    method: str
    path: tuple[str, ...]
    query: Mapping[str, str]
    form: Mapping[str, str] | None
    """Of a body that is a form; None when it is something else."""
    base: str
    """Our URL as the client knows it, with a slash at its end."""
    is_from_page: bool
    """Whether a browser asks for a page of the web, which may be anybody's."""


class Response(msgspec.Struct, frozen=True):
    """What is answered."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


Answer = Callable[[Request], Awaitable[Response]]


class BadRequest(Exception):
    """The sentence for a client whose request is none."""


async def serve(
    listener: trio.SocketListener, answer: Answer, bounds: Bounds, *, task_status: trio.TaskStatus[None]
) -> None:
    """Until cancelled."""
    room = trio.CapacityLimiter(bounds.connections)

    async def one(stream: trio.SocketStream) -> None:
        async with stream, room:
            await _Connection(stream, answer, bounds).run()

    task_status.started()
    await trio.serve_listeners(one, [listener])


class _Connection:
    """One client, request after request."""

    def __init__(self, stream: trio.SocketStream, answer: Answer, bounds: Bounds) -> None:
        self._stream = stream
        self._answer = answer
        self._bounds = bounds
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=bounds.header_bytes)

    async def run(self) -> None:
        """Until the client goes, or is sent away."""
        try:
            while await self._serve_one():
                self._protocol.start_next_cycle()
        except (trio.BrokenResourceError, h11.LocalProtocolError):
            pass  # it hung up in the middle
        except (h11.RemoteProtocolError, BadRequest) as error:
            await self._refuse(str(error))

    async def _serve_one(self) -> bool:
        """Whether another request may follow."""
        request = None
        with trio.move_on_after(self._bounds.idle_seconds):
            head = await self._next()
            if isinstance(head, h11.Request):
                request = await self._whole(head)
        if request is None:
            return False
        with trio.move_on_after(self._bounds.sending_seconds):
            await self._send(await self._answered(request), is_head=request.method == "HEAD")
            return self._protocol.our_state is h11.DONE and self._protocol.their_state is h11.DONE
        return False

    async def _whole(self, head: h11.Request) -> Request | None:
        """None when it takes too long to come."""
        with trio.move_on_after(self._bounds.request_seconds):
            return request_untrusted(head, await self._body())
        return None

    async def _body(self) -> bytes:
        body = bytearray()
        while not isinstance(event := await self._next(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                body += event.data
            if len(body) > self._bounds.body_bytes:
                raise BadRequest(f"a request has at most {self._bounds.body_bytes} bytes")
        return bytes(body)

    async def _next(self) -> object:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            if self._protocol.they_are_waiting_for_100_continue:
                await self._send_event(h11.InformationalResponse(status_code=100, headers=[]))
            self._protocol.receive_data(await self._stream.receive_some(_CHUNK_BYTES))
        return event

    async def _answered(self, request: Request) -> Response:
        try:
            return await self._answer(request)
        except Exception:  # noqa: BLE001 - supervises one request: a mistake of ours must not end the ledger
            _log.exception("a request has failed in a way nobody foresaw: %s %s", request.method, request.path)
            return Response(HTTPStatus.INTERNAL_SERVER_ERROR, b"{}")

    async def _refuse(self, sentence: str) -> None:
        with trio.move_on_after(self._bounds.sending_seconds):
            try:
                await self._send(
                    Response(HTTPStatus.BAD_REQUEST, f"{sentence}\n".encode(), "text/plain"), is_head=False
                )
            except (trio.BrokenResourceError, h11.LocalProtocolError):
                return  # nobody listens any more

    async def _send(self, response: Response, *, is_head: bool) -> None:
        headers = [
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            ("Cache-Control", "no-store"),
        ]
        await self._send_event(h11.Response(status_code=response.status, headers=headers))
        if not is_head:
            await self._send_event(h11.Data(data=response.body))
        await self._send_event(h11.EndOfMessage())

    async def _send_event(self, event: h11.Event) -> None:
        data = self._protocol.send(event)
        if data:
            await self._stream.send_all(data)


def request_untrusted(head: h11.Request, body: bytes) -> Request:
    """Raises BadRequest."""
    headers = {name: value.decode("ascii", "replace") for name, value in head.headers}
    try:
        target = urlsplit(head.target.decode("ascii"))
        kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        return Request(
            method=head.method.decode("ascii"),
            path=tuple(unquote(part) for part in target.path.split("/") if part),
            query=_fields(target.query),
            form=_fields(body.decode("ascii")) if kind == FORM else None,
            base=f"http://{headers.get(b'host', 'localhost')}/",
            is_from_page=b"origin" in headers,
        )
    except ValueError as error:
        raise BadRequest(f"the request cannot be read: {error}") from None


def _fields(text: str) -> dict[str, str]:
    return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS))
