"""What the file system asks of the pipeline: blocks to hosts, shards back into files.

This module owns the nouns of that conversation and the port ``Transfers``; ``layrfs.pipeline.pooled`` is the real one,
``tests.fakes.transfers`` the one for tests, and both pass ``tests/contracts/test_transfers.py``.
It must not know inodes' attributes, the catalog, or how bytes travel.
Invariant: when ``download`` returns or raises, nobody writes to its targets any more; likewise nobody reads the
sources of an ``upload`` that has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from layrfs.ids import NodeId, PieceId, ShardId
from layrfs.model.notes import CONTENT, Purpose
from layrfs.model.redundancy import Redundancy
from layrfs.model.shard_format import MAX_PAYLOAD_BYTES
from layrfs.model.shards import PieceRecord, ShardRecord

FindContent = Callable[[Sequence[bytes]], Mapping[bytes, tuple[int, int]]]
"""Digests to ``(content number, length)`` of those the volume stores already; called on the trio thread, so quick."""

OnBadPiece = Callable[[ShardId, PieceId, NodeId, str], None]
"""Told when a host did not deliver a piece: ``kind`` is ``wrong``, ``missing``, ``refused`` or ``unreachable``."""


class SourcePart(msgspec.Struct, frozen=True):
    """Bytes to store: ``path[offset : offset + length]``, block ``block`` of file ``inode``."""

    inode: int
    block: int
    path: str
    offset: int
    length: int
    block_bytes: int = MAX_PAYLOAD_BYTES


class StoredPart(msgspec.Struct, frozen=True):
    """Where a part lies in its shard's payload; zeros at a block's end are not stored, ``length`` is without them."""

    digest: bytes
    offset: int
    length: int


class Stored(msgspec.Struct, frozen=True, tag=True):
    """The part is in the new shard. Two equal parts of one upload share one place: both outcomes name it."""

    part: StoredPart


class Duplicate(msgspec.Struct, frozen=True, tag=True):
    """The volume already stores these bytes as content ``content`` of ``length`` bytes (zeros follow)."""

    content: int
    length: int


class Zero(msgspec.Struct, frozen=True, tag=True):
    """Nothing but zeros, or nothing at all: the block is a hole."""


PartOutcome = Stored | Duplicate | Zero


class Uploaded(msgspec.Struct, frozen=True):
    """One outcome per part, in the order asked; ``shard`` is None when no part needed storing."""

    outcomes: tuple[PartOutcome, ...]
    shard: ShardRecord | None


class TargetPart(msgspec.Struct, frozen=True):
    """Write ``payload[shard_offset : shard_offset + length]`` at ``file_offset`` of ``path``, created if missing."""

    path: str
    file_offset: int
    shard_offset: int
    length: int


class Slot(msgspec.Struct, frozen=True):
    """A place for one piece of a shard: which copy, and how often it has been made anew."""

    position: int
    generation: int


class ExaminedPart(msgspec.Struct, frozen=True):
    """One part of a shard, as the shard itself describes it; ``offset`` is its place in the payload."""

    inode: int
    block: int
    block_bytes: int
    digest: bytes
    offset: int
    length: int


class Examined(msgspec.Struct, frozen=True):
    """A shard of which only the salt and the pieces were known."""

    id: ShardId
    plain_bytes: int
    sealed_bytes: int
    parts: tuple[ExaminedPart, ...]


class Downloads(Protocol):
    """The half that only reads."""

    async def download(self, shard: ShardRecord, targets: Sequence[TargetPart], *, urgent: bool) -> None:
        """Fetch a shard once and fill all targets. ``urgent``: a reader waits, go before read-ahead and uploads.

        Raises ``Unavailable`` (no good piece before the deadline), ``LocalError`` (a target cannot be written),
        ``WorkerLost``.
        """
        ...


class Transfers(Downloads, Protocol):
    """Bounded, cancellable moves between local files and hosts."""

    @property
    def last_moved(self) -> float:
        """When bytes last arrived at a host, on trio's clock; long ago when none did yet."""
        ...

    async def upload(
        self,
        parts: Sequence[SourcePart],
        redundancy: Redundancy,
        purpose: Purpose = CONTENT,
        *,
        deduplicate: bool = True,
    ) -> Uploaded:
        """Seal the parts into one shard and place its pieces, at least one, at most ``redundancy.total``.

        ``purpose`` goes into the note that hosts keep with each piece. Without ``deduplicate`` the parts are stored
        even if the volume stores equal ones already.

        Fewer pieces than ``total`` in the answer: the shard is degraded, see ``top_up``.
        Raises ``Unavailable`` (no host took a piece), ``LocalError`` (a source cannot be read), ``WorkerLost``.
        """
        ...

    async def top_up(
        self, shard: ShardRecord, slots: Sequence[Slot], purpose: Purpose = CONTENT
    ) -> tuple[PieceRecord, ...]:
        """Make and place pieces for ``slots`` from a good copy; answers those that found a host, maybe none.

        What hosts got of it stays there, also when it is cancelled: the same slot is the same piece the next time.
        Raises ``Unavailable`` when the shard itself cannot be fetched.
        """
        ...

    def discard(self, pieces: Sequence[PieceRecord]) -> None:
        """Have hosts forget pieces that nothing needs; who does not hear of it keeps them until their lease ends."""
        ...
