"""The classic one-file-at-a-time interface: a file into the volume, its manifest, and a manifest back into a file.

Moves bytes between this machine's files and the volume or its hosts; must not know the control socket.
Invariant: a target appears whole under its name, or not at all.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable

import trio

from layrfs.control.commands import Progress
from layrfs.errors import (
    AccessDenied,
    AlreadyExists,
    FileTooLarge,
    IsADirectory,
    LocalError,
    NotFound,
    ReadOnly,
    Unavailable,
)
from layrfs.ids import ROOT_INODE, InodeNumber, VolumeId
from layrfs.model.manifest import Manifest
from layrfs.model.status import ProgressReport
from layrfs.pipeline.manifests import check_volume, restore
from layrfs.pipeline.transfers import Transfers
from layrfs.storage.content import Catalog
from layrfs.vfs.attributes import Owner
from layrfs.vfs.contents import Contents
from layrfs.vfs.filesystem import Filesystem
from layrfs.vfs.namespace import NAME as SNAPSHOTS_NAME

COPY_BYTES = 1 << 20
LARGEST_ATTRIBUTE_BYTES = 65536

NameChanged = Callable[[InodeNumber, bytes], None]
"""Told a directory and a name in it that stands for something else now: the kernel remembers names for long."""


class Classic:
    """See the module."""

    def __init__(
        self, *, volume: VolumeId, catalog: Catalog, contents: Contents, filesystem: Filesystem, transfers: Transfers
    ) -> None:
        self._volume = volume
        self._catalog = catalog
        self._contents = contents
        self._filesystem = filesystem
        self._transfers = transfers

    def manifest(self, number: InodeNumber) -> bytes:
        """The manifest of a regular file as JSON. Raises ``Unavailable`` while parts of it are not on hosts."""
        inode = self._filesystem.getattr(number)
        if not inode.is_file:
            raise IsADirectory("Only regular files have a manifest.")
        if self._contents.state(number) in {"cached", "uploading"}:
            raise Unavailable("The file is not on the network yet; `layrfs sync` waits for that.")
        path = self._filesystem.path_of(number) or b"/unnamed"
        return Manifest(
            file_name=os.path.basename(path),
            file_size=inode.size,
            shard_size=inode.block_bytes,
            volume=self._volume,
            shards=self._catalog.manifest_shards(number),
        ).to_json()

    def manifest_attribute(self, number: InodeNumber) -> bytes:
        """The same, as long as the kernel takes it; ``FileTooLarge``."""
        text = self.manifest(number)
        if len(text) > LARGEST_ATTRIBUTE_BYTES:
            raise FileTooLarge("The manifest is too long for an attribute; `layrfs manifest` prints it.")
        return text

    async def copy_in(
        self, source: str, target: bytes, *, replace: bool, progress: Progress, name_changed: NameChanged
    ) -> InodeNumber:
        """``source`` of this machine becomes ``target`` in the volume. Raises ``AlreadyExists`` unless ``replace``."""
        parent_path, name = os.path.split(target)
        parent = self._filesystem.resolve(parent_path).number
        self._check_target(parent, name, replace=replace)
        temporary = b".layrfs-" + secrets.token_hex(8).encode()
        try:
            number = await self._copy(source, parent, temporary, progress)
            self._check_target(parent, name, replace=replace)
            self._filesystem.rename(parent, temporary, parent, name, replace=replace)
        except BaseException:
            self._drop_name(parent, temporary)
            raise
        name_changed(parent, name)
        return number

    async def copy_out(self, text: bytes, output: str, *, replace: bool, progress: Progress) -> int:
        """The file of a manifest is written to ``output``; its size. Raises ``BadMessage``, ``AlreadyExists``…"""
        manifest = Manifest.from_json_untrusted(text)
        check_volume(manifest, self._volume)
        if os.path.lexists(output) and not replace:
            raise AlreadyExists(f"{output} exists already; --replace overwrites it")

        def report(done_bytes: int, total_bytes: int) -> None:
            progress(ProgressReport(done_bytes, total_bytes))

        await restore(manifest, self._transfers, output, report)
        return manifest.file_size

    def _check_target(self, parent: InodeNumber, name: bytes, *, replace: bool) -> None:
        if not name:
            raise IsADirectory("The target needs a name.")
        if parent == ROOT_INODE and name == SNAPSHOTS_NAME:
            raise ReadOnly("This name is taken by the volume's snapshots.")
        there = self._filesystem.lookup(parent, name)
        if there is None:
            return
        self._filesystem.forget([(there.number, 1)])
        if there.is_directory:
            raise IsADirectory("The target is a directory.")
        if not replace:
            raise AlreadyExists("The target exists already; --replace overwrites it.")

    def _drop_name(self, parent: InodeNumber, name: bytes) -> None:
        there = self._filesystem.lookup(parent, name)
        if there is not None:
            self._filesystem.forget([(there.number, 1)])
            self._filesystem.unlink(parent, name)

    async def _copy(self, source: str, parent: InodeNumber, name: bytes, progress: Progress) -> InodeNumber:
        descriptor = _open_source(source)
        try:
            size = os.fstat(descriptor).st_size
            mode = stat.S_IFREG | (os.fstat(descriptor).st_mode & 0o777)
            inode, handle = self._filesystem.create(parent, name, mode=mode, owner=Owner(os.getuid(), os.getgid()))
            number, offset = inode.number, 0
            try:
                while data := await trio.to_thread.run_sync(os.pread, descriptor, COPY_BYTES, offset):
                    await self._filesystem.write(handle, offset, data)
                    offset += len(data)
                    progress(ProgressReport(offset, size, "reading"))
            finally:
                self._filesystem.release(handle)
                self._filesystem.forget([(number, 1)])
            return number
        finally:
            os.close(descriptor)


def _open_source(source: str) -> int:
    try:
        return os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"there is no {source}") from None
    except PermissionError:
        raise AccessDenied(f"you may not read {source}") from None
    except OSError as error:
        raise LocalError(f"{source} cannot be read: {error.strerror}") from error
