"""FUSE requests, one method each, handed on to the file system.

Owns the unpacking and packing of arguments, nothing else. ``flush`` is missing on purpose: nothing is to be done on
``close``, and told so once (ENOSYS) the kernel saves itself the request.

The invariant: every handler is ``answered``, see ``layrfs.fuse.errnos``.
"""

# ruff: noqa: ARG002, FBT001 - the signatures are pyfuse3's

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from layrfs.fuse.attributes import (
    FOLLOWING_TIMEOUT_SECONDS,
    TIMEOUT_SECONDS,
    entry_attributes,
    no_entry,
    statvfs_data,
)
from layrfs.fuse.errnos import answered, fuse_error
from layrfs.ids import ROOT_INODE, InodeNumber
from layrfs.vfs.attributes import Changes, Owner
from layrfs.vfs.directories import DOT_DOT_COOKIE
from layrfs.vfs.filesystem import SYMLINK_MODE
from layrfs.vfs.inodes import Inode
from layrfs.vfs.namespace import Namespace, is_passing


class Operations(pyfuse3.Operations):
    """A mount of one file system. Hand it to ``layrfs.fuse.mounting.serve``."""

    supports_dot_lookup = True
    enable_acl = False

    def __init__(self, namespace: Namespace, *, writeback_cache: bool = True, follows: bool = False) -> None:
        """With ``writeback_cache`` the kernel collects small writes, and tells us the times it keeps meanwhile.

        ``follows``: the file system changes without the kernel's doing, which therefore remembers nothing for long.
        """
        super().__init__()
        self._namespace = namespace
        self._live = namespace.live
        self._volume = namespace.live(ROOT_INODE)
        self.enable_writeback_cache = writeback_cache and not follows
        self._keep_cache = not follows
        self._timeout_seconds = FOLLOWING_TIMEOUT_SECONDS if follows else TIMEOUT_SECONDS
        self._no_entry = no_entry(self._timeout_seconds)

    # ---- names

    @answered
    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        inode = await self._namespace.lookup(InodeNumber(parent_inode), name)
        return self._no_entry if inode is None else self._entry(inode)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        try:
            self._namespace.forget(inode_list)
        except Exception as error:  # noqa: BLE001 - there is nobody to tell, and the mount must go on
            fuse_error(error)

    @answered
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        parent, owner = InodeNumber(parent_inode), Owner(ctx.uid, ctx.gid)
        return self._entry(self._live(parent, name).make(parent, name, mode=mode, owner=owner, rdev=rdev))

    @answered
    async def mkdir(self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext) -> EntryAttributes:
        parent, owner = InodeNumber(parent_inode), Owner(ctx.uid, ctx.gid)
        return self._entry(self._live(parent, name).make(parent, name, mode=mode, owner=owner))

    @answered
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        parent, owner = InodeNumber(parent_inode), Owner(ctx.uid, ctx.gid)
        return self._entry(self._live(parent, name).make(parent, name, mode=SYMLINK_MODE, owner=owner, target=target))

    @answered
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        number, parent = InodeNumber(inode), InodeNumber(new_parent_inode)
        self._live(number)
        return self._entry(self._live(parent, new_name).link(number, parent, new_name))

    @answered
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return await self._namespace.readlink(InodeNumber(inode))

    @answered
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        parent = InodeNumber(parent_inode)
        self._live(parent, name).unlink(parent, name)

    @answered
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        parent = InodeNumber(parent_inode)
        self._live(parent, name).rmdir(parent, name)

    @answered
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        names = InodeNumber(parent_inode_old), name_old, InodeNumber(parent_inode_new), name_new
        self._live(*names[:2])
        filesystem = self._live(*names[2:])
        if flags == pyfuse3.RENAME_EXCHANGE:
            filesystem.exchange(*names)
        elif flags in {0, pyfuse3.RENAME_NOREPLACE}:
            filesystem.rename(*names, replace=not flags)
        else:
            raise FUSEError(errno.EINVAL)

    # ---- directories

    @answered
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(inode)

    @answered
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        namespace = self._namespace
        for name, inode, position in await namespace.listing(InodeNumber(fh), start_id):
            if not pyfuse3.readdir_reply(token, FileNameT(name), self._listed(inode), position):
                return
            if position > DOT_DOT_COOKIE:
                namespace.refer(inode.number)

    @answered
    async def releasedir(self, fh: FileHandleT) -> None:
        pass

    @answered
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        await self._volume.fsyncdir()

    # ---- attributes

    @answered
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._entry(await self._namespace.getattr(InodeNumber(inode)))

    @answered
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        number = InodeNumber(inode)
        changes = Changes(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
            ctime_ns=attr.st_ctime_ns if fields.update_ctime else None,
        )
        return self._entry(await self._live(number).setattr(number, changes))

    @answered
    async def access(self, inode: InodeT, mode: ModeT, ctx: RequestContext) -> bool:
        return True  # the kernel checks: default_permissions is always on

    @answered
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        return statvfs_data(self._volume.statfs())

    @answered
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        return await self._namespace.getxattr(InodeNumber(inode), name)

    @answered
    async def setxattr(self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext) -> None:
        self._live(InodeNumber(inode)).setxattr(InodeNumber(inode), name, value)

    @answered
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        self._live(InodeNumber(inode)).removexattr(InodeNumber(inode), name)

    @answered
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[bytes]:
        return await self._namespace.listxattr(InodeNumber(inode), privileged=ctx.uid == 0)

    # ---- bytes

    @answered
    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        parent, owner = InodeNumber(parent_inode), Owner(ctx.uid, ctx.gid)
        inode, handle = self._live(parent, name).create(parent, name, mode=mode, owner=owner)
        return FileInfo(fh=FileHandleT(handle), keep_cache=self._keep_cache), self._entry(inode)

    @answered
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        handle = await self._namespace.open(
            InodeNumber(inode), truncate=bool(flags & os.O_TRUNC), writing=flags & os.O_ACCMODE != os.O_RDONLY
        )
        return FileInfo(fh=FileHandleT(handle), keep_cache=self._keep_cache)

    @answered
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return await self._namespace.read(fh, off, size)

    @answered
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        return await self._volume.write(fh, off, buf, touch=not self.enable_writeback_cache)

    @answered
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await self._namespace.fsync(fh)

    @answered
    async def release(self, fh: FileHandleT) -> None:
        self._namespace.release(fh)

    def _entry(self, inode: Inode) -> EntryAttributes:
        if not isinstance(shown := inode.shown, EntryAttributes):
            timeout_seconds = FOLLOWING_TIMEOUT_SECONDS if is_passing(inode.number) else self._timeout_seconds
            shown = inode.shown = entry_attributes(inode, self._namespace.stored_bytes(inode), timeout_seconds)
        return shown

    def _listed(self, inode: Inode) -> EntryAttributes:
        """Counting holes costs a query, which a long listing of whole small files can do without."""
        if inode.stored_bytes is not None or not inode.is_file or inode.size > inode.block_bytes:
            return self._entry(inode)
        if not isinstance(listed := inode.listed, EntryAttributes):
            listed = inode.listed = entry_attributes(inode, inode.size, self._timeout_seconds)
        return listed
