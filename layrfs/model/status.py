"""What `layrfs status` shows, as values: made by the drive, sent over the control socket, rendered by the CLI."""

from __future__ import annotations

import msgspec


class HostStatus(msgspec.Struct, frozen=True):
    """One host as this drive knows it. `state` is one word: `online`, `silent`, `full`, …"""

    node_id: str
    address: str
    state: str
    free_bytes: int
    pieces: int = 0


class VolumeStatus(msgspec.Struct, frozen=True):
    """The whole drive at one moment. Counts are of now; rates are of the last few seconds."""

    volume: str
    mountpoint: str
    files: int = 0
    file_bytes: int = 0
    cached_bytes: int = 0
    cache_limit_bytes: int = 0
    dirty_bytes: int = 0
    uploading_bytes: int = 0
    upload_bytes_per_second: int = 0
    download_bytes_per_second: int = 0
    shards: int = 0
    degraded_shards: int = 0
    lost_shards: int = 0
    eta_seconds: int | None = None
    problems: tuple[str, ...] = ()
    hosts: tuple[HostStatus, ...] = ()


class BlockStatus(msgspec.Struct, frozen=True):
    """One block of a file. `local`: `hole`, `absent`, `clean` or `dirty`; hosts are node ids in hex."""

    number: int
    local: str
    shard: str | None = None
    hosts: tuple[str, ...] = ()


class PathStatus(msgspec.Struct, frozen=True):
    """One path. `state` is what `user.layrfs.state` says: cached, uploading, safe, degraded or lost."""

    path: str
    state: str
    size: int
    block_bytes: int
    redundancy: str
    blocks: tuple[BlockStatus, ...] = ()
