"""Where a node can be reached: ``HOST:PORT`` as people write it, IP literals as the wire carries them.

Owns parsing, printing, comparing and resolving; must not know what is spoken at an address.
Invariant: an ``Address`` that left ``resolve`` or ``canonical`` holds an IP literal in its one canonical spelling, so
equal endpoints are equal tuples (an IPv4 address seen through an IPv6 socket included).
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import re
import socket
from typing import NamedTuple

import trio

from layrfs.errors import Unreachable, UsageError

HIGHEST_PORT = 65535
LONGEST_HOST_NAME = 253
_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")


class Address(NamedTuple):
    """A host (IP literal or DNS name) and a port; a plain tuple to whoever wants one."""

    host: str
    port: int

    def __str__(self) -> str:
        return format_address(self.host, self.port)


def parse_address(text: str, *, default_port: int | None = None) -> Address:
    """``HOST:PORT``, ``[IPv6]:PORT``, or without the port when there is a default. Raises ``UsageError``."""
    host, port_text = _split(text.strip())
    if port_text is None:
        if default_port is None:
            raise UsageError(f"'{text}' lacks a port: write HOST:PORT")
        return Address(_checked_host(host, text), default_port)
    return Address(_checked_host(host, text), _checked_port(port_text, text))


def format_address(host: str, port: int) -> str:
    """The spelling ``parse_address`` reads back."""
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


def _split(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, closing, rest = text[1:].partition("]")
        if not closing or (rest and not rest.startswith(":")):
            raise UsageError(f"'{text}' is not HOST:PORT: an IPv6 address is written [ADDRESS]:PORT")
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        if is_literal(text):
            return text, None
        raise UsageError(f"'{text}' is not HOST:PORT: an IPv6 address is written [ADDRESS]:PORT")
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _checked_host(host: str, text: str) -> str:
    if not host:
        raise UsageError(f"'{text}' lacks a host: write HOST:PORT")
    if is_literal(host):
        return canonical(host)
    looks_numeric = not host.strip("0123456789.")
    if len(host) > LONGEST_HOST_NAME or looks_numeric or not _NAME.fullmatch(host):
        raise UsageError(f"'{host}' in '{text}' is neither a host name nor an IP address")
    return host


def _checked_port(port_text: str, text: str) -> int:
    if not (port_text.isascii() and port_text.isdigit()) or not 0 < int(port_text[:6]) <= HIGHEST_PORT:
        raise UsageError(f"'{port_text}' in '{text}' is not a port: a number from 1 to {HIGHEST_PORT}")
    return int(port_text)
