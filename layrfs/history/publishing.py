"""The volume's metadata on its way to the network: changes, now and then a checkpoint, and the root record.

Owns the order: a segment's shards are on hosts before a record names them; the record is on this disk before it is on
theirs; what an older record named and no retained version needs is retired, for the collector to drop long after a
newer one is out. So a crash between any two steps leaves a volume that can be recovered, and at most some garbage.
Before a version is prepared, the one before it is retained, as rows that the new one publishes. Must not know what
other rows mean.

The state lives in the marks of ``layrfs.history.known``. A version whose lease alone is new has the segments of the one
before, so the newest that says something about files has the number of its last segment.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from functools import partial

import trio

from layrfs.crashpoints import reached
from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import LayrError, ReadOnly, Superseded, Unavailable
from layrfs.history.archiving import Archive
from layrfs.history.completing import Completer, Replaced
from layrfs.history.known import Known, mark_prepared, mark_published, newest_segment
from layrfs.history.leasing import RootPublisher, Tenure
from layrfs.history.patience import RETRY_SECONDS, insist
from layrfs.history.segments import SegmentMaker, fewest_copies, is_outgrown
from layrfs.history.signing import signed_record
from layrfs.ids import NodeId, PieceId
from layrfs.model.history import History, Moment, Segment
from layrfs.model.root_record import RootRecord
from layrfs.pipeline.transfers import Transfers
from layrfs.policy.history import is_lacking
from layrfs.storage.changes import REPAIRED, ChangeLog
from layrfs.storage.database import Database
from layrfs.storage.journal import Journal
from layrfs.storage.versions import Version

_log = logging.getLogger(__name__)

INTERVAL_SECONDS = 10.0
"""How far the network may be behind, while hosts can be reached."""
LONGEST_RETRY_SECONDS = 60.0
FEW_HOSTS = 3
REPEAT_SECONDS = 60.0
REFRESH_SECONDS = 3600.0
"""A record that fewer hosts than that keep is offered again soon, any record now and then: its hosts come and go."""


class Publisher:
    """One volume's; ``run`` once."""

    def __init__(
        self,
        *,
        database: Database,
        transfers: Transfers,
        roots: RootPublisher,
        keys: VolumeKeys,
        directory: str,
        tenure: Tenure,
        on_superseded: Callable[[str], None] = lambda _reason: None,
        interval_seconds: float = INTERVAL_SECONDS,
        in_use: Callable[[], Collection[int]] = tuple,
        known_hosts: Callable[[], int] = lambda: 0,
        is_gone: Callable[[NodeId], bool] = lambda _host: False,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``directory`` keeps the changesets of published segments, so that they can be merged; it may be emptied.

        ``in_use`` tells which retained versions somebody is looking at, ``known_hosts`` how many hosts there are,
        ``is_gone`` whether what a host has does not count any more;
        ``on_superseded`` is told, in a sentence, when another machine turns out to have taken over.
        """
        self._database = database
        self._marks = Journal(database)
        self._changes = ChangeLog(database)
        self._archive = Archive(database, in_use, now)
        self._roots = roots
        self._keys = keys
        self._segments = SegmentMaker(database, transfers, directory)
        self.completer = Completer(transfers, is_gone, known_hosts)
        self._tenure = tenure
        self._on_superseded = on_superseded
        self._now = now
        self._interval_seconds = interval_seconds
        self._lock = trio.Lock()
        self._preparing = self._superseded = False
        self._looked = False  # whether another machine has written, since the start
        self._known_hosts = known_hosts
        self._repeat_at = 0.0
        self._keepers = 0  # of the record, when it was offered last
        self._wake = trio.Event()
        known = Known.read(self._marks)
        self._history, self._record, self._published = known.history, known.record, known.published
        self.problem: str | None = None
        """Why the network does not learn of changes, in a sentence."""

    @property
    def version(self) -> int:
        """The newest version that hosts keep; 0 before the first."""
        return self._published

    @property
    def segments(self) -> tuple[Segment, ...]:
        """What the newest version is made of."""
        return self._history.segments

    @property
    def is_behind(self) -> bool:
        """Whether the newest committed changes are not on the network."""
        behind = self._changes.has_pending() or self._published < newest_segment(self._history)
        return self._tenure.publishes and behind

    @property
    def lacks_copies(self) -> bool:
        """Whether the newest version would be gone with very few hosts, though there are more."""
        copies = min(self._keepers, fewest_copies(self._history.segments))
        return self._record is not None and is_lacking(copies, FEW_HOSTS, self._known_hosts())

    @property
    def may_write(self) -> bool:
        """Whether what is changed here becomes a version of the volume."""
        return self._tenure.publishes and not self._superseded

    @property
    def next_version(self) -> int:
        """The number of the first version that is sure to say what is changed now."""
        return self._newest + 1 + self._preparing

    @property
    def _newest(self) -> int:
        return 0 if self._record is None else self._record.version

    async def run(self) -> None:
        """Publish every few seconds when there is something to publish; until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.completer.run, self)
            await self._publish_forever()

    async def _publish_forever(self) -> None:
        pause = self._interval_seconds
        while True:
            with trio.move_on_after(pause):
                await self._wake.wait()
                await trio.sleep(RETRY_SECONDS)  # one host seldom comes alone
            self._wake = trio.Event()
            try:
                await self.publish()
                pause = self._interval_seconds
            except LayrError as error:
                if self.problem is None:
                    _log.warning("metadata waits: %s", error)
                self._note(error)
                pause = min(LONGEST_RETRY_SECONDS, 2 * pause)

    def hosts_appeared(self) -> None:
        """Hosts have been found or come back: try again what waits for them."""
        self.completer.hosts_appeared()
        if self.problem is not None or self._is_renewal_due():
            self._wake.set()

    def piece_lost(self, piece: PieceId) -> None:
        """A host has lost a piece, perhaps of a segment; and if that, then perhaps the record as well."""
        self.completer.lost(piece)
        self._repeat_at = 0.0
        self._wake.set()

    async def flush(self) -> None:
        """Return when everything written before the call is on the network. Tries for ever; raises ``Superseded``."""
        await insist(self.publish, self._note)

    async def retain(self, name: str | None) -> Version:
        """Keep the volume as it is now until somebody deletes that version; it is on the network when this returns.

        Tries for ever; raises ``AlreadyExists``, ``ReadOnly``, ``Superseded``, ``LocalError``.
        """
        retained = await insist(partial(self._retain, name), self._note)
        await self.flush()
        return retained

    def drop(self, numbers: Collection[int]) -> None:
        """Retain these versions no longer. Raises ``ReadOnly``."""
        self._check_publishes()
        self._archive.drop(numbers, self._history)

    async def publish(self) -> None:
        """Once. Raises ``RemoteError`` when hosts cannot be reached, ``LocalError``, ``Superseded``."""
        if not self._tenure.publishes:
            return
        async with self._lock:
            self._database.commit()
            self._changes.compact()  # also when no host answers for weeks
            await self._look()
            if not await self._prepare_pending() and self._is_renewal_due():
                await self._renew()
            is_due = self._published < self._newest or trio.current_time() >= self._repeat_at
            if self._record is not None and is_due:
                await self._announce(self._record)
            if self._is_checkpoint_due():  # who changed much pays for it, not who next changes a little
                await self._announce(await self._prepare())
            self.problem = None

    async def complete(self) -> None:
        """Have segments that lack copies get them, once. Takes long, holds up nothing. Raises what ``publish`` does."""
        await self.completer.complete(self)

    def chains(self) -> Iterator[tuple[Segment, ...]]:
        """See ``completing.Versions``."""
        yield self._history.segments
        yield from self._archive.chains()

    async def amend(self, segment: Segment, replaced: Replaced) -> None:
        """See ``completing.Versions``."""
        async with self._lock:
            await self._look()
            segments = [segment if one.number == segment.number else one for one in self._history.segments]
            if not self._archive.amend(segment) and segment not in segments:  # nobody needs it any more
                replaced = [(piece.id, piece.host) for shard in segment.shards for piece in shard.pieces]
            if segment not in segments:
                self._changes.retire(replaced, self.next_version)
                return
            self._changes.retire(replaced, newest_segment(self._history))  # in the transaction of the record
            await self._announce(await self._renew(segments))

    def expired(self) -> Collection[int]:
        """Versions that the schedule does not keep any longer. They go when the next one is prepared, or by `prune`."""
        return self._archive.expired()

    def prune(self) -> None:
        """Drop those now."""
        self._archive.prune(self._history)

    @contextlib.asynccontextmanager
    async def between_versions(self) -> AsyncIterator[int]:
        """Nothing is published meanwhile. The number of the newest version that has contents of its own.

        What is changed inside is in every version with a higher number. Raises ``Superseded``, ``ReadOnly``.
        """
        self._check_publishes()
        async with self._lock:
            self._check_not_superseded()
            yield newest_segment(self._history)

    async def confirm(self) -> None:
        """Return when hosts have just said that this machine's newest version is the volume's.

        Raises ``RemoteError``, ``Superseded``.
        """
        async with self._lock:
            await self._look()
            if self._record is not None:
                await self._announce(self._record)
                await self._or_superseded(self._tenure.prove(self._record))

    async def _retain(self, name: str | None) -> Version:
        self._check_publishes()
        async with self._lock:
            await self._look()
            await self._prepare_pending()
            retained = self._archive.name(self._history, name)
            self._database.commit()
        return retained

    def _note(self, error: LayrError) -> None:
        if not self._superseded:
            late = "The list of files on the network is not up to date"
            self.problem = f"{late if self.is_behind else 'Other machines cannot know that this one writes'}: {error}"

    def _check_publishes(self) -> None:
        if not self._tenure.publishes:
            raise ReadOnly("The volume is mounted read-only.")

    # ----------------------------------------------------------- the right to write

    async def claim(self) -> None:
        """Publish that this machine writes, and see that no other did so at the same time.

        Raises ``Superseded`` when another was faster, ``RemoteError``, ``LocalError``.
        """
        async with self._lock:
            self._check_not_superseded()
            if self._record is None:
                return
            await self._announce(record := await self._renew())
            await self._or_superseded(self._tenure.prove(record))
            self._looked = True

    async def release(self) -> None:
        """Publish what there is, and that another machine may write from now on. Raises what ``publish`` does."""
        if not self._tenure.give_up():
            return
        async with self._lock:
            await self._look()
            if await self._prepare_pending() and self._record is not None:
                await self._announce(self._record)
            elif self._record is not None:
                await self._announce(await self._renew())

    async def _look(self) -> None:
        self._check_not_superseded()
        if not self._looked:
            await self._or_superseded(self._tenure.look(self._record))
            self._looked = True

    async def _or_superseded(self, question: Awaitable[None]) -> None:
        """Have the drive hear of it when the answer is that another machine has taken over."""
        try:
            await question
        except Superseded as error:
            self._superseded = True
            self.problem = str(error)
            _log.error("%s", error)
            self._on_superseded(self.problem)
            raise

    def _check_not_superseded(self) -> None:
        if self._superseded:
            raise Superseded(self.problem or "")

    def _is_renewal_due(self) -> bool:
        return self._record is not None and self._tenure.is_renewal_due(self._history.lease)

    # ---------------------------------------------------------------- a version

    async def _prepare_pending(self) -> bool:
        """Whether there was something."""
        self._database.commit()
        if not self._changes.has_pending():
            return False
        await self._prepare()
        return True

    async def _renew(self, segments: Sequence[Segment] = ()) -> RootRecord:
        """A version with another lease, or with other copies of the same segments, and nothing else."""
        lease, time_ms = self._tenure.lease(), int(self._now() * 1000)
        kept = tuple(segments) or self._history.segments
        history = History(kept, self._tenure.name, time_ms, lease, self._history.moment)
        record = signed_record(self._keys, self._newest + 1, history)
        self._save(history, record, 0)
        await self._database.sync()
        return record

    async def _prepare(self) -> RootRecord:
        """Changes become a segment on hosts, or all becomes a checkpoint, and a signed record here."""
        version, began_ms = self._newest + 1, int(self._now() * 1000)
        self._archive.retain(self._history)
        self._archive.prune(self._history)
        self._database.commit()
        segments = list(self._history.segments)
        make = partial(self._segments.merge, segments=segments)
        self._preparing = True
        try:
            cut, segment, kept = await (self._segments.checkpoint if self._is_checkpoint_due() else make)(version)
        finally:
            self._preparing = False
        reached("segment uploaded")
        moment = Moment(began_ms, cut.last_shard, cut.unsent)
        tenure, time_ms = self._tenure, int(self._now() * 1000)
        history = History((*kept, segment), tenure.name, time_ms, tenure.lease(), moment)
        record = signed_record(self._keys, version, history)
        self._marks.set_mark(REPAIRED, None)
        self._save(history, record, cut.last)
        await self._database.sync()
        reached("record saved")
        gone = {one.number for one in segments} - {one.number for one in kept}
        await trio.to_thread.run_sync(partial(self._segments.kept.forget, gone))
        return record

    def _is_checkpoint_due(self) -> bool:
        return is_outgrown(self._history.segments) or self._marks.mark(REPAIRED) is not None

    def _save(self, history: History, record: RootRecord, last: int) -> None:
        """One transaction: no change is ever in no segment and not pending either."""
        self._changes.forget(last)
        self._archive.retire(self._history.segments, history, newest_segment(history))
        mark_prepared(self._marks, history, record)
        self._history, self._record = history, record

    async def _announce(self, record: RootRecord) -> None:
        kept = await self._roots.publish(record)
        reached("record on hosts")
        if kept.stale:
            await self._or_superseded(self._tenure.prove(record))
        elif not kept.hosts:
            raise Unavailable("No host took the root record.")
        self._keepers = kept.hosts
        self._repeat_at = trio.current_time() + (REPEAT_SECONDS if kept.hosts < FEW_HOSTS else REFRESH_SECONDS)
        if self._published != record.version:
            self._published = record.version
            mark_published(self._marks, record)
            self._changes.published(newest_segment(self._history), int(self._now()))
            await self._database.sync()
            reached("publication noted")
        if kept.stale:
            await self._renew()  # the next version overrules the other one everywhere
