"""Segments that lack copies get them, and others instead of those that are gone: metadata decays as contents do.

Owns which pieces of metadata have proven gone, and the order in which segments are tried: the newest version's first,
each once in a pass, however many versions share it. Must not know versions or records. A pass may take as long as hosts
that are away make it take: nothing waits for it, and each segment is recorded when it is done.
Invariant: pieces of segments are replaced, never dropped, so the highest generation that a shard's pieces ever had is
among them; and the copy that is replaced stays on record until its successor is on a host.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec
import trio

from layrfs.errors import LayrError, Unavailable
from layrfs.ids import NodeId, PieceId, ShardId
from layrfs.model.history import Segment
from layrfs.model.notes import NO_BLOB, Purpose, blob_tag
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.pipeline.transfers import Slot, Transfers
from layrfs.policy.copies import within_reach
from layrfs.policy.history import is_lacking
from layrfs.policy.replacing import replacement
from layrfs.policy.silence import Silence

MOST_REMEMBERED = 10_000
RETRY_SECONDS = 60.0
SETTLE_SECONDS = 1.0
"""One host seldom comes alone, and one lost piece seldom is."""

MOST_REFUSALS = 3
"""After so many shards in a row of which no host took a copy the rest of the pass would be for nothing."""

_log = logging.getLogger(__name__)

Replaced = list[tuple[PieceId, NodeId]]
"""Pieces that have successors, and where they were."""


class Versions(Protocol):
    """Whose segments they are: ``layrfs.history.publishing.Publisher``, or a fake."""

    @property
    def may_write(self) -> bool:
        """Whether this machine's versions are the volume's."""
        ...

    def chains(self) -> Iterator[tuple[Segment, ...]]:
        """The segments of each version, the newest version's first, as they are when it is their turn."""
        ...

    async def amend(self, segment: Segment, replaced: Replaced) -> None:
        """Record that a segment has other copies now. Raises what publishing raises."""
        ...


class _Pass:
    """What is learned in one pass."""

    def __init__(self, hosts: int) -> None:
        self.hosts = hosts
        self.refusals = 0
        self.silence = Silence()


class Completer:
    """One volume's."""

    def __init__(self, transfers: Transfers, is_gone: Callable[[NodeId], bool], known_hosts: Callable[[], int]) -> None:
        """``is_gone``: whether what a host has is no longer counted on; ``known_hosts``: how many hosts there are."""
        self._transfers = transfers
        self._is_gone = is_gone
        self._known_hosts = known_hosts
        self._lost: set[PieceId] = set()
        self._passing = trio.Lock()
        self._wake = trio.Event()

    def lost(self, piece: PieceId) -> None:
        """Its host has proven not to have it any more."""
        if len(self._lost) < MOST_REMEMBERED:
            self._lost.add(piece)
        self._wake.set()

    def hosts_appeared(self) -> None:
        """Try soon."""
        self._wake.set()

    async def run(self, versions: Versions) -> None:
        """Until cancelled."""
        while True:
            with trio.move_on_after(RETRY_SECONDS):
                await self._wake.wait()
                await trio.sleep(SETTLE_SECONDS)
            self._wake = trio.Event()
            try:
                await self.complete(versions)
            except LayrError as error:
                _log.info("metadata still lacks copies: %s", error)

    async def complete(self, versions: Versions) -> None:
        """Every segment that lacks copies is tried once. Raises what recording them raises."""
        if not versions.may_write:
            return
        async with self._passing:
            this, seen = _Pass(self._known_hosts()), set[int]()
            for chain in versions.chains():
                for segment, previous in _with_previous(chain):
                    if segment.number in seen:
                        continue
                    seen.add(segment.number)
                    new = await self._completed(segment, previous, this)
                    if new != segment:
                        await self._record(versions, segment, new)
                    if this.refusals >= MOST_REFUSALS:
                        return

    async def adopt(self, versions: Versions, shard: ShardId, pieces: Sequence[PieceRecord]) -> None:
        """Somebody else has made these copies, and hosts have them: they replace older ones at their positions."""
        async with self._passing:
            segments = (segment for chain in versions.chains() for segment in chain)
            found = next((one for one in segments if any(part.id == shard for part in one.shards)), None)
            if found is None:
                return
            shards = tuple(_with(part, part.pieces, pieces) if part.id == shard else part for part in found.shards)
            new = msgspec.structs.replace(found, shards=shards)
            if new != found:
                await self._record(versions, found, new)

    async def _record(self, versions: Versions, segment: Segment, new: Segment) -> None:
        kept = {piece.id for shard in new.shards for piece in shard.pieces}
        replaced = [
            (piece.id, piece.host) for shard in segment.shards for piece in shard.pieces if piece.id not in kept
        ]
        await versions.amend(new, replaced)
        self._lost -= {piece for piece, _host in replaced}

    async def _completed(self, segment: Segment, previous: bytes, this: _Pass) -> Segment:
        shards = [
            await self._topped_up(shard, purpose_of(segment, index, previous), this)
            for index, shard in enumerate(segment.shards)
        ]
        return msgspec.structs.replace(segment, shards=tuple(shards))

    async def _topped_up(self, shard: ShardRecord, purpose: Purpose, this: _Pass) -> ShardRecord:
        """A host whose piece is lost may take another; one that is silent may come back with its own."""
        kept = tuple(piece for piece in shard.pieces if piece.id not in self._lost)
        good = [piece for piece in kept if not self._is_gone(piece.host)]
        if not kept or not is_lacking(len(good), shard.redundancy.total, this.hosts):
            return shard
        holders = [piece.host for piece in kept]
        if not within_reach(shard.redundancy.needed, holders, this.silence.hosts):
            return shard
        generation, taken = 1 + max(piece.generation for piece in shard.pieces), {piece.position for piece in good}
        slots = [Slot(position, generation) for position in range(shard.redundancy.total) if position not in taken]
        try:
            made = await self._transfers.top_up(msgspec.structs.replace(shard, pieces=kept), slots, purpose)
        except LayrError as error:
            if isinstance(error, Unavailable):
                this.silence.failed(holders)
            _log.info("segment %d still lacks copies: %s", purpose.number, error)
            return shard
        this.silence.answered(holders)
        this.refusals = 0 if made else this.refusals + 1
        takers = {piece.host for piece in made}  # a host whose piece is lost may have got that of another position
        return _with(shard, [piece for piece in shard.pieces if piece.host not in takers], made)


def with_purposes(chain: Sequence[Segment]) -> Iterator[tuple[ShardRecord, Purpose]]:
    """Each shard of a version's segments, and what the notes of its pieces say."""
    for segment, previous in _with_previous(chain):
        for index, shard in enumerate(segment.shards):
            yield shard, purpose_of(segment, index, previous)


def _with_previous(chain: Sequence[Segment]) -> Iterator[tuple[Segment, bytes]]:
    """Each segment, and the tag of the one whose state its changes follow."""
    previous = NO_BLOB
    for segment in chain:
        yield segment, previous if segment.kind == "changes" else NO_BLOB
        previous = segment.tag


def purpose_of(segment: Segment, index: int, previous: bytes) -> Purpose:
    """What the notes of one of a segment's shards say."""
    blob = blob_tag(segment.shards[0].salt) if index else NO_BLOB
    return Purpose(segment.kind, segment.number, index, len(segment.shards), blob, previous)


def _with(shard: ShardRecord, kept: Sequence[PieceRecord], made: Sequence[PieceRecord]) -> ShardRecord:
    return msgspec.structs.replace(shard, pieces=replacement(kept, made).pieces)
