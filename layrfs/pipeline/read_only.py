"""Transfers for a volume's past: only downloads, and pieces are where the volume knows them to be today.

Since a snapshot was made some pieces were made anew on other hosts. Must not know snapshots. Invariant: nothing that
passes through here changes anything anywhere.
"""

# ruff: noqa: ARG002 - the signatures are the port's

from __future__ import annotations

import math
from collections.abc import Sequence

from layrfs.errors import LocalError
from layrfs.model.notes import CONTENT, Purpose
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.pipeline.transfers import Downloads, Slot, SourcePart, TargetPart, Uploaded
from layrfs.storage.content import Catalog


class ReadOnlyTransfers:
    """``Transfers`` whose ``catalog`` is the one that is kept up to date."""

    def __init__(self, transfers: Downloads, catalog: Catalog) -> None:
        self._transfers = transfers
        self._catalog = catalog

    @property
    def last_moved(self) -> float:
        return -math.inf

    async def upload(
        self,
        parts: Sequence[SourcePart],
        redundancy: Redundancy,
        purpose: Purpose = CONTENT,
        *,
        deduplicate: bool = True,
    ) -> Uploaded:
        raise LocalError("Nothing of the past is ever sent.")

    async def download(self, shard: ShardRecord, targets: Sequence[TargetPart], *, urgent: bool) -> None:
        today = self._catalog.find_shard(shard.id)
        await self._transfers.download(today if today and today.pieces else shard, targets, urgent=urgent)

    async def top_up(
        self, shard: ShardRecord, slots: Sequence[Slot], purpose: Purpose = CONTENT
    ) -> tuple[PieceRecord, ...]:
        return ()

    def discard(self, pieces: Sequence[PieceRecord]) -> None:
        raise LocalError("Nothing of the past is ever dropped here.")
