"""The start of a mount that wants to write: is what is here the newest version, and may this machine write?

Owns asking the hosts, carrying out what `layrfs.policy.leasing` decides, and bringing what is here up to the newest
version. Must not know the mount. Invariant: what is on no host has a place of its own before anything here is replaced,
and then the database changes from one version to the other in one transaction.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import trio

from layrfs.config import Paths
from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import Unavailable, VolumeHeld
from layrfs.history.known import Known, mark_prepared, mark_published, newest_segment
from layrfs.history.leasing import NewestRoot, history_of, writer_of
from layrfs.ids import InodeNumber, NodeId
from layrfs.model.history import History
from layrfs.model.root_record import RootRecord
from layrfs.policy import leasing
from layrfs.policy.leasing import CatchUp, ClaimFirst, Facts, Refuse, Seen, Unknown
from layrfs.storage.aside import find_unsynced, set_aside
from layrfs.storage.cache_files import CacheFiles
from layrfs.storage.changes import ChangeLog
from layrfs.storage.content import Catalog
from layrfs.storage.contracts import LOOKED_FOR
from layrfs.storage.database import Database
from layrfs.storage.journal import Journal
from layrfs.storage.kept_changes import KeptChanges
from layrfs.storage.replay import database_difference, touched
from layrfs.storage.tree import Tree
from layrfs.vfs.blocks import Ledger
from layrfs.vfs.inodes import Inodes
from layrfs.vfs.recovery import RUNNING, Recovery, boot_id
from layrfs.vfs.shelf import Shelf

_log = logging.getLogger(__name__)

PATIENCE_SECONDS = 1.5
"""How long who wrote last waits for a host to be in sight: a mount must not take long, and it finds out later, too."""

LONGEST_SECONDS = 30.0
"""How long anybody else waits, who has nothing to go on from."""

PAUSE_SECONDS = 0.1
SEEN = "seen"
"""The mark that says since when which record was the newest: signature, run of the machine, seconds since its start."""

FROM_ANOTHER_VERSION = ("local_change", "local_retired", "local_payable")
"""What these tables say was true of the version that is replaced."""

Restore = Callable[[History, str], Awaitable[str]]
"""Makes the database of a version in an empty directory; its path."""


class Arrival:
    """One start; ``arrive`` once."""

    def __init__(
        self,
        *,
        paths: Paths,
        volume: str,
        keys: VolumeKeys,
        device: NodeId,
        database: Database,
        roots: NewestRoot,
        restore: Restore,
        say: Callable[[str], None],
        in_sight: Callable[[], bool],
    ) -> None:
        """``say`` tells a person, in a sentence, what was done without being asked for.

        ``in_sight``: whether there are hosts, though they have not shown their records yet.
        """
        self._paths = paths
        self._volume = volume
        self._keys = keys
        self._device = device
        self._database = database
        self._marks = Journal(database)
        self._roots = roots
        self._restore = restore
        self._say = say
        self._in_sight = in_sight
        self._known = Known.read(self._marks)
        self._kept = KeptChanges(paths.history_dir(volume))

    async def arrive(self, *, take_over: bool, embedded: bool = False) -> bool:
        """Return when what is here may be mounted; True when the right to write has to be claimed before.

        ``embedded``: nobody but this drive runs the hosts, so who wrote last need not ask them.
        Raises ``VolumeHeld`` when another machine writes, ``Unavailable`` when it wrote last and no host answers,
        and what restoring a version raises.
        """
        wrote = self._known.record is None or _is_by(self._known.history, self._device)
        patience = (0.0 if embedded else PATIENCE_SECONDS) if wrote or take_over else LONGEST_SECONDS
        reached, found = await newest_shown(self._roots, patience)
        if not reached and patience == PATIENCE_SECONDS and self._in_sight():  # they are slow, or this machine is
            reached, found = await newest_shown(self._roots, LONGEST_SECONDS)
        decided = leasing.plan(self._facts(found, reached=reached, take_over=take_over))
        _log.info("volume %s: %s", self._volume, decided)
        match decided:
            case Refuse():
                self._database.commit()
                raise VolumeHeld(_refusal(self._volume, decided))
            case Unknown():
                raise Unavailable(
                    f"no host answers, and {decided.holder} wrote to volume {self._volume} last: what is here may be "
                    "old; -o ro shows it, --take-over goes on from it"
                )
            case CatchUp() if found is not None:
                await self._catch_up(found)
        return isinstance(decided, ClaimFirst | CatchUp)

    def _facts(self, found: RootRecord | None, *, reached: bool, take_over: bool) -> Facts:
        return Facts(
            device=self._device,
            known=_seen(self._known.record, self._known.history),
            found=None if found is None else _seen(found, history_of(found, self._keys)),
            reached=reached,
            same=found is not None and found == self._known.record,
            unchanged_seconds=0.0 if found is None else observed_seconds(self._marks, found),
            now_ms=int(time.time() * 1000),
            take_over=take_over,
        )

    # ---------------------------------------------------------- another version

    async def _catch_up(self, found: RootRecord) -> None:
        """What is here becomes the version of a record; what is on no host is set aside."""
        history = history_of(found, self._keys)
        directory = os.path.join(self._paths.volume_dir(self._volume), "catching-up")
        shutil.rmtree(directory, ignore_errors=True)
        os.mkdir(directory, 0o700)
        try:
            newer = await self._restore(history, directory)
            await _settle_cache(self._database, self._paths.cache_dir(self._volume))
            await self._set_aside(writer_of(found, self._keys), newer)
            await self._replace(newer, history, found)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    async def _set_aside(self, writer: str, newer: str) -> None:
        self._database.commit()
        _last, pending = ChangeLog(self._database).pending()
        unpublished = await trio.to_thread.run_sync(self._unpublished, pending, newer)
        unsynced = find_unsynced(self._database, unpublished)
        if not unsynced.anything and newest_segment(self._known.history) <= self._known.published:
            return
        cache = CacheFiles(self._paths.cache_dir(self._volume))
        await self._database.sync()
        work = partial(set_aside, self._database.path, cache, self._paths.volume_dir(self._volume), unsynced.files)
        aside = await trio.to_thread.run_sync(work)
        self._say(aside_sentence(writer, aside.directory, aside.whole, aside.partial))
        await self._forget(unsynced.files, cache)

    async def _replace(self, newer: str, history: History, record: RootRecord) -> None:
        """One transaction; the cache keeps what is the same in both versions."""
        database = self._database
        await database.sync()
        changes = await trio.to_thread.run_sync(database_difference, database.path, newer)
        await self._forget(_outdated(database, changes), CacheFiles(self._paths.cache_dir(self._volume)))
        shutil.rmtree(self._paths.history_dir(self._volume), ignore_errors=True)
        database.apply(changes)
        for table in FROM_ANOTHER_VERSION:
            database.write(f"DELETE FROM {table}")  # noqa: S608 - a constant
        self._marks.forget_marks(LOOKED_FOR)
        mark_prepared(self._marks, history, record)
        mark_published(self._marks, record)
        await database.sync()

    def _unpublished(self, pending: bytes, newer: str) -> list[bytes]:
        """Every changeset that no version on hosts has; of merged ones the published part as well. In a thread.

        A checkpoint has none, and one that was kept may be gone: then all that differs from ``newer``, a database.
        """
        segments = [one for one in self._known.history.segments if one.number > self._known.published]
        kept = [self._kept.read(segment) for segment in segments]
        if None in kept:
            return [database_difference(newer, self._database.path)]
        return [changes for changes in (pending, *kept) if changes]

    async def _forget(self, files: frozenset[InodeNumber], cache: CacheFiles) -> None:
        """Take files out of the cache: first their rows, on the disk, then their bytes."""
        rows = [(inode,) for inode in files]
        self._database.write_many("DELETE FROM local WHERE inode = ?", rows)
        self._database.write_many("UPDATE local_use SET bytes = 0 WHERE inode = ?", rows)
        await self._database.sync()
        for inode in files:
            cache.remove(inode)


async def newest_shown(roots: NewestRoot, patience_seconds: float) -> tuple[bool, RootRecord | None]:
    """Whether any host answers in time, and the newest record they show: the same twice, when there is time for it."""
    heard, before = False, None
    with trio.move_on_after(patience_seconds):
        while True:
            try:
                found = await roots.fetch()
            except Unavailable:
                heard = False
            else:
                if heard and found == before:
                    break
                heard, before = True, found
            await trio.sleep(PAUSE_SECONDS)
    return heard, before


def observed_seconds(marks: Journal, record: RootRecord) -> float:
    """For how long a record has been the newest, as far as this machine knows; it is remembered from now on.

    By the clock that counts on while the machine sleeps and that nobody sets.
    """
    now, boot = time.clock_gettime(time.CLOCK_BOOTTIME), boot_id()
    remembered = marks.mark(SEEN)
    if isinstance(remembered, bytes):
        signature, seen_boot, seen = msgspec.msgpack.decode(remembered, type=tuple[bytes, str, float])
        if (signature, seen_boot) == (record.signature, boot):
            return max(0.0, now - seen)
    marks.set_mark(SEEN, msgspec.msgpack.encode((record.signature, boot, now)))
    return 0.0


def aside_sentence(writer: str, directory: str, whole: int, partial_files: int) -> str:
    """What a person has to know of what was set aside."""
    said = f"{writer} wrote to this volume meanwhile; what was only here is in {directory}"
    if whole:
        said += f": {whole} file{'s' * (whole != 1)} below files/"
    if partial_files:
        said += f"{' and' if whole else ':'} parts of {partial_files} more below cache/"
    return said


def last_writer_is(device: NodeId, database: Database) -> bool:
    """Whether this machine published the newest version that is here, or nobody ever published one."""
    known = Known.read(Journal(database))
    return known.record is None or _is_by(known.history, device)


def _seen(record: RootRecord | None, history: History) -> Seen | None:
    return None if record is None else Seen(record.version, history.lease)


def _is_by(history: History, device: NodeId) -> bool:
    return history.lease is not None and history.lease.device == device


def _refusal(volume: str, refused: Refuse) -> str:
    free_at = time.strftime("%H:%M", time.localtime(refused.until_ms / 1000 + 60))
    return (
        f"{refused.holder} writes to volume {volume}: -o ro reads it here, --take-over takes it from there; "
        f"if {refused.holder} has crashed, it is free at {free_at}"
    )


def _outdated(database: Database, changes: bytes) -> frozenset[InodeNumber]:
    """Files in the cache whose bytes a change touches."""
    about = touched(changes)
    files = {block[0] for block in about.blocks} | about.removed
    for content in about.contents:
        files.update(
            InodeNumber(row[0]) for row in database.rows("SELECT inode FROM block WHERE content = ?", (content,))
        )
    return frozenset(files)


async def _settle_cache(database: Database, directory: str) -> None:
    """After an unclean end: have rows and cache files agree, so that what is dirty is known to be."""
    journal, tree = Journal(database), Tree(database)
    if journal.mark(RUNNING) is None:
        return
    inodes = Inodes(tree)
    shelf = Shelf(Ledger({}, 0, 0), journal, Catalog(database), CacheFiles(directory), inodes.block_bytes_of)
    recovery = Recovery(shelf, database.sync, boot_id(), time.time, follows=False)
    await recovery.recover()
    await trio.to_thread.run_sync(shelf.files.sync_all)
    recovery.stopped()
    await database.sync()
