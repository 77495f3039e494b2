"""The least a Python file system can cost: names in memory, bytes written straight to one file each, nothing else.

`python -m tests.bench --bare` measures this in the drive's place. What it does not reach, no drive on pyfuse3 can: the
numbers are the ceiling of the round trip through the kernel, libfuse, pyfuse3 and trio. It keeps nothing and checks
nothing; permissions are the kernel's, as with the drive.

`python -m tests.bench.bare_fuse DIRECTORY MOUNTPOINT` serves until it is unmounted.
"""

# ruff: noqa: ARG002 - pyfuse3 decides what a handler is given

import contextlib
import errno
import os
import stat
import sys
import time
from dataclasses import dataclass, field
from functools import partial

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FileNameT, FUSEError, InodeT, ReaddirToken, RequestContext

from layrfs.fuse.mounting import IDLE_TASKS, MAX_TASKS

TIMEOUT_SECONDS = 3600.0


@dataclass(slots=True)
class Node:
    """Attributes in memory; `file` is the descriptor that holds a regular file's bytes, opened at its first use."""

    number: int
    mode: int
    size: int = 0
    links: int = 1
    times: list[int] = field(default_factory=lambda: [time.time_ns()] * 3)
    owner: tuple[int, int] = (0, 0)
    names: dict[bytes, int] = field(default_factory=dict)
    target: bytes = b""
    file: int = -1


class BareFilesystem(pyfuse3.Operations):
    """Only what tar, rsync, git and the bench call."""

    enable_writeback_cache = True
    supports_dot_lookup = False

    def __init__(self, directory: str) -> None:
        super().__init__()
        self.directory = directory
        self.nodes = {pyfuse3.ROOT_INODE: Node(pyfuse3.ROOT_INODE, stat.S_IFDIR | 0o755, links=2)}
        self.last = int(pyfuse3.ROOT_INODE)

    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        number = self.nodes[parent_inode].names.get(name)
        if number is None:
            missing = EntryAttributes()
            missing.st_ino = InodeT(0)
            missing.entry_timeout = TIMEOUT_SECONDS
            return missing
        return attributes(self.nodes[number])

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return attributes(self.nodes[inode])

    async def setattr(
        self, inode: InodeT, attr: EntryAttributes, fields: pyfuse3.SetattrFields, fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:  # fmt: skip
        node = self.nodes[inode]
        if fields.update_size:
            os.ftruncate(self._file(node), attr.st_size)
            node.size = attr.st_size
        if fields.update_mode:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(attr.st_mode)
        if fields.update_uid or fields.update_gid:
            node.owner = (
                attr.st_uid if fields.update_uid else node.owner[0],
                attr.st_gid if fields.update_gid else node.owner[1],
            )
        if fields.update_atime:
            node.times[0] = attr.st_atime_ns
        if fields.update_mtime:
            node.times[1] = attr.st_mtime_ns
        return attributes(node)

    async def getxattr(self, inode: InodeT, name: pyfuse3.XAttrNameT, ctx: RequestContext) -> bytes:
        raise FUSEError(errno.ENODATA)

    async def mkdir(self, parent_inode: InodeT, name: FileNameT, mode: int, ctx: RequestContext) -> EntryAttributes:
        return attributes(self._add(parent_inode, name, mode | stat.S_IFDIR, ctx))

    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        node = self._add(parent_inode, name, stat.S_IFLNK | 0o777, ctx)
        node.target, node.size = target, len(target)
        return attributes(node)

    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return FileNameT(self.nodes[inode].target)

    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        node = self._add(parent_inode, name, mode, ctx)
        return opened(node), attributes(node)

    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        if flags & os.O_TRUNC:
            os.ftruncate(self._file(self.nodes[inode]), 0)
            self.nodes[inode].size = 0
        return opened(self.nodes[inode])

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return os.pread(self._file(self.nodes[InodeT(fh)]), size, off)

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        node = self.nodes[InodeT(fh)]
        node.size = max(node.size, off + len(buf))
        return os.pwrite(self._file(node), buf, off)

    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await trio.to_thread.run_sync(os.fdatasync, self._file(self.nodes[InodeT(fh)]))

    async def release(self, fh: FileHandleT) -> None:
        node = self.nodes[InodeT(fh)]
        if node.file >= 0:
            os.close(node.file)
            node.file = -1

    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        self._remove(parent_inode, name)

    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        if self.nodes[InodeT(self.nodes[parent_inode].names[name])].names:
            raise FUSEError(errno.ENOTEMPTY)
        self._remove(parent_inode, name)

    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        self.nodes[new_parent_inode].names[new_name] = int(inode)
        self.nodes[inode].links += 1
        return attributes(self.nodes[inode])

    async def rename(
        self, parent_inode_old: InodeT, name_old: FileNameT, parent_inode_new: InodeT, name_new: FileNameT, flags: int,
        ctx: RequestContext,
    ) -> None:  # fmt: skip
        if name_new in self.nodes[parent_inode_new].names:
            self._remove(parent_inode_new, name_new)
        self.nodes[parent_inode_new].names[name_new] = self.nodes[parent_inode_old].names.pop(name_old)

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(inode)

    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        for position, (name, number) in enumerate(list(self.nodes[InodeT(fh)].names.items())[start_id:], start_id + 1):
            if not pyfuse3.readdir_reply(token, FileNameT(name), attributes(self.nodes[InodeT(number)]), position):
                return

    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        found, data = os.statvfs(self.directory), pyfuse3.StatvfsData()
        for name in (
            "f_bsize",
            "f_frsize",
            "f_blocks",
            "f_bfree",
            "f_bavail",
            "f_files",
            "f_ffree",
            "f_favail",
            "f_namemax",
        ):
            setattr(data, name, getattr(found, name))
        return data

    def _add(self, parent: InodeT, name: bytes, mode: int, ctx: RequestContext) -> Node:
        self.last += 1
        node = self.nodes[InodeT(self.last)] = Node(self.last, mode, owner=(ctx.uid, ctx.gid))
        self.nodes[parent].names[name] = self.last
        return node

    def _remove(self, parent: InodeT, name: bytes) -> None:
        node = self.nodes[InodeT(self.nodes[parent].names.pop(name))]
        node.links -= 1
        if node.links == 0 and stat.S_ISREG(node.mode):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(node))

    def _file(self, node: Node) -> int:
        if node.file < 0:
            node.file = os.open(self._path(node), os.O_RDWR | os.O_CREAT, 0o600)
        return node.file

    def _path(self, node: Node) -> str:
        return os.path.join(self.directory, str(node.number))


def opened(node: Node) -> FileInfo:
    """A file handle; pages stay in the kernel between opens."""
    return FileInfo(fh=FileHandleT(node.number), keep_cache=True)


def attributes(node: Node) -> EntryAttributes:
    """What the kernel asks for."""
    entry = EntryAttributes()
    entry.st_ino = InodeT(node.number)
    entry.entry_timeout = entry.attr_timeout = TIMEOUT_SECONDS
    entry.st_mode = pyfuse3.ModeT(node.mode)
    entry.st_nlink = node.links
    entry.st_uid, entry.st_gid = node.owner
    entry.st_size = node.size
    entry.st_blksize = 1 << 20
    entry.st_blocks = -(-node.size // 512)
    entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns = node.times
    return entry


def main() -> None:
    """Mount and serve."""
    directory, mountpoint = sys.argv[1:]
    pyfuse3.init(BareFilesystem(directory), mountpoint, {"default_permissions", "fsname=bare"})
    try:
        trio.run(partial(pyfuse3.main, min_tasks=IDLE_TASKS, max_tasks=MAX_TASKS))
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
