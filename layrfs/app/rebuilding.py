"""A damaged database made anew: from the network, from what can be read of the old one, and from the cache.

Owns the order. The new database is complete under another name before anything is moved; the old files get a second
name in ``damaged-TIME`` and are never deleted; a note keeps everybody from opening a half-exchanged database, so this
may be killed at any point and run again. Must not know the command line.

What each source is believed for: the network's newest version (or the one prepared here since) for everything; the old
database's pending changes when they fit on exactly that version; cache files for bytes, compared by digest, never by
the old journal, which may only tell in doubt that bytes are newer.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time

import msgspec
import trio

from layrfs.app.cache_checks import sentences
from layrfs.app.reaching import Network
from layrfs.app.recovering import Say, newest_record
from layrfs.app.state_directory import has_entries
from layrfs.config import Paths
from layrfs.crashpoints import reached
from layrfs.crypto.digests import BlockDigester
from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import BadMessage, CorruptFile, NotFound, Unavailable
from layrfs.history.known import mark_prepared
from layrfs.history.leasing import history_of
from layrfs.history.restoring import restore_segments
from layrfs.model.root_record import RootRecord, verified_untrusted
from layrfs.storage import soundness
from layrfs.storage.cache_files import CacheFiles, failed, sync_path
from layrfs.storage.changes import settle
from layrfs.storage.checking import RUNNING, RowChecks
from layrfs.storage.database import Database
from layrfs.storage.journal import Journal
from layrfs.storage.nameless import Nameless, Owner
from layrfs.storage.salvage import ENDINGS, Salvaged, salvage
from layrfs.storage.soundness import Note
from layrfs.vfs.reconciling import Judged, Outcome, Reconciler

NUMBERS_SKIPPED = 4096
"""Inode numbers given out since the published version are not known: as many are left out."""


class Volume(msgspec.Struct, frozen=True):
    """Which volume on this machine, and who repairs it."""

    paths: Paths
    name: str
    keys: VolumeKeys
    owner: Owner

    @property
    def database(self) -> str:
        return self.paths.database(self.name)

    @property
    def directory(self) -> str:
        return self.paths.volume_dir(self.name)

    @property
    def work(self) -> str:
        """For files that may go when a repair ends or begins."""
        return os.path.join(self.directory, "rebuilding")


class _Base(msgspec.Struct, frozen=True):
    """What the new database is made of: a version and its record, and whether this machine wrote it last."""

    record: RootRecord | None
    published: int
    is_ours: bool


async def rebuild(volume: Volume, network: Network, reason: str, say: Say) -> list[str]:
    """Replace the database; sentences on what came from where.

    Raises ``Unavailable`` or ``NotFound`` when hosts do not say what the volume was: nothing was touched then.
    """
    note = soundness.read_note(volume.database) or Note(reason)
    source = os.path.join(volume.directory, note.aside, "metadata.db") if note.aside else volume.database
    shutil.rmtree(volume.work, ignore_errors=True)
    os.makedirs(os.path.join(volume.work, "old"), mode=0o700)
    try:
        salvaged = await trio.to_thread.run_sync(salvage, source, os.path.join(volume.work, "old"))
        base = await _base(volume, network, salvaged)
        path, base = await _restored(volume, network, base, salvaged)
        say("the volume's newest version is here; comparing it with the cache")
        said, remnants = await _filled(volume, network, base, salvaged, path)
        reached("fsck: database complete")
        await trio.to_thread.run_sync(_exchange, volume, note, path)
        _finish(volume, remnants)
    finally:
        shutil.rmtree(volume.work, ignore_errors=True)
    return said


# --- which version


async def _base(volume: Volume, network: Network, salvaged: Salvaged) -> _Base:
    local = _local_record(volume, salvaged)
    try:
        newest: RootRecord | None = await newest_record(network.roots)
    except NotFound:
        never_published = salvaged.knows_marks and not salvaged.marks.get("published")
        if not never_published:
            raise NotFound(
                "The hosts that answer know no version of this volume, so its files' names are nowhere; nothing was "
                "touched. Try again when other hosts are there."
            ) from None
        newest = None
    published = 0 if newest is None else newest.version
    if local is not None and local.version > published:
        return _Base(local, published, is_ours=True)
    if newest is None:
        return _Base(None, 0, is_ours=True)
    lease = history_of(newest, volume.keys).lease
    return _Base(newest, published, is_ours=lease is not None and lease.device == network.device)


def _local_record(volume: Volume, salvaged: Salvaged) -> RootRecord | None:
    """The newest version that this machine prepared, as far as its database can be read."""
    root = salvaged.marks.get("root")
    try:
        record = verified_untrusted(root) if isinstance(root, bytes) else None
    except BadMessage:
        return None
    return record if record is not None and record.volume == volume.keys.volume_id else None


async def _restored(volume: Volume, network: Network, base: _Base, salvaged: Salvaged) -> tuple[str, _Base]:
    """A database of that version; of the one before, when hosts have not got the newest one prepared here."""
    directory = os.path.join(volume.work, "new")
    os.makedirs(directory, mode=0o700)
    if base.record is None:
        path = os.path.join(directory, "metadata.db")
        with Database(path):
            return path, base
    try:
        segments = history_of(base.record, volume.keys).segments
        return await restore_segments(segments, volume.keys, network.transfers, directory), base
    except (Unavailable, CorruptFile, BadMessage):
        if base.record.version <= base.published or not base.published:
            raise
    shutil.rmtree(directory)
    newest = await newest_record(network.roots)
    return await _restored(volume, network, _Base(newest, newest.version, is_ours=True), salvaged)


# --- what is in it


async def _filled(
    volume: Volume, network: Network, base: _Base, salvaged: Salvaged, path: str
) -> tuple[list[str], list[Judged]]:
    """Rows for what is newer than the version, and for what is in the cache; what was done, what is to be cleared."""
    with Database(path) as database:
        marks = Journal(database)
        said = [_source(base)]
        if base.record is not None:
            mark_prepared(marks, history_of(base.record, volume.keys), base.record)
            marks.set_mark("published", base.published)
        fitting = _apply(database, base, _local_record(volume, salvaged), salvaged)
        if salvaged.changes:
            said.append(f"{fitting} of {len(salvaged.changes)} readable changes since then were applied")
        database.write("INSERT OR IGNORE INTO volume VALUES('id', ?)", (volume.keys.volume_id,))
        _skip_numbers(database, salvaged)
        for pinned in salvaged.pinned:
            database.write("INSERT OR IGNORE INTO local_use(inode, bytes, used, pinned) VALUES(?, 0, 0, 1)", (pinned,))
        outcome = Outcome()
        strays = await _reconcile(volume, network, base, salvaged, database, outcome)
        said += list(RowChecks(database, volume.owner).repair())
        said += _sentences(outcome, strays)
        marks.set_mark(RUNNING, "fsck")
    return said, outcome.remnants


def _source(base: _Base) -> str:
    if base.record is None:
        return "the volume was never published: it is what could be read of the old database, and the cache"
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(base.record.time_ms / 1000))
    return f"names and attributes are those of version {base.record.version}, of {when}, from the network"


def _apply(database: Database, base: _Base, local: RootRecord | None, salvaged: Salvaged) -> int:
    """Changes that were not published yet, in order, up to the first that does not fit; how many fit."""
    if base.record != local:
        return 0
    for number, changes in enumerate(salvaged.changes):
        try:
            database.apply(changes)
        except CorruptFile:
            return number
        database.write("INSERT INTO local_change(changes) VALUES(?)", (changes,))
    return len(salvaged.changes)


def _skip_numbers(database: Database, salvaged: Salvaged) -> None:
    known = database.value("SELECT value FROM volume WHERE name = 'next_inode'") or 2
    following = max(known + NUMBERS_SKIPPED, salvaged.next_inode)
    database.write("INSERT OR REPLACE INTO volume VALUES('next_inode', ?)", (following,))


async def _reconcile(
    volume: Volume, network: Network, base: _Base, salvaged: Salvaged, database: Database, outcome: Outcome
) -> int:
    files = CacheFiles(volume.paths.cache_dir(volume.name))
    await trio.to_thread.run_sync(files.sync_all)
    reconciler = Reconciler(
        database,
        files,
        BlockDigester(volume.keys.digest_key),
        network.transfers,
        scratch=os.path.join(volume.work, "scratch"),
        said_dirty=salvaged.dirty,
        sizes=salvaged.sizes,
        is_latest_writer=base.is_ours,
    )
    list(RowChecks(database, volume.owner).repair())  # what the rest relies on: counters, a root, rows that fit
    lost_found = Nameless(database, volume.owner)
    strays = list(reconciler.strays())
    for inode in strays:
        reconciler.adopt(inode, lost_found)
    for inode in reconciler.cached():
        await reconciler.reconcile(inode, outcome)
        await trio.lowlevel.checkpoint()
    for inode in outcome.aside:
        reconciler.set_aside(inode, lost_found)
    return len(strays)


def _sentences(outcome: Outcome, strays: int) -> list[str]:
    adopted = f"{strays} files of which only the contents are left are in /lost+found"
    return [*sentences(outcome), *([adopted] if strays else [])]


# --- into its place


def _exchange(volume: Volume, note: Note, path: str) -> None:
    """The new database gets the name of the old one, whose files have second names by then."""
    aside = note.aside or time.strftime("damaged-%Y%m%dT%H%M%SZ", time.gmtime())
    directory = os.path.join(volume.directory, aside)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        soundness.write_note(volume.database, note)
        for ending in ENDINGS:
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                os.link(volume.database + ending, os.path.join(directory, f"metadata.db{ending}"))
        sync_path(directory, os.fsync)
        sync_path(volume.directory, os.fsync)
        soundness.write_note(volume.database, Note(note.reason, aside))
        reached("fsck: old database set aside")
        for ending in ENDINGS[1:]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(volume.database + ending)
        if has_entries(volume.paths.history_dir(volume.name)):  # of the old one's segments; it may be emptied
            shutil.rmtree(volume.paths.history_dir(volume.name))
    except OSError as error:
        raise failed(error, directory) from error
    settle(path, volume.database)
    reached("fsck: database exchanged")


def _finish(volume: Volume, remnants: list[Judged]) -> None:
    """From here on a mount would do the rest, as after any crash."""
    soundness.remove_note(volume.database)
    with Database(volume.database) as database:
        files = CacheFiles(volume.paths.cache_dir(volume.name))
        reconciler = Reconciler(
            database, files, BlockDigester(volume.keys.digest_key), None, scratch=os.path.join(volume.work, "scratch")
        )
        reconciler.clear(remnants)
        Journal(database).set_mark(RUNNING, None)
