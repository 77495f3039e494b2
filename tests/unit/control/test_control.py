"""The control socket, both ends at once: the real client in a thread against the real server."""

from __future__ import annotations

import http.client
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
import trio
import trio.testing

from layrfs import errors
from layrfs.control.client import ControlClient
from layrfs.control.commands import (
    LIST,
    STATUS,
    SYNC,
    AtPath,
    Bound,
    Command,
    ListDirectory,
    Nothing,
    Progress,
)
from layrfs.control.server import ControlServer, Page
from layrfs.errors import LayrError, LocalError, NotRunning, NotSupported, StateInUse, Unavailable, UsageError
from layrfs.model.status import ListPage, ProgressReport, SyncReport, VolumeStatus

AnswerT = TypeVar("AnswerT")


class Handlers:
    """What the tests' drive does."""

    def __init__(self) -> None:
        self.hung_up = trio.Event()
        self.started = trio.Event()
        self.failure: Exception | None = None

    async def status(self, _request: Nothing, _progress: Progress) -> VolumeStatus:
        return VolumeStatus(volume="v", mountpoint="/m", files=3)

    async def sync(self, request: AtPath, progress: Progress) -> SyncReport:
        if self.failure is not None:
            raise self.failure
        progress(ProgressReport(1, 4, os.fsdecode(request.path)))
        await trio.testing.wait_all_tasks_blocked()
        progress(ProgressReport(2, 4))
        progress(ProgressReport(3, 4))
        return SyncReport(uploaded_bytes=4)

    async def list(self, _request: ListDirectory, _progress: Progress) -> ListPage:
        self.started.set()
        try:
            await trio.sleep_forever()
        finally:
            self.hung_up.set()
        raise AssertionError

    async def numbers(self) -> str:
        return "one 1\n"

    async def broken(self) -> str:
        raise ZeroDivisionError("oh")

    def bound(self) -> list[Bound]:
        return [STATUS.bind(self.status), SYNC.bind(self.sync), LIST.bind(self.list)]


@asynccontextmanager
async def serving(path: Path, handlers: Handlers) -> AsyncIterator[ControlClient]:
    async with trio.open_nursery() as nursery:
        pages = {"/numbers": Page("text/plain", handlers.numbers), "/broken": Page("text/plain", handlers.broken)}
        await nursery.start(ControlServer(str(path), handlers.bound(), pages).run)
        yield ControlClient(str(path))
        nursery.cancel_scope.cancel()


async def asking(call: Callable[[], AnswerT]) -> AnswerT:
    return await trio.to_thread.run_sync(call)


async def test_a_request_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path / "s", Handlers()) as client:
        status = await asking(partial(client.call, STATUS, Nothing()))
    assert status == VolumeStatus(volume="v", mountpoint="/m", files=3)


async def test_progress_comes_before_the_answer_and_bytes_survive(tmp_path: Path) -> None:
    seen: list[ProgressReport] = []
    async with serving(tmp_path / "s", Handlers()) as client:
        report = await asking(partial(client.call, SYNC, AtPath(b"/\xff"), seen.append))
    assert report.uploaded_bytes == 4
    assert seen[0] == ProgressReport(1, 4, "/\\udcff")


@pytest.mark.parametrize("kind", [Unavailable, errors.NotFound, UsageError, errors.NoSpace])
async def test_errors_arrive_as_the_class_they_were(tmp_path: Path, kind: type[LayrError]) -> None:
    handlers = Handlers()
    handlers.failure = ExceptionGroup("a nursery's", [kind("why not")])
    async with serving(tmp_path / "s", handlers) as client:
        with pytest.raises(kind, match="why not"):
            await asking(partial(client.call, SYNC, AtPath()))


