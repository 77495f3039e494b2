"""A volume brought back from the network with its 24 words.

Owns being on the network for that, and the way from the newest root record to a database on this machine; contents
follow when they are read. The way without any root record is ``layrfs.app.scanning``. Must not know the command line.
Invariant: the volume's database appears under its name complete and checked, or not at all.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Awaitable, Callable

import msgspec
import trio

from layrfs.app.membership import Membership
from layrfs.app.reaching import network_of
from layrfs.app.state_directory import has_entries, locked
from layrfs.config import Paths
from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import BadMessage, CorruptFile, NotFound, Unavailable
from layrfs.history.arriving import observed_seconds
from layrfs.history.known import mark_prepared, mark_published
from layrfs.history.leasing import history_of
from layrfs.history.rescuing import NOTHING_RESCUED, Rescued
from layrfs.history.restoring import restore_segments
from layrfs.history.roots import Roots
from layrfs.ids import NodeId
from layrfs.model.history import History
from layrfs.model.root_record import RootRecord
from layrfs.network.links import HostLinks
from layrfs.pipeline.pooled import PooledTransfers
from layrfs.pipeline.transfers import Transfers
from layrfs.policy.leasing import held_until_ms
from layrfs.storage.cache_files import failed
from layrfs.storage.changes import count_unsent, settle
from layrfs.storage.database import Database
from layrfs.storage.journal import Journal
from layrfs.storage.kept_changes import KeptChanges

HOSTS_SECONDS = 30.0
"""How long hosts are sought that answer."""

RECORD_SECONDS = 10.0
"""How long those that answer are asked for a record that none of them knows: others may still be joining."""

PAUSE_SECONDS = 0.5

SCAN_HINT = "`layrfs recover --scan` looks for what is left of the volume piece by piece."

Say = Callable[[str], None]


class Recovered(msgspec.Struct, frozen=True):
    """What came back. ``lost`` files have parts that never reached a host, ``older`` ones are as they were before.

    ``held_until_ms``: until when, by our clock, the machine that wrote it may still be writing; 0: it has stopped.
    """

    version: int
    device: str
    time_ms: int
    files: int
    lost: int
    older: int
    rescued: Rescued = NOTHING_RESCUED
    held_until_ms: int = 0


class Reach(msgspec.Struct, frozen=True):
    """Where a volume is to be recovered, and what reaches its hosts."""

    paths: Paths
    volume: str
    keys: VolumeKeys
    device: NodeId
    membership: Membership
    links: HostLinks
    transfers: PooledTransfers
    say: Say

    @property
    def roots(self) -> Roots:
        """The volume's root records on the network."""
        return Roots(self.links, self.membership, self.keys.volume_id)

    @property
    def directory(self) -> str:
        """For what is only needed meanwhile."""
        return os.path.join(self.paths.volume_dir(self.volume), "recovering")


Way = Callable[[Reach], Awaitable[Recovered]]


async def by_record(reach: Reach) -> Recovered:
    """As the newest root record says."""
    record = await newest_record(reach.roots)
    reach.say(f"version {record.version} of the volume was found")
    try:
        recovered = await restore_record(reach.paths, reach.volume, reach.keys, reach.transfers, record)
    except (Unavailable, CorruptFile, BadMessage) as error:
        raise type(error)(f"{error} {SCAN_HINT}") from error
    until_ms = held_until_ms(history_of(record, reach.keys).lease, reach.device, int(time.time() * 1000))
    return msgspec.structs.replace(recovered, held_until_ms=until_ms or 0)


async def recover(paths: Paths, volume: str, keys: VolumeKeys, say: Say, way: Way = by_record) -> Recovered:
    """Make the volume's database here; its key file is the caller's. The network is that of ``network.json``.

    What is there of the volume without its key is set aside first. Raises ``StateInUse``, ``NotFound`` (hosts
    answer and none has heard of the volume), ``Unavailable``, ``Unreachable``, ``CorruptFile``, ``LocalError``;
    nothing is left under the database's name then.
    """
    with locked(paths.volume_dir(volume)):
        if aside := _set_aside(paths, volume):
            say(f"what this machine had of the volume, without its key, is in {aside} now")
        return await _recover(paths, volume, keys, say, way)


def _set_aside(paths: Paths, volume: str) -> str | None:
    """Move what a volume whose key file is gone left here: it may be the only copy of something."""
    directory = paths.volume_dir(volume)
    left = [name for name in os.listdir(directory) if name.startswith("metadata.db")]
    left += [name for name in ("cache", "history") if has_entries(os.path.join(directory, name))]
    if not left:
        return None
    aside = os.path.join(directory, time.strftime("before-%Y%m%dT%H%M%SZ", time.gmtime()))
    try:
        os.mkdir(aside, 0o700)
        for name in left:
            os.rename(os.path.join(directory, name), os.path.join(aside, name))
    except OSError as error:
        raise failed(error, aside) from error
    return aside


async def _recover(paths: Paths, volume: str, keys: VolumeKeys, say: Say, way: Way) -> Recovered:
    async with network_of(paths, volume, keys, {}) as found:
        reach = Reach(paths, volume, keys, found.device, found.membership, found.links, found.transfers, say)
        return await way(reach)


async def newest_record(roots: Roots) -> RootRecord:
    """Asked twice at least: the first hosts that are found need not be those that know."""
    began = trio.current_time()
    before: RootRecord | None = None
    while True:
        try:
            found = await roots.fetch()
        except Unavailable:
            if trio.current_time() >= began + HOSTS_SECONDS:
                raise
        else:
            if found is not None and found == before:
                return found
            if found is None and trio.current_time() >= began + RECORD_SECONDS:
                raise NotFound(f"The hosts of this network know no volume of this phrase. {SCAN_HINT}")
            before = found
        await trio.sleep(PAUSE_SECONDS)


async def restore_record(
    paths: Paths, volume: str, keys: VolumeKeys, transfers: Transfers, record: RootRecord
) -> Recovered:
    """The volume as of one record. Raises what `recover` does."""
    history = history_of(record, keys)
    directory = os.path.join(paths.volume_dir(volume), "recovering")
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(kept := os.path.join(directory, "history"), mode=0o700)
    try:
        database = await restore_segments(history.segments, keys, transfers, directory, keep_in=KeptChanges(kept))
        recovered = _settled(database, history, record)
        await trio.to_thread.run_sync(settle, database, paths.database(volume))
        shutil.rmtree(paths.history_dir(volume), ignore_errors=True)
        os.rename(kept, paths.history_dir(volume))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return recovered


def _settled(path: str, history: History, record: RootRecord) -> Recovered:
    with Database(path) as database:
        lost, older = count_unsent(database)
        marks = Journal(database)
        mark_prepared(marks, history, record)
        mark_published(marks, record)
        observed_seconds(marks, record)  # from now on we see whether its writer lives
        files: int = database.value("SELECT count(*) FROM inode WHERE nlink > 0 AND number > 1")
    return Recovered(record.version, history.device, history.time_ms, files, lost, older)
