"""A volume recovered without its root record: from what the pieces on hosts say of themselves.

Owns the order: list every host's pieces; put the newest whole version of the metadata together; whatever contents it
does not know, because they are newer or because there is no metadata, go to ``lost+found``. Must not know the command
line. Invariant: as in ``layrfs.app.recovering``, and interrupted it can be run again: it changes nothing on hosts.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import trio

from layrfs.app.recovering import Reach, Recovered
from layrfs.crypto.keys import VolumeKeys
from layrfs.crypto.root_body import seal_root_body
from layrfs.errors import BadMessage, CorruptFile, NotFound, RemoteError, Unavailable, WorkerLost
from layrfs.history.inventories import every_host, take_inventories
from layrfs.history.known import mark_prepared, mark_published
from layrfs.history.rescuing import Examiner, Rescued, Rescuer, completed
from layrfs.history.restoring import blob_path, build_database
from layrfs.model.history import METADATA_INODE, History, Moment, Segment
from layrfs.model.root_record import RootRecord
from layrfs.model.shard_format import MAX_PAYLOAD_BYTES
from layrfs.policy.chains import Found, chains, whole_segments
from layrfs.storage.changes import count_unsent, settle
from layrfs.storage.database import Database
from layrfs.storage.journal import Journal
from layrfs.storage.sightings import Sightings

CLOCKS_DIFFER_SECONDS = 600
"""Contents that a version does not name are newer than it when they were stored later, by the clocks of other hosts."""

Progress = Callable[[str], None]

DEVICE = "layrfs recover --scan"
"""Named as the writer of a volume that is only what a scan found."""


class Version(msgspec.Struct, frozen=True):
    """The metadata as it was once: a database on this disk."""

    history: History
    stored: int
    path: str


def by_scan(progress: Progress) -> Callable[[Reach], Awaitable[Recovered]]:
    """The way of ``recovering.recover`` that needs no root record; ``progress`` takes short lines."""
    return partial(_scan, progress=progress)


async def _scan(reach: Reach, *, progress: Progress) -> Recovered:
    shutil.rmtree(reach.directory, ignore_errors=True)
    os.makedirs(reach.directory, mode=0o700)
    try:
        with Sightings(os.path.join(reach.directory, "sightings.db")) as sightings:
            await _look(reach, sightings, progress)
            newest = max(sightings.highest_number(), await _known_version(reach))
            version = await newest_version(sightings, reach.transfers, reach.keys, reach.directory, reach.say)
            recovered = await _complete(reach, sightings, version, newest + 1, progress)
    finally:
        shutil.rmtree(reach.directory, ignore_errors=True)
    return recovered


async def _look(reach: Reach, sightings: Sightings, progress: Progress) -> None:
    """Ask every host. Raises ``Unavailable`` (nobody is there), ``NotFound`` (they have nothing)."""
    hosts = await every_host(reach.membership)
    if not hosts:
        raise Unavailable("No host of the network can be reached.")
    taken = await take_inventories(hosts, reach.links, reach.keys.mask, sightings, progress)
    if not sightings.pieces():
        raise NotFound(f"None of {taken.hosts} hosts keeps anything of a volume with this phrase.")
    reach.say(f"{sightings.pieces()} pieces of the volume are on {taken.hosts} hosts")
    if taken.broken_off:
        reach.say(f"{len(taken.broken_off)} of these did not tell all; what is only there may be found by another scan")


async def _known_version(reach: Reach) -> int:
    """Of a root record that is still there; the next one has to be newer."""
    try:
        record = await reach.roots.fetch()
    except RemoteError:
        return 0
    return 0 if record is None else record.version


# -------------------------------------------------------------------- metadata


async def newest_version(
    sightings: Sightings, examiner: Examiner, keys: VolumeKeys, directory: str, say: Progress
) -> Version | None:
    """The newest version whose segments can all be fetched and fit together. Raises ``LocalError``."""
    bad: set[bytes] = set()
    for chain in chains(whole_segments(sightings.metadata())):
        if any(found.tag in bad for found in chain):
            continue
        place = os.path.join(directory, "version")
        shutil.rmtree(place, ignore_errors=True)
        os.mkdir(place, 0o700)
        try:
            segments = []
            for found in chain:
                segments.append(await _fetched(found, sightings, examiner, place))
            path = await build_database(segments, keys, place)
        except (Unavailable, WorkerLost) as error:
            bad.add(found.tag)
            say(f"version {chain[-1].number} of the list of files cannot be fetched: {error}")
        except (CorruptFile, BadMessage) as error:
            say(f"version {chain[-1].number} of the list of files is of no use: {error}")
        else:
            stored = chain[-1].stored
            return Version(History(tuple(segments), time_ms=stored * 1000), stored, path)
    return None


async def _fetched(found: Found, sightings: Sightings, examiner: Examiner, directory: str) -> Segment:
    """A segment whose blob is on this disk. Raises ``Unavailable``, ``BadMessage``, ``LocalError``, ``WorkerLost``."""
    shards, blob_bytes = [], 0
    for index, salt in enumerate(found.salts):
        shard, _ = sightings.shard(salt)
        offset = index * MAX_PAYLOAD_BYTES
        examined = await examiner.examine(shard, blob_path(directory, found.number), offset)
        if [(part.inode, part.block) for part in examined.parts] != [(METADATA_INODE, index)]:
            raise BadMessage("a shard is not what its note says")
        shards.append(completed(shard, examined))
        blob_bytes = offset + examined.plain_bytes
    return Segment(found.kind, found.number, blob_bytes, tuple(shards))


# ------------------------------------------------------------------- the volume


async def _complete(
    reach: Reach, sightings: Sightings, version: Version | None, number: int, progress: Progress
) -> Recovered:
    """The database under its name, with what the version does not know in ``lost+found``."""
    if version is None:
        reach.say("no list of files is whole: contents come back without names")
        version = Version(
            History(device=DEVICE, time_ms=int(time.time() * 1000)), 0, os.path.join(reach.directory, "metadata.db")
        )
    with Database(version.path) as database:
        if not version.history.segments:
            database.write("INSERT INTO volume VALUES('id', ?)", (reach.keys.volume_id,))
        sightings.forget(salt for (salt,) in database.rows("SELECT salt FROM shard"))
        rescued = await Rescuer(database, reach.transfers, sightings, progress).run(
            version.stored - CLOCKS_DIFFER_SECONDS
        )
        history = _of_now(version.history, database)
        _mark(database, reach.keys, history, number)
        recovered = _summary(database, history, number, rescued)
    await trio.to_thread.run_sync(settle, version.path, reach.paths.database(reach.volume))
    return recovered


def _of_now(history: History, database: Database) -> History:
    last_shard: int = database.value("SELECT coalesce(max(number), 0) FROM shard")
    unsent: int = database.value("SELECT count(*) FROM unsent")
    return msgspec.structs.replace(history, moment=Moment(history.time_ms, last_shard, unsent))


def _mark(database: Database, keys: VolumeKeys, history: History, number: int) -> None:
    """As if the version had just been prepared here: the next mount publishes it.

    Without segments there is nothing to publish but what was rescued, which becomes the next version: hosts are never
    told of an empty volume.
    """
    body = seal_root_body(keys.content, keys.volume_id, number, history.to_bytes())
    record = RootRecord.sign(keys.root_private, version=number, time_ms=history.time_ms, body=body)
    marks = Journal(database)
    mark_prepared(marks, history, record)
    if not history.segments:
        mark_published(marks, record)


def _summary(database: Database, history: History, number: int, rescued: Rescued) -> Recovered:
    if not history.segments and not rescued.files:
        raise NotFound("Nothing of the volume can be read: all that was found is incomplete.")
    lost, older = count_unsent(database)
    files: int = database.value("SELECT count(*) FROM inode WHERE nlink > 0 AND number > 1")
    return Recovered(number, history.device, history.time_ms, files, lost, older, rescued)
