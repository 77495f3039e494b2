"""What the cache tells of itself. A value; must not know who asks."""

from __future__ import annotations

import msgspec


class CacheStats(msgspec.Struct, frozen=True):
    """The cache and the uploads at one moment."""

    limit_bytes: int
    room_bytes: int
    cached_bytes: int
    clean_bytes: int
    dirty_bytes: int
    dirty_blocks: int
    uploading_bytes: int
    uploading_blocks: int
    upload_bytes_per_second: float
    eta_seconds: float | None
    degraded_shards: int
    last_moved: float
    """When bytes last arrived at a host, on trio's clock."""
    problem: str | None
