"""Which hosts should have which pieces: of files, and of the volume's own metadata.

Must not know which of them are asked for, or why. Plain code on the trio thread, but for the one look into the database
that grows with the volume, which a thread takes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator

import trio

from layrfs.crypto.merkle import leaf_count
from layrfs.ids import NodeId
from layrfs.model.history import Segment
from layrfs.model.shards import ShardRecord
from layrfs.storage.audits import Owed, owed_by
from layrfs.storage.content import Catalog
from layrfs.upkeep.challenging import HeldPiece

Look = Callable[[str, NodeId], Awaitable[list[Owed]]]


async def look_in_thread(path: str, host: NodeId) -> list[Owed]:
    """``storage.audits.owed_by``."""
    return await trio.to_thread.run_sync(owed_by, path, host)


class Holdings:
    """One volume's, as of each call."""

    def __init__(
        self, path: str, catalog: Catalog, segments: Callable[[], Iterable[Segment]], look: Look = look_in_thread
    ) -> None:
        """``path``: of the database. ``segments``: of the newest version and of all retained ones."""
        self._path = path
        self._look = look
        self._catalog = catalog
        self._segments = segments

    def counts(self) -> dict[NodeId, int]:
        """How many pieces each host should have; a host without any is not in it."""
        counts = {host: count for host, count in self._catalog.pieces.per_host().items() if count}
        for held in self._metadata():
            counts[held.piece.host] = counts.get(held.piece.host, 0) + 1
        return counts

    async def owed_by(self, host: NodeId) -> list[Owed]:
        """All pieces that a host should have, by id."""
        of_files = await self._look(self._path, host)
        of_metadata = [
            Owed(held.piece.id, leaf_count(held.piece_bytes), None)
            for held in self._metadata()
            if held.piece.host == host
        ]
        return sorted({owed.piece: owed for owed in [*of_files, *of_metadata]}.values())

    def held(self, host: NodeId, owed: Owed) -> HeldPiece | None:
        """The piece with its shard, as on record now; None when the host need not have it any more."""
        if owed.shard is None:
            found = (held for held in self._metadata() if held.piece.id == owed.piece)
        elif self._catalog.has_shard(owed.shard):
            shard = self._catalog.shard(owed.shard)
            found = (HeldPiece(shard, piece) for piece in shard.pieces if piece.id == owed.piece)
        else:
            return None
        return next((held for held in found if held.piece.host == host), None)

    def is_held(self, held: HeldPiece) -> bool:
        """Whether the host should still have that piece: while it was asked, the piece may have been given up."""
        now = self._catalog.find_shard(held.shard.id)
        if now is not None:
            return held.piece in now.pieces
        return any(held.shard.id == shard.id and held.piece in shard.pieces for shard in self.metadata_shards())

    def metadata_shards(self) -> list[ShardRecord]:
        """Of all segments."""
        segments = {segment.number: segment for segment in self._segments()}
        return [shard for segment in segments.values() for shard in segment.shards]

    def _metadata(self) -> Iterator[HeldPiece]:
        return (HeldPiece(shard, piece) for shard in self.metadata_shards() for piece in shard.pieces)
