"""Where the hosts of a shard can be reached: what is known at once, and what a look-up brings.

Owns the address book, filled from the DHT's facade through the port `HostFinder`. Must not know pieces' bytes or
workers. Invariant: an address is only ever a hint; the TLS handshake proves who answers there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import trio

from layrfs.ids import NODE_ID_BYTES, NodeId
from layrfs.model.records import HostAddress, NodeRecord
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.pipeline.jobs import Candidate

REFRESH_SECONDS = 5.0
LOOKUP_SECONDS = 5.0
STRAYS = 8
"""How many hosts near a piece's key are asked for it when those that should have it do not."""


class HostFinder(Protocol):
    """What the DHT knows about hosts: `layrfs.network.discovery.Discovery`, or a fake."""

    async def closest_hosts(self, key: bytes, count: int) -> list[NodeRecord]:
        """Live hosts with verified records, nearest to the key first."""
        ...

    async def find_node(self, node: NodeId) -> NodeRecord | None:
        """The newest record of one node."""
        ...

    def known_hosts(self) -> list[NodeRecord]:
        """All hosts known at this moment, without asking anybody."""
        ...

    def is_leaving(self, node: NodeId) -> bool:
        """Whether a host has said, in the newest record that is known, that it is going to end."""
        ...

    def suspect(self, node: NodeId) -> None:
        """The caller had trouble with a host: leave it out until it has answered again."""
        ...


class AddressBook:
    """Addresses of hosts by node id, refreshed from the finder every few seconds while it is used."""

    def __init__(self, finder: HostFinder) -> None:
        self._finder = finder
        self._addresses: dict[NodeId, HostAddress] = {}
        self._refreshed_seconds = float("-inf")

    def recorded(self, shard: ShardRecord) -> list[Candidate]:
        """The pieces of a shard at the hosts of its record, as far as their addresses are known."""
        self._refresh()
        return [
            Candidate(piece, address)
            for piece in shard.pieces
            if (address := self._addresses.get(piece.host)) is not None
        ]

    def address_of(self, host: NodeId) -> HostAddress | None:
        """Where the host was last known to be."""
        self._refresh()
        return self._addresses.get(host)

    async def looked_up(self, shard: ShardRecord) -> list[Candidate]:
        """The same after asking the network for every host; behind them those that might hold the pieces instead."""
        strays: list[Candidate] = []
        with trio.move_on_after(LOOKUP_SECONDS):
            async with trio.open_nursery() as nursery:
                for piece in shard.pieces:
                    nursery.start_soon(self._look_up, piece.host)
                    nursery.start_soon(self._add_strays, piece, strays)
        self._refreshed_seconds = float("-inf")
        return self.recorded(shard) + strays

    async def _look_up(self, host: NodeId) -> None:
        record = await self._finder.find_node(host)
        if record is not None:
            self._learn([record])

    async def _add_strays(self, piece: PieceRecord, strays: list[Candidate]) -> None:
        records = await self._finder.closest_hosts(piece.id[:NODE_ID_BYTES], STRAYS)
        strays += [Candidate(piece, record.address) for record in records if record.node_id != piece.host]

    def _refresh(self) -> None:
        now = trio.current_time()
        if now - self._refreshed_seconds >= REFRESH_SECONDS:
            self._refreshed_seconds = now
            self._learn(self._finder.known_hosts())

    def _learn(self, records: Sequence[NodeRecord]) -> None:
        for record in records:
            if record.tcp_port:
                self._addresses[record.node_id] = record.address
