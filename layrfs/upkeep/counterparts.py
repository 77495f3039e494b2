"""The other side of contracts: what is said to hosts that are paid.

Owns finding them. Must not know what is agreed. Few at a time, and never in the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

import trio

from layrfs.crypto.digests import Buffer
from layrfs.crypto.identity import NodeIdentity
from layrfs.crypto.keys import tenant_private
from layrfs.errors import Unreachable
from layrfs.ids import NodeId
from layrfs.model.records import HostAddress
from layrfs.network.contract_links import ContractLinks
from layrfs.pipeline.finding import HostFinder
from layrfs.upkeep.asking import address_of
from layrfs.wire.contracts import ContractRequest, Quoted

CALLS_AT_ONCE = 4

T = TypeVar("T")


class Counterparts(Protocol):
    """What owners ask of hosts; ``HostCounterparts``, or a fake. Raises a ``RemoteError`` or nothing."""

    def tenant(self, host: NodeId) -> bytes:
        """The key that the owner shows to this host, public."""
        ...

    async def quote(self, host: NodeId) -> Quoted:
        """What the host takes."""
        ...

    async def ask(self, host: NodeId, request: ContractRequest, kind: type[T], body: Buffer = b"") -> T:
        """The answer, which is of this kind."""
        ...


class HostCounterparts:
    """The real ones."""

    def __init__(self, links: ContractLinks, finder: HostFinder, mask: bytes) -> None:
        self._links = links
        self._finder = finder
        self._mask = mask
        self._limiter = trio.CapacityLimiter(CALLS_AT_ONCE)

    def tenant(self, host: NodeId) -> bytes:
        """See ``Counterparts``."""
        return NodeIdentity.from_private(tenant_private(self._mask, host)).public_key

    async def quote(self, host: NodeId) -> Quoted:
        """See ``Counterparts``."""
        return await self._call(host, self._links.quote)

    async def ask(self, host: NodeId, request: ContractRequest, kind: type[T], body: Buffer = b"") -> T:
        """See ``Counterparts``."""
        return await self._call(host, lambda address: self._links.ask(address, request, kind, body))

    async def _call(self, host: NodeId, call: Callable[[HostAddress], T]) -> T:
        address = await address_of(self._finder, host)
        try:
            return await trio.to_thread.run_sync(partial(call, address), abandon_on_cancel=True, limiter=self._limiter)
        except Unreachable:
            self._finder.suspect(host)
            raise
