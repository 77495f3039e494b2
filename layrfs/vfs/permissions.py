"""What ownership and mode bits become when something is made or changed.

Owns the setgid-directory rule and the loss of setuid and setgid bits. Must not know inodes or callers: numbers in,
numbers out. Whether a caller *may* do something is checked by the kernel (``default_permissions``) before we are asked.
"""

from __future__ import annotations

import stat

PERMISSION_BITS = 0o7777


def inherited(mode: int, gid: int, parent_mode: int, parent_gid: int) -> tuple[int, int]:
    """Mode and group of something new: a setgid directory passes on its group, and to directories also its bit."""
    if not parent_mode & stat.S_ISGID:
        return mode, gid
    return (mode | stat.S_ISGID if stat.S_ISDIR(mode) else mode), parent_gid


def without_privileges(mode: int) -> int:
    """The mode of a file whose bytes or owner changed.

    It loses setuid, and setgid where the group may execute (elsewhere that bit once meant mandatory locking).
    Directories keep both.
    """
    if stat.S_ISDIR(mode):
        return mode
    if mode & stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    return mode & ~stat.S_ISUID


def with_permissions(mode: int, wanted: int) -> int:
    """The mode after ``chmod``: the kind of file never changes."""
    return stat.S_IFMT(mode) | (wanted & PERMISSION_BITS)
