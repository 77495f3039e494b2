"""What ``layrfs patch`` shows, as values: made by the drive, sent over the control socket, rendered by the CLI."""

from __future__ import annotations

import msgspec


class PatchedPiece(msgspec.Struct, frozen=True):
    """A piece made anew; `host` is a node id in hex."""

    position: int
    generation: int
    host: str


class PatchedShard(msgspec.Struct, frozen=True):
    """A shard that lacks pieces: `wanted` positions, the pieces `made` of them, and why not all, in words."""

    shard: str
    """Its id in hex."""
    urgency: str
    wanted: tuple[int, ...]
    made: tuple[PatchedPiece, ...] = ()
    problem: str = ""


class LostPart(msgspec.Struct, frozen=True):
    """Bytes of a file that are neither on hosts nor here, as far as is known."""

    path: bytes
    offset: int
    length: int


class PatchReport(msgspec.Struct, frozen=True):
    """After `layrfs patch`, or before it. The lists are cut at some thousands; the numbers are not."""

    dry_run: bool
    shards: int
    """That lacked pieces."""
    mended: int
    """That have all of them now."""
    lost: int
    """Of which too few pieces are left."""
    listed: tuple[PatchedShard, ...] = ()
    lost_parts: tuple[LostPart, ...] = ()
    silent_hosts: int = 0
    """That have pieces and are not seen now: what they have is counted on for a while."""
