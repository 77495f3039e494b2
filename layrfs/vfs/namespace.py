"""All that can be seen below the mountpoint: the volume as it is, and in ``.snapshots`` as it was.

Owns the numbers: inodes and handles below ``SNAPSHOTS`` are the live volume's, and cost one comparison; those of a
snapshot are its own plus a slot, which it keeps as long as this object lives, opened or not: what the kernel remembers
of a snapshot never turns into another. Must not know how a snapshot is opened. ``.snapshots`` is found by name and not
listed in the root, so that whoever copies or searches the mount does not copy or search its past.

The invariant: nothing in ``.snapshots`` changes, by whatever request.
"""

from __future__ import annotations

import contextlib
import itertools
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from layrfs.errors import InvalidArgument, IsADirectory, NoAttribute, NotFound, NotSupported, ReadOnly
from layrfs.ids import ROOT_INODE, InodeNumber
from layrfs.storage.versions import Version
from layrfs.vfs.directories import DOT_COOKIE, DOT_DOT_COOKIE, Listing
from layrfs.vfs.filesystem import Filesystem
from layrfs.vfs.inodes import DEFAULT_BLOCK_BYTES, Inode
from layrfs.vfs.xattrs import OURS, STORED

NAME = b".snapshots"

SLOT_BITS = 40
"""Of inode numbers below a slot: a volume that makes 10,000 files a second gets there in three years."""

SNAPSHOTS = 1 << SLOT_BITS
DIRECTORY = InodeNumber(SNAPSHOTS | ROOT_INODE)
"""``.snapshots`` has the first slot."""

FIRST_SLOT = 2
DIRECTORY_MODE = stat.S_IFDIR | 0o700
"""For the owner alone: what was open to others once need not be meant to stay so."""

MS_TO_NS = 10**6


class Look(NamedTuple):
    """A snapshot while somebody looks at it: its read-only file system, and how to say that one is done."""

    filesystem: Filesystem
    release: Callable[[], None]


class Snapshots(Protocol):
    """Who opens snapshots: ``layrfs.app.snapshots.Snapshots``, or a fake."""

    def by_name(self) -> Mapping[str, Version]:
        """What there is."""
        ...

    async def acquire(self, number: int) -> Look:
        """A look at a version; the caller releases it. Raises ``NotFound``, ``Unavailable``, ``LocalError``."""
        ...


class _Handle(NamedTuple):
    """An open file of a snapshot."""

    look: Look
    handle: int


def is_passing(number: int) -> bool:
    """Whether an inode is ``.snapshots`` or the top of a snapshot: those come and go without the kernel's doing."""
    return number > SNAPSHOTS and number & (SNAPSHOTS - 1) == ROOT_INODE


