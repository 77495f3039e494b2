"""What `layrfs` shows, as values: made by the drive, sent over the control socket, rendered by the CLI.

Names and paths are bytes (base64 in JSON on the socket); the CLI decides how to print them.
"""

from __future__ import annotations

import msgspec

from layrfs.model.health import HealthReport


class HostStatus(msgspec.Struct, frozen=True):
    """One host as this drive knows it. `state` is one word: `online`, `silent`, `full`, `leaving`, …"""

    node_id: str
    address: str
    state: str
    free_bytes: int
    pieces: int = 0
    standing: str = ""
    """What is thought of it: `new`, `good`, `suspended`, `excluded`, and for how long it has been silent."""
    price: int = 0
    """Stroops for a TiB and 30 days."""


class NetworkStatus(msgspec.Struct, frozen=True):
    """Which network the volume is on. `network_id` is hex, empty until a seed has told it."""

    network_id: str
    embedded: bool
    seeds: tuple[str, ...] = ()
    listen: str = ""
    known_hosts: int = 0
    reachable_hosts: int = 0
    embedded_pid: int | None = None
    clock_offset_seconds: float | None = None
    """How far this machine's clock is ahead of the median host's; None when no host has answered."""


class Following(msgspec.Struct, frozen=True):
    """A read-only mount that goes where another machine goes."""

    writer: str
    """Of the version that is here."""
    seen_seconds: int | None
    """How long ago that was seen to be the newest; None when it was not yet."""


class MoneyStatus(msgspec.Struct, frozen=True):
    """What hosts are paid. Amounts in stroops, of a month: 30 days. What is not known is None."""

    max_price: int | None
    budget: int | None
    per_month: int
    """For what hosts have now."""
    forecast: int
    """When what waits on this machine is on hosts too."""
    paid: int
    """To hosts, by contracts that are not over."""
    in_contracts: int
    wallet: int | None
    """What can be spent."""
    runway_seconds: int | None
    """Until a contract cannot be renewed; None also when that is years away."""
    contracts: int
    too_dear: int
    """Hosts that ask for more than `max_price`."""


class VolumeStatus(msgspec.Struct, frozen=True):
    """The whole drive at one moment. Counts are of now; rates are of the last few seconds."""

    volume: str
    mountpoint: str
    volume_id: str = ""
    version: str = ""
    pid: int = 0
    uptime_seconds: int = 0
    read_only: bool = False
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
    health: HealthReport = HealthReport()
    deleted_bytes: int = 0
    """Of files that are no more, still on hosts: a snapshot may need them, or they are about to go."""
    eta_seconds: int | None = None
    published_version: int = 0
    """Of the list of files, on hosts: what the recovery phrase brings back."""
    unpublished: bool = False
    """Something has changed since."""
    follows: Following | None = None
    pinned_bytes: int = 0
    """Of the cached bytes: what stays whatever else needs room."""
    unfetched_bytes: int = 0
    """Pinned, and still on its way here."""
    problems: tuple[str, ...] = ()
    hosts: tuple[HostStatus, ...] = ()
    network: NetworkStatus | None = None
    money: MoneyStatus | None = None
    """None: nobody is paid."""


class BlockRun(msgspec.Struct, frozen=True):
    """`count` neighbouring blocks from `first` that are alike.

    `local`: `hole`, `absent`, `clean` or `dirty`. `pieces` of the `wanted` ones of their shards are placed on hosts.
    """

    first: int
    count: int
    local: str
    pieces: int = 0
    wanted: int = 0


class PathStatus(msgspec.Struct, frozen=True):
    """One path. `state` is what `user.layrfs.state` says: cached, uploading, safe, degraded or lost.

    A directory counts everything below it: `files`, `size`, `cached_bytes`, `dirty_bytes`; it has no `runs`.
    """

    path: bytes
    kind: str
    """`file`, `directory`, `link` or `special`."""
    state: str
    size: int
    block_bytes: int
    redundancy: str
    files: int = 1
    cached_bytes: int = 0
    dirty_bytes: int = 0
    runs: tuple[BlockRun, ...] = ()
    otherwise_bytes: int = 0
    """On hosts in another redundancy: they wait to be coded anew, or another file with equal bytes wants more."""
    health: str = ""
    """What `user.layrfs.health` says, of files."""


class PoliciesSet(msgspec.Struct, frozen=True):
    """After `layrfs set`: how many files and directories there are; `cut_files` of them keep their block size.

    `hosts`: how many there are now.
    """

    paths: int
    cut_files: int = 0
    hosts: int = 0


