"""A drive with no disk, kernel or network behind its control socket: a dictionary of files. Runs as a process::

python -m tests.fakes.drive VOLUME [MOUNTPOINT]

It prints ``ready`` and answers until it is told to stop. ``$LAYRFS_FAKE_TROUBLE`` makes its hosts unreachable.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter

import msgspec
import trio

from layrfs.config import Paths
from layrfs.control import commands
from layrfs.control.commands import AtPath, Bound, Nothing, Progress
from layrfs.control.server import ControlServer
from layrfs.errors import AlreadyExists, NotFound, Unavailable
from layrfs.model.audits import AuditedHost, AuditedPiece, AuditReport
from layrfs.model.patches import PatchedPiece, PatchedShard, PatchReport
from layrfs.model.status import (
    BlockRun,
    CacheDropped,
    Collected,
    Done,
    Fetched,
    HostStatus,
    ListEntry,
    ListPage,
    ManifestText,
    NetworkStatus,
    PathStatus,
    PinReport,
    ProgressReport,
    Snapshot,
    SnapshotList,
    Stored,
    SyncReport,
    VolumeStatus,
    Waits,
)


class FakeDrive:
    """Answers every command of the table from memory."""

    def __init__(self, volume: str, mountpoint: str) -> None:
        self._volume = volume
        self._mountpoint = mountpoint
        self._files: dict[bytes, bytes] = {
            b"/docs/a\x1b[31m.txt": b"alpha",
            b"/docs/\xff\xfe": b"beta",
            b"/top": b"x" * 5000,
        }
        self._seeds: tuple[str, ...] = ()
        self.stopped = trio.Event()

    def commands(self) -> list[Bound]:
        return [
            commands.STATUS.bind(self.status),
            commands.PATH_STATUS.bind(self.path_status),
            commands.SYNC.bind(self.sync),
            commands.CACHE_DROP.bind(self.cache_drop),
            commands.PIN.bind(self.pin),
            commands.UNPIN.bind(self.pin),
            commands.PINS.bind(self.pins),
            commands.PINS_WAIT.bind(self.pins),
            commands.AUDIT.bind(self.audit),
            commands.COLLECT.bind(self.collect),
            commands.PATCH.bind(self.patch),
            commands.LIST.bind(self.list),
            commands.MANIFEST.bind(self.manifest),
            commands.UPLOAD.bind(self.upload),
            commands.DOWNLOAD.bind(self.download),
            commands.NET_SHOW.bind(self.net_show),
            commands.NET_JOIN.bind(self.net_join),
            commands.NET_LEAVE.bind(self.net_show),
            commands.SNAPSHOT_CREATE.bind(self.snapshot_create),
            commands.SNAPSHOT_LIST.bind(self.snapshot_list),
            commands.SNAPSHOT_DELETE.bind(self.snapshot_delete),
            commands.STOP.bind(self.stop),
        ]

    async def status(self, _request: Nothing, _progress: Progress) -> VolumeStatus:
        return VolumeStatus(
            volume=self._volume,
            mountpoint=self._mountpoint,
            files=len(self._files),
            file_bytes=sum(map(len, self._files.values())),
            cached_bytes=3 << 20,
            cache_limit_bytes=20 << 30,
            dirty_bytes=5 << 20,
            upload_bytes_per_second=1 << 20,
            eta_seconds=5,
            shards=7,
            degraded_shards=2,
            problems=("one host is silent",),
            hosts=(HostStatus("ab" * 20, "127.0.0.1:4001", "online", 90 << 30, 211),),
            network=await self.net_show(Nothing(), _progress),
        )

    async def path_status(self, request: AtPath, _progress: Progress) -> PathStatus:
        runs = (BlockRun(0, 3, "clean", 3, 3), BlockRun(3, 1, "dirty"))
        data = self._content(request.path)
        return PathStatus(request.path, "file", "uploading", len(data), 4 << 20, "mirror:3", runs=runs)

    async def sync(self, _request: AtPath, progress: Progress) -> SyncReport:
        if os.environ.get("LAYRFS_FAKE_TROUBLE"):
            progress(ProgressReport(0, 10, "waiting for hosts"))
            raise Unavailable("no host answers")
        for done in range(0, 100, 10):
            progress(ProgressReport(done, 100))
            await trio.lowlevel.checkpoint()
        return SyncReport(uploaded_bytes=100)

    async def cache_drop(self, _request: Nothing, _progress: Progress) -> CacheDropped:
        return CacheDropped(dropped_bytes=3 << 20, kept_dirty_bytes=5 << 20)

    async def pin(self, request: AtPath, _progress: Progress) -> PinReport:
        """More than the cache has room for."""
        return PinReport((request.path,), 3 << 20, 30 << 30, 20 << 30)

    async def pins(self, _request: Nothing, _progress: Progress) -> PinReport:
        return PinReport((b"/docs", b"/a\x1b[31m.txt"), 3 << 20, 1 << 20, 20 << 30)

    async def snapshot_create(self, request: commands.CreateSnapshot, _progress: Progress) -> Snapshot:
        """Two blocks were written meanwhile."""
        return Snapshot(request.name or "2023-11-14T22-13-20Z", 7, 1_700_000_000_000, 2, kept=True)

    async def snapshot_list(self, _request: Nothing, _progress: Progress) -> SnapshotList:
        kept = Snapshot("a\x1b[31m name", 7, 1_700_000_000_000, 0, kept=True)
        return SnapshotList((kept, Snapshot("2023-11-14T22-13-10Z", 6, 1_699_999_990_000, 1, kept=False)))

    async def snapshot_delete(self, request: commands.DeleteSnapshot, _progress: Progress) -> Done:
        raise NotFound(f"There is no snapshot {request.name}; `layrfs snapshot list` shows them.")

    async def collect(self, request: commands.Collect, progress: Progress) -> Collected:
        progress(ProgressReport(text="looking"))
        snapshot = Waits(7, "before\x1b[31m", 2, 5 << 20)
        return Collected(3, 9 << 20, 1, 3 << 20, 0 if request.dry_run else 12, 0, 1, (snapshot,))

    async def patch(self, request: commands.Patch, progress: Progress) -> PatchReport:
        """One shard lacks a piece."""
        progress(ProgressReport(text="asking"))
        made = () if request.dry_run else (PatchedPiece(1, 2, "bb" * 20),)
        return PatchReport(request.dry_run, 1, len(made), 0, (PatchedShard("5a" * 32, "soon", (1,), made),))

    async def audit(self, request: commands.Audit, progress: Progress) -> AuditReport:
        """``/top`` is on no host yet; a host has lost a piece of what is in ``/docs``."""
        if request.path == b"/top":
            return AuditReport(request.level, unsent_files=1)
        progress(ProgressReport(text="asking"))
        good = AuditedPiece(b"/docs/a\x1b[31m.txt", "5a" * 32, 0, "01" * 32, "aa" * 20, request.level, "passed", 0.012)
        bad = msgspec.structs.replace(good, position=1, host="bb" * 20, outcome="missing", seconds=0.2)
        pieces = (good,) if request.path != b"/docs" else (bad, good)
        outcomes = Counter(piece.outcome for piece in pieces)
        hosts = tuple(AuditedHost(piece.host, "new", {piece.outcome: 1}) for piece in pieces)
        return AuditReport(request.level, 1, 0, 1, 0, dict(outcomes), hosts, pieces, root_keepers=3)

    async def list(self, request: commands.ListDirectory, _progress: Progress) -> ListPage:
        """One entry a page, so that paging is seen to work."""
        entries = self._entries(request.path)
        if not entries:
            raise NotFound(f"there is no directory {os.fsdecode(request.path)}")
        more = request.after + 1 < len(entries)
        return ListPage((entries[request.after],), request.after + 1 if more else None)

    async def manifest(self, request: AtPath, _progress: Progress) -> ManifestText:
        self._content(request.path)
        return ManifestText('{"format": "layrfs-manifest"}')

    async def upload(self, request: commands.Upload, progress: Progress) -> Stored:
        if request.target in self._files and not request.replace:
            raise AlreadyExists(f"{os.fsdecode(request.target)} exists already")
        with open(request.source, "rb") as file:
            self._files[request.target] = file.read()
        progress(ProgressReport(1, 1))
        return Stored(request.target, len(self._files[request.target]), "safe")

    async def download(self, request: commands.Download, _progress: Progress) -> Fetched:
        with open(request.output, "wb") as file:
            return Fetched(file.write(b"fetched"))

    async def net_show(self, _request: Nothing, _progress: Progress) -> NetworkStatus:
        return NetworkStatus("cd" * 32, embedded=not self._seeds, seeds=self._seeds, known_hosts=5, reachable_hosts=4)

    async def net_join(self, request: commands.JoinNetwork, progress: Progress) -> NetworkStatus:
        self._seeds = request.seeds
        return await self.net_show(Nothing(), progress)

    async def stop(self, _request: Nothing, _progress: Progress) -> Done:
        self.stopped.set()
        return Done()

    def _content(self, path: bytes) -> bytes:
        if path not in self._files:
            raise NotFound(f"there is no {os.fsdecode(path)}")
        return self._files[path]

    def _entries(self, directory: bytes) -> list[ListEntry]:
        found: dict[bytes, ListEntry] = {}
        prefix = directory.rstrip(b"/") + b"/"
        for path, data in self._files.items():
            if path.startswith(prefix):
                name, _, below = path.removeprefix(prefix).partition(b"/")
                kind = "directory" if below else "file"
                found[name] = ListEntry(name, kind, 0 if below else len(data), time.time_ns(), "" if below else "safe")
        return list(found.values())


async def main(volume: str, mountpoint: str) -> None:
    """Serve until stopped."""
    drive = FakeDrive(volume, mountpoint)
    server = ControlServer(Paths.from_environment().control_socket(volume), drive.commands())
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await drive.stopped.wait()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
