"""Where a node can be reached: ``HOST:PORT`` as people read it, IP literals as the wire carries them.

Owns printing, comparing and resolving (``layrfs.config`` parses); must not know what is spoken at an address.
Invariant: an ``Address`` that left ``resolve`` or ``canonical`` holds an IP literal in its one canonical spelling, so
equal endpoints are equal tuples (an IPv4 address seen through an IPv6 socket included).
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import socket
from typing import NamedTuple

import trio

from layrfs.errors import Unreachable


class Address(NamedTuple):
    """A host (IP literal or DNS name) and a port; a plain tuple to whoever wants one."""

    host: str
    port: int

    def __str__(self) -> str:
        return format_address(self.host, self.port)


def format_address(host: str, port: int) -> str:
    """The spelling ``layrfs.config.parse_address`` reads back."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_literal(host: str) -> bool:
    """Whether ``host`` is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=4096)
def canonical(host: str) -> str:
    """The one spelling of an IP literal; IPv4 inside IPv6 becomes IPv4. Raises ``ValueError`` for anything else."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)


class Scope(enum.IntEnum):
    """How far an address reaches."""

    MACHINE = 0
    SITE = 1
    WORLD = 2


@functools.lru_cache(maxsize=4096)
def scope(host: str) -> Scope:
    """The scope of an IP literal."""
    address = ipaddress.ip_address(host)
    if address.is_loopback:
        return Scope.MACHINE
    return Scope.WORLD if address.is_global else Scope.SITE


def may_speak_of(speaker: str, host: str) -> bool:
    """Whether a node seen at ``speaker`` can know ``host``; nobody from afar sends us into our own networks."""
    return scope(host) >= scope(speaker)


async def resolve(address: Address) -> list[Address]:
    """Every endpoint behind a literal or DNS name. Raises ``Unreachable`` when there is none; caller's deadline."""
    if is_literal(address.host):
        return [Address(canonical(address.host), address.port)]
    try:
        found = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"the name {address.host} cannot be resolved") from error
    return list(dict.fromkeys(Address(canonical(str(entry[4][0])), address.port) for entry in found))
