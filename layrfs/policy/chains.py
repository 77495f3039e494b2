"""From leftover segments of metadata, those that make a volume, newest first. Pure.

Every version of a volume ends in exactly one segment, and every segment of changes names the one whose state it
changes. So the segments of a version are found by going back from its last one to a checkpoint, or to nothing at all;
there is nothing to guess, and segments of another writer never get in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from layrfs.ids import Salt
from layrfs.model.notes import NO_BLOB, PieceNote, Purpose, blob_tag


class Found(msgspec.Struct, frozen=True, order=True):
    """A whole segment: pieces of every shard were seen. `stored`: when, in Unix seconds."""

    kind: Literal["checkpoint", "changes"]
    number: int
    tag: bytes
    previous: bytes
    salts: tuple[Salt, ...]
    stored: int


def whole_segments(notes: Iterable[tuple[PieceNote, int]]) -> list[Found]:
    """The segments of which no shard is missing, from the notes of pieces and when those were stored."""
    shards: dict[Purpose, dict[int, list[tuple[int, Salt]]]] = {}
    for note, stored in notes:
        purpose = note.purpose
        if purpose.role != "content":
            tag = purpose.blob if purpose.index else blob_tag(note.salt)
            segment = shards.setdefault(msgspec.structs.replace(purpose, index=0, blob=tag), {})
            segment.setdefault(purpose.index, []).append((stored, note.salt))
    found = []
    for purpose, places in shards.items():
        if purpose.role != "content" and sorted(places) == list(range(purpose.count)):
            salts = tuple(places[index][0][1] for index in range(purpose.count))
            stored = max(middle_time(stored for stored, _ in pieces) for pieces in places.values())
            found.append(Found(purpose.role, purpose.number, purpose.blob, purpose.previous, salts, stored))
    return found


def middle_time(times: Iterable[int]) -> int:
    """When a shard was stored, from what the hosts of its pieces say: one that lies does not move it far."""
    ordered = sorted(times)
    return ordered[(len(ordered) - 1) // 2]


def chains(segments: Iterable[Found]) -> Iterator[tuple[Found, ...]]:
    """Segments to apply in order, each chain a version of the volume; the newest version first.

    Of several that say they are the same version (two machines wrote at the same time) the one stored later is first.
    """
    by_tag = {segment.tag: segment for segment in segments}
    for last in sorted(by_tag.values(), key=lambda each: (each.number, each.stored, each.tag), reverse=True):
        chain = _back_from(last, by_tag)
        if chain is not None:
            yield chain


def _back_from(last: Found, by_tag: dict[bytes, Found]) -> tuple[Found, ...] | None:
    """None when a segment before it is not there."""
    chain = [last]
    while chain[-1].kind == "changes" and chain[-1].previous != NO_BLOB:
        before = by_tag.get(chain[-1].previous)
        if before is None or before.number >= chain[-1].number:
            return None
        chain.append(before)
    return tuple(reversed(chain))
