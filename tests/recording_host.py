"""`layrfs host run`, with everything the host receives written down: what this file is run with is a `layrfs` command
line.

The recorder sits below LayrFS, in the standard library's sockets: TLS data as the host's own code sees it, decrypted,
and UDP datagrams. A host cannot know anything of an owner that is not in this record (the file named by $RECORDING),
or in times and addresses.
"""

import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from typing import Any

RECORD = open(os.environ["RECORDING"], "ab", buffering=0)  # noqa: SIM115 - lives as long as the process
LOCK = threading.Lock()


def note(data: Any) -> None:
    """Append one piece of what came in."""
    with LOCK:
        RECORD.write(data)


def recorded_read(read: Callable[..., Any]) -> Callable[..., Any]:
    """`SSLSocket.read` and `SSLObject.read`: bytes, or a count and a filled buffer."""

    def wrapper(self: Any, length: int = 1024, buffer: Any = None) -> Any:
        got = read(self, length, buffer)
        note(got if buffer is None else memoryview(buffer)[:got])
        return got

    return wrapper


def recorded_datagram(receive: Callable[..., Any]) -> Callable[..., Any]:
    """`recvfrom`: bytes and an address."""

    def wrapper(self: Any, *arguments: Any) -> Any:
        answer = receive(self, *arguments)
        note(answer[0])
        return answer

    return wrapper


def recorded_datagram_into(receive: Callable[..., Any]) -> Callable[..., Any]:
    """`recvfrom_into`: a count and an address."""

    def wrapper(self: Any, buffer: Any, *arguments: Any) -> Any:
        answer = receive(self, buffer, *arguments)
        note(memoryview(buffer)[: answer[0]])
        return answer

    return wrapper


for kind in (ssl.SSLSocket, ssl.SSLObject):
    kind.read = recorded_read(kind.read)  # type: ignore[method-assign]
socket.socket.recvfrom = recorded_datagram(socket.socket.recvfrom)  # type: ignore[method-assign]
socket.socket.recvfrom_into = recorded_datagram_into(socket.socket.recvfrom_into)  # type: ignore[method-assign]

if __name__ == "__main__":
    from layrfs.cli.main import main

    sys.exit(main())
