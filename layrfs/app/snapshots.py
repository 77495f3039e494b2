"""Snapshots being looked at: retained versions brought back from hosts, each with a small file system of its own.

Owns the directory ``snapshots`` of the volume, where nothing is worth keeping, and which versions are open: at most a
few, closed when nobody has used them for a while. Must not know inode numbers or the kernel. Invariants: a version in
use is neither closed nor pruned; of blocks that were on no host when it was made, no byte is ever shown, but in
one made by hand the bytes of the moment it was made, up to where the file ended then.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import shutil
from collections.abc import Mapping

import trio

from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import FileError, LayrError, LocalError, NotFound, RemoteError, innermost
from layrfs.history.restoring import restore_segments
from layrfs.pipeline.read_only import ReadOnlyTransfers
from layrfs.pipeline.transfers import Downloads
from layrfs.storage.cache_files import failed
from layrfs.storage.changes import end_where_sent
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.tree import Tree
from layrfs.storage.versions import Version, Versions
from layrfs.vfs.contents import Contents
from layrfs.vfs.filesystem import Filesystem
from layrfs.vfs.inodes import Inodes
from layrfs.vfs.namespace import Look
from layrfs.vfs.statfs import Space
from layrfs.vfs.xattrs import VirtualAttributes

_log = logging.getLogger(__name__)

OPEN_AT_ONCE = 4
"""Snapshots open at once, unless programs have files open in more."""

IDLE_SECONDS = 600.0
LOOK_SECONDS = 30.0
CACHE_SHARE = 8
"""A snapshot's cache is so many times smaller than the volume's."""

SMALLEST_CACHE_BYTES = 64 << 20
INODES_IN_MEMORY = 5000


class _Place:
    """A version on its way to be looked at, or there."""

    def __init__(self, version: Version, directory: str) -> None:
        self.version = version
        self.directory = directory
        self.users = 0
        self.used = trio.current_time()
        self.settled = trio.Event()
        """It is open, or it failed."""
        self.unneeded = trio.Event()
        self.filesystem: Filesystem | None = None
        self.error: LayrError | None = None

    async def opened(self) -> Filesystem:
        """Raises why it cannot be opened."""
        await self.settled.wait()
        if self.filesystem is None:
            error = self.error or LocalError("The drive is ending.")
            raise type(error)(str(error)) from error
        return self.filesystem

    def release(self) -> None:
        """One user fewer."""
        self.users -= 1
        self.used = trio.current_time()


class Snapshots:
    """Of one volume; ``run`` once."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        transfers: Downloads,
        keys: VolumeKeys,
        directory: str,
        cache_bytes: int,
        virtual_attributes: VirtualAttributes,
    ) -> None:
        """``catalog`` knows where pieces are today; ``cache_bytes`` is the volume's own limit."""
        self._versions = Versions(database)
        self._transfers = ReadOnlyTransfers(transfers, catalog)
        self._keys = keys
        self._directory = directory
        self._cache_bytes = max(SMALLEST_CACHE_BYTES, cache_bytes // CACHE_SHARE)
        self._virtual_attributes = virtual_attributes
        self._places: dict[int, _Place] = {}
        self._serial = itertools.count()
        self._wanted, self._todo = trio.open_memory_channel[_Place](math.inf)

    def by_name(self) -> Mapping[str, Version]:
        """What there is to look at."""
        return self._versions.by_name()

    def in_use(self) -> list[int]:
        """The numbers of versions that are being looked at: they are not to be pruned."""
        return list(self._places)

    async def acquire(self, number: int) -> Look:
        """A look at a version, which is opened if need be.

        Raises ``NotFound``, and ``RemoteError`` or ``LocalError`` when it cannot be opened now.
        """
        place = self._places.get(number) or self._begin(number)
        place.users += 1
        try:
            return Look(await place.opened(), place.release)
        except BaseException:
            place.release()
            raise

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open and close what is asked for, until cancelled."""
        await trio.to_thread.run_sync(_empty, self._directory)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._close_idle)
            task_status.started()
            async for place in self._todo:
                nursery.start_soon(self._serve, place)

    def _begin(self, number: int) -> _Place:
        version = self._versions.find(number)
        if version is None:
            raise NotFound("This snapshot is not there any more.")
        unused = sorted((place for place in self._places.values() if not place.users), key=lambda place: place.used)
        for place in unused[: max(0, len(self._places) + 1 - OPEN_AT_ONCE)]:
            self._close(place)
        name = f"{number}-{next(self._serial)}"  # the one of before may still be on its way out
        place = self._places[number] = _Place(version, os.path.join(self._directory, name))
        self._wanted.send_nowait(place)
        return place

    def _close(self, place: _Place) -> None:
        del self._places[place.version.number]
        place.unneeded.set()

    async def _close_idle(self) -> None:
        while True:
            await trio.sleep(LOOK_SECONDS)
            oldest = trio.current_time() - IDLE_SECONDS
            for place in [one for one in self._places.values() if not one.users and one.used < oldest]:
                self._close(place)

    async def _serve(self, place: _Place) -> None:
        """From opening to closing; nothing is left of it then."""
        try:
            await self._open(place)
        except (LayrError, ExceptionGroup) as group:
            error = innermost(group)
            if not isinstance(error, LayrError):
                raise
            _log.warning("snapshot %d cannot be looked at: %s", place.version.number, error)
            is_plain = isinstance(error, FileError | RemoteError | LocalError)
            place.error = error if is_plain else LocalError(f"The snapshot cannot be opened: {error}")
        finally:
            if self._places.get(place.version.number) is place:
                del self._places[place.version.number]
            place.settled.set()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(_remove, place.directory)

    async def _open(self, place: _Place) -> None:
        await trio.to_thread.run_sync(_make, place.directory)
        segments = self._versions.segments_of(place.version)
        path = await restore_segments(segments, self._keys, self._transfers, place.directory)
        with Database(path) as database:
            by_hand = place.version.name is not None
            if by_hand:
                end_where_sent(database)
            tree = Tree(database)
            inodes = Inodes(tree, capacity=INODES_IN_MEMORY)
            # one made by hand was made when everything had just been sent
            catalog = Catalog(database, unsent_elsewhere=True, older_counts=by_hand)
            contents = self._contents(database, catalog, inodes, os.path.join(place.directory, "cache"))
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(contents.run)
                    nursery.start_soon(database.run)
                    place.filesystem = self._filesystem(database, tree, inodes, contents)
                    place.settled.set()
                    await place.unneeded.wait()
                    nursery.cancel_scope.cancel()
            finally:
                contents.close(in_order=False)

    def _contents(self, database: Database, catalog: Catalog, inodes: Inodes, directory: str) -> Contents:
        return Contents(
            database=database,
            catalog=catalog,
            cache_directory=directory,
            transfers=self._transfers,
            block_bytes_of=inodes.block_bytes_of,
            cache_bytes=self._cache_bytes,
            follows=True,
        )

    def _filesystem(self, database: Database, tree: Tree, inodes: Inodes, contents: Contents) -> Filesystem:
        return Filesystem(
            database,
            tree,
            inodes,
            contents,
            space=lambda: Space(0, 0),
            virtual_attributes=self._virtual_attributes,
            read_only=True,
        )


def _empty(directory: str) -> None:
    _remove(directory)
    _make(directory)


def _make(directory: str) -> None:
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
    except OSError as error:
        raise failed(error, directory) from error


def _remove(directory: str) -> None:
    shutil.rmtree(directory, ignore_errors=True)
