"""Starting the drive's process and hearing from it until it is ready.

The drive is this program again, in a session of its own with its output in the volume's log. The two ends of a socket
pair join them until it is ready: the child may ask for the passphrase, then says it is ready or why not. Nothing secret
is in arguments, environment or log. A child that ends without a word is an error, never a hang.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from layrfs import errors
from layrfs.cli.passphrase import VARIABLE, asker
from layrfs.config import Paths
from layrfs.errors import LayrError, LocalError, StateInUse
from layrfs.logs import printable

_LOG_BYTES = 1 << 20
_END_SECONDS = 10.0
_LAST_DRIVE_SECONDS = 30.0
_LOOK_AGAIN_SECONDS = 0.02


class ReadyChannel:
    """The child's end."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def ask_passphrase(self) -> str:
        """Have the parent ask. Raises LocalError when it has gone."""
        self._send({"ask": "passphrase"})
        answer = self._socket.makefile("rb").readline()
        if not answer:
            raise LocalError("nobody is there to give the passphrase")
        return str(json.loads(answer))

    def say(self, sentence: str) -> None:
        """Something the person who mounts has to know; it is in the log as well."""
        self._send({"say": sentence})

    def ready(self) -> None:
        """All is up; the parent may go. Raises LocalError when it has gone already, and nobody wants the drive."""
        if not self._send({"ready": True}):
            raise LocalError("who started the drive has gone before it was ready")
        self._socket.close()

    def failed(self, error: LayrError) -> None:
        """Tell the parent why not."""
        self._send({"error": {"kind": type(error).__name__, "message": str(error)}})

    def _send(self, message: dict[str, object]) -> bool:
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True


def start_node(paths: Paths, volume: str, passfile: str | None, *, reading: bool) -> None:
    """Start the drive of a volume without a mount; returns when it answers at its control socket.

    ``reading``: nothing will be changed, so it does not matter whether another machine writes.
    """
    options = ["-oro"] if reading else []
    start_drive(paths, volume, [*options, "--no-mount", volume], asker(passfile))


def start_drive(paths: Paths, volume: str, arguments: Sequence[str], ask: Callable[[], str]) -> None:
    """Run ``mount.layrfs -f ARGUMENTS`` in the background; returns when it is ready. Raises what it failed with."""
    paths.prepare(volume)
    _await_end_of_last(paths.volume_dir(volume))
    log_file = paths.log_file(volume)
    spoken = os.path.getsize(log_file) if os.path.exists(log_file) else 0
    ours, theirs = socket.socketpair()
    with ours:
        with theirs, open(os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "layrfs.cli.mount", "-f", f"--ready-fd={theirs.fileno()}", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                cwd="/",
                env=_environment(paths),
            )
        try:
            _await_ready(ours, ask, _LogSince(log_file, spoken))
        except BaseException:
            _end(process)
            raise


def _await_end_of_last(volume_dir: str) -> None:
    """After umount(8) the last drive still puts its bytes on the disk, and holds the volume's lock until then."""
    deadline = time.monotonic() + _LAST_DRIVE_SECONDS
    with open(os.open(os.path.join(volume_dir, "lock"), os.O_RDWR | os.O_CREAT, 0o600), "rb+") as lock:
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(_LOOK_AGAIN_SECONDS)
    raise StateInUse(f"another process still holds the volume in {volume_dir}")


class _LogSince:
    """What the child wrote: our log lines, what a crash printed, and libfuse's own words, which come no other way."""

    def __init__(self, path: str, start: int) -> None:
        self.path = path
        self._start = start

    def lines(self) -> list[str]:
        with open(self.path, "rb") as file:
            file.seek(self._start)
            return file.read(_LOG_BYTES).decode("utf-8", "replace").strip().splitlines()

    def last_line(self) -> str:
        return printable((self.lines() or ["it left no word"])[-1].strip())

    def of_fuse(self) -> str:
        """In brackets after a sentence; empty when libfuse said nothing."""
        said = [line for line in self.lines() if line.startswith("fuse")]
        return f" ({printable(said[-1])})" if said else ""


def _await_ready(channel: socket.socket, ask: Callable[[], str], log: _LogSince) -> None:
    for message in _messages(channel):
        match message:
            case {"ready": True}:
                return
            case {"say": str(sentence)}:
                sys.stderr.write(f"layrfs: {printable(sentence)}\n")
            case {"ask": "passphrase"}:
                channel.sendall(json.dumps(ask()).encode() + b"\n")
            case {"error": {"kind": str(kind), "message": str(text)}}:
                raise errors.named(kind, text + log.of_fuse())
    raise LocalError(f"the drive ended before it was ready: {log.last_line()} ({log.path})")


def _messages(channel: socket.socket) -> Iterator[object]:
    with channel.makefile("rb") as lines:
        for line in lines:
            yield json.loads(line)


def _environment(paths: Paths) -> dict[str, str]:
    """The child finds the same state and this same code from another directory, and never inherits a passphrase."""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    code = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if os.path.basename(code) != "site-packages":
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [code, environment.get("PYTHONPATH")]))
    if paths.data == paths.config:
        environment["LAYRFS_HOME"] = paths.data
    return environment


def _end(process: subprocess.Popen[bytes]) -> None:
    """The drive that shall not be: ask, then insist."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
