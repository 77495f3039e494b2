"""What the control socket is told of snapshots: made, listed, deleted.

Must not know how one is opened. A snapshot that was made can be read whole: what was dirty went to hosts first.
"""

from __future__ import annotations

from layrfs.app.syncing import Syncer
from layrfs.control import commands
from layrfs.control.commands import Progress
from layrfs.errors import NotFound, ReadOnly
from layrfs.history.publishing import Publisher
from layrfs.model.snapshot_names import check_name
from layrfs.model.status import Done, Snapshot, SnapshotList
from layrfs.storage.database import Database
from layrfs.storage.versions import Version, Versions


class SnapshotCommands:
    """The handlers."""

    def __init__(self, *, database: Database, publisher: Publisher, syncer: Syncer, read_only: bool) -> None:
        self._database = database
        self._versions = Versions(database)
        self._publisher = publisher
        self._syncer = syncer
        self._read_only = read_only

    def table(self) -> list[commands.Bound]:
        """Their part of the table."""
        return [
            commands.SNAPSHOT_CREATE.bind(self.create),
            commands.SNAPSHOT_LIST.bind(self.list_all),
            commands.SNAPSHOT_DELETE.bind(self.delete),
        ]

    async def create(self, request: commands.CreateSnapshot, progress: Progress) -> Snapshot:
        """Raises ``InvalidArgument``, ``AlreadyExists``, ``ReadOnly``, ``OwnerError``."""
        self._check_writable()
        if request.name is not None:
            check_name(request.name)
        await self._syncer.sync(None, progress)
        version = await self._publisher.retain(request.name)
        return _snapshot(version.name or "", version)

    async def list_all(self, _request: commands.Nothing, _progress: Progress) -> SnapshotList:
        """Newest first."""
        found = [_snapshot(name, version) for name, version in self._versions.by_name().items()]
        return SnapshotList(tuple(sorted(found, key=lambda snapshot: -snapshot.version)))

    async def delete(self, request: commands.DeleteSnapshot, _progress: Progress) -> Done:
        """Raises ``NotFound``, ``ReadOnly``."""
        self._check_writable()
        version = self._versions.by_name().get(request.name)
        if version is None:
            raise NotFound(f"There is no snapshot {request.name}; `layrfs snapshot list` shows them.")
        self._publisher.drop([version.number])
        await self._database.sync()
        return Done()

    def _check_writable(self) -> None:
        if self._read_only:
            raise ReadOnly("The volume is mounted read-only.")


def _snapshot(name: str, version: Version) -> Snapshot:
    return Snapshot(name, version.number, version.time_ms, version.unsent, kept=version.name is not None)
