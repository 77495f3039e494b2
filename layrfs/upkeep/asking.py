"""Signed requests to one host after the other: go on keeping these pieces, drop those.

Owns the tenant keys they are signed with. Must not know why. Few at a time: nobody waits for upkeep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

import trio

from layrfs.crypto.keys import tenant_private
from layrfs.errors import RemoteError, Unreachable
from layrfs.ids import NodeId, PieceId
from layrfs.model.records import HostAddress
from layrfs.network.links import HostLinks
from layrfs.pipeline.finding import HostFinder
from layrfs.wire.messages import PIECES_PER_MESSAGE

CALLS_AT_ONCE = 2
LOOKUP_SECONDS = 5.0
TOGETHER = PIECES_PER_MESSAGE
"""The most pieces of one request."""

T = TypeVar("T")


class Asker(Protocol):
    """What upkeep asks of hosts; ``HostAsker``, or a fake. Raises a ``RemoteError`` or nothing."""

    async def renew(self, host: NodeId, pieces: Sequence[PieceId]) -> list[bool]:
        """Whether the host has each of at most ``TOGETHER`` pieces; it keeps those for another lease."""
        ...

    async def delete(self, host: NodeId, pieces: Sequence[PieceId]) -> None:
        """When this returns, the host does not have any of them as ours."""
        ...


class HostAsker:
    """The real one."""

    def __init__(self, links: HostLinks, finder: HostFinder, mask: bytes) -> None:
        self._links = links
        self._finder = finder
        self._mask = mask
        self._limiter = trio.CapacityLimiter(CALLS_AT_ONCE)

    async def renew(self, host: NodeId, pieces: Sequence[PieceId]) -> list[bool]:
        """See ``Asker``."""
        address = await address_of(self._finder, host)
        return await self._call(host, partial(self._links.renew, address, pieces, self._tenant(host)))

    async def delete(self, host: NodeId, pieces: Sequence[PieceId]) -> None:
        """See ``Asker``."""
        address = await address_of(self._finder, host)
        await self._call(host, partial(self._links.delete, address, pieces, self._tenant(host)))

    def _tenant(self, host: NodeId) -> bytes:
        return tenant_private(self._mask, host)

    async def _call(self, host: NodeId, call: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=self._limiter)
        except RemoteError:
            self._finder.suspect(host)
            raise


async def address_of(finder: HostFinder, host: NodeId) -> HostAddress:
    """Where a host is now, as far as anybody knows. Raises ``Unreachable``."""
    record = next((known for known in finder.known_hosts() if known.node_id == host), None)
    with trio.move_on_after(LOOKUP_SECONDS):
        record = record or await finder.find_node(host)
    if record is None or not record.tcp_port:
        raise Unreachable(f"the host {host.hex()[:12]} is not there")
    return record.address
