"""Segments that lack copies get them, and others instead of those that are gone: metadata decays as contents do.

Owns which pieces of metadata have proven gone. Must not know versions or records. Invariant: pieces of segments are
replaced, never dropped, so the highest generation that a shard's pieces ever had is among them; and the copy that is
replaced stays on record until its successor is on a host.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import msgspec

from layrfs.errors import LayrError
from layrfs.ids import NodeId, PieceId
from layrfs.model.history import Segment
from layrfs.model.notes import NO_BLOB, Purpose, blob_tag
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.pipeline.transfers import Slot, Transfers
from layrfs.policy.history import is_lacking

MOST_REMEMBERED = 10_000

_log = logging.getLogger(__name__)

Replaced = list[tuple[PieceId, NodeId]]
"""Pieces that have successors, and where they were."""


class Completer:
    """One volume's."""

    def __init__(self, transfers: Transfers, is_gone: Callable[[NodeId], bool]) -> None:
        """``is_gone``: whether what a host has is no longer counted on."""
        self._transfers = transfers
        self._is_gone = is_gone
        self._lost: set[PieceId] = set()

    def lost(self, piece: PieceId) -> None:
        """Its host has proven not to have it any more."""
        if len(self._lost) < MOST_REMEMBERED:
            self._lost.add(piece)

    async def completed(self, segments: Sequence[Segment], hosts: int) -> tuple[tuple[Segment, ...], Replaced]:
        """The same with copies that hosts took now, and what these replace; there are so many hosts."""
        done: list[Segment] = []
        replaced: Replaced = []
        for segment in segments:
            previous = done[-1].tag if done and segment.kind == "changes" else NO_BLOB
            shards = []
            for index, shard in enumerate(segment.shards):
                new = await self._completed(shard, purpose_of(segment, index, previous), hosts)
                replaced += [(piece.id, piece.host) for piece in shard.pieces if piece not in new.pieces]
                shards.append(new)
            done.append(msgspec.structs.replace(segment, shards=tuple(shards)))
        self._lost -= {piece for piece, _host in replaced}
        return tuple(done), replaced

    async def _completed(self, shard: ShardRecord, purpose: Purpose, hosts: int) -> ShardRecord:
        """A host whose piece is lost may take another; one that is silent may come back with its own."""
        kept = [piece for piece in shard.pieces if piece.id not in self._lost]
        good = [piece for piece in kept if not self._is_gone(piece.host)]
        if not kept or not is_lacking(len(good), shard.redundancy.total, hosts):
            return shard
        generation, taken = 1 + max(piece.generation for piece in shard.pieces), {piece.position for piece in good}
        slots = [Slot(position, generation) for position in range(shard.redundancy.total) if position not in taken]
        try:
            made = await self._transfers.top_up(msgspec.structs.replace(shard, pieces=tuple(kept)), slots, purpose)
        except LayrError as error:
            _log.info("segment %d still lacks copies: %s", purpose.number, error)
            return shard
        return msgspec.structs.replace(shard, pieces=_merged(shard.pieces, made))


def purpose_of(segment: Segment, index: int, previous: bytes) -> Purpose:
    """What the notes of one of a segment's shards say."""
    blob = blob_tag(segment.shards[0].salt) if index else NO_BLOB
    return Purpose(segment.kind, segment.number, index, len(segment.shards), blob, previous)


def _merged(pieces: Sequence[PieceRecord], made: Sequence[PieceRecord]) -> tuple[PieceRecord, ...]:
    by_position = {piece.position: piece for piece in (*pieces, *made)}
    return tuple(by_position[position] for position in sorted(by_position))
