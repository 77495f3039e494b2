"""Pieces that a delegate made while the owner was away become the owner's, if they are what the delegate says.

Owns the proof: the record is signed by the delegate, its host has the piece (a challenge with a fresh nonce), and the
piece is the one that this slot of the shard makes (made once more from the shard itself, and compared: a piece of
rubbish proves itself just as well). Only then the row is replaced and the old piece retired, in one transaction, and
only if the old piece's host leaves, or cannot prove that it still has it: a delegate must not be able to move a volume
to hosts of its choice. Must not know how records come, or what follows from lies.
Invariant: nothing is given up, and no host is asked to drop anything, on a delegate's word.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple, Protocol

import msgspec
import trio

from layrfs.errors import LayrError, Unavailable
from layrfs.ids import NodeId, PieceId, ShardId
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.pipeline.transfers import Slot
from layrfs.policy.merging import verdict
from layrfs.policy.patching import PieceState
from layrfs.policy.trust import Outcome
from layrfs.storage.changes import ChangeLog
from layrfs.storage.content import Catalog
from layrfs.upkeep.challenging import SILENT, Challenger, HeldPiece
from layrfs.upkeep.patcher import VersionLog
from layrfs.wire.delegation import PatchRecord

SHARDS_AT_ONCE = 2

_log = logging.getLogger(__name__)


class Identifier(Protocol):
    """``layrfs.pipeline.pooled.PooledTransfers``, or a fake."""

    async def identify(self, shard: ShardRecord, slots: Sequence[Slot]) -> tuple[PieceId, ...]:
        """The ids of the pieces that slots of a shard make. Raises ``Unavailable``."""
        ...


class MetadataShards(Protocol):
    """Shards of the volume's own lists, which are in no table."""

    def records(self) -> dict[ShardId, ShardRecord]:
        """All of them, as on record now; it looks at every retained version."""
        ...

    async def adopt(self, shard: ShardId, pieces: Sequence[PieceRecord]) -> None:
        """Have these pieces on record instead of older ones at their positions. Raises what publishing does."""
        ...


class Claim(NamedTuple):
    """A piece that a delegate says it made; ``replaced``: instead of this one, empty for none."""

    piece: PieceRecord
    replaced: bytes


class Merged(msgspec.Struct):
    """What came of a delegate's records."""

    taken: int = 0
    left: int = 0
    """Of no use: the owner was first, or the piece is not there any more."""
    lies: int = 0
    unsettled: set[ShardId] = msgspec.field(default_factory=set)
    """Shards with pieces on hosts that say nothing now; they are asked again."""
    silent: set[NodeId] = msgspec.field(default_factory=set)
    """Hosts that are not asked again in this round: thousands of pieces may be there."""
    metadata: dict[ShardId, ShardRecord] | None = None
    """As last looked at, which is not done for each of thousands of shards."""


