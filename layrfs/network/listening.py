"""A listening TCP socket for the piece server, and one clear sentence when there cannot be one."""

from __future__ import annotations

import errno
import socket

from layrfs.errors import LocalError, StateInUse, UsageError
from layrfs.network.addresses import format_address


def open_listener(host: str, port: int) -> socket.socket:
    """A TCP socket bound to an IP literal and port (0: any free one); bound to `::` it takes IPv4 as well.

    Raises StateInUse when another program has the port, UsageError when this machine cannot listen there.
    """
    try:
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise LocalError(f"no socket can be opened: {error.strerror}") from error
    try:
        if ":" in host:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _bind_error(format_address(host, port), error) from error
    return listener


def outward_address(toward: str) -> str:
    """The IP address this machine uses toward another (nothing is sent); loopback when it has no route there."""
    family = socket.AF_INET6 if ":" in toward else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((toward, 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _bind_error(where: str, error: OSError) -> StateInUse | UsageError:
    if error.errno == errno.EADDRINUSE:
        return StateInUse(f"TCP port {where} is already in use")
    if error.errno == errno.EACCES:
        return UsageError(f"no permission to listen on TCP {where}: choose a port above 1023")
    return UsageError(f"cannot listen on TCP {where}: {error.strerror or error}")
