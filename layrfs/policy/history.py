"""When changes are merged, and when a checkpoint takes their place. Pure.

A segment of changes is merged with the one before it unless that is more than twice as large, so sizes at least halve
along the chain: its length grows with the logarithm of what changed, and every byte is sent a logarithmic number of
times. A checkpoint costs as much as the volume's metadata, so it is due when the changes have outgrown the last one.
"""

from __future__ import annotations

from collections.abc import Sequence

SMALLEST_CHECKPOINT_BYTES = 4 << 20
"""Below this a chain is read as fast as a checkpoint."""

MERGE_FACTOR = 2

LARGEST_SHARDS = 180
"""Of all segments together: 300 bytes each in a root record, and some for the rest.

A checkpoint has 90 bytes for each small file, packed with others, and 260 for one with a shard of its own: that is 2.9
to 8 million files. Changes that do not fit beside a checkpoint become a new one.
"""


def fits(shards: int) -> bool:
    """Whether a root record can name so many."""
    return shards <= LARGEST_SHARDS


def is_lacking(copies: int, wanted: int, hosts: int) -> bool:
    """Whether there could be more of so many copies, when there are so many hosts."""
    return copies < min(wanted, hosts)


def checkpoint_due(checkpoint_bytes: int, changes_bytes: int) -> bool:
    """Whether so many bytes of changes should give way to a checkpoint, the last of which had ``checkpoint_bytes``."""
    return changes_bytes > max(SMALLEST_CHECKPOINT_BYTES, checkpoint_bytes)


def first_merged(sizes: Sequence[int], new_bytes: int) -> int:
    """Of the segments of changes in order, with these sizes: the first that is merged with the new changes.

    ``len(sizes)``: none is.
    """
    first = len(sizes)
    while first and sizes[first - 1] <= MERGE_FACTOR * new_bytes:
        first -= 1
        new_bytes += sizes[first]
    return first
