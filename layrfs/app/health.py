"""How well a volume's files are: what `user.layrfs.health`, `layrfs status` and the desktop say of them.

Reads what the patcher found when it last looked, and what is remembered of hosts. Decides and keeps nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from layrfs.ids import InodeNumber, NodeId
from layrfs.model.health import HEALTHY, Health, HealthReport, at_risk_sentence, health_of
from layrfs.model.records import NodeRecord
from layrfs.model.status import HostStatus
from layrfs.network.addresses import format_address
from layrfs.policy.patching import URGENCIES
from layrfs.policy.trust import silent_seconds
from layrfs.storage.content import Catalog
from layrfs.storage.copies import Copies
from layrfs.storage.trust import Trusts
from layrfs.tempo import now_seconds
from layrfs.upkeep.needs import Need
from layrfs.upkeep.patcher import HANDS, Patcher

MOST_NAMED = 5
SHARDS_LOOKED_INTO = 20
"""For the names of files at risk: each costs a query, and status may be asked every second."""


class HealthWatch:
    """One drive's; plain code on the trio thread."""

    def __init__(self, catalog: Catalog, copies: Copies, patcher: Patcher, trusts: Trusts) -> None:
        self._catalog = catalog
        self._copies = copies
        self._patcher = patcher
        self._trusts = trusts

    def of(self, inode: InodeNumber) -> Health:
        """The worst of a file's shards."""
        found = self._patcher.found
        if not found:
            return HEALTHY
        needs = (found[shard] for shard in self._catalog.shards_of(inode) if shard in found)
        worst = max((URGENCIES.index(need.urgency) for need in needs), default=0)
        return health_of(URGENCIES[worst])

    def report(self) -> HealthReport:
        """Of the whole volume."""
        needs = list(self._patcher.found.values())
        count = Counter(health_of(need.urgency) for need in needs)
        waiting = [need for need in needs if need.positions]
        at_risk = [need for need in needs if health_of(need.urgency) == "at risk"]
        lost = [need for need in needs if health_of(need.urgency) == "lost"]
        seconds = self._patcher.shard_seconds
        return HealthReport(
            degraded=count["degraded"],
            at_risk=count["at risk"],
            lost=count["lost"],
            waiting=len(waiting),
            eta_seconds=int(len(waiting) * seconds / HANDS) if waiting and seconds else None,
            files=tuple(self._files([*at_risk, *lost])),
            made_anew=self._patcher.made_anew,
        )

    def sentence(self) -> str | None:
        """What a person should know at once; None when nothing is in danger."""
        return at_risk_sentence(self.report())

    def host(self, node: NodeId) -> str:
        """What a host is worth now, in the words of ``policy.trust``; silence is told by its hours."""
        silent_hours = silent_seconds(self._trusts.get(node), now_seconds()) / 3600
        standing = self._trusts.standing(node)
        return f"{standing}, silent for {silent_hours:.0f} h" if silent_hours >= 1 else standing

    def hosts(self, known: Iterable[NodeRecord], pieces: Mapping[NodeId, int]) -> tuple[HostStatus, ...]:
        """Those that answer now, then those that should have pieces of ours, so many, but are silent."""
        answering = {record.node_id: record for record in known}
        online = [
            HostStatus(
                node.hex(),
                format_address(record.host, record.tcp_port),
                "leaving" if record.leaving else "online" if record.free_bytes else "full",
                record.free_bytes,
                pieces.get(node, 0),
                self.host(node),
                record.price,
            )
            for node, record in answering.items()
        ]
        silent = [
            HostStatus(node.hex(), "", "silent", 0, count, self.host(node))
            for node, count in pieces.items()
            if count and node not in answering
        ]
        return tuple(online + silent)

    def _files(self, needs: Sequence[Need]) -> list[bytes]:
        shards = [need.shard for need in sorted(needs)[:SHARDS_LOOKED_INTO]]
        return self._copies.files(shards, here_too=True)[:MOST_NAMED]
