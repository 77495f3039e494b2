"""``layrfs fsck``: a volume that nobody has mounted, checked from its database's bytes to its hosts, and repaired.

Owns the order: the file, its rows, the cache against them, hosts against them; a damaged file is made anew before
anything else is believed. Must not know the command line. Without ``repair`` nothing is changed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import trio

from layrfs.app.cache_checks import CacheChecks
from layrfs.app.copies import CopyChecks
from layrfs.app.host_watch import remembered_hosts
from layrfs.app.reaching import Network, network_of
from layrfs.app.rebuilding import Volume, rebuild
from layrfs.app.state_directory import check_database_is_there, locked
from layrfs.config import Paths
from layrfs.crypto.digests import BlockDigester
from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import CorruptFile, RemoteError, StateInUse
from layrfs.model.findings import CheckReport, Finding
from layrfs.storage import soundness
from layrfs.storage.cache_files import CacheFiles
from layrfs.storage.checking import RUNNING, RowChecks, marks_are_sound
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.journal import Journal
from layrfs.storage.nameless import Nameless, Owner
from layrfs.vfs.reconciling import Reconciler

Say = Callable[[str], None]


async def check(paths: Paths, volume: str, keys: VolumeKeys, *, repair: bool, deep: bool, say: Say) -> CheckReport:
    """Check one volume, and with ``repair`` put right what can be.

    Raises ``StateInUse`` (it is mounted), ``Unavailable`` or ``NotFound`` (its database has to be made anew, and hosts
    do not say from what: nothing was touched), ``LocalError``.
    """
    owner = Owner(os.getuid(), os.getgid(), time.time_ns())
    place = Volume(paths=paths, name=volume, keys=keys, owner=owner)
    with _alone(place):
        try:
            return await _checked(place, repair=repair, deep=deep, say=say)
        finally:
            shutil.rmtree(place.work, ignore_errors=True)


@contextlib.contextmanager
def _alone(place: Volume) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(place.directory))
        except StateInUse:
            raise StateInUse(f"volume {place.name} is in use; unmount it first") from None
        yield


async def _checked(place: Volume, *, repair: bool, deep: bool, say: Say) -> CheckReport:
    reason = await trio.to_thread.run_sync(_damage, place)
    if reason is None and not os.path.exists(place.database):
        return CheckReport((Finding("database", "note", "the volume was never mounted here: there is nothing yet"),))
    if reason is None:
        return await _check_sound(place, repair=repair, deep=deep)
    damaged = Finding("database", "problem", f"the database is damaged: {reason}", repairable=True)
    if not repair:
        return CheckReport((damaged,), left=(damaged,))
    say(f"the database is damaged ({reason}); making it anew")
    async with network_of(place.paths, place.name, place.keys, {}) as network:
        said = await rebuild(place, network, reason, say)
    after = await _check_sound(place, repair=True, deep=deep)
    return CheckReport((damaged, *after.findings), (*said, *after.repairs), after.left)


def _damage(place: Volume) -> str | None:
    """What is wrong with the database as a file, or with what says which version of the volume it is; blocks."""
    path, note = place.database, soundness.read_note(place.database)
    if note is not None and note.aside:
        return note.reason
    try:
        check_database_is_there(place.paths, place.name)
    except CorruptFile:
        return "it is missing"
    if not os.path.exists(path):
        return None
    if soundness.seal_state(path) == "broken":
        return "its bytes changed while nobody was using it"
    if found := soundness.integrity_check(path):
        return found[0]
    soundness.remove_note(path)  # a false alarm: what was found is not in the file
    with Database(path) as database:
        if database.value("SELECT value FROM volume WHERE name = 'id'") not in {None, place.keys.volume_id}:
            raise CorruptFile(f"{path} belongs to another volume than the key beside it")
        return None if marks_are_sound(Journal(database)) else "it does not say which version of the volume it is"


async def _check_sound(place: Volume, *, repair: bool, deep: bool) -> CheckReport:
    """The database can be believed as a file; what do its rows say?"""
    os.makedirs(place.work, mode=0o700, exist_ok=True)
    with Database(place.database) as database:
        catalog = Catalog(database)
        async with _network(place, catalog) as network:
            checks = _Checks(place, database, network)
            found = await checks.find(deep=deep)
            if not repair or not any(finding.repairable for finding in found):
                return CheckReport(tuple(found), left=tuple(found))
            said = await checks.repair(deep=deep)
            left = await _Checks(place, database, network).find(deep=deep)
    return CheckReport(tuple(found), tuple(said), tuple(left))


@asynccontextmanager
async def _network(place: Volume, catalog: Catalog) -> AsyncIterator[Network | None]:
    """None when there is nothing to ask, or nobody."""
    async with contextlib.AsyncExitStack() as stack:
        network = None
        if catalog.shard_count():
            try:
                remembered = remembered_hosts(catalog)
                network = await stack.enter_async_context(network_of(place.paths, place.name, place.keys, remembered))
            except* RemoteError:
                network = None
        yield network


class _Checks:
    """All of one volume's."""

    def __init__(self, place: Volume, database: Database, network: Network | None) -> None:
        self._database = database
        self._unclean = Journal(database).mark(RUNNING) is not None
        digester = BlockDigester(place.keys.digest_key)
        reconciler = Reconciler(
            database,
            CacheFiles(place.paths.cache_dir(place.name)),
            digester,
            None if network is None else network.transfers,
            scratch=os.path.join(place.work, "scratch"),
        )
        self._rows = RowChecks(database, place.owner)
        lost_found = Nameless(database, place.owner)
        self._cache = CacheChecks(database, reconciler, lost_found, unclean=self._unclean)
        self._copies = None if network is None else CopyChecks(database, network, digester, place.work)
        self._has_shards = bool(Catalog(database).shard_count())

    async def find(self, *, deep: bool) -> list[Finding]:
        found = list(self._rows.find())
        if self._unclean:
            text = "the last run did not end in order; the next mount looks through the cache"
            found.append(Finding("end of the last run", "note", text))
        found += await self._cache.find(deep=deep)
        if self._copies is not None:
            found += await self._copies.find(deep=deep)
        elif self._has_shards:
            found.append(Finding("hosts", "note", "no host can be reached: copies were not checked"))
        return found

    async def repair(self, *, deep: bool) -> list[str]:
        said = self._cache.adopt_strays()
        said += self._rows.repair()
        said += await self._cache.repair(deep=deep)
        said += self._rows.repair()  # sums of the cache, and names for copies that were set aside
        if self._copies is not None:
            said += self._copies.repair()
        await self._database.sync()
        return said