class Namespace:
    """One volume, its past included. For changes ask ``live`` for the volume; everything else is asked here."""

    def __init__(self, volume: Filesystem, snapshots: Snapshots) -> None:
        self._volume = volume
        self._snapshots = snapshots
        self._slots: dict[int, int] = {}
        self._versions: dict[int, Version] = {}
        """Slot to version; one once given out stays."""
        self._handles: dict[int, _Handle] = {}
        self._next_handle = itertools.count(SNAPSHOTS)

    def live(self, number: InodeNumber, name: bytes = b"") -> Filesystem:
        """The volume, for a change of an inode, or of a name in it. Raises ``ReadOnly``."""
        if number >= SNAPSHOTS or (number == ROOT_INODE and name == NAME):
            raise ReadOnly("Snapshots cannot be changed; `layrfs snapshot` makes and deletes them.")
        return self._volume

    # ---- names

    async def lookup(self, parent: InodeNumber, name: bytes) -> Inode | None:
        """The inode of a name, None when there is none and never will be without our caller's doing.

        Raises ``NotFound`` for a snapshot that does not exist.
        """
        if parent < SNAPSHOTS:
            if name == NAME and parent == ROOT_INODE:
                return self._directory()
            return self._volume.lookup(parent, name)
        if parent == DIRECTORY or (name == b".." and is_passing(parent)):
            return self._lookup_top(parent, name)
        slot, inner = divmod(parent, SNAPSHOTS)
        async with self._opened(slot) as filesystem:
            inode = filesystem.lookup(InodeNumber(inner), name)
            return None if inode is None else self._shown(filesystem, inode, slot)

    def forget(self, references: Iterable[tuple[int, int]]) -> None:
        """See ``Filesystem.forget``; in snapshots nothing hangs on who knows what."""
        self._volume.forget(reference for reference in references if reference[0] < SNAPSHOTS)

    def refer(self, number: InodeNumber) -> None:
        """One more reference to an inode."""
        if number < SNAPSHOTS:
            self._volume.refer(number)

    async def readlink(self, number: InodeNumber) -> bytes:
        """Where a symbolic link points."""
        if number < SNAPSHOTS:
            return self._volume.readlink(number)
        if is_passing(number):
            raise InvalidArgument("It is not a symbolic link.")
        slot, inner = divmod(number, SNAPSHOTS)
        async with self._opened(slot) as filesystem:
            return filesystem.readlink(InodeNumber(inner))

    async def listing(self, number: InodeNumber, position: int) -> Iterator[Listing]:
        """See ``Filesystem.listing``."""
        if number < SNAPSHOTS:
            return self._volume.listing(number, position)
        if number == DIRECTORY:
            return iter(self._listing_of_snapshots(position))
        slot, inner = divmod(number, SNAPSHOTS)
        async with self._opened(slot) as filesystem:
            return self._listing(filesystem, slot, InodeNumber(inner), position)

    # ---- attributes

    async def getattr(self, number: InodeNumber) -> Inode:
        """An inode's attributes; raises ``NotFound``."""
        if number < SNAPSHOTS:
            return self._volume.getattr(number)
        slot, inner = divmod(number, SNAPSHOTS)
        if is_passing(number):
            return self._directory() if number == DIRECTORY else self._top(slot)
        async with self._opened(slot) as filesystem:
            return self._shown(filesystem, filesystem.getattr(InodeNumber(inner)), slot)

    def stored_bytes(self, inode: Inode) -> int:
        """What a file occupies."""
        return self._volume.stored_bytes(inode)

    async def getxattr(self, number: InodeNumber, name: bytes) -> bytes:
        """The value of an extended attribute."""
        if number < SNAPSHOTS:
            return self._volume.getxattr(number, name)
        if is_passing(number):
            return self._attribute_of_top(name)
        slot, inner = divmod(number, SNAPSHOTS)
        async with self._opened(slot) as filesystem:
            return filesystem.getxattr(InodeNumber(inner), name)

    async def listxattr(self, number: InodeNumber, *, privileged: bool) -> list[bytes]:
        """The names of extended attributes that the caller may know."""
        if number < SNAPSHOTS:
            return self._volume.listxattr(number, privileged=privileged)
        if is_passing(number):
            return []
        slot, inner = divmod(number, SNAPSHOTS)
        async with self._opened(slot) as filesystem:
            return filesystem.listxattr(InodeNumber(inner), privileged=privileged)

    # ---- bytes

    async def open(self, number: InodeNumber, *, truncate: bool, writing: bool) -> int:
        """A handle for a regular file; while it is open, its snapshot is."""
        if number < SNAPSHOTS:
            return await self._volume.open(number, truncate=truncate, writing=writing)
        if truncate or writing:
            self.live(number)
        if is_passing(number):
            raise IsADirectory("It is a directory.")
        slot, inner = divmod(number, SNAPSHOTS)
        look = await self._look(slot)
        try:
            opened = await look.filesystem.open(InodeNumber(inner), truncate=False)
        except BaseException:
            look.release()
            raise
        handle = next(self._next_handle)
        self._handles[handle] = _Handle(look, opened)
        return handle

    async def read(self, handle: int, offset: int, length: int) -> bytes:
        """At most ``length`` bytes; fewer only at the end of the file."""
        if handle < SNAPSHOTS:
            return await self._volume.read(handle, offset, length)
        file = self._handles[handle]
        return await file.look.filesystem.read(file.handle, offset, length)

    async def fsync(self, handle: int) -> None:
        """Return when the file's bytes, then all metadata, are on the disk; those of a snapshot are on hosts."""
        if handle < SNAPSHOTS:
            await self._volume.fsync(handle)

    def release(self, handle: int) -> None:
        """Close a handle."""
        if handle < SNAPSHOTS:
            self._volume.release(handle)
            return
        file = self._handles.pop(handle)
        file.look.filesystem.release(file.handle)
        file.look.release()

    # ---- .snapshots and what is directly in it: known without opening anything

    def _lookup_top(self, parent: InodeNumber, name: bytes) -> Inode:
        if parent != DIRECTORY or name == b".":
            return self._directory()
        if name == b"..":
            return self._volume.getattr(ROOT_INODE)
        version = self._snapshots.by_name().get(name.decode(errors="replace"))
        if version is None:
            raise NotFound("There is no such snapshot.")
        return self._top(self._slot(version))

    def _listing_of_snapshots(self, position: int) -> Iterator[Listing]:
        if position < DOT_COOKIE:
            yield Listing(b".", self._directory(), DOT_COOKIE)
        if position < DOT_DOT_COOKIE:
            yield Listing(b"..", self._volume.getattr(ROOT_INODE), DOT_DOT_COOKIE)
        for name, version in sorted(self._snapshots.by_name().items(), key=lambda item: item[1].number):
            following = version.number + DOT_DOT_COOKIE
            if following > position:
                yield Listing(name.encode(), self._top(self._slot(version)), following)

    def _directory(self) -> Inode:
        newest_ms = max((version.time_ms for version in self._snapshots.by_name().values()), default=0)
        return self._made(DIRECTORY, DIRECTORY_MODE, newest_ms)

    def _top(self, slot: int) -> Inode:
        """Of a snapshot: the root's mode and owner of today, and the time it was made."""
        mode = self._volume.getattr(ROOT_INODE).mode
        return self._made(InodeNumber(slot * SNAPSHOTS | ROOT_INODE), mode, self._versions[slot].time_ms)

    def _made(self, number: InodeNumber, mode: int, time_ms: int) -> Inode:
        root, time_ns = self._volume.getattr(ROOT_INODE), time_ms * MS_TO_NS
        return Inode((number, mode, root.uid, root.gid, 2, 0, DEFAULT_BLOCK_BYTES, 0, time_ns, time_ns, time_ns, None))

    def _attribute_of_top(self, name: bytes) -> bytes:
        if name.startswith(OURS):
            return self._volume.getxattr(ROOT_INODE, name)
        if not name.startswith(STORED):
            raise NotSupported("Attributes of this kind are not kept.")
        raise NoAttribute("There is no such attribute.")

    def _slot(self, version: Version) -> int:
        slot = self._slots.get(version.number)
        if slot is None:
            slot = self._slots[version.number] = FIRST_SLOT + len(self._slots)
            self._versions[slot] = version
        return slot

    # ---- inside a snapshot

    async def _look(self, slot: int) -> Look:
        version = self._versions.get(slot)
        if version is None:
            raise NotFound("There is no such inode.")
        return await self._snapshots.acquire(version.number)

    @contextlib.asynccontextmanager
    async def _opened(self, slot: int) -> AsyncIterator[Filesystem]:
        look = await self._look(slot)
        try:
            yield look.filesystem
        finally:
            look.release()

    def _listing(self, filesystem: Filesystem, slot: int, number: InodeNumber, position: int) -> Iterator[Listing]:
        for name, inode, following in filesystem.listing(number, position):
            if name == b".." and number == ROOT_INODE:
                yield Listing(name, self._directory(), following)
            else:
                yield Listing(name, self._shown(filesystem, inode, slot, listed=True), following)

    def _shown(self, filesystem: Filesystem, inode: Inode, slot: int, *, listed: bool = False) -> Inode:
        """An inode of a snapshot under the number it has here."""
        if inode.number == ROOT_INODE:
            return self._top(slot)
        shown = Inode((slot * SNAPSHOTS | inode.number, *inode.row()[1:]))
        if not (listed and inode.is_file and inode.size <= inode.block_bytes):  # a listing need not know of holes
            shown.stored_bytes = filesystem.stored_bytes(inode)
        return shown
