"""Which dirty blocks travel together in one shard.

Pure: lengths in, groups of indices out. Blocks keep their order (neighbours in a directory stay neighbours in a shard,
so that reading one brings the others along), a group ends when the next block does not fit.
Invariant: every block is in exactly one group; a group holds at most ``SHARD_BYTES`` and ``SHARD_PARTS``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from layrfs.model.shard_format import MAX_PAYLOAD_BYTES

SHARD_BYTES = MAX_PAYLOAD_BYTES
"""Plaintext of one shard, as the design fixes it; a block is never larger."""

SHARD_PARTS = 1024
"""Parts of one shard: bounds the messages about it. 4 KiB files fill a shard exactly."""

WORTH_SENDING_BYTES = 3 << 20
"""A last group smaller than this gains from waiting for more."""


class Packed(msgspec.Struct, frozen=True):
    """``shards``: index ranges (as ``first, end``) to send now; ``waiting``: the range better kept for more to come."""

    shards: tuple[tuple[int, int], ...]
    waiting: tuple[int, int]


def pack(lengths: Sequence[int], *, everything: bool) -> Packed:
    """Cut a queue of blocks into shards; ``everything``: the small remainder too (somebody waits, or it is old)."""
    groups = list(_groups(lengths))
    if groups and not everything and _worth_waiting(lengths, groups[-1]):
        return Packed(tuple(groups[:-1]), groups[-1])
    return Packed(tuple(groups), (len(lengths), len(lengths)))


def _groups(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    first, held_bytes = 0, 0
    for index, length in enumerate(lengths):
        if not 0 <= length <= SHARD_BYTES:
            raise ValueError(f"a block of {length} bytes does not fit a shard")
        if held_bytes + length > SHARD_BYTES or index - first == SHARD_PARTS:
            yield first, index
            first, held_bytes = index, 0
        held_bytes += length
    if first < len(lengths):
        yield first, len(lengths)


def _worth_waiting(lengths: Sequence[int], group: tuple[int, int]) -> bool:
    first, end = group
    return end - first < SHARD_PARTS and sum(lengths[first:end]) < WORTH_SENDING_BYTES
