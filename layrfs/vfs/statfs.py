"""How big the volume is, for ``df``.

Owns the numbers every file system reports about itself. Must not know where the room is: whoever builds the file
system hands in a function that tells it.
"""

from __future__ import annotations

from typing import NamedTuple

BLOCK_BYTES = 4096
SPARE_INODES = 2**32
"""Inodes are rows: there is no real limit, but programs subtract."""


class Space(NamedTuple):
    """Bytes the volume can hold, and how many of them are free."""

    total_bytes: int
    free_bytes: int


class Statistics(NamedTuple):
    """What ``statvfs`` answers; blocks are of ``block_bytes``."""

    block_bytes: int
    blocks: int
    free_blocks: int
    inodes: int
    free_inodes: int
    name_bytes: int


def statistics(space: Space, inode_count: int, name_bytes: int) -> Statistics:
    """Never negative, never more free than there is, never zero blocks: some programs divide."""
    blocks = max(1, space.total_bytes // BLOCK_BYTES)
    free_blocks = min(blocks, max(0, space.free_bytes // BLOCK_BYTES))
    return Statistics(BLOCK_BYTES, blocks, free_blocks, inode_count + SPARE_INODES, SPARE_INODES, name_bytes)
