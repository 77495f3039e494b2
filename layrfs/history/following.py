"""A read-only mount goes where the volume's writer goes.

Owns looking for newer versions, and the way from the version that is here to them. Must not know the kernel, nor send
anything to hosts. Invariant: the tables are exactly those of the version that the marks name, whatever fails; versions
only grow, and each was signed by the volume.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import CorruptFile, LayrError, NotFound, RemoteError
from layrfs.history.arriving import observed_seconds
from layrfs.history.known import Known, mark_prepared, mark_published, newest_segment
from layrfs.history.leasing import history_of
from layrfs.history.restoring import blob_path, fetch_segment, restore_segments
from layrfs.ids import InodeNumber
from layrfs.model.history import History
from layrfs.model.root_record import RootRecord, newest
from layrfs.model.status import Following
from layrfs.pipeline.transfers import Downloads
from layrfs.policy.following import LocalState, Replay, pause_seconds, reason_not_to_follow, way
from layrfs.storage.cache_files import failed
from layrfs.storage.changes import ChangeLog, read_blob
from layrfs.storage.database import Database
from layrfs.storage.journal import Journal
from layrfs.storage.kept_changes import KeptChanges
from layrfs.storage.replay import Touched, database_difference, difference, touched
from layrfs.vfs.recovery import FOLLOWING, RUNNING

_log = logging.getLogger(__name__)

BEGIN_SECONDS = 15.0
"""How long a mount with nothing here looks for hosts."""

BEGIN_PAUSE_SECONDS = 0.5
ASKED_IN_VAIN = 4
"""So many times hosts may say that they know no version: the first that are found need not be those that do."""


class NewestRecord(Protocol):
    """``layrfs.history.root_watch.RootWatch``, or a fake."""

    async def look(self) -> RootRecord | None: ...


class Tables(Protocol):
    """``layrfs.vfs.following.View``, or nothing but the tables."""

    async def go_over(self, touched: Touched, apply: Callable[[], None]) -> list[InodeNumber]: ...


BytesChanged = Callable[[Sequence[InodeNumber]], Awaitable[None]]
"""Told of open files whose bytes are others now: the kernel remembers them."""


def may_follow(database: Database) -> bool:
    """Whether a read-only mount of a volume that is not in use follows; the log gets the reason when it does not."""
    reason = reason_not_to_follow(local_state(database))
    if reason is not None:
        _log.warning("what other machines write is not seen in this mount: %s", reason)
    return reason is None


def local_state(database: Database) -> LocalState:
    """Of a volume that is not in use."""
    marks = Journal(database)
    known = Known.read(marks)
    return LocalState(
        pending_changes=ChangeLog(database).has_pending(),
        dirty_blocks=database.value("SELECT 1 FROM local WHERE dirty = 1 LIMIT 1") is not None,
        unannounced=newest_segment(known.history) > known.published,
        crashed=marks.mark(RUNNING) is not None and not marks.mark(FOLLOWING),
    )


class Follower:
    """One mount's. Between two calls of ``look`` nobody else may change the volume's tables."""

    def __init__(
        self,
        *,
        database: Database,
        tables: Tables,
        watch: NewestRecord,
        transfers: Downloads,
        keys: VolumeKeys,
        history_directory: str,
        work_directory: str,
    ) -> None:
        """``history_directory`` keeps the changesets of the version that is here, to undo them; it may be emptied."""
        self._database = database
        self._marks = Journal(database)
        self._tables = tables
        self._watch = watch
        self._transfers = transfers
        self._keys = keys
        self._kept = KeptChanges(history_directory)
        self._work = work_directory
        self._looking = trio.Lock()
        known = Known.read(self._marks)
        self._history, self._record = known.history, known.record
        self._seen_at: float | None = None
        self.problem: str | None = None
        """Why newer versions are not seen, in a sentence."""

    @property
    def version(self) -> int:
        """Which version is here; 0 when none is."""
        return 0 if self._record is None else self._record.version

    def status(self) -> Following:
        """For ``layrfs status``."""
        seen_seconds = None if self._seen_at is None else int(trio.current_time() - self._seen_at)
        return Following(self._history.device, seen_seconds)

    async def begin(self) -> None:
        """Return when some version is here, or hosts know of none. Raises ``RemoteError`` when there are no hosts."""
        began, unknown = trio.current_time(), 0
        while not self.version and unknown < ASKED_IN_VAIN:
            try:
                await self.look()
            except NotFound:
                unknown += 1
            except RemoteError:
                if trio.current_time() >= began + BEGIN_SECONDS:
                    raise
            if not self.version:
                await trio.sleep(BEGIN_PAUSE_SECONDS)

    async def run(self, changed: BytesChanged) -> None:
        """Look again and again, until cancelled."""
        failures = 0
        while True:
            try:
                await changed(await self.look())
                failures, self.problem = 0, None
            except LayrError as error:
                failures += 1
                if self.problem is None:
                    _log.warning("what others write is not seen: %s", error)
                self.problem = f"What others write to the volume is not seen at the moment: {error}"
            await trio.sleep(pause_seconds(failures))

    async def look(self) -> list[InodeNumber]:
        """Ask for the newest version once, and go over to it; open files whose bytes are others now.

        Raises ``NotFound`` when hosts know none, ``Unavailable``, ``LocalError``…; the version that was here stays.
        """
        async with self._looking:
            found = await self._watch.look()
            if found is None and self._record is None:
                raise NotFound("No machine has written to this volume yet, as far as its hosts know.")
            moved: list[InodeNumber] = []
            if found is not None and found != self._record and newest(filter(None, (self._record, found))) == found:
                moved = await self._go_over(found)
            if found is not None:
                self._seen_at = trio.current_time()
            return moved

    async def _go_over(self, record: RootRecord) -> list[InodeNumber]:
        history = history_of(record, self._keys)
        kept = {one.number for one in self._history.segments if self._kept.size(one) is not None}
        planned = way(self._history.segments, history.segments, kept)
        self._empty_work()
        try:
            if isinstance(planned, Replay):
                try:
                    return await self._take(await self._replayed(planned), history, record)
                except CorruptFile as error:
                    _log.warning("version %d is made anew from the network: %s", record.version, error)
                    self._empty_work()
            return await self._take(await self._rebuilt(history), history, record)
        finally:
            shutil.rmtree(self._work, ignore_errors=True)

    # ------------------------------------------------------------ two ways there

    async def _replayed(self, planned: Replay) -> bytes:
        """One changeset from here to there; the new segments' are in ``self._new``."""
        for segment in planned.done:
            await fetch_segment(segment, self._keys, self._transfers, self._work)
        return await trio.to_thread.run_sync(self._netted, planned)

    def _netted(self, planned: Replay) -> bytes:
        """In a thread."""
        undone, done = [self._kept.read(segment) for segment in planned.undone], []
        for segment in planned.done:
            blob = blob_path(self._work, segment.number)
            read_blob(blob, segment.kind, blob + ".plain")
            done.append(_bytes_of(blob + ".plain"))
            self._new.keep(segment, done[-1])
        if None in undone:
            raise CorruptFile("What is kept of the version that is here is damaged.")
        return difference([changes for changes in undone if changes is not None], done)

    async def _rebuilt(self, history: History) -> bytes:
        """The same from comparing with a whole new database."""
        other = await restore_segments(history.segments, self._keys, self._transfers, self._work, keep_in=self._new)
        self._database.commit()
        return await trio.to_thread.run_sync(database_difference, self._database.path, other)

    async def _take(self, changes: bytes, history: History, record: RootRecord) -> list[InodeNumber]:
        """The tables become another version's, in one transaction with the marks that say so."""
        about = await trio.to_thread.run_sync(touched, changes)

        def apply() -> None:
            self._database.apply(changes)
            mark_prepared(self._marks, history, record)
            mark_published(self._marks, record)
            observed_seconds(self._marks, record)
            self._database.commit()

        moved = await self._tables.go_over(about, apply)
        self._history, self._record = history, record
        _log.info("version %d, written by %s: %d bytes of changes", record.version, history.device, len(changes))
        self._kept.keep_only(history.segments)
        self._kept.adopt(self._new)
        return moved

    # ---------------------------------------------------------------- changesets

    @property
    def _new(self) -> KeptChanges:
        """Where the new segments' changesets are until the version is taken."""
        return KeptChanges(os.path.join(self._work, "new"))

    def _empty_work(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)
        try:
            os.mkdir(self._work, mode=0o700)
        except OSError as error:
            raise failed(error, self._work) from error


def _bytes_of(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise failed(error, path) from error
