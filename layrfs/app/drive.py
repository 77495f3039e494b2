"""The drive: one volume, its cache, its workers, its place in a network, and, when wanted, its mount.

The composition root: builds every object, owns the top nursery and the order of shutdown. Decides nothing itself. The
order of the end: no more requests (unmount), bytes then metadata onto the disk, background work cancelled, cache and
database closed. What is not on hosts by then is uploaded after the next mount.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from collections.abc import Callable, Set

import trio

from layrfs.app.answers import Answers
from layrfs.app.classic import Classic
from layrfs.app.handing_over import claim, let_go, release
from layrfs.app.host_watch import HostWatch, remembered_hosts
from layrfs.app.kernel import Kernel
from layrfs.app.membership import Membership
from layrfs.app.notices import Notices, desktop
from layrfs.app.paying import Payments
from layrfs.app.signals import stop_on_signals
from layrfs.app.snapshot_commands import SnapshotCommands
from layrfs.app.snapshots import Snapshots
from layrfs.app.space import SpaceGauge, default_cache_bytes
from layrfs.app.state_directory import check_database_is_there, check_volume, locked
from layrfs.app.syncing import Syncer
from layrfs.app.trusting import Trusting
from layrfs.app.upkeep import Upkeep
from layrfs.config import MountOptions, Paths
from layrfs.control.server import ControlServer
from layrfs.crypto.identity import NodeIdentity
from layrfs.crypto.keys import VolumeKeys
from layrfs.history.arriving import Arrival, last_writer_is
from layrfs.history.following import Follower, may_follow
from layrfs.history.leasing import Conduct, Tenure
from layrfs.history.publishing import Publisher
from layrfs.history.restoring import restore_segments, transfers_alone
from layrfs.history.root_watch import RootWatch
from layrfs.history.roots import Roots
from layrfs.ids import InodeNumber, NodeId, PieceId, ShardId
from layrfs.model.history import History
from layrfs.network.links import HostLinks
from layrfs.pipeline.jobs import WorkerKeys
from layrfs.pipeline.pool import WorkerPool
from layrfs.pipeline.pooled import PooledTransfers
from layrfs.storage.answers import KeptAnswers
from layrfs.storage.cache_files import CacheFiles
from layrfs.storage.changes import lose_unsent
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.keyring import load_or_create_identity
from layrfs.storage.tree import Tree
from layrfs.storage.trust import Trusts
from layrfs.vfs.contents import Contents
from layrfs.vfs.filesystem import Filesystem
from layrfs.vfs.following import View
from layrfs.vfs.inodes import Inodes
from layrfs.vfs.namespace import Namespace
from layrfs.vfs.policies import Policies
from layrfs.vfs.xattrs import VirtualAttributes

_log = logging.getLogger(__name__)


class Drive:
    """One volume in use; ``run`` once."""

    def __init__(
        self, *, paths: Paths, volume: str, keys: VolumeKeys, options: MountOptions, say: Callable[[str], None]
    ) -> None:
        """``say`` tells the person who mounts, in a sentence, what was done without being asked for."""
        self.paths = paths
        self.volume = volume
        self.keys = keys
        self.options = options
        self._say = say

    async def run(self, mountpoint: str | None, ready: Callable[[], None]) -> None:
        """Until unmounted, told to stop, or SIGTERM or SIGINT; without a mountpoint only the control socket answers.

        Raises ``StateInUse``, ``VolumeHeld``, ``Unavailable``, ``CorruptFile``, ``NewerFormat``, ``LocalError``.
        """
        paths, volume = self.paths, self.volume
        with locked(paths.volume_dir(volume)):
            identity = load_or_create_identity(paths.node_key(volume))
            check_database_is_there(paths, volume)
            with Database(paths.database(volume)) as database:
                follows = self.options.read_only and may_follow(database)
                check_volume(database, self.keys, paths.database(volume), follows=follows)
                membership = Membership(paths, identity, self.options, self.keys, remembered_hosts(Catalog(database)))
                trusts = Trusts(database)
                catalog = Catalog(
                    database, unsent_elsewhere=follows, alive=lambda: membership.answering(trusts.doubted())
                )
                async with trio.open_nursery() as nursery:
                    await nursery.start(membership.run)
                    network_id = await membership.network_id_in_time()
                    keys = WorkerKeys.of(self.keys, identity.private, network_id)
                    with contextlib.closing(HostLinks(identity, network_id)) as links:
                        roots = Roots(links, membership, self.keys.volume_id)
                        conduct, must_claim = await self._begin(keys, membership, database, roots, follows=follows)
                        catalog.refresh()
                        parts = _Parts(
                            self, keys, membership, database, catalog, trusts, roots, links, conduct, follows=follows
                        )
                        if must_claim:
                            await claim(parts.publisher, volume)
                        await _run(parts, mountpoint, ready)
                    nursery.cancel_scope.cancel()

    async def _begin(
        self, worker_keys: WorkerKeys, membership: Membership, database: Database, roots: Roots, *, follows: bool
    ) -> tuple[Conduct, bool]:
        """What this mount may do, when what is here is the newest version; and whether it has to be claimed."""
        device = NodeIdentity.from_private(worker_keys.node_private).node_id
        if self.options.read_only:
            return ("finish" if last_writer_is(device, database) and not follows else "watch"), False

        async def restore(history: History, directory: str) -> str:
            async with transfers_alone(worker_keys, membership, workers=self.options.workers) as transfers:
                return await restore_segments(history.segments, self.keys, transfers, directory)

        arrival = Arrival(
            paths=self.paths,
            volume=self.volume,
            keys=self.keys,
            device=device,
            database=database,
            roots=roots,
            restore=restore,
            say=self._say,
            in_sight=lambda: bool(membership.known_hosts()),
        )
        return "write", await arrival.arrive(take_over=self.options.take_over, embedded=membership.is_embedded)


class _Parts:
    """Every long-lived object of a drive, built in order; each gets what it needs and nothing is attached later."""

    def __init__(
        self,
        drive: Drive,
        worker_keys: WorkerKeys,
        membership: Membership,
        database: Database,
        catalog: Catalog,
        trusts: Trusts,
        roots: Roots,
        links: HostLinks,
        conduct: Conduct,
        *,
        follows: bool,
    ) -> None:
        paths, volume, options, keys = drive.paths, drive.volume, drive.options, drive.keys
        self.volume, self.options, self.membership = volume, options, membership
        self.database, self.catalog, self.superseded = database, catalog, trio.Event()
        device = NodeIdentity.from_private(worker_keys.node_private).node_id
        self.kept_answers = KeptAnswers(database, keys.mask, 0 if options.read_only else options.answers)
        self.payments = Payments(database=database, paths=paths, keys=keys, options=options)
        trusting = Trusting(trusts, device, options.patch_after_seconds, membership.is_leaving, self.payments.unpaid)
        self.transfers = PooledTransfers(
            WorkerPool(worker_keys, workers=options.workers),
            membership,
            find_content=catalog.find_content,
            on_bad_piece=self._bad_piece,
            on_attempt=trusting.fetched,
            excluded=trusting.excluded,
            suspended=trusts.suspended,
            answers=self.kept_answers,
            market=self.payments,
        )
        cache_bytes = options.cache_bytes or default_cache_bytes(paths.cache_dir(volume))
        self.socket = paths.control_socket(volume)
        control: VirtualAttributes = {b"user.layrfs.control": lambda _inode: os.fsencode(self.socket)}
        self.snapshots = Snapshots(
            database=database,
            catalog=catalog,
            transfers=self.transfers,
            keys=keys,
            directory=paths.snapshots_dir(volume),
            cache_bytes=cache_bytes,
            virtual_attributes=control,
        )
        tenure = Tenure(device=device, name=os.uname().nodename, keys=keys, roots=roots, conduct=conduct)
        self.publisher = Publisher(
            database=database,
            transfers=self.transfers,
            roots=roots,
            keys=keys,
            directory=paths.history_dir(volume),
            tenure=tenure,
            on_superseded=self._superseded,
            in_use=self.snapshots.in_use,
            known_hosts=lambda: sum(not host.leaving for host in membership.known_hosts()),
            is_gone=trusting.is_going,
        )
        tree = Tree(database)
        inodes = Inodes(tree)
        policies = Policies(tree, inodes)
        self.contents = Contents(
            database=database,
            catalog=catalog,
            cache_directory=paths.cache_dir(volume),
            transfers=self.transfers,
            block_bytes_of=inodes.block_bytes_of,
            fix_block_bytes=policies.fix_block_bytes,
            redundancy_of=policies.redundancy_of,
            closed_seconds=options.upload_after_seconds,
            cache_bytes=cache_bytes,
            follows=follows,
        )
        self.upkeep = Upkeep(
            database=database,
            catalog=catalog,
            publisher=self.publisher,
            transfers=self.transfers,
            links=links,
            membership=membership,
            roots=roots,
            trusting=trusting,
            answers=self.kept_answers,
            keys=keys,
            network_id=worker_keys.network_id,
            directory=paths.volume_dir(volume),
            cache_path=CacheFiles(paths.cache_dir(volume)).path,
            payments=self.payments,
            read_only=options.read_only,
            policy_changes=lambda: policies.changes,
        )
        syncer = Syncer(
            database=database,
            contents=self.contents,
            membership=membership,
            publisher=self.publisher,
            patcher=self.upkeep.patcher,
        )
        self.filesystem = Filesystem(
            database,
            tree,
            inodes,
            self.contents,
            space=SpaceGauge(catalog, membership, paths.cache_dir(volume)).measure,
            policies=policies,
            virtual_attributes={
                b"user.layrfs.state": lambda inode: self.contents.state(inode).encode(),
                b"user.layrfs.pinned": lambda inode: b"yes" if self.contents.pins.is_pinned(inode) else b"no",
                b"user.layrfs.manifest": self._manifest,
                b"user.layrfs.health": lambda inode: self.upkeep.health.of(inode).encode(),
                **control,
            },
            read_only=options.read_only,
            fsync_further=syncer.fsync if options.fsync_network else None,
        )
        self.namespace = Namespace(self.filesystem, self.snapshots)
        self.follower = (
            Follower(
                database=database,
                tables=View(self.filesystem.lifetimes, self.contents, inodes, tree, catalog),
                watch=RootWatch(roots),
                transfers=self.transfers,
                keys=keys,
                history_directory=paths.history_dir(volume),
                work_directory=os.path.join(paths.volume_dir(volume), "following"),
            )
            if follows
            else None
        )
        self.classic = Classic(
            volume=keys.volume_id,
            catalog=catalog,
            contents=self.contents,
            filesystem=self.filesystem,
            transfers=self.transfers,
        )
        self.answers = Answers(
            volume=volume,
            keys=keys,
            options=options,
            network_file=paths.network_file,
            state_directory=paths.volume_dir(volume),
            database=database,
            tree=tree,
            catalog=catalog,
            contents=self.contents,
            filesystem=self.filesystem,
            classic=self.classic,
            membership=membership,
            publisher=self.publisher,
            syncer=syncer,
            losses=self.upkeep.losses,
            snapshots=SnapshotCommands(
                database=database, publisher=self.publisher, syncer=syncer, read_only=options.read_only
            ),
            upkeep=self.upkeep,
            follower=self.follower,
        )
        self.watch = HostWatch(
            catalog,
            membership,
            remember=tenure.publishes,
            appeared=self._hosts_appeared,
            needs_more=lambda: self.upkeep.patcher.waiting > 0,
        )

    def _hosts_appeared(self, hosts: Set[NodeId]) -> None:
        self.transfers.forgive(hosts)
        self.contents.hosts_appeared()
        self.upkeep.hosts_appeared(hosts)
        self.publisher.hosts_appeared()

    def _superseded(self, reason: str) -> None:
        """Another machine writes, and pays: what is only here stays here."""
        self.contents.stop_uploads(reason)
        self.payments.stop()
        self.superseded.set()

    def _manifest(self, inode: InodeNumber) -> bytes:
        return self.classic.manifest_attribute(inode)

    def _bad_piece(self, shard: ShardId, piece: PieceId, host: NodeId, kind: str) -> None:
        self.upkeep.bad_piece(shard, piece, host, kind)  # which is built after those who call this


async def _run(parts: _Parts, mountpoint: str | None, ready: Callable[[], None]) -> None:
    is_on_disk = False
    kernel = Kernel(mountpoint)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(parts.transfers.run)
            await nursery.start(parts.contents.run)
            if not parts.options.read_only:
                lose_unsent(parts.database)
            parts.filesystem.remove_orphans()
            nursery.start_soon(parts.database.run)
            await nursery.start(parts.snapshots.run)
            if parts.follower is None:
                nursery.start_soon(parts.publisher.run)
                nursery.start_soon(parts.upkeep.run)
                nursery.start_soon(Notices(parts.upkeep.health.sentence, desktop(f"LayrFS: {parts.volume}")).run)
            else:
                await parts.follower.begin()
            nursery.start_soon(parts.watch.run)
            nursery.start_soon(let_go, parts.superseded, kernel, parts.filesystem, parts.publisher, parts.contents)
            nursery.start_soon(stop_on_signals, parts.answers.stopping)
            table = parts.answers.table(mountpoint or "", kernel.forget_name)
            await nursery.start(ControlServer(parts.socket, table, parts.answers.pages(mountpoint or "")).run)
            try:
                await _serve(parts, mountpoint, kernel, ready)
            finally:
                with trio.CancelScope(shield=True):
                    await _put_to_disk(parts)
                    is_on_disk = True
                    await release(parts.publisher, parts.contents, parts.superseded, parts.upkeep.delegating.leave)
                nursery.cancel_scope.cancel()
    finally:
        parts.contents.close(in_order=is_on_disk)
    _log.info("volume %s has ended in order", parts.volume)


async def _put_to_disk(parts: _Parts) -> None:
    """Bytes and metadata; the bytes also when the metadata cannot be written: a repair finds them there."""
    parts.watch.look()
    try:
        parts.filesystem.close()
    finally:
        await parts.contents.sync(None)
    await parts.database.sync()


async def _serve(parts: _Parts, mountpoint: str | None, kernel: Kernel, ready: Callable[[], None]) -> None:
    """Until unmounted or told to stop."""
    async with trio.open_nursery() as nursery:

        async def stop_when_told() -> None:
            await parts.answers.stopping.wait()
            nursery.cancel_scope.cancel()

        async def answer_kernel(mountpoint: str, *, task_status: trio.TaskStatus[None]) -> None:
            from layrfs.fuse.mounting import serve
            from layrfs.fuse.operations import Operations

            source, follows = f"layrfs:{parts.volume}", parts.follower is not None
            writeback_cache = parts.options.writeback_cache
            operations = Operations(parts.namespace, writeback_cache=writeback_cache, follows=follows)
            await serve(operations, mountpoint, parts.options, source=source, task_status=task_status)
            nursery.cancel_scope.cancel()

        if mountpoint:
            await nursery.start(answer_kernel, mountpoint)
            _log.info("volume %s is mounted at %s", parts.volume, mountpoint)
        if parts.follower is not None:
            nursery.start_soon(parts.follower.run, kernel.forget_bytes)
        nursery.start_soon(stop_when_told)
        gc.freeze()  # what there is by now stays to the end: looking through it made requests wait 20 ms each time
        ready()
