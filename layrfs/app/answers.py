"""What the drive answers at its control socket: one method for each command of ``layrfs.control.commands``.

Gathers facts from the parts and moves bytes for the classic interface; decides nothing and keeps nothing. Handlers run
on the trio thread beside FUSE requests, so whatever grows with the volume yields now and then.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator

import trio

import layrfs
from layrfs.app.classic import Classic, NameChanged
from layrfs.app.losses import Losses
from layrfs.app.membership import Membership, choose_network
from layrfs.app.patching import Patching
from layrfs.app.paying import Money
from layrfs.app.pinning import Pinning
from layrfs.app.policy_setting import PolicySetting
from layrfs.app.snapshot_commands import SnapshotCommands
from layrfs.app.syncing import Syncer
from layrfs.app.upkeep import Upkeep
from layrfs.config import MountOptions
from layrfs.control import commands
from layrfs.control.commands import Progress
from layrfs.control.metrics import CONTENT_TYPE, exposition
from layrfs.control.server import Page
from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import CorruptFile, LocalError, NotADirectory, NotFound, NotSupported
from layrfs.history.following import Follower
from layrfs.history.publishing import Publisher
from layrfs.ids import ROOT_INODE, InodeNumber
from layrfs.model.audits import AuditReport
from layrfs.model.costs import CostReport
from layrfs.model.health import HEALTHY, WORST_FIRST
from layrfs.model.status import (
    CacheDropped,
    Done,
    Fetched,
    ListEntry,
    ListPage,
    ManifestText,
    NetworkStatus,
    PathStatus,
    Stored,
    SyncReport,
    VolumeStatus,
)
from layrfs.storage.aside import asides
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.recoding import Recoding
from layrfs.storage.totals import Totals, count_totals
from layrfs.storage.tree import Tree
from layrfs.vfs.contents import Contents
from layrfs.vfs.directories import Listing
from layrfs.vfs.filesystem import Filesystem
from layrfs.vfs.inodes import Inode

YIELD_EVERY = 64
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
_STATES_WORST_FIRST = ("lost", "cached", "uploading", "degraded", "safe")


class Answers:
    """The handlers."""

    def __init__(
        self,
        *,
        volume: str,
        keys: VolumeKeys,
        options: MountOptions,
        network_file: str,
        state_directory: str,
        database: Database,
        tree: Tree,
        catalog: Catalog,
        contents: Contents,
        filesystem: Filesystem,
        classic: Classic,
        membership: Membership,
        publisher: Publisher,
        syncer: Syncer,
        losses: Losses,
        snapshots: SnapshotCommands,
        upkeep: Upkeep,
        follower: Follower | None,
    ) -> None:
        self._volume = volume
        self._keys = keys
        self._options = options
        self._network_file = network_file
        self._state_directory = state_directory
        self._database = database
        self._tree = tree
        self._catalog = catalog
        self._contents = contents
        self._filesystem = filesystem
        self._classic = classic
        self._membership = membership
        self._publisher = publisher
        self._syncer = syncer
        self._losses = losses
        self._follower = follower
        self._pinning = Pinning(contents, filesystem)
        self._setting = PolicySetting(database, filesystem, membership, self._below)
        self._recoding = Recoding(database)
        self._snapshots = snapshots
        self._upkeep = upkeep
        self._patching = Patching(upkeep, catalog, self._inodes_below, self._silent_hosts, read_only=options.read_only)
        self._started = time.monotonic()
        self.stopping = trio.Event()
        """Set by the command ``stop``; whoever runs the drive waits for it."""

    def table(self, mountpoint: str, name_changed: NameChanged) -> list[commands.Bound]:
        """The table, for a drive mounted at ``mountpoint`` (empty: not mounted).

        ``name_changed`` is told what changed without the kernel's doing, which remembers names for long.
        """

        async def status(_request: commands.Nothing, _progress: Progress) -> VolumeStatus:
            return await self._status(mountpoint)

        async def upload(request: commands.Upload, progress: Progress) -> Stored:
            return await self._upload(request, progress, name_changed)

        return [
            commands.STATUS.bind(status),
            commands.PATH_STATUS.bind(self.path_status),
            commands.SYNC.bind(self.sync),
            commands.CACHE_DROP.bind(self.cache_drop),
            *self._pinning.table(),
            *self._setting.table(),
            *self._upkeep.payments.table(),
            commands.AUDIT.bind(self.audit),
            commands.COST.bind(self.cost),
            commands.COLLECT.bind(self._upkeep.collect),
            commands.PATCH.bind(self._patching.patch),
            *self._upkeep.delegating.table(),
            commands.LIST.bind(self.list_directory),
            commands.MANIFEST.bind(self.manifest),
            commands.UPLOAD.bind(upload),
            commands.DOWNLOAD.bind(self.download),
            commands.NET_SHOW.bind(self.net_show),
            commands.NET_JOIN.bind(self.net_join),
            commands.NET_LEAVE.bind(self.net_leave),
            commands.STOP.bind(self.stop),
            *self._snapshots.table(),
        ]

    def pages(self, mountpoint: str) -> dict[str, Page]:
        """What the control socket hands out in HTTP."""

        async def metrics() -> str:
            return exposition(await self._status(mountpoint))

        return {"/metrics": Page(CONTENT_TYPE, metrics)}

    async def _status(self, mountpoint: str) -> VolumeStatus:
        try:
            with contextlib.suppress(LocalError):  # of a disk that takes nothing any more: it is among the problems
                self._database.commit()
            unread = self._catalog.reach.distrusted
            totals = await trio.to_thread.run_sync(count_totals, self._database.path, unread)
            hosts, waiting_bytes = self._membership.known_hosts(), self._contents.stats().dirty_bytes
            money = await self._upkeep.payments.money(hosts, totals.live_bytes, waiting_bytes)
            return self._counted_status(mountpoint, totals, money)
        except CorruptFile as error:  # nothing can be counted; that this is so must be said all the same
            pid, uptime_seconds = os.getpid(), int(time.monotonic() - self._started)
            return VolumeStatus(
                self._volume, mountpoint, pid=pid, uptime_seconds=uptime_seconds, problems=(str(error),)
            )

    def _counted_status(self, mountpoint: str, totals: Totals, money: Money) -> VolumeStatus:
        stats, pins = self._contents.stats(), self._contents.pins.stats()
        problems = [
            text
            for text in (
                self._database.problem,
                stats.problem,
                pins.problem,
                self._publisher.problem if self._follower is None else self._follower.problem,
                self._membership.problem,
                self._losses.sentence(),
                self._upkeep.lost.sentence,
                self._upkeep.delegating.problem,
            )
            if text
        ]
        if totals.needed:
            problems.append(f"{totals.needed} shards could not be read from any host")
        problems += self._upkeep.payments.problems(self._membership.known_hosts(), self._catalog.pieces.holders)
        problems += money.warnings
        problems += [
            f"what only this machine had is in {name}; remove it when you have what you need"
            for name in asides(self._state_directory)
        ]
        return VolumeStatus(
            volume=self._volume,
            mountpoint=mountpoint,
            volume_id=self._keys.volume_id.hex(),
            version=layrfs.__version__,
            pid=os.getpid(),
            uptime_seconds=int(time.monotonic() - self._started),
            read_only=self._filesystem.is_read_only,
            files=self._tree.inode_count - 1,
            file_bytes=totals.live_bytes + stats.dirty_bytes,
            cached_bytes=stats.cached_bytes,
            cache_limit_bytes=stats.limit_bytes,
            dirty_bytes=stats.dirty_bytes,
            uploading_bytes=stats.uploading_bytes,
            upload_bytes_per_second=int(stats.upload_bytes_per_second),
            shards=totals.shards,
            degraded_shards=stats.degraded_shards,
            lost_shards=totals.needed,
            health=self._upkeep.health.report(),
            deleted_bytes=totals.dead_bytes,
            eta_seconds=None if stats.eta_seconds is None else int(stats.eta_seconds),
            published_version=(self._follower or self._publisher).version,
            unpublished=self._follower is None and self._publisher.is_behind,
            follows=None if self._follower is None else self._follower.status(),
            pinned_bytes=pins.here_bytes,
            unfetched_bytes=pins.missing_bytes,
            problems=tuple(problems),
            hosts=self._upkeep.health.hosts(self._membership.known_hosts(), totals.pieces),
            network=self._membership.status(),
            money=money.status,
        )

    async def _silent_hosts(self) -> int:
        totals = await trio.to_thread.run_sync(count_totals, self._database.path)
        hosts = self._upkeep.health.hosts(self._membership.known_hosts(), totals.pieces)
        return sum(host.state == "silent" for host in hosts)

    async def path_status(self, request: commands.AtPath, _progress: Progress) -> PathStatus:
        inode = self._filesystem.resolve(request.path)
        redundancy = str(self._filesystem.redundancy_of(inode.number))
        if inode.is_directory:
            return await self._directory_status(request.path, inode, redundancy)
        cached, dirty = self._contents.usage(inode.number) if inode.is_file else (0, 0)
        blocks = -(-inode.size // inode.block_bytes) if inode.is_file else 0
        return PathStatus(
            path=request.path,
            kind=_kind(inode),
            state=self._contents.state(inode.number) if inode.is_file else "",
            size=inode.size,
            block_bytes=inode.block_bytes,
            redundancy=redundancy,
            cached_bytes=cached,
            dirty_bytes=dirty,
            runs=self._contents.runs(inode.number, blocks),
            health=self._upkeep.health.of(inode.number) if inode.is_file else "",
            otherwise_bytes=self._recoding.otherwise_bytes(inode.number),
        )

    async def _directory_status(self, path: bytes, directory: Inode, redundancy: str) -> PathStatus:
        files = size = cached = dirty = otherwise = 0
        states, healths = set[str](), set[str]()
        number, block_bytes = directory.number, directory.block_bytes
        for count, inode_number in enumerate(self._below(number)):
            try:
                inode = self._filesystem.getattr(inode_number)
            except NotFound:
                continue
            if inode.is_file:
                usage = self._contents.usage(inode_number)
                files, size, cached, dirty = files + 1, size + inode.size, cached + usage[0], dirty + usage[1]
                states.add(self._contents.state(inode_number))
                healths.add(self._upkeep.health.of(inode_number))
                otherwise += self._recoding.otherwise_bytes(inode_number)
            if count % YIELD_EVERY == 0:
                await trio.lowlevel.checkpoint()
        state = next((word for word in _STATES_WORST_FIRST if word in states), "safe")
        health = next((word for word in WORST_FIRST if word in healths), HEALTHY)
        counts = files, cached, dirty, (), otherwise, health
        return PathStatus(path, "directory", state, size, block_bytes, redundancy, *counts)

    async def sync(self, request: commands.AtPath, progress: Progress) -> SyncReport:
        inodes = await self._inodes_below(request.path)
        if self._follower is not None:
            return SyncReport(0)  # nothing is only here
        sent_bytes = await self._syncer.sync(inodes, progress)
        return SyncReport(sent_bytes, self._contents.stats().degraded_shards, self._publisher.lacks_copies)

    async def audit(self, request: commands.Audit, progress: Progress) -> AuditReport:
        inode = self._filesystem.resolve(request.path)
        inodes = await self._all_below(inode)
        whole = inode.number == ROOT_INODE
        return await self._upkeep.auditing.audit(inodes, request.level, self._is_unsent, progress, whole=whole)

    async def cost(self, request: commands.Cost, _progress: Progress) -> CostReport:
        inode = self._filesystem.resolve(request.path)
        return await self._upkeep.payments.cost(inode.number, request.path, request.depth)

    def _is_unsent(self, inode: InodeNumber) -> bool:
        return self._contents.state(inode) in {"cached", "uploading"}

    async def _inodes_below(self, path: bytes) -> list[InodeNumber] | None:
        """None: the whole volume."""
        inode = self._filesystem.resolve(path)
        return None if inode.number == ROOT_INODE else await self._all_below(inode)

    async def _all_below(self, inode: Inode) -> list[InodeNumber]:
        if not inode.is_directory:
            return [inode.number]
        found = []
        for number in self._below(inode.number):
            found.append(number)
            if len(found) % YIELD_EVERY == 0:
                await trio.lowlevel.checkpoint()
        return found

    def _below(self, directory: InodeNumber) -> Iterator[InodeNumber]:
        """Everything below a directory, which comes before what is in it; holds one directory's listing at a time."""
        waiting = [directory]
        while waiting:
            children = [(line.inode.number, line.inode.is_directory) for line in self._names(waiting.pop())]
            for number, is_directory in children:
                if is_directory:
                    waiting.append(number)
                yield number

    def _names(self, directory: InodeNumber) -> Iterator[Listing]:
        try:
            for line in self._filesystem.listing(directory, 0):
                if line.name not in {b".", b".."}:
                    yield line
        except NotFound:
            return

    async def cache_drop(self, _request: commands.Nothing, _progress: Progress) -> CacheDropped:
        dropped = await self._contents.drop_clean()
        return CacheDropped(dropped, self._contents.stats().dirty_bytes, self._contents.pins.stats().here_bytes)

    async def list_directory(self, request: commands.ListDirectory, _progress: Progress) -> ListPage:
        directory = self._filesystem.resolve(request.path)
        if not directory.is_directory:
            raise NotADirectory(f"{request.path.decode(errors='replace')} is not a directory")
        entries: list[ListEntry] = []
        following = request.after
        for line in self._filesystem.listing(directory.number, request.after):
            if len(entries) >= request.limit:
                return ListPage(tuple(entries), following)
            following = line.position
            if line.name not in {b".", b".."}:
                entries.append(self._entry(line.name, line.inode))
        return ListPage(tuple(entries))

    def _entry(self, name: bytes, inode: Inode) -> ListEntry:
        state = self._contents.state(inode.number) if inode.is_file else ""
        return ListEntry(name, _kind(inode), inode.size, inode.mtime_ns, state)

    async def manifest(self, request: commands.AtPath, _progress: Progress) -> ManifestText:
        return ManifestText(self._classic.manifest(self._filesystem.resolve(request.path).number).decode())

    async def _upload(self, request: commands.Upload, progress: Progress, name_changed: NameChanged) -> Stored:
        source = os.fsdecode(request.source)
        number = await self._classic.copy_in(
            source, request.target, replace=request.replace, progress=progress, name_changed=name_changed
        )
        await self.sync(commands.AtPath(request.target), progress)
        return Stored(request.target, self._filesystem.getattr(number).size, self._contents.state(number))

    async def download(self, request: commands.Download, progress: Progress) -> Fetched:
        text, output = request.manifest.encode(), os.fsdecode(request.output)
        return Fetched(await self._classic.copy_out(text, output, replace=request.replace, progress=progress))

    async def net_show(self, _request: commands.Nothing, _progress: Progress) -> NetworkStatus:
        return self._membership.status()

    async def net_join(self, request: commands.JoinNetwork, _progress: Progress) -> NetworkStatus:
        return await self._choose_network(request.seeds)

    async def net_leave(self, _request: commands.Nothing, _progress: Progress) -> NetworkStatus:
        return await self._choose_network(())

    async def _choose_network(self, seeds: tuple[str, ...]) -> NetworkStatus:
        """For the next run of this drive, which ends now. A volume with files on hosts stays where they are."""
        if self._catalog.shard_count():
            raise NotSupported(
                "this volume has files on its network's hosts and cannot move yet; make another with "
                "`layrfs init --seed` under another LAYRFS_HOME, mount both, and copy"
            )
        config = await choose_network(self._network_file, seeds)
        self.stopping.set()
        return NetworkStatus(config.network_id or "", config.embedded, config.seeds)

    async def stop(self, _request: commands.Nothing, _progress: Progress) -> Done:
        self.stopping.set()
        return Done()


def _kind(inode: Inode) -> str:
    return _KINDS.get(stat.S_IFMT(inode.mode), "special")
