"""Whether a read-only mount follows the volume's writer, and how it gets from one version to another. Pure.

A mount follows only when nothing here is the only copy of anything: then its tables are exactly some published version,
and whatever is in the cache can be thrown away. Otherwise it shows what is here, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import msgspec

from layrfs.model.history import Segment

LOOK_SECONDS = 2.0
"""How often the newest version is asked for."""

LONGEST_LOOK_SECONDS = 30.0
"""The same after failures in a row."""

SURVEY_LOOKS = 15
"""Every so many looks all hosts that could know are asked, not only those that knew most the last time."""


class LocalState(msgspec.Struct, frozen=True):
    """What is on this machine of the volume."""

    pending_changes: bool
    """Rows changed that are in no segment."""
    dirty_blocks: bool
    unannounced: bool
    """A version was prepared here that no host is known to keep."""
    crashed: bool
    """The last run was a writer's, and did not end in order: only recovery knows what is dirty."""


def reason_not_to_follow(state: LocalState) -> str | None:
    """In a sentence; None when a read-only mount follows."""
    if state.dirty_blocks:
        return "this machine has data that is on no host yet"
    if state.pending_changes or state.unannounced:
        return "this machine has changes that are not on the network yet"
    if state.crashed:
        return "this machine was writing to the volume when it stopped without unmounting"
    return None


class Replay(msgspec.Struct, frozen=True):
    """Undo these segments (the last of the old list, in order), then apply these instead."""

    undone: tuple[Segment, ...]
    done: tuple[Segment, ...]


class Rebuild(msgspec.Struct, frozen=True):
    """Make the whole database again beside the old one, and go over to it."""


def way(old: Sequence[Segment], new: Sequence[Segment], kept: Container[int]) -> Replay | Rebuild:
    """From one list of segments to another; ``kept``: the numbers whose changesets are on this disk."""
    same = 0
    while same < min(len(old), len(new)) and _is_same(old[same], new[same]):
        same += 1
    undone, done = old[same:], new[same:]
    if any(one.kind == "checkpoint" for one in (*undone, *done)):
        return Rebuild()
    if any(one.number not in kept for one in undone):
        return Rebuild()
    return Replay(tuple(undone), tuple(done))


def _is_same(one: Segment, other: Segment) -> bool:
    """The same bytes, wherever their pieces are by now."""
    return (one.kind, one.number) == (other.kind, other.number) and [shard.id for shard in one.shards] == [
        shard.id for shard in other.shards
    ]


def pause_seconds(failures: int) -> float:
    """How long until the next look, after so many failures in a row."""
    return min(LONGEST_LOOK_SECONDS, LOOK_SECONDS * 2.0 ** min(failures, 16))
