"""Which hosts should have which pieces: of files, and of the volume's own metadata.

Must not know which of them are asked for, or why. Plain code on the trio thread, but for looks into the database that
grow with the volume, which a thread takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from heapq import merge
from operator import attrgetter
from typing import Protocol, TypeVar

import trio

from layrfs.crypto.merkle import leaf_count
from layrfs.ids import NodeId
from layrfs.model.history import Segment
from layrfs.model.shards import ShardRecord
from layrfs.storage.audits import Owed, counts, owed_by
from layrfs.storage.content import Catalog
from layrfs.storage.covered_needs import is_only_in
from layrfs.upkeep.challenging import HeldPiece

T = TypeVar("T")


class Elsewhere(Protocol):
    """``trio.to_thread.run_sync``, or something that does it here: virtual time waits for no thread."""

    async def __call__(self, look: Callable[[], T], /) -> T:
        """What ``look`` answers."""
        ...


class Holdings:
    """One volume's, as of each call."""

    def __init__(
        self,
        path: str,
        catalog: Catalog,
        segments: Callable[[], Iterable[Segment]],
        elsewhere: Elsewhere = trio.to_thread.run_sync,
    ) -> None:
        """``path``: of the database. ``segments``: of the newest version and of all retained ones."""
        self._path = path
        self._elsewhere = elsewhere
        self._catalog = catalog
        self._segments = segments

    async def counts(self) -> dict[NodeId, int]:
        """How many pieces each host should have; a host without any is not in it. Raises ``LocalError``."""
        found = await self._elsewhere(partial(counts, self._path))
        for held in self._metadata():
            found[held.piece.host] = found.get(held.piece.host, 0) + 1
        return found

    async def chosen(self, host: NodeId, choose: Callable[[Sequence[Owed]], T]) -> T:
        """What ``choose`` makes of all pieces that a host should have, by id, in a thread: there may be a million.

        Raises ``LocalError``.
        """
        of_metadata = {
            held.piece.id: Owed(held.piece.id, leaf_count(held.piece_bytes), None)
            for held in self._metadata()
            if held.piece.host == host
        }

        def look() -> T:
            of_files = owed_by(self._path, host)
            return choose(list(merge(of_files, sorted(of_metadata.values()), key=attrgetter("piece"))))

        return await self._elsewhere(look)

    async def is_only_in(
        self, contract: int, others: Sequence[int], digesting: Sequence[int], host: NodeId, until: int
    ) -> bool:
        """Whether something that the host should have is covered by this contract and by none of the others.

        What waits for a cover in one of ``digesting`` counts as covered; what nothing has needed since ``until`` it
        need not have. Raises ``LocalError``.
        """
        metadata = [held.piece.id for held in self._metadata() if held.piece.host == host]
        return await self._elsewhere(
            partial(is_only_in, self._path, contract, others, digesting, host, metadata, until)
        )

    def any_of(self, host: NodeId) -> HeldPiece | None:
        """One piece of files that a host should have. Raises ``CorruptFile``."""
        for number in self._catalog.pieces.on_host(host, 0, 1):
            shard = self._catalog.shard(number)
            return next((HeldPiece(shard, piece) for piece in shard.pieces if piece.host == host), None)
        return None

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

    def hosts(self) -> set[NodeId]:
        """Who should have anything at all, and be it a part of a retained version's own metadata."""
        return {*self._catalog.pieces.holders(), *(held.piece.host for held in self._metadata())}

    def _metadata(self) -> Iterator[HeldPiece]:
        return (HeldPiece(shard, piece) for shard in self.metadata_shards() for piece in shard.pieces)
