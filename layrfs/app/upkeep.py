"""The upkeep of a drive: its renewer, its collector and its recoder, put together, and what `layrfs gc` asks of them.

Decides nothing. A drive that is mounted read-only keeps nothing up: whoever writes the volume does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import trio

from layrfs.app.membership import Membership
from layrfs.control.commands import Collect, Progress
from layrfs.errors import ReadOnly
from layrfs.history.publishing import Publisher
from layrfs.ids import NodeId, PieceId, ShardId
from layrfs.model.status import Collected, ProgressReport
from layrfs.network.links import HostLinks
from layrfs.pipeline.transfers import Transfers
from layrfs.policy.collecting import RETENTION_SECONDS
from layrfs.storage.changes import ChangeLog
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.garbage import Garbage
from layrfs.storage.versions import Versions
from layrfs.upkeep.asking import HostAsker
from layrfs.upkeep.collector import Collector
from layrfs.upkeep.dropping import Dropper
from layrfs.upkeep.recoding import Recoder
from layrfs.upkeep.renewing import Renewer
from layrfs.upkeep.repacking import Repacker


class Upkeep:
    """One volume's; ``run`` once."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        publisher: Publisher,
        transfers: Transfers,
        links: HostLinks,
        membership: Membership,
        mask: bytes,
        directory: str,
        read_only: bool,
        on_bad_piece: Callable[[ShardId, PieceId, NodeId, str], None],
        policy_changes: Callable[[], int],
    ) -> None:
        """``directory`` is the volume's: scratch directories are made in it. ``policy_changes`` counts."""
        asker = HostAsker(links, membership, mask)
        garbage, versions = Garbage(database, catalog), Versions(database)
        self._read_only = read_only
        repacker = partial(Repacker, catalog=catalog, garbage=garbage, transfers=transfers)
        self._recoder = Recoder(
            database=database,
            catalog=catalog,
            garbage=garbage,
            repacker=repacker(directory=os.path.join(directory, "recoding")),
            policy_changes=policy_changes,
        )
        self._renewer = Renewer(
            database=database,
            catalog=catalog,
            segments=lambda: (*publisher.segments, *versions.segments()),
            asker=asker,
            on_missing=lambda shard, piece, host: on_bad_piece(shard, piece, host, "missing"),
        )
        self._collector = Collector(
            database=database,
            garbage=garbage,
            log=publisher,
            repacker=repacker(directory=os.path.join(directory, "repacking")),
            dropper=Dropper(ChangeLog(database), asker),
        )

    async def run(self) -> None:
        """Until cancelled."""
        if self._read_only:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._renewer.run)
            nursery.start_soon(self._collector.run)
            nursery.start_soon(self._recoder.run)

    async def collect(self, request: Collect, progress: Progress) -> Collected:
        """`layrfs gc`. Raises ``ReadOnly``, and what publishing raises."""
        if self._read_only:
            raise ReadOnly("The volume is mounted read-only; collect where it is written.")
        if request.dry_run:
            return await self._collector.look()
        retention = RETENTION_SECONDS if request.retention_seconds is None else request.retention_seconds
        return await self._collector.collect(retention, lambda text: progress(ProgressReport(text=text)))
