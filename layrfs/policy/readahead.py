"""How far to fetch ahead of a reader.

Pure: one read at a time goes in, how many blocks to have on their way comes out. A reader is sequential when it goes
on near where it stopped; the kernel splits and slightly reorders a large read, hence ``SLACK_BYTES``. The window
doubles with every block a sequential reader enters, up to ``most_blocks``. Random access gets nothing.
Invariant: without at least two reads in a row (or one at the very beginning of the file) nothing is fetched ahead.
"""

from __future__ import annotations

import msgspec

SLACK_BYTES = 1 << 20
"""A read this near to the end of the last one still counts as going on."""

MOST_BLOCKS = 8
MOST_BYTES = 32 << 20
SMALL_BLOCKS = 64
"""The window is ``MOST_BYTES``, but at least ``MOST_BLOCKS`` and, of small blocks, at most ``SMALL_BLOCKS``."""


class Reader(msgspec.Struct, frozen=True):
    """What is remembered of one open file's reader. ``window`` counts blocks after the one being read."""

    next_offset: int = 0
    block: int = -1
    window: int = 0


def observe(reader: Reader, offset: int, length: int, block_bytes: int) -> Reader:
    """The reader after one more read of ``length`` bytes at ``offset``."""
    end = offset + length
    if abs(offset - reader.next_offset) > SLACK_BYTES or (reader.block < 0 and offset > 0):
        return Reader(end, end // block_bytes, 0)
    block = max(reader.block, (end - 1) // block_bytes)
    window = max(1, reader.window)
    if block > reader.block >= 0:
        window = min(most_blocks(block_bytes), window * 2)
    return Reader(max(end, reader.next_offset), block, window)


def most_blocks(block_bytes: int) -> int:
    """The largest window for files with blocks of this size."""
    return max(MOST_BLOCKS, min(SMALL_BLOCKS, MOST_BYTES // block_bytes))
