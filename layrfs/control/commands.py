"""The control protocol as a table: every command's name, what it is asked with, what it answers.

Owns the meaning of a command; knows neither how it is carried (``server``, ``client``) nor how it is done.
The drive binds one coroutine to each::

    commands = [STATUS.bind(self.status), SYNC.bind(self.sync), ...]
    async def status(self, request: Nothing, progress: Progress) -> VolumeStatus

Rules for handlers: raise ``LayrError`` for what a person should read; anything else is answered as an internal
error and logged. ``progress`` is plain code, may be called at any rate, and only the newest report is sent. When the
person presses Ctrl-C the client hangs up and the handler is cancelled: uploads under way go on by themselves.

Paths in requests are bytes and absolute within the volume (``b"/"`` is its root), but ``source`` and ``output``, which
are absolute on this machine. Paths that do not exist: ``NotFound``.

==============  ===============  ================  ===================================================================
command         request          answer            the handler's promise
==============  ===============  ================  ===================================================================
status          Nothing          VolumeStatus      at once, from memory
path_status     AtPath           PathStatus        the path's blocks as runs; a directory is summed up
sync            AtPath           SyncReport        returns when all below path has its pieces on hosts and the
                                                   database is durable; Unavailable when no host can be reached
cache_drop      Nothing          CacheDropped      clean blocks that are not pinned leave the cache files
pin             AtPath           PinReport         all below path stays here, also what comes later; fetched by and by
unpin           AtPath           PinReport         all below path may leave again
pins            Nothing          PinReport         what is pinned
pins_wait       Nothing          PinReport         returns when all that is pinned is here; tries for ever
set_policies    SetPolicies      PoliciesSet       of the path and all below it, what is there and what will be made;
                                                   UsageError before anything changes; files are coded anew later
set_spending    SetSpending      SpendingLimit     durable; of the whole volume; UsageError before anything changes
spending        Nothing          SpendingLimit     at once
cost            Cost             CostReport        what hosts are paid for what is below path, of directories so many
                                                   steps below it; NotFound
records         Nothing          Records           of money, as of now: contracts, covers, payments, what is under way
collect         Collect          Collected         what nothing needs is on its way out, and that is published; with
                                                   ``dry_run`` nothing changes; ReadOnly where the volume is only read
audit           Audit            AuditReport       hosts are asked for every piece of what is below path; nothing
                                                   else changes than what they turn out not to have, which is made anew
patch           Patch            PatchReport       what hosts lost below path is made anew now, if it can be; with
                                                   ``dry_run`` only asked for and told; ReadOnly, NotFound
list            ListDirectory    ListPage          at most ``limit`` entries with a cookie above ``after``, in order
manifest        AtPath           ManifestText      of one regular file; Unavailable while parts are not on hosts yet
upload          Upload           Stored            source's bytes become target (its parents exist; AlreadyExists unless
                                                   replace); returns as sync does; a cancelled one leaves no target
download        Download         Fetched           the manifest's file is written at output: temporary name, fsync,
                                                   rename; AlreadyExists unless replace; WrongBytes never gets there
net_show        Nothing          NetworkStatus     at once
net_join        JoinNetwork      NetworkStatus     moves to the network of these seeds, saves network.json and uploads
                                                   everything anew; Unreachable when no seed answers
net_leave       Nothing          NetworkStatus     back to the embedded network, the same way
snapshot_create CreateSnapshot   Snapshot          returns when all that was written is on hosts, and the version is
                                                   kept; AlreadyExists, InvalidArgument
snapshot_list   Nothing          SnapshotList      at once, newest first
snapshot_delete DeleteSnapshot   Done              NotFound; its pieces leave hosts later, unless another needs them
delegate        DelegateTo       DelegateList      returns when the node knows all it needs; Refused,
                                                   Unreachable, NotFound
delegate_list   Nothing          DelegateList      at once
delegate_revoke DelegateOf       Revocation        it has forgotten the volume, or (not ``told``) could not be reached;
                                                   NotFound when it was no delegate
stop            Nothing          Done              answered at once, then the drive unmounts and ends in order
==============  ===============  ================  ===================================================================
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from layrfs.model.audits import AuditReport, Level
from layrfs.model.costs import CostReport
from layrfs.model.patches import PatchReport
from layrfs.model.status import (
    CacheDropped,
    Collected,
    DelegateList,
    Done,
    Fetched,
    ListPage,
    ManifestText,
    NetworkStatus,
    PathStatus,
    PinReport,
    PoliciesSet,
    ProgressReport,
    Revocation,
    Snapshot,
    SnapshotList,
    SpendingLimit,
    Stored,
    SyncReport,
    VolumeStatus,
)
from layrfs.policy.bookkeeping import Records

REQUEST_LIMIT_BYTES = 300 << 20
"""Of one line; only a download's manifest is large."""

Progress = Callable[[ProgressReport], None]
RequestT = TypeVar("RequestT", bound=msgspec.Struct)
AnswerT = TypeVar("AnswerT", bound=msgspec.Struct)


class Nothing(msgspec.Struct, frozen=True):
    """A request without arguments."""


class AtPath(msgspec.Struct, frozen=True):
    """Of one path in the volume."""

    path: bytes = b"/"


class Audit(msgspec.Struct, frozen=True):
    """Of everything below a path; of the root also the list of files itself, and what only snapshots need."""

    path: bytes = b"/"
    level: Level = "prove"


