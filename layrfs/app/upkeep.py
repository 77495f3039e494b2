"""The upkeep of a drive: auditing, patching, renewing, collecting and recoding, put together for commands as well.

Decides nothing. A drive that is mounted read-only keeps nothing up: whoever writes the volume does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection
from functools import partial

import trio

from layrfs.app.auditing import Auditing
from layrfs.app.delegating import Delegating
from layrfs.app.health import HealthWatch
from layrfs.app.losses import Losses
from layrfs.app.membership import Membership
from layrfs.app.paying import Payments
from layrfs.app.reach_of_payments import Reach
from layrfs.app.trusting import Trusting
from layrfs.control.commands import Collect, Progress
from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import ReadOnly
from layrfs.history.adopting import MetadataPieces
from layrfs.history.publishing import Publisher
from layrfs.history.roots import Roots
from layrfs.ids import InodeNumber, NodeId, PieceId, ShardId
from layrfs.model.history import Segment
from layrfs.model.status import Collected, ProgressReport
from layrfs.network.links import HostLinks
from layrfs.pipeline.pooled import PooledTransfers
from layrfs.policy.collecting import RETENTION_SECONDS
from layrfs.policy.placement import room
from layrfs.storage.answers import KeptAnswers
from layrfs.storage.audits import Rounds
from layrfs.storage.changes import ChangeLog
from layrfs.storage.content import Catalog
from layrfs.storage.copies import Copies
from layrfs.storage.database import Database
from layrfs.storage.garbage import Garbage
from layrfs.storage.lost import Lost
from layrfs.storage.tree import Tree
from layrfs.storage.versions import Versions
from layrfs.upkeep.asking import HostAsker
from layrfs.upkeep.auditor import Auditor
from layrfs.upkeep.challenging import HostChallenger
from layrfs.upkeep.collector import Collector
from layrfs.upkeep.dropping import Dropper
from layrfs.upkeep.holdings import Holdings
from layrfs.upkeep.lost_shards import LostShards
from layrfs.upkeep.merging import Merger
from layrfs.upkeep.needs import Needs
from layrfs.upkeep.patcher import Patcher
from layrfs.upkeep.recoding import Recoder
from layrfs.upkeep.renewing import Renewer
from layrfs.upkeep.repacking import Repacker
from layrfs.upkeep.rounds import AuditRounds

_SHOWN = 12

_log = logging.getLogger(__name__)


class Upkeep:
    """One volume's; ``run`` once."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        publisher: Publisher,
        transfers: PooledTransfers,
        links: HostLinks,
        membership: Membership,
        roots: Roots,
        trusting: Trusting,
        answers: KeptAnswers,
        keys: VolumeKeys,
        network_id: bytes,
        payments: Payments,
        directory: str,
        cache_path: Callable[[InodeNumber], str],
        read_only: bool,
        policy_changes: Callable[[], int],
    ) -> None:
        """``directory`` is the volume's: scratch directories are made in it. ``policy_changes`` counts.

        ``cache_path``: of a file in the cache.
        """
        asker, trusts = HostAsker(links, membership, keys.mask), trusting.trusts
        garbage, versions = Garbage(database, catalog), Versions(database)
        self._read_only = read_only
        self._publisher, self.payments = publisher, payments
        self.losses = Losses()
        self.lost = LostShards(catalog=catalog, lost=Lost(database), transfers=transfers, path_of=cache_path)
        self.patcher = Patcher(
            catalog=catalog,
            changes=ChangeLog(database),
            transfers=transfers,
            log=publisher,
            needs=Needs(catalog.pieces, trusting.state_of, lambda: set(_known(membership)), garbage.may_be_needed),
            lost=self.lost,
            room=lambda: room(membership.known_hosts()),
        )
        self.health = HealthWatch(catalog, Copies(database), self.patcher, trusts)
        repacker = partial(
            Repacker,
            catalog=catalog,
            garbage=garbage,
            transfers=transfers,
            living_hosts=lambda: _known(membership),
            is_gone=lambda host: trusting.state_of(host) == "gone",
        )
        self._recoder = Recoder(
            database=database,
            catalog=catalog,
            garbage=garbage,
            log=publisher,
            repacker=repacker(directory=os.path.join(directory, "recoding")),
            policy_changes=policy_changes,
        )

        def segments() -> tuple[Segment, ...]:
            return *publisher.segments, *versions.segments()

        holdings, rounds = Holdings(database.path, catalog, segments), Rounds(database)
        challenger = HostChallenger(links, membership, answers, keys.mask)
        auditor = Auditor(
            challenger=challenger,
            trusts=trusts,
            holdings=holdings,
            on_lost=self.bad_piece,
            on_held=self.patcher.piece_held,
        )
        self.auditing = Auditing(
            catalog=catalog,
            tree=Tree(database),
            rounds=rounds,
            holdings=holdings,
            trusts=trusts,
            auditor=auditor,
            root_keepers=roots.keepers,
        )
        self._audit_rounds = AuditRounds(
            rounds=rounds,
            holdings=holdings,
            trusts=trusts,
            auditor=auditor,
            living_hosts=lambda: _known(membership),
        )
        self._renewer = Renewer(
            database=database,
            catalog=catalog,
            segments=segments,
            asker=asker,
            on_missing=self._piece_lost,
            on_held=self.patcher.piece_held,
        )
        self._collector = Collector(
            database=database,
            garbage=garbage,
            log=publisher,
            repacker=repacker(directory=os.path.join(directory, "repacking")),
            dropper=Dropper(ChangeLog(database), asker),
        )
        self._reach_of_payments = Reach(
            transfers=transfers,
            holdings=holdings,
            holders=holdings.hosts,
            asker=asker,
            trusts=trusts,
            links=links,
            finder=membership,
        )
        metadata = MetadataPieces(publisher)
        self.delegating = Delegating(
            database=database,
            keys=keys,
            network_id=network_id,
            links=links,
            membership=membership,
            publisher=publisher,
            metadata=metadata,
            merger=Merger(
                catalog=catalog,
                changes=ChangeLog(database),
                log=publisher,
                challenger=challenger,
                transfers=transfers,
                metadata=metadata,
                state_of=trusting.state_of,
            ),
            patch_after_seconds=trusting.patch_after_seconds,
            read_only=read_only,
        )

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.patcher.run)
            if self._read_only:
                return
            nursery.start_soon(self._audit_rounds.run)
            nursery.start_soon(self._renewer.run)
            nursery.start_soon(self._collector.run)
            nursery.start_soon(self._recoder.run)
            nursery.start_soon(self.delegating.run)
            nursery.start_soon(self.payments.run, self._reach_of_payments)

    async def ask_all(self) -> None:
        """Every host says which of its pieces it has; what is gone counts as such when this returns."""
        await self._renewer.ask_all()

    def hosts_appeared(self, hosts: Collection[NodeId]) -> None:
        """Hosts have been found or come back."""
        self.patcher.hosts_appeared()
        self._renewer.hosts_appeared(hosts)
        self._recoder.hosts_appeared()
        self.payments.hosts_appeared()

    def bad_piece(self, shard: ShardId, piece: PieceId, host: NodeId, kind: str) -> None:
        """A host did not deliver. Silence may pass; what is wrong or gone is gone, and gets replaced.

        A host that has lost one piece is asked which others, and the shard's other hosts whether they have theirs.
        """
        what = host.hex()[:_SHOWN], piece.hex()[:_SHOWN], shard.hex()[:_SHOWN], kind
        _log.warning("host %s did not deliver piece %s of shard %s: %s", *what)
        if kind in {"wrong", "misfit", "missing"}:
            self._piece_lost(shard, piece, host)
        if kind == "missing":
            self._renewer.suspect(host, shard)

    def _piece_lost(self, shard: ShardId, piece: PieceId, host: NodeId) -> None:
        """A host has proven not to have a piece any more, of a file or of metadata."""
        self.losses.add(piece, host)
        if self._publisher.may_write and not self.patcher.piece_lost(shard, piece):
            self._publisher.piece_lost(piece)

    async def collect(self, request: Collect, progress: Progress) -> Collected:
        """`layrfs gc`. Raises ``ReadOnly``, and what publishing raises."""
        if self._read_only:
            raise ReadOnly("The volume is mounted read-only; collect where it is written.")
        if request.dry_run:
            return await self._collector.look()
        retention = RETENTION_SECONDS if request.retention_seconds is None else request.retention_seconds
        return await self._collector.collect(retention, lambda text: progress(ProgressReport(text=text)))


def _known(membership: Membership) -> list[NodeId]:
    return [record.node_id for record in membership.known_hosts()]
