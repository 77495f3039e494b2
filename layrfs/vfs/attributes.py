"""What attributes become: who something new belongs to, what ``setattr`` changes, when a read moves the access time.

Pure decisions over an ``Inode`` in memory. Must not know tables, names or bytes; mode bits are ``permissions``'.
"""

from __future__ import annotations

from typing import NamedTuple

from layrfs.vfs import permissions
from layrfs.vfs.inodes import Inode

DAY_NS = 24 * 3600 * 10**9


class Owner(NamedTuple):
    """Who something new belongs to."""

    uid: int
    gid: int


class Changes(NamedTuple):
    """Attributes to set; None leaves one as it is."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None


def apply(changes: Changes, inode: Inode, now_ns: int) -> None:
    """Everything but the size, which takes more than a number."""
    if changes.mode is not None:
        inode.mode = permissions.with_permissions(inode.mode, changes.mode)
    if changes.uid is not None or changes.gid is not None:
        inode.uid = inode.uid if changes.uid is None else changes.uid
        inode.gid = inode.gid if changes.gid is None else changes.gid
        inode.mode = inode.mode if changes.mode is not None else permissions.without_privileges(inode.mode)
    if changes.atime_ns is not None:
        inode.atime_ns = changes.atime_ns
    if changes.mtime_ns is not None:
        inode.mtime_ns = changes.mtime_ns
    inode.ctime_ns = now_ns if changes.ctime_ns is None else changes.ctime_ns


def is_read_noted(inode: Inode, now_ns: int) -> bool:
    """Whether a read updates the access time: as ``relatime`` does, once after each change and once a day."""
    atime_ns = inode.atime_ns
    return atime_ns <= inode.mtime_ns or atime_ns <= inode.ctime_ns or now_ns - atime_ns > DAY_NS
