"""Datagrams in and out of a real UDP socket, and the port that the in-memory network of the tests implements too.

Owns the socket and its kinds of failure; must not know what the datagrams say. Both implementations pass
``tests/contracts/test_datagram_transport.py``.
Invariant: ``send`` never waits and never raises, ``receive`` raises nothing but cancellation: UDP promises nothing, so
a datagram that cannot be sent is a lost datagram, and is counted.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import Counter
from typing import Protocol

import trio

from layrfs.errors import StateInUse, UsageError
from layrfs.network.addresses import Address, canonical, format_address

LONGEST_DATAGRAM = 2048
"""More than any datagram of ours: what is longer arrives cut off and is then malformed."""

BUFFER_BYTES = 1 << 20
"""Asked of the kernel for each direction, so that a burst of replies outlives a busy moment of the event loop."""


class DatagramTransport(Protocol):
    """An endpoint for datagrams of one node."""

    async def open(self) -> int:
        """Take the port and answer it. Raises ``StateInUse`` or ``UsageError``."""
        ...

    def close(self) -> None:
        """Give the port back; further sends are dropped."""
        ...

    def send(self, data: bytes, address: Address) -> None:
        """Send or lose one datagram, at once."""
        ...

    async def receive(self) -> tuple[bytes, Address]:
        """The next datagram and where it claims to come from; always a checkpoint."""
        ...

    def receive_now(self) -> tuple[bytes, Address] | None:
        """A datagram that is already here, if there is one."""
        ...


class UdpTransport:
    """A UDP socket; bound to ``::`` it speaks IPv4 and IPv6."""

    def __init__(self, bind: tuple[str, int], dropped: Counter[str]) -> None:
        self._bind = bind
        self._dropped = dropped
        self._waiting: trio.socket.SocketType | None = None
        self._instant: socket.socket | None = None

    async def open(self) -> int:
        """See ``DatagramTransport``. Port 0 takes a free one."""
        try:
            self._waiting = _socket_for(self._bind[0])
            await self._waiting.bind(self._bind)
        except OSError as error:
            self.close()
            raise _bind_error(self._bind, error) from error
        # A second handle on the same socket, for the calls that never wait.
        self._instant = socket.socket(fileno=self._waiting.dup().detach())
        return int(self._waiting.getsockname()[1])

    def close(self) -> None:
        """See ``DatagramTransport``."""
        for handle in (self._instant, self._waiting):
            if handle is not None:
                handle.close()
        self._instant = None

    def send(self, data: bytes, address: Address) -> None:
        """See ``DatagramTransport``."""
        with contextlib.suppress(OSError, UnicodeError, OverflowError):
            if self._instant is not None:
                self._instant.sendto(data, socket.MSG_DONTWAIT, (self._spelled(address.host), address.port))
                return
        self._dropped["unsendable"] += 1

    async def receive(self) -> tuple[bytes, Address]:
        """See ``DatagramTransport``."""
        if self._waiting is None:
            raise trio.ClosedResourceError
        while True:
            try:
                return _received(*await self._waiting.recvfrom(LONGEST_DATAGRAM))
            except OSError as error:  # an ICMP error that an earlier send provoked, most likely
                if error.errno == errno.EBADF:
                    raise
                self._dropped["receive errors"] += 1

    def receive_now(self) -> tuple[bytes, Address] | None:
        """See ``DatagramTransport``."""
        if self._instant is None:
            return None
        try:
            return _received(*self._instant.recvfrom(LONGEST_DATAGRAM, socket.MSG_DONTWAIT))
        except OSError:
            return None

    def _spelled(self, host: str) -> str:
        """IPv4 addresses as a socket for both families wants them."""
        return f"::ffff:{host}" if ":" in self._bind[0] and ":" not in host else host


def _received(data: bytes, sender: tuple[str, int]) -> tuple[bytes, Address]:
    return data, Address(canonical(sender[0].partition("%")[0]), sender[1])


def _socket_for(host: str) -> trio.socket.SocketType:
    """An unbound UDP socket that can be bound to ``host``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = trio.socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        made.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    return made


def _bind_error(bind: tuple[str, int], error: OSError) -> StateInUse | UsageError:
    where = format_address(*bind)
    if error.errno == errno.EADDRINUSE:
        return StateInUse(f"UDP port {where} is already in use")
    if error.errno == errno.EACCES:
        return UsageError(f"no permission to listen on UDP {where}: choose a port above 1023")
    return UsageError(f"cannot listen on UDP {where}: {error.strerror or error}")
