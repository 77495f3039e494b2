"""The kernel's structures, filled from ours.

Owns the timeouts that tell the kernel how long it may answer by itself: an hour, when everything that changes the
volume goes through this kernel; a moment, when another machine changes it, and for snapshots, which go by themselves.
"""

from __future__ import annotations

import pyfuse3
from pyfuse3 import EntryAttributes, StatvfsData

from layrfs.vfs.inodes import Inode
from layrfs.vfs.statfs import Statistics

TIMEOUT_SECONDS = 3600.0
FOLLOWING_TIMEOUT_SECONDS = 1.0
PREFERRED_IO_BYTES = 1024 * 1024
"""Largest request FUSE carries; ``st_blksize``."""


def entry_attributes(inode: Inode, stored_bytes: int, timeout_seconds: float) -> EntryAttributes:
    """What ``stat`` shows of an inode that occupies ``stored_bytes``."""
    entry = EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(inode.number)
    entry.entry_timeout = timeout_seconds
    entry.attr_timeout = timeout_seconds
    entry.st_mode = pyfuse3.ModeT(inode.mode)
    entry.st_nlink = inode.nlink
    entry.st_uid = inode.uid
    entry.st_gid = inode.gid
    entry.st_rdev = inode.rdev
    entry.st_size = inode.size
    entry.st_blksize = PREFERRED_IO_BYTES
    entry.st_blocks = -(-stored_bytes // 512)
    entry.st_atime_ns = inode.atime_ns
    entry.st_mtime_ns = inode.mtime_ns
    entry.st_ctime_ns = inode.ctime_ns
    return entry


def no_entry(timeout_seconds: float) -> EntryAttributes:
    """There is no such name, and the kernel may remember that."""
    entry = EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(0)
    entry.entry_timeout = timeout_seconds
    return entry


def statvfs_data(statistics: Statistics) -> StatvfsData:
    """What ``statvfs`` shows."""
    data = StatvfsData()
    data.f_bsize = data.f_frsize = statistics.block_bytes
    data.f_blocks = statistics.blocks
    data.f_bfree = data.f_bavail = statistics.free_blocks
    data.f_files = statistics.inodes
    data.f_ffree = data.f_favail = statistics.free_inodes
    data.f_namemax = statistics.name_bytes
    return data
