"""The volume's metadata on its way to the network: changes, now and then a checkpoint, and the root record.

Owns the order: a segment's shards are on hosts before a record names them; the record is on this disk before it is on
theirs; what an older record named and no retained version needs is dropped from hosts only long after a newer one is
out. So a crash between any two steps leaves a volume that can be recovered, and at most some garbage. Before a version
is prepared, the one before it is retained, as rows that the new one publishes. Must not know what other rows mean.

The state lives in three marks of the database, written in one transaction: ``history`` (the segments), ``root`` (the
newest record, signed) and ``published`` (the newest version that hosts keep).
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Protocol, TypeVar

import trio

from layrfs.app.archiving import Archive
from layrfs.app.roots import Kept
from layrfs.crashpoints import reached
from layrfs.crypto.keys import VolumeKeys
from layrfs.crypto.root_body import seal_root_body
from layrfs.durable import make_directory
from layrfs.errors import LayrError, LocalError, OwnerError, RemoteError, Unavailable
from layrfs.ids import NodeId, PieceId
from layrfs.model.history import METADATA_INODE, History, Kind, Moment, Segment
from layrfs.model.notes import NO_BLOB, Purpose, blob_tag
from layrfs.model.redundancy import Redundancy
from layrfs.model.root_record import BODY_LIMIT_BYTES, RootRecord, verified_untrusted
from layrfs.model.shard_format import MAX_PAYLOAD_BYTES
from layrfs.model.shards import ShardRecord
from layrfs.pipeline.transfers import SourcePart, Stored, Transfers
from layrfs.policy.history import checkpoint_due, first_merged
from layrfs.storage.cache_files import failed
from layrfs.storage.changes import ChangeLog, Cut, combined, write_blob, write_checkpoint
from layrfs.storage.database import Database
from layrfs.storage.journal import Journal
from layrfs.storage.versions import Version

_log = logging.getLogger(__name__)

INTERVAL_SECONDS = 10.0
"""How far the network may be behind, while hosts can be reached."""

RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0
RETENTION_SECONDS = 3600
"""Who has read a record is given so long to read what it names."""

FEW_HOSTS = 3
REPEAT_SECONDS = 60.0
REFRESH_SECONDS = 3600.0
"""A record that fewer hosts than that keep is offered again soon, any record now and then: its hosts come and go."""

DISCARDED_TOGETHER = 256
METADATA_REDUNDANCY = Redundancy(1, 5)
"""Small, and everything depends on it."""

T = TypeVar("T")


class Superseded(OwnerError):
    """Another machine has written to the volume since: what this one would publish must not replace that."""


class RootPublisher(Protocol):
    """``layrfs.app.roots.Roots``, or a fake."""

    async def publish(self, record: RootRecord) -> Kept: ...


class Discarder(Transfers, Protocol):
    """Transfers that can also drop pieces."""

    async def discard(self, pieces: Sequence[tuple[PieceId, NodeId]]) -> None: ...


def mark_prepared(marks: Journal, history: History, record: RootRecord) -> None:
    """This is the newest version of the volume, as far as this machine knows."""
    marks.set_mark("history", history.to_bytes())
    marks.set_mark("root", record.to_bytes())


def mark_published(marks: Journal, record: RootRecord) -> None:
    """Hosts keep this version."""
    marks.set_mark("published", record.version)


class Publisher:
    """One volume's; ``run`` once."""

    def __init__(
        self,
        *,
        database: Database,
        transfers: Discarder,
        roots: RootPublisher,
        keys: VolumeKeys,
        directory: str,
        device: str,
        interval_seconds: float = INTERVAL_SECONDS,
        in_use: Callable[[], Collection[int]] = tuple,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``directory`` keeps the changesets of published segments, so that they can be merged; it may be emptied.

        ``in_use`` tells which retained versions somebody is looking at.
        """
        self._database = database
        self._marks = Journal(database)
        self._changes = ChangeLog(database)
        self._archive = Archive(database, in_use, now)
        self._transfers = transfers
        self._roots = roots
        self._keys = keys
        self._directory = directory
        self._device = device
        self._now = now
        self._interval_seconds = interval_seconds
        self._lock = trio.Lock()
        self._superseded = False
        self._repeat_at = 0.0
        history, root = self._marks.mark("history"), self._marks.mark("root")
        self._history = History.from_bytes(history) if isinstance(history, bytes) else History()
        self._record = verified_untrusted(root) if isinstance(root, bytes) else None
        self._published = int(self._marks.mark("published") or 0)
        self.problem: str | None = None
        """Why the network does not learn of changes, in a sentence."""
        try:
            make_directory(directory)
        except OSError as error:
            raise failed(error, directory) from error

    @property
    def version(self) -> int:
        """The newest version that hosts keep; 0 before the first."""
        return self._published

    @property
    def is_behind(self) -> bool:
        """Whether the newest committed changes are not on the network."""
        return self._changes.has_pending() or self._published < self._newest

    @property
    def _newest(self) -> int:
        return 0 if self._record is None else self._record.version

    async def run(self) -> None:
        """Publish every few seconds when there is something to publish; until cancelled."""
        pause = self._interval_seconds
        while True:
            await trio.sleep(pause)
            try:
                await self.publish()
                pause = self._interval_seconds
            except LayrError as error:
                if self.problem is None:
                    _log.warning("metadata waits: %s", error)
                self._note(error)
                pause = min(LONGEST_RETRY_SECONDS, 2 * pause)

    async def flush(self) -> None:
        """Return when everything written before the call is on the network. Tries for ever; raises ``Superseded``."""
        await self._insist(self.publish)

    async def retain(self, name: str | None) -> Version:
        """Keep the volume as it is now until somebody deletes that version; it is on the network when this returns.

        Tries for ever; raises ``AlreadyExists``, ``Superseded``, ``LocalError``.
        """
        retained = await self._insist(partial(self._retain, name))
        await self.flush()
        return retained

    def drop(self, numbers: Collection[int]) -> None:
        """Retain these versions no longer."""
        self._archive.drop(numbers, self._history)

    async def publish(self) -> None:
        """Once. Raises ``RemoteError`` when hosts cannot be reached, ``LocalError``, ``Superseded``."""
        async with self._lock:
            await self._prepare_pending()
            is_due = self._published < self._newest or trio.current_time() >= self._repeat_at
            if self._record is not None and is_due:
                await self._announce(self._record)
            self.problem = None
            await self._drop_retired()

    async def _retain(self, name: str | None) -> Version:
        async with self._lock:
            await self._prepare_pending()
            retained = self._archive.name(self._history, name)
            self._database.commit()
        return retained

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await work()
            except RemoteError as error:
                self._note(error)
                await trio.sleep(RETRY_SECONDS)

    async def _prepare_pending(self) -> None:
        if self._superseded:
            raise Superseded(self.problem or "")
        self._database.commit()
        if self._changes.has_pending():
            self._changes.compact()
            await self._prepare()

    def _note(self, error: LayrError) -> None:
        if not self._superseded:
            self.problem = f"The list of files on the network is not up to date: {error}"

    # ---------------------------------------------------------------- a version

    async def _prepare(self) -> None:
        """Changes become a segment on hosts, and a signed record here."""
        version, began_ms = self._newest + 1, int(self._now() * 1000)
        self._archive.retain(self._history)
        self._archive.prune(self._history)
        self._database.commit()
        segments = list(self._history.segments)
        checkpoint_bytes = sum(segment.blob_bytes for segment in segments if segment.kind == "checkpoint")
        changes_bytes = sum(segment.blob_bytes for segment in segments if segment.kind == "changes")
        if checkpoint_due(checkpoint_bytes, changes_bytes):
            cut, segment = await self._checkpoint(version)
            kept: list[Segment] = []
        else:
            cut, segment, kept = await self._merge(version, segments)
        reached("segment uploaded")
        moment = Moment(began_ms, cut.last_shard, cut.unsent)
        history = History((*kept, segment), self._device, int(self._now() * 1000), moment=moment)
        self._save(history, self._signed(version, history), cut.last)
        await self._database.sync()
        reached("record saved")
        gone = {one.number for one in segments} - {one.number for one in kept}
        await trio.to_thread.run_sync(partial(self._remove_files, gone))

    async def _checkpoint(self, version: int) -> tuple[Cut, Segment]:
        copy, path = self._path("checkpoint"), self._path("blob")
        try:
            cut = await trio.to_thread.run_sync(write_checkpoint, self._database.path, copy)
            return cut, await self._upload("checkpoint", version, path, copy, NO_BLOB)
        finally:
            for name in (copy, path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)

    async def _merge(self, version: int, segments: Sequence[Segment]) -> tuple[Cut, Segment, list[Segment]]:
        """The pending changes, with those of the last segments when these are not much larger."""
        cut, (_last, changes) = self._changes.cut(), self._changes.pending()
        start = next((at for at, one in enumerate(segments) if one.kind == "changes"), len(segments))
        sizes = [self._size(segment.number) for segment in segments[start:]]
        missing = max((at + 1 for at, size in enumerate(sizes) if size is None), default=0)
        first = start + missing + first_merged([size or 0 for size in sizes[missing:]], len(changes))
        merged = segments[first:]
        own, path = self._path(str(version)), self._path("blob")
        changes = await trio.to_thread.run_sync(self._combine, own, merged, changes)
        try:
            previous = segments[first - 1].tag if first else NO_BLOB
            return cut, await self._upload("changes", version, path, changes, previous), list(segments[:first])
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _combine(self, path: str, merged: Sequence[Segment], changes: bytes) -> bytes:
        """One changeset of all, kept as a file for the next merge."""
        try:
            older = []
            for segment in merged:
                with open(self._path(str(segment.number)), "rb") as file:
                    older.append(file.read())
            together = combined([*older, changes])
            with open(path, "wb") as file:
                file.write(together)
        except OSError as error:
            raise failed(error, path) from error
        return together

    async def _upload(self, kind: Kind, number: int, path: str, source: str | bytes, previous: bytes) -> Segment:
        """``previous``: the tag of the segment whose state the changes follow."""
        blob_bytes = await trio.to_thread.run_sync(write_blob, path, kind, source)
        shards: list[ShardRecord] = []
        offsets = range(0, blob_bytes, MAX_PAYLOAD_BYTES)
        for block, offset in enumerate(offsets):
            length = min(MAX_PAYLOAD_BYTES, blob_bytes - offset)
            part = SourcePart(METADATA_INODE, block, path, offset, length)
            blob = blob_tag(shards[0].salt) if shards else NO_BLOB
            purpose = Purpose(kind, number, block, len(offsets), blob, previous)
            uploaded = await self._transfers.upload([part], METADATA_REDUNDANCY, purpose)
            if uploaded.shard is None or not isinstance(uploaded.outcomes[0], Stored):
                raise LocalError("A segment of metadata was taken for something else.")
            shards.append(uploaded.shard)
        return Segment(kind, number, blob_bytes, tuple(shards))

    def _signed(self, version: int, history: History) -> RootRecord:
        body = seal_root_body(self._keys.content, self._keys.volume_id, version, history.to_bytes())
        if len(body) > BODY_LIMIT_BYTES:
            raise LocalError("The volume's history does not fit into a root record.")
        return RootRecord.sign(self._keys.root_private, version=version, time_ms=history.time_ms, body=body)

    def _save(self, history: History, record: RootRecord, last: int) -> None:
        """One transaction: no change is ever in no segment and not pending either."""
        self._changes.forget(last)
        self._archive.retire(self._history.segments, history)
        mark_prepared(self._marks, history, record)
        self._history, self._record = history, record

    async def _announce(self, record: RootRecord) -> None:
        kept = await self._roots.publish(record)
        reached("record on hosts")
        if kept.stale:
            self._superseded = True
            self.problem = (
                "Another machine has written to this volume since; what is new here stays here. "
                "Copy it elsewhere, then `layrfs recover` the volume anew."
            )
            raise Superseded(self.problem)
        if not kept.hosts:
            raise Unavailable("No host took the root record.")
        self._repeat_at = trio.current_time() + (REPEAT_SECONDS if kept.hosts < FEW_HOSTS else REFRESH_SECONDS)
        if self._published != record.version:
            self._published = record.version
            mark_published(self._marks, record)
            await self._database.sync()
            reached("publication noted")

    async def _drop_retired(self) -> None:
        pieces = self._changes.retired(int(self._now()) - RETENTION_SECONDS, DISCARDED_TOGETHER)
        if pieces:
            await self._transfers.discard(pieces)
            reached("retired pieces dropped")
            self._changes.forget_retired(piece for piece, _host in pieces)

    # -------------------------------------------------------------------- files

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _size(self, number: int) -> int | None:
        """Of the changeset kept for a segment; None when it is not here (the volume was recovered)."""
        try:
            return os.stat(self._path(str(number))).st_size
        except FileNotFoundError:
            return None

    def _remove_files(self, numbers: set[int]) -> None:
        for number in numbers:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(str(number)))