async def test_a_bug_in_one_command_is_logged_and_the_next_is_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handlers = Handlers()
    handlers.failure = ZeroDivisionError("oh")
    async with serving(tmp_path / "s", handlers) as client:
        with pytest.raises(LocalError, match="internal error"):
            await asking(partial(client.call, SYNC, AtPath()))
        assert (await asking(partial(client.call, STATUS, Nothing()))).files == 3
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/numbers", 200, "one 1\n"),
        ("/numbers?x=1", 200, "one 1\n"),
        ("/no", 404, "/numbers\n/broken\n"),
        ("/broken", 500, "an internal error of the drive; its log has the details\n"),
    ],
)
async def test_pages_are_had_in_http(tmp_path: Path, path: str, status: int, body: str) -> None:
    async with serving(tmp_path / "s", Handlers()) as client:
        assert await asking(partial(get, tmp_path / "s", path)) == (status, body)
        assert (await asking(partial(client.call, STATUS, Nothing()))).files == 3


def get(socket_path: Path, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("drive")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(str(socket_path))
    connection.request("GET", path)
    with connection.getresponse() as response:
        return response.status, response.read().decode()


async def test_hanging_up_cancels_the_command(tmp_path: Path) -> None:
    handlers = Handlers()
    async with serving(tmp_path / "s", handlers):
        stream = await trio.open_unix_socket(tmp_path / "s")
        await stream.send_all(b'{"do":"list","with":{"path":"Lw=="}}\n')
        await handlers.started.wait()
        await stream.aclose()
        with trio.fail_after(30):
            await handlers.hung_up.wait()


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"{}\n", "UsageError"),
        (b"\xff\xfe\n", "UsageError"),
        (b'{"do":"sync","with":{"path":7}}\n', "UsageError"),
        (b'{"do":"sync","with":[]}\n', "UsageError"),
        (b'{"do":"fly"}\n', "NotSupported"),
        (b"[" * 100_000 + b"\n", "UsageError"),
    ],
)
async def test_nonsense_gets_a_sentence_and_harms_nobody(tmp_path: Path, line: bytes, kind: str) -> None:
    async with serving(tmp_path / "s", Handlers()) as client:
        stream = await trio.open_unix_socket(tmp_path / "s")
        async with stream:
            await stream.send_all(line)
            answer = await stream.receive_some(65536)
        assert msgspec.json.decode(answer)["error"]["kind"] == kind
        assert (await asking(partial(client.call, STATUS, Nothing()))).files == 3


async def test_a_client_that_goes_away_in_mid_request_harms_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path / "s", Handlers()) as client:
        stream = await trio.open_unix_socket(tmp_path / "s")
        await stream.send_all(b'{"do":')
        await stream.aclose()
        assert (await asking(partial(client.call, STATUS, Nothing()))).files == 3


async def test_unknown_command_of_an_older_drive(tmp_path: Path) -> None:
    async with serving(tmp_path / "s", Handlers()) as client:
        with pytest.raises(NotSupported, match="mount it again"):
            await asking(partial(client.call, Command("future", Nothing, VolumeStatus), Nothing()))


async def test_a_socket_below_a_deep_directory(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    async with serving(deep / "control.sock", Handlers()) as client:
        assert (await asking(partial(client.call, STATUS, Nothing()))).files == 3
        assert await asking(client.process_id) == os.getpid()
    assert not (deep / "control.sock").exists()


async def test_the_socket_is_private(tmp_path: Path) -> None:
    async with serving(tmp_path / "s", Handlers()):
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600


async def test_the_socket_of_a_killed_drive_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    async with serving(tmp_path / "s", Handlers()) as client:
        assert await asking(client.is_running)


async def test_a_second_drive_is_refused_and_the_first_unharmed(tmp_path: Path) -> None:
    async with serving(tmp_path / "s", Handlers()) as client:
        with pytest.RaisesGroup(StateInUse):
            async with serving(tmp_path / "s", Handlers()):
                pass
        assert await asking(client.is_running)


async def test_a_drive_that_ends_answers_what_it_had_begun(tmp_path: Path) -> None:
    handlers = Handlers()
    async with trio.open_nursery() as outer, serving(tmp_path / "s", handlers) as client:

        async def ask() -> None:
            with pytest.raises(LocalError, match="ended before it answered"):
                await asking(partial(client.call, LIST, ListDirectory(b"/")))

        outer.start_soon(ask)
        await handlers.started.wait()


def test_nobody_there(tmp_path: Path) -> None:
    client = ControlClient(str(tmp_path / "nothing"))
    assert not client.is_running()
    with pytest.raises(NotRunning):
        client.call(STATUS, Nothing())
