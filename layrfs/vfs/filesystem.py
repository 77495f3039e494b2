"""The volume as a file system: the one object front ends talk to.

Owns open files and the order of writes. Must not know the kernel: callers hand in plain
numbers and get ``Inode``s, bytes, or one of ``layrfs.errors``.

The invariants: whatever a method has answered is in the open transaction, so a commit is always a consistent volume;
``fsync`` returns when bytes and metadata are on the disk, in this order; an inode without a name lives as long as
somebody knows it, and no longer than the mount; once read-only, nothing that is asked for changes anything.

Inodes handed out are for reading at once: do not keep them across an ``await``.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import NamedTuple

from layrfs.crashpoints import reached
from layrfs.errors import InvalidArgument, IsADirectory, NoSpace, NotFound, ReadOnly
from layrfs.ids import ROOT_INODE, InodeNumber
from layrfs.model.redundancy import Redundancy
from layrfs.model.sharding import Sharding
from layrfs.storage.database import Database
from layrfs.storage.tree import Tree
from layrfs.vfs import attributes, permissions
from layrfs.vfs.attributes import Changes, Owner
from layrfs.vfs.contents import Contents, FileContent
from layrfs.vfs.directories import MAX_NAME_BYTES, Directories, Listing
from layrfs.vfs.inodes import Inode, Inodes
from layrfs.vfs.lifetimes import Lifetimes
from layrfs.vfs.policies import Policies
from layrfs.vfs.resizing import Resizing
from layrfs.vfs.statfs import Space, Statistics, statistics
from layrfs.vfs.xattrs import ExtendedAttributes, VirtualAttributes

_log = logging.getLogger(__name__)

ROOT_MODE = stat.S_IFDIR | 0o755
SYMLINK_MODE = stat.S_IFLNK | 0o777


class OpenFile(NamedTuple):
    """What a handle stands for."""

    inode: InodeNumber
    content: FileContent


class Filesystem:
    """Lookups, names, attributes and bytes of one volume. Only what may wait for disk or network is ``async``."""

    def __init__(
        self,
        database: Database,
        tree: Tree,
        inodes: Inodes,
        contents: Contents,
        *,
        space: Callable[[], Space],
        policies: Policies | None = None,
        virtual_attributes: VirtualAttributes | None = None,
        owner: Owner | None = None,
        read_only: bool = False,
        fsync_further: Callable[[InodeNumber | None], Awaitable[None]] | None = None,
    ) -> None:
        """Make the root directory if the volume is new; it belongs to ``owner``, by default this process's user.

        ``space`` tells ``df``'s numbers; ``virtual_attributes`` answers names under ``user.layrfs.``. ``read_only``:
        from the beginning, see ``turn_read_only``. ``fsync_further`` does what fsync of a file (None: of metadata)
        takes beyond this disk.
        """
        self._database, self._tree, self._inodes, self._contents = database, tree, inodes, contents
        self._space, self._fsync_further = space, fsync_further
        self._pins = contents.pins
        self._directories = Directories(tree, inodes)
        self._policies = policies or Policies(tree, inodes)
        self._xattrs = ExtendedAttributes(tree, inodes, self._policies, virtual_attributes or {})
        self._resizing = Resizing(inodes, contents)
        self.lifetimes = Lifetimes()
        self._open: dict[int, OpenFile] = {}
        self._next_handle = 1
        self._read_only = "The volume is mounted read-only." if read_only else None
        database.before_commit(inodes.flush)
        if tree.load(ROOT_INODE) is None:
            uid, gid = owner or (os.getuid(), os.getgid())
            inodes.make_root(mode=ROOT_MODE, uid=uid, gid=gid, is_recorded=not read_only)

    def remove_orphans(self) -> None:
        """Drop what was unlinked while open when the last mount ended. Once, when ``contents`` has started."""
        if self._read_only is None:
            for orphan in self._tree.orphans():
                self._delete(orphan)

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be changed any more, from the beginning or since ``turn_read_only``."""
        return self._read_only is not None

    def turn_read_only(self, reason: str) -> None:
        """From now on whatever would change the volume raises ``ReadOnly`` with this sentence; reads go on."""
        self._read_only = reason

    def close(self) -> None:
        """Drop what has no name and commit. The caller closes the database."""
        for orphan in self.lifetimes.end():
            self._delete(orphan)
        self._database.commit()

    # ---- names

    def lookup(self, parent: InodeNumber, name: bytes) -> Inode | None:
        """The inode of a name, None when there is no such name. Counts as one reference, see ``forget``."""
        inode = self._directories.find(parent, name)
        if inode is not None:
            self.lifetimes.refer(inode.number)
        return inode

    def forget(self, references: Iterable[tuple[int, int]]) -> None:
        """The caller gives back references, as pairs of inode and count; what nobody can reach any more is deleted."""
        for number, count in references:
            if self.lifetimes.forget(InodeNumber(number), count):
                self._delete(InodeNumber(number))

    def make(
        self,
        parent: InodeNumber,
        name: bytes,
        *,
        mode: int,
        owner: Owner,
        rdev: int = 0,
        target: bytes | None = None,
    ) -> Inode:
        """Make a file, directory, device, pipe, socket or (with ``target``) symbolic link, as ``mode`` says.

        Counts as one reference.
        """
        directory = self._directories.check_new(parent, name)
        self._check_room()
        mode, gid = permissions.inherited(mode, owner.gid, directory.mode, directory.gid)
        inode = self._inodes.new(mode=mode, uid=owner.uid, gid=gid, rdev=rdev, target=target)
        self._policies.inherit(directory, inode)
        self._directories.add(directory, name, inode)
        self._pins.named(inode.number, parent)
        self.lifetimes.refer(inode.number)
        return inode

    def create(self, parent: InodeNumber, name: bytes, *, mode: int, owner: Owner) -> tuple[Inode, int]:
        """Make a regular file and open it; the inode (one reference) and the handle."""
        inode = self.make(parent, name, mode=stat.S_IFREG | permissions.PERMISSION_BITS & mode, owner=owner)
        return inode, self._handle(inode.number, is_new=True)

    def link(self, number: InodeNumber, parent: InodeNumber, name: bytes) -> Inode:
        """Another name for a file. Counts as one reference."""
        self._check_room()
        inode = self._directories.link(number, parent, name)
        self._pins.named(number, parent)
        self.lifetimes.refer(number)
        return inode

    def unlink(self, parent: InodeNumber, name: bytes) -> None:
        """Drop a name of a file."""
        self._check_writable()
        self._lost_name(self._directories.unlink(parent, name))

    def rmdir(self, parent: InodeNumber, name: bytes) -> None:
        """Remove an empty directory."""
        self._check_writable()
        self._lost_name(self._directories.rmdir(parent, name))

    def rename(
        self,
        parent: InodeNumber,
        name: bytes,
        new_parent: InodeNumber,
        new_name: bytes,
        *,
        replace: bool = True,
    ) -> None:
        """Move a name, replacing what has the new one unless ``replace`` is false."""
        self._check_writable()
        replaced = self._directories.rename(parent, name, new_parent, new_name, replace=replace)
        reached("renamed")
        self._follow_pins(new_parent, new_name, replaced)
        if replaced is not None and (moved := self._tree.find(new_parent, new_name)) is not None:
            self._lost_name(replaced)
            self._contents.replaces(moved)

    def exchange(self, parent: InodeNumber, name: bytes, new_parent: InodeNumber, new_name: bytes) -> None:
        """Swap what two names stand for."""
        self._check_writable()
        self._directories.exchange(parent, name, new_parent, new_name)
        self._follow_pins(parent, name)
        self._follow_pins(new_parent, new_name)

    def readlink(self, number: InodeNumber) -> bytes:
        """Where a symbolic link points."""
        target = self._inodes.get(number).target
        if target is None:
            raise InvalidArgument("It is not a symbolic link.")
        return target

    def listing(self, number: InodeNumber, position: int) -> Iterator[Listing]:
        """The names of a directory, see ``Directories.listing``. ``refer`` to those that are handed on."""
        inode = self._inodes.get(number)
        self._note_read(inode)
        return self._directories.listing(number, position)

    def refer(self, number: InodeNumber) -> None:
        """One more reference to an inode."""
        self.lifetimes.refer(number)

    def path_of(self, number: InodeNumber) -> bytes | None:
        """One path of an inode from the root; None when it has no name."""
        return self._tree.path_of(number)

    def resolve(self, path: bytes) -> Inode:
        """The inode of a path from the root, symbolic links not followed. Raises ``NotFound``."""
        inode = self._inodes.get(ROOT_INODE)
        for name in filter(None, path.split(b"/")):
            found = self._directories.find(inode.number, name)
            if found is None:
                raise NotFound(f"There is no {path.decode(errors='replace')} in the volume as it is now.")
            inode = found
        return inode

    # ---- attributes

    def getattr(self, number: InodeNumber) -> Inode:
        """An inode's attributes; raises ``NotFound``."""
        return self._inodes.get(number)

    def stored_bytes(self, inode: Inode) -> int:
        """What a file occupies: its size less its holes, in whole blocks."""
        if inode.stored_bytes is None:
            blocks = 0
            if inode.is_file and inode.size:
                known = self._contents.stored_blocks(inode.number)
                blocks = self._tree.stored_blocks(inode.number) if known is None else known
            inode.stored_bytes = min(inode.size, blocks * inode.block_bytes)
        return inode.stored_bytes

    async def setattr(self, number: InodeNumber, changes: Changes) -> Inode:
        """Change attributes; a size cuts or extends the file."""
        self._check_writable()
        if changes.size is not None:
            await self._resizing.resize(number, changes.size)
        inode = self._inodes.get(number)
        attributes.apply(changes, inode, self._inodes.now_ns())
        self._inodes.changed(inode)
        return inode

    def statfs(self) -> Statistics:
        """Sizes of the whole volume."""
        return statistics(self._space(), self._tree.inode_count, MAX_NAME_BYTES)

    def getxattr(self, number: InodeNumber, name: bytes) -> bytes:
        """The value of an extended attribute."""
        return self._xattrs.get(number, name)

    def setxattr(self, number: InodeNumber, name: bytes, value: bytes) -> None:
        """Create or replace an extended attribute."""
        self._check_room()
        self._xattrs.set(number, name, value)

    def removexattr(self, number: InodeNumber, name: bytes) -> None:
        """Drop an extended attribute."""
        self._check_writable()
        self._xattrs.remove(number, name)

    def listxattr(self, number: InodeNumber, *, privileged: bool) -> list[bytes]:
        """The names of extended attributes that the caller may know."""
        return self._xattrs.names(number, privileged=privileged)

    def redundancy_of(self, number: InodeNumber) -> Redundancy:
        """The redundancy in force for a file."""
        return self._policies.redundancy_of(number)

    def sharding_of(self, number: InodeNumber) -> Sharding:
        """The sharding in force for a file."""
        return self._policies.sharding_of(number)

    # ---- bytes

    async def open(self, number: InodeNumber, *, truncate: bool, writing: bool = False) -> int:
        """A handle for a regular file."""
        if truncate or writing:
            self._check_writable()
        inode = self._inodes.get(number)
        if inode.is_directory:
            raise IsADirectory("It is a directory.")
        if truncate:
            await self._resizing.resize(number, 0)
        return self._handle(number)

    async def read(self, handle: int, offset: int, length: int) -> bytes:
        """At most ``length`` bytes; fewer only at the end of the file."""
        file = self._open[handle]
        inode = self._inodes.get(file.inode)
        length = min(length, inode.size - offset)
        if length <= 0:
            return b""
        self._note_read(inode)
        data = file.content.read_now(offset, length)
        data = await file.content.read(offset, length) if data is None else data
        return data[: max(0, self._inodes.get(file.inode).size - offset)]  # it may have been cut meanwhile

    async def write(self, handle: int, offset: int, data: bytes, *, touch: bool = True) -> int:
        """Write all of ``data``; how much that is. Without ``touch`` the caller sets the times: when the write comes
        late from a writeback cache, only that knows them."""
        file = self._open[handle]
        if self._read_only is not None:
            _log.error("%d bytes written to file %d came too late: %s", len(data), file.inode, self._read_only)
        self._check_writable()
        if not file.content.write_now(offset, data):
            await file.content.write(offset, data)
        inode = self._inodes.get(file.inode)
        inode.stored_bytes = inode.shown = inode.listed = None
        end = offset + len(data)
        if end > inode.size:
            inode.size = end
            self._inodes.changed(inode)
        if touch:
            inode.mtime_ns = inode.ctime_ns = self._inodes.now_ns()
            self._inodes.changed(inode)
        if inode.mode & (stat.S_ISUID | stat.S_ISGID):
            inode.mode = permissions.without_privileges(inode.mode)
            self._inodes.changed(inode)
        return len(data)

    async def fsync(self, handle: int) -> None:
        """Return when the file's bytes, then all metadata, are on the disk."""
        inode = self._open[handle].inode
        await self._contents.sync(inode)
        reached("cache file synced")
        await self._database.sync()
        if self._fsync_further is not None:
            await self._fsync_further(inode)

    async def fsyncdir(self) -> None:
        """Return when all metadata is on the disk."""
        await self._database.sync()
        if self._fsync_further is not None:
            await self._fsync_further(None)

    def release(self, handle: int) -> None:
        """Close a handle."""
        file = self._open.pop(handle)
        self._contents.release(file.content)
        if self.lifetimes.close(file.inode):
            self._delete(file.inode)

    # ---- inside

    def _handle(self, number: InodeNumber, *, is_new: bool = False) -> int:
        content = self._contents.open(number, is_new=is_new)
        handle = self._next_handle
        self._next_handle += 1
        self._open[handle] = OpenFile(number, content)
        self.lifetimes.open(number)
        return handle

    def _note_read(self, inode: Inode) -> None:
        if self._read_only is None and attributes.is_read_noted(inode, now := self._inodes.now_ns()):
            inode.atime_ns = now
            self._inodes.changed(inode)

    def _check_writable(self) -> None:
        if self._read_only is not None:
            raise ReadOnly(self._read_only)

    def _check_room(self) -> None:
        """For whatever makes something new."""
        self._check_writable()
        if not self._database.has_room:
            raise NoSpace("The disk that holds the volume's metadata is full.")

    def _follow_pins(self, parent: InodeNumber, name: bytes, replaced: Inode | None = None) -> None:
        """What has this name now was moved there."""
        if self._pins.any and (inode := self._directories.find(parent, name)) is not None:
            self._pins.moved(inode.number, parent, None if replaced is None else replaced.number)

    def _lost_name(self, inode: Inode) -> None:
        if not inode.nlink and self.lifetimes.lose_name(inode.number):
            self._delete(inode.number)

    def _delete(self, number: InodeNumber) -> None:
        if self._inodes.drop_removed(number):
            self._contents.remove_cached(number)
        if self._read_only is not None:
            return  # the next mount that may write drops what has no name
        inode = self._inodes.get(number)
        if inode.is_file:
            self._contents.remove(inode.number)
        else:
            self._pins.gone(number)
        self._inodes.delete(inode)
