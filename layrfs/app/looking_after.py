"""What a delegate does for one volume while its owner is away: what the owner's machine would do, and no more.

Puts together the same parts as a drive does (auditor, patcher, renewer, over the same tables), with two differences:
its workers have no key of contents, and what is replaced is not dropped, because the owner's list still names it.
Decides nothing.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import trio

from layrfs.app.trusting import Trusting
from layrfs.crypto.identity import NodeIdentity
from layrfs.ids import NodeId, PieceId, ShardId
from layrfs.model.notes import CONTENT, Purpose
from layrfs.model.records import NodeRecord
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.network.links import HostLinks
from layrfs.pipeline.finding import HostFinder
from layrfs.pipeline.jobs import WorkerKeys
from layrfs.pipeline.pool import WorkerPool
from layrfs.pipeline.pooled import PooledTransfers
from layrfs.pipeline.transfers import Slot, Transfers
from layrfs.policy.placement import room
from layrfs.storage.answers import KeptAnswers
from layrfs.storage.audits import Rounds
from layrfs.storage.changes import ChangeLog
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.entrusted import Entrusted
from layrfs.storage.grants import Grant
from layrfs.storage.lost import Lost
from layrfs.storage.trust import Trusts
from layrfs.upkeep.asking import HostAsker
from layrfs.upkeep.auditor import Auditor
from layrfs.upkeep.challenging import HostChallenger
from layrfs.upkeep.dropping import Dropper
from layrfs.upkeep.holdings import Holdings
from layrfs.upkeep.lost_shards import LostShards
from layrfs.upkeep.needs import Needs
from layrfs.upkeep.patcher import Patcher
from layrfs.upkeep.renewing import Renewer
from layrfs.upkeep.rounds import AuditRounds

WORKERS = 1
"""A delegate has time."""

SHARDS_TOGETHER = 1000
DROP_SECONDS = 3600.0
_REPLACED = 1
"""The version of what was replaced; see ``layrfs.storage.entrusted.GARBAGE``."""

_log = logging.getLogger(__name__)


class AlsoMyself:
    """A ``HostFinder`` that finds this host too when it is asked for, but not when others are wanted.

    So the pieces that are here are asked for like all others, and a host whose line is down does not see itself as the
    rest of the network.
    """

    def __init__(self, finder: HostFinder, node: NodeId, record: Callable[[], NodeRecord]) -> None:
        self._node = node
        self._record = record
        self._finder = finder
        self.closest_hosts = finder.closest_hosts
        self.known_hosts = finder.known_hosts
        self.suspect = finder.suspect

    async def find_node(self, node: NodeId) -> NodeRecord | None:
        """See ``HostFinder``."""
        return self._record() if node == self._node else await self._finder.find_node(node)

    def is_leaving(self, node: NodeId) -> bool:
        """See ``HostFinder``."""
        return self._record().leaving if node == self._node else self._finder.is_leaving(node)


class Neighbourhood(NamedTuple):
    """Who a delegate is, where, and how it finds hosts, of which it is one itself."""

    identity: NodeIdentity
    network_id: bytes
    finder: HostFinder

    async def look_after(self, grant: Grant, database: Database, entrusted: Entrusted) -> None:
        """Until cancelled."""
        keys = WorkerKeys.for_repair(grant.mask, grant.volume, self.identity.private, self.network_id)
        with contextlib.closing(HostLinks(self.identity, self.network_id)) as links:
            async with trio.open_nursery() as nursery:
                work = _Work(self.finder, keys, links, database, entrusted, grant.patch_after_seconds)
                await nursery.start(work.transfers.run)
                nursery.start_soon(work.run)


class _Work:
    """One volume's parts, built in order."""

    def __init__(
        self,
        finder: HostFinder,
        keys: WorkerKeys,
        links: HostLinks,
        database: Database,
        entrusted: Entrusted,
        patch_after_seconds: int,
    ) -> None:
        self._finder = finder
        self._catalog = Catalog(database)
        own_node = NodeIdentity.from_private(keys.node_private).node_id
        trusting = Trusting(Trusts(database), own_node, patch_after_seconds, finder.is_leaving, unpaid=frozenset)
        changes, asker = ChangeLog(database), HostAsker(links, finder, keys.mask)
        self.transfers = PooledTransfers(
            WorkerPool(keys, workers=WORKERS),
            finder,
            find_content=lambda _digests: {},
            on_bad_piece=self._bad_piece,
            on_attempt=trusting.fetched,
            excluded=trusting.excluded,
            suspended=trusting.trusts.suspended,
        )
        noted = _Noted(self.transfers, entrusted)
        self._patcher = Patcher(
            catalog=self._catalog,
            changes=changes,
            transfers=noted,
            log=_NoVersions(),
            needs=Needs(self._catalog.pieces, trusting.state_of, self._living),
            lost=LostShards(catalog=self._catalog, lost=Lost(database), transfers=noted, path_of=str),
            room=lambda: room(self._finder.known_hosts()),
        )
        holdings, rounds = Holdings(database.path, self._catalog, tuple), Rounds(database)
        self._rounds = AuditRounds(
            rounds=rounds,
            holdings=holdings,
            trusts=trusting.trusts,
            auditor=Auditor(
                challenger=HostChallenger(links, finder, KeptAnswers(database, keys.mask, 0), keys.mask),
                trusts=trusting.trusts,
                holdings=holdings,
                on_lost=self._bad_piece,
                on_held=self._patcher.piece_held,
            ),
            living_hosts=self._living,
        )
        self._renewer = Renewer(
            database=database,
            catalog=self._catalog,
            segments=tuple,
            asker=asker,
            on_missing=self._piece_lost,
            on_held=self._patcher.piece_held,
        )
        self._dropper = Dropper(changes, asker)

    async def run(self) -> None:
        """Until cancelled; the transfers are running."""
        after: int | None = 0
        while after is not None:
            after = self._catalog.pieces.find_degraded(after, SHARDS_TOGETHER)
            await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._patcher.run)
            nursery.start_soon(self._rounds.run)
            nursery.start_soon(self._renewer.run)
            nursery.start_soon(self._drop_garbage)

    async def _drop_garbage(self) -> None:
        """What was made here and the owner did not take."""
        while True:
            await self._dropper.drop_due(0.0, lambda _pieces: None)
            await trio.sleep(DROP_SECONDS)

    def _living(self) -> set[NodeId]:
        return {record.node_id for record in self._finder.known_hosts()}

    def _bad_piece(self, shard: ShardId, piece: PieceId, host: NodeId, kind: str) -> None:
        _log.info("host %s did not deliver piece %s: %s", host.hex()[:12], piece.hex()[:12], kind)
        if kind in {"wrong", "misfit", "missing"}:
            self._patcher.piece_lost(shard, piece)

    def _piece_lost(self, shard: ShardId, piece: PieceId, host: NodeId) -> None:
        self._bad_piece(shard, piece, host, "missing")


class _NoVersions:
    """Where a drive has its ``Publisher``: nothing is published from here."""

    may_write = True
    next_version = _REPLACED


class _Noted:
    """Transfers that give each new piece the note that its owner would give it."""

    def __init__(self, transfers: Transfers, entrusted: Entrusted) -> None:
        self._transfers = transfers
        self._entrusted = entrusted
        self.upload = transfers.upload
        self.download = transfers.download
        self.discard = transfers.discard

    @property
    def last_moved(self) -> float:
        """See ``Transfers``."""
        return self._transfers.last_moved

    async def top_up(
        self, shard: ShardRecord, slots: Sequence[Slot], purpose: Purpose = CONTENT
    ) -> tuple[PieceRecord, ...]:
        """See ``Transfers``; ``purpose`` is what the owner said of the shard."""
        with contextlib.suppress(KeyError):
            purpose = self._entrusted.purpose(shard.id)
        return await self._transfers.top_up(shard, slots, purpose)
