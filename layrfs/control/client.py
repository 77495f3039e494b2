"""The blocking end of the control socket, for the command line.

Owns one connection for each command; must not know what is asked. Errors of the drive are raised here as the same
classes they were there. Hanging up (an exception, Ctrl-C) cancels the command in the drive.
"""

from __future__ import annotations

import socket
import struct

import msgspec

from layrfs import errors
from layrfs.control.address import short_address
from layrfs.control.commands import AnswerT, Command, Envelope, Progress, Reply, RequestT
from layrfs.errors import LocalError, NotRunning
from layrfs.model.status import ProgressReport

_CHUNK_BYTES = 256 << 10
_PEER = struct.Struct("iII")


class ControlClient:
    """Asks the drive whose control socket is at ``path``."""

    def __init__(self, path: str) -> None:
        self.path = path

    def is_running(self) -> bool:
        """Whether a drive answers."""
        try:
            self._connect().close()
        except NotRunning:
            return False
        return True

    def process_id(self) -> int:
        """Of the drive, as the kernel tells it. Raises NotRunning."""
        with self._connect() as connection:
            process, _user, _group = _PEER.unpack(
                connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
            )
        return int(process)

    def call(self, command: Command[RequestT, AnswerT], request: RequestT, progress: Progress | None = None) -> AnswerT:
        """The answer. Raises what the drive raised, NotRunning, or LocalError when it ends before it answers."""
        envelope = Envelope(command.name, msgspec.Raw(msgspec.json.encode(request)))
        with self._connect() as connection:
            try:
                connection.sendall(msgspec.json.encode(envelope) + b"\n")
                return self._await_answer(connection, command, progress or _ignore)
            except (BrokenPipeError, ConnectionResetError):
                raise LocalError("the drive ended before it answered; its log says why") from None

    def _await_answer(
        self, connection: socket.socket, command: Command[RequestT, AnswerT], progress: Progress
    ) -> AnswerT:
        with connection.makefile("rb", buffering=_CHUNK_BYTES) as lines:
            for line in lines:
                reply = msgspec.json.decode(line, type=Reply)
                if reply.progress is not None:
                    progress(reply.progress)
                elif reply.error is not None:
                    raise errors.named(reply.error.kind, reply.error.message)
                elif reply.result:
                    return msgspec.json.decode(reply.result, type=command.answer)
        raise LocalError("the drive ended before it answered; its log says why")

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with short_address(self.path) as address:
                connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            connection.close()
            raise NotRunning("no drive is running here; mount it first") from None
        except OSError as error:
            connection.close()
            raise LocalError(f"the drive at {self.path} cannot be asked: {error.strerror}") from error
        return connection


def _ignore(_report: ProgressReport) -> None:
    pass
