"""What the owner remembers of a shard on the network: where its pieces are and how to undo what was done to it."""

from __future__ import annotations

import msgspec

from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.redundancy import Redundancy


class PieceRecord(msgspec.Struct, frozen=True):
    """One piece on one host. `position` is its place in the code, `generation` grows when it is made again."""

    position: int
    generation: int
    id: PieceId
    host: NodeId


class ShardRecord(msgspec.Struct, frozen=True):
    """One sealed shard. `plain_bytes` counts the payload without the table of parts, `sealed_bytes` the whole seal.

    Fewer pieces than `redundancy.total` means degraded, fewer than `redundancy.needed` would be lost.
    """

    id: ShardId
    salt: Salt
    plain_bytes: int
    sealed_bytes: int
    redundancy: Redundancy
    pieces: tuple[PieceRecord, ...]