class Merger:
    """One volume's."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        changes: ChangeLog,
        log: VersionLog,
        challenger: Challenger,
        transfers: Identifier,
        metadata: MetadataShards,
        state_of: Callable[[NodeId], PieceState],
    ) -> None:
        self._catalog = catalog
        self._changes = changes
        self._log = log
        self._challenger = challenger
        self._transfers = transfers
        self._metadata = metadata
        self._state_of = state_of

    async def merge(self, records: Iterable[PatchRecord]) -> Merged:
        """Of one delegate, by shard; their signatures are good. Raises nothing: what fails is not settled."""
        merged, limit = Merged(), trio.CapacityLimiter(SHARDS_AT_ONCE)

        async def merge_one(shard: ShardId, claims: list[Claim]) -> None:
            try:
                await self._merge_shard(shard, claims, merged)
            except LayrError as error:
                _log.info("what a delegate made of shard %s is looked at later: %s", shard.hex()[:12], error)
                merged.unsettled.add(shard)
            finally:
                limit.release_on_behalf_of(shard)

        async with trio.open_nursery() as nursery:
            for shard, together in groupby(records, lambda record: record.shard):
                await limit.acquire_on_behalf_of(shard)
                nursery.start_soon(merge_one, shard, [_claim(record) for record in together])
        return merged

    async def _merge_shard(self, shard: ShardId, claims: list[Claim], merged: Merged) -> None:
        wanted = self._judged(shard, claims, merged)
        proven = [claim for claim in wanted if await self._proves(shard, claim, merged)]
        record = self._find(shard, merged)
        if record is None or not proven:
            return
        ids = await self._ids(record, proven)
        right = [claim for claim, piece in zip(proven, ids, strict=True) if claim.piece.id == piece]
        merged.lies += len(proven) - len(right)
        await self._take(shard, self._judged(shard, right, merged), merged)

    def _judged(self, shard: ShardId, claims: Collection[Claim], merged: Merged) -> list[Claim]:
        """Those worth proving, as things are now. What was made elsewhere is never made here again."""
        record, number = self._find(shard, merged), self._catalog.number_of(shard)
        wanted = []
        for claim in claims:
            highest = _highest(record) if number is None else self._catalog.pieces.highest_generation(number)
            retired = self._changes.is_retired(claim.piece.id, claim.piece.host)
            word = verdict(claim.piece, claim.replaced, record, highest=highest, is_retired=retired)
            if number is not None and word != "lie":
                self._catalog.pieces.note_generation(number, claim.piece.generation)
            merged.lies += word == "lie"
            merged.left += word == "garbage"
            if word == "worth proving":
                wanted.append(claim)
        return wanted

    async def _proves(self, shard: ShardId, claim: Claim, merged: Merged) -> bool:
        """Whether the new piece is at its host, and the one on record, if there is one, is not at its own or will not
        stay there."""
        record = self._find(shard, merged)
        if record is None:
            return False
        outcome = await self._ask(record, claim.piece, merged)
        if outcome in {"failed", "missing"} or (outcome != "passed" and self._state_of(claim.piece.host) == "gone"):
            merged.left += 1
            return False
        if outcome != "passed":
            merged.unsettled.add(shard)
            return False
        old = next((piece for piece in record.pieces if piece.position == claim.piece.position), None)
        if old is None or (self._leaves(old.host) and not self._leaves(claim.piece.host)):
            return True
        if await self._ask(record, old, merged) == "passed":
            merged.left += 1
            return False
        return True

    def _leaves(self, host: NodeId) -> bool:
        return self._state_of(host) == "leaving"

    async def _ask(self, record: ShardRecord, piece: PieceRecord, merged: Merged) -> Outcome:
        if piece.host in merged.silent:
            return "offline"
        outcome = await self._challenger.ask(HeldPiece(record, piece), "prove")
        if outcome in SILENT:
            merged.silent.add(piece.host)
        return outcome

    async def _ids(self, record: ShardRecord, claims: Sequence[Claim]) -> tuple[PieceId, ...]:
        """Of pieces on record if possible: a delegate's could have hosts blamed that have what they were given."""
        slots = [Slot(claim.piece.position, claim.piece.generation) for claim in claims]
        try:
            return await self._transfers.identify(record, slots)
        except Unavailable:
            return await self._transfers.identify(_with(record, [claim.piece for claim in claims]), slots)

    async def _take(self, shard: ShardId, claims: Sequence[Claim], merged: Merged) -> None:
        pieces, number = [claim.piece for claim in claims], self._catalog.number_of(shard)
        if pieces and number is None:
            try:
                await self._metadata.adopt(shard, pieces)
            finally:
                merged.metadata = None
        elif number is not None:
            self._changes.retire(self._catalog.pieces.put(number, pieces), self._log.next_version)
        merged.taken += len(pieces)

    def _find(self, shard: ShardId, merged: Merged) -> ShardRecord | None:
        if (record := self._catalog.find_shard(shard)) is not None:
            return record
        if merged.metadata is None:
            merged.metadata = self._metadata.records()
        return merged.metadata.get(shard)


def _claim(record: PatchRecord) -> Claim:
    return Claim(PieceRecord(record.position, record.generation, record.piece, record.host), record.replaced)


def _highest(record: ShardRecord | None) -> int:
    return max((piece.generation for piece in record.pieces), default=0) if record else 0


def _with(record: ShardRecord, pieces: Iterable[PieceRecord]) -> ShardRecord:
    by_position = {piece.position: piece for piece in (*record.pieces, *pieces)}
    return msgspec.structs.replace(record, pieces=tuple(by_position.values()))
