"""Shards of the volume's own lists, for who repairs them elsewhere: which there are, and pieces that others made.

Must not know delegates. What is adopted is in a version on hosts when ``adopt`` returns.
"""

from __future__ import annotations

from collections.abc import Sequence

from layrfs.history.completing import with_purposes
from layrfs.history.publishing import Publisher
from layrfs.ids import ShardId
from layrfs.model.notes import Purpose
from layrfs.model.shards import PieceRecord, ShardRecord


class MetadataPieces:
    """One volume's: of its newest version and of all retained ones."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def all(self) -> list[tuple[ShardRecord, Purpose]]:
        """Every shard once, with what its pieces' notes say."""
        found: dict[ShardId, tuple[ShardRecord, Purpose]] = {}
        for chain in self._publisher.chains():
            for shard, purpose in with_purposes(chain):
                found.setdefault(shard.id, (shard, purpose))
        return list(found.values())

    def records(self) -> dict[ShardId, ShardRecord]:
        """The same by id, as on record now."""
        return {shard.id: shard for shard, _purpose in self.all()}

    async def adopt(self, shard: ShardId, pieces: Sequence[PieceRecord]) -> None:
        """Have these pieces on record instead of older ones at their positions. Raises what publishing does."""
        await self._publisher.completer.adopt(self._publisher, shard, pieces)
