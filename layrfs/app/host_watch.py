"""Which hosts are there: remembered for the next run, and told to those who wait for hosts.

Owns the looking. Must not know what hosts keep.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Set

import trio

from layrfs.app.membership import Membership
from layrfs.errors import BadMessage, LayrError
from layrfs.ids import NodeId
from layrfs.model.records import RECORD_LIMIT_BYTES, NodeRecord
from layrfs.storage.content import Catalog
from layrfs.wire.codec import decode_untrusted

HOSTS_SECONDS = 1.0
"""How often we look whether hosts have come."""

EXPLORE_TICKS = 3
"""Every so many looks the network is searched, while shards have too few copies."""


class HostWatch:
    """One drive's."""

    def __init__(
        self,
        catalog: Catalog,
        membership: Membership,
        *,
        remember: bool,
        appeared: Callable[[Set[NodeId]], None],
        needs_more: Callable[[], bool],
    ) -> None:
        """``remember``: addresses may be written down; ``appeared`` is told who came; ``needs_more``: search on."""
        self._catalog = catalog
        self._membership = membership
        self._remember = remember
        self._appeared = appeared
        self._needs_more = needs_more
        self._known: set[NodeId] = set()
        self._remembered = {node: _where(record) for node, record in remembered_hosts(catalog).items()}

    def look(self) -> None:
        """Plain code, at once."""
        hosts = {record.node_id: record for record in self._membership.known_hosts()}
        for node, record in hosts.items() if self._remember else ():
            if self._remembered.get(node) != _where(record):
                self._remembered[node] = _where(record)
                with contextlib.suppress(LayrError):  # what keeps the database from writing is said elsewhere
                    self._catalog.pieces.put_host_record(node, record.to_bytes())
        if appeared := hosts.keys() - self._known:
            self._appeared(appeared)
        self._known = set(hosts)

    async def run(self) -> None:
        """Look every second; search the network while shards wait for copies."""
        for ticks in itertools.count():
            self.look()
            if ticks % EXPLORE_TICKS == 0 and self._needs_more():
                await self._membership.explore()
            await trio.sleep(HOSTS_SECONDS)


def remembered_hosts(catalog: Catalog) -> dict[NodeId, NodeRecord]:
    """Records from earlier runs, expired or not; those that cannot be read are done without.

    Who has pieces comes first, then who was met last: of hosts that are long gone there may be any number.
    """
    found, holders = {}, set(catalog.pieces.holders())
    for node, record in catalog.pieces.host_records().items():
        with contextlib.suppress(BadMessage):
            found[node] = decode_untrusted(NodeRecord, record, limit=RECORD_LIMIT_BYTES)
    last_met_first = list(reversed(found))
    return {node: found[node] for node in sorted(last_met_first, key=lambda node: node not in holders)}


def _where(record: NodeRecord) -> tuple[str, int, int]:
    return record.host, record.udp_port, record.tcp_port