class ListDirectory(msgspec.Struct, frozen=True):
    """A page of a directory: entries whose cookie is above ``after``."""

    path: bytes
    after: int = 0
    limit: int = 1000


class Upload(msgspec.Struct, frozen=True):
    """``source`` on this machine becomes ``target`` in the volume."""

    source: bytes
    target: bytes
    replace: bool = False


class CreateSnapshot(msgspec.Struct, frozen=True):
    """Of the volume as it is now; without a name it is called by its time."""

    name: str | None = None


class DeleteSnapshot(msgspec.Struct, frozen=True):
    """By its name or time, as the list shows it."""

    name: str


class Download(msgspec.Struct, frozen=True):
    """The file of a manifest's JSON is written to ``output`` on this machine."""

    manifest: str
    output: bytes
    replace: bool = False


class Collect(msgspec.Struct, frozen=True):
    """``retention_seconds`` None: as long as readers of older lists of files are usually given."""

    dry_run: bool = False
    retention_seconds: int | None = None


class SetPolicies(msgspec.Struct, frozen=True):
    """In the words of ``Redundancy.parse`` and ``Sharding.parse``; empty: as it is."""

    path: bytes
    redundancy: str = ""
    sharding: str = ""


class SetSpending(msgspec.Struct, frozen=True):
    """In XLM, or `off`; empty: as it is."""

    max_price: str = ""
    budget: str = ""


class Cost(msgspec.Struct, frozen=True):
    """Of what is below ``path``, and of directories ``depth`` steps below it."""

    path: bytes = b"/"
    depth: int = 1


class Patch(msgspec.Struct, frozen=True):
    """Of all that files below ``path`` need."""

    path: bytes = b"/"
    dry_run: bool = False


class DelegateTo(msgspec.Struct, frozen=True):
    """``node``: an id, the beginning of a known one, or HOST:PORT; ``seconds``: after it last heard of this machine."""

    node: str
    seconds: int


class DelegateOf(msgspec.Struct, frozen=True):
    """Likewise."""

    node: str


class JoinNetwork(msgspec.Struct, frozen=True):
    """``HOST:PORT`` of nodes of the network to join."""

    seeds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bound:
    """A command with somebody to do it; bytes in, bytes out, so that all of them fit in one table."""

    name: str
    handle: Callable[[bytes, Progress], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Command(Generic[RequestT, AnswerT]):
    """One row of the table above."""

    name: str
    request: type[RequestT]
    answer: type[AnswerT]

    def bind(self, handler: Callable[[RequestT, Progress], Awaitable[AnswerT]]) -> Bound:
        """``handle`` raises what the handler raises, and msgspec.MsgspecError for a request of another shape."""

        async def handle(request: bytes, progress: Progress) -> bytes:
            return msgspec.json.encode(await handler(msgspec.json.decode(request, type=self.request), progress))

        return Bound(self.name, handle)


STATUS = Command("status", Nothing, VolumeStatus)
PATH_STATUS = Command("path_status", AtPath, PathStatus)
SYNC = Command("sync", AtPath, SyncReport)
CACHE_DROP = Command("cache_drop", Nothing, CacheDropped)
PIN = Command("pin", AtPath, PinReport)
UNPIN = Command("unpin", AtPath, PinReport)
PINS = Command("pins", Nothing, PinReport)
PINS_WAIT = Command("pins_wait", Nothing, PinReport)
SET_POLICIES = Command("set_policies", SetPolicies, PoliciesSet)
SET_SPENDING = Command("set_spending", SetSpending, SpendingLimit)
GET_SPENDING = Command("spending", Nothing, SpendingLimit)
COST = Command("cost", Cost, CostReport)
RECORDS = Command("records", Nothing, Records)
COLLECT = Command("collect", Collect, Collected)
AUDIT = Command("audit", Audit, AuditReport)
PATCH = Command("patch", Patch, PatchReport)
LIST = Command("list", ListDirectory, ListPage)
MANIFEST = Command("manifest", AtPath, ManifestText)
UPLOAD = Command("upload", Upload, Stored)
DOWNLOAD = Command("download", Download, Fetched)
NET_SHOW = Command("net_show", Nothing, NetworkStatus)
NET_JOIN = Command("net_join", JoinNetwork, NetworkStatus)
NET_LEAVE = Command("net_leave", Nothing, NetworkStatus)
SNAPSHOT_CREATE = Command("snapshot_create", CreateSnapshot, Snapshot)
SNAPSHOT_LIST = Command("snapshot_list", Nothing, SnapshotList)
SNAPSHOT_DELETE = Command("snapshot_delete", DeleteSnapshot, Done)
DELEGATE = Command("delegate", DelegateTo, DelegateList)
DELEGATE_LIST = Command("delegate_list", Nothing, DelegateList)
DELEGATE_REVOKE = Command("delegate_revoke", DelegateOf, Revocation)
STOP = Command("stop", Nothing, Done)


class Envelope(msgspec.Struct, frozen=True):
    """A request line: ``{"do": name, "with": {...}}``."""

    do: str
    arguments: msgspec.Raw = msgspec.field(name="with", default=msgspec.Raw(b"{}"))


class Failure(msgspec.Struct, frozen=True):
    """``kind`` is the name of a class of ``layrfs.errors``."""

    kind: str
    message: str


_NO_RESULT = msgspec.Raw()


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer line; exactly one of the three is there. ``progress`` lines come before the one that ends it."""

    progress: ProgressReport | None = None
    result: msgspec.Raw = _NO_RESULT
    error: Failure | None = None