class SpendingLimit(msgspec.Struct, frozen=True):
    """What hosts are paid at most, in stroops: `max_price` for a TiB and 30 days (None: off), `budget` for 30 days."""

    max_price: int | None
    budget: int | None


class ListEntry(msgspec.Struct, frozen=True):
    """One name of a directory. `kind` and `state` as in `PathStatus`; `state` is empty but for files."""

    name: bytes
    kind: str
    size: int
    mtime_ns: int
    state: str = ""


class ListPage(msgspec.Struct, frozen=True):
    """Some entries of a directory; `following` continues after them, None at the end."""

    entries: tuple[ListEntry, ...]
    following: int | None = None


class ProgressReport(msgspec.Struct, frozen=True):
    """How far a command is; the newest report replaces those before. `total_bytes` 0: not known."""

    done_bytes: int = 0
    total_bytes: int = 0
    text: str = ""
    """What is going on or in the way, in a few words: `waiting for hosts: 2 of 3 reachable`."""


class SyncReport(msgspec.Struct, frozen=True):
    """After `layrfs sync`. `degraded_shards` have fewer pieces on hosts than wanted."""

    uploaded_bytes: int
    degraded_shards: int = 0
    metadata_lacks_copies: bool = False
    """The list of files is on fewer hosts than it could be: hosts did not take it. It is tried again."""


class CacheDropped(msgspec.Struct, frozen=True):
    """After `layrfs cache drop`; what is not on the network yet is kept, and what is pinned."""

    dropped_bytes: int
    kept_dirty_bytes: int
    kept_pinned_bytes: int = 0


class PinReport(msgspec.Struct, frozen=True):
    """All pins: `paths` but for what is in a pinned directory, how much of it is here and how much is missing."""

    paths: tuple[bytes, ...]
    here_bytes: int
    missing_bytes: int
    cache_limit_bytes: int
    problem: str = ""


class Waits(msgspec.Struct, frozen=True):
    """What a retained version keeps on hosts: the newest one that may need it, so others may as well."""

    version: int
    name: str
    """As in `layrfs snapshot list`."""
    shards: int
    stored_bytes: int


class Collected(msgspec.Struct, frozen=True):
    """After `layrfs gc`, or before it. Bytes count every copy on hosts."""

    dead_shards: int = 0
    dead_bytes: int = 0
    """Needed by nothing: dropped, or about to be."""
    repacked_shards: int = 0
    repacked_bytes: int = 0
    """Nearly empty shards, and what is given back when they are packed anew."""
    dropped_pieces: int = 0
    """That hosts have dropped now."""
    retired_pieces: int = 0
    """That hosts will be told to drop: an hour after the list of files without them is out, or when they answer."""
    silent_hosts: int = 0
    waiting: tuple[Waits, ...] = ()


class Stored(msgspec.Struct, frozen=True):
    """After `layrfs upload`: where the file is in the volume, and whether it has all its copies."""

    path: bytes
    size: int
    state: str


class Fetched(msgspec.Struct, frozen=True):
    """After `layrfs download`."""

    size: int


class ManifestText(msgspec.Struct, frozen=True):
    """A manifest as the JSON text of `layrfs.model.manifest`."""

    text: str


class Snapshot(msgspec.Struct, frozen=True):
    """A past version that can be looked at under its `name`, and what of it cannot be read."""

    name: str
    version: int
    time_ms: int
    unsent_blocks: int
    """Blocks that were on no host when it was made."""
    kept: bool
    """Until somebody deletes it; the others go by the schedule."""


class SnapshotList(msgspec.Struct, frozen=True):
    """All of them, newest first."""

    snapshots: tuple[Snapshot, ...]


class Done(msgspec.Struct, frozen=True):
    """Nothing more to say."""


class DelegateStatus(msgspec.Struct, frozen=True):
    """A node that looks after the volume: its id, where it is now (empty: nobody knows), and how it went."""

    node: str
    place: str
    seconds: int
    """For so long after it last heard of this machine."""
    heard: int | None
    """When it was last told everything, in Unix seconds."""
    lies: int
    problem: str
    """Why it was not told lately."""


class DelegateList(msgspec.Struct, frozen=True):
    """All of them."""

    delegates: tuple[DelegateStatus, ...]


class Revocation(msgspec.Struct, frozen=True):
    """After `layrfs delegate --revoke`; not `told`: the node could not be reached."""

    node: str
    told: bool
