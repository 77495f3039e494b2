"""Retained versions of the volume, and the segments they are made of: the tables ``version`` and ``segment``.

Owns those rows. Must not know why a version is retained, nor hosts. Invariant: a version's segments have rows, and a
segment has a row only while some version needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from layrfs.errors import CorruptFile
from layrfs.model.history import Segment
from layrfs.model.shards import ShardRecord
from layrfs.model.snapshot_names import time_name
from layrfs.storage.database import Database, Row

_COLUMNS = "number, time_ms, last_shard, unsent, name, segments"


class Version(NamedTuple):
    """A retained version. ``segments`` are numbers, in the order in which they are applied."""

    number: int
    time_ms: int
    last_shard: int
    """The highest number in ``shard`` that it can refer to."""
    unsent: int
    """How many blocks cannot be read: they were on no host then, or, with a name, hosts had nothing of them at all."""
    name: str | None
    """Of one made by hand."""
    segments: tuple[int, ...]


class Versions:
    """Plain code on the trio thread, in the open transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Version]:
        """Every retained version, the oldest first."""
        return [_version(row) for row in self._database.rows(f"SELECT {_COLUMNS} FROM version ORDER BY number")]  # noqa: S608 - constants

    def by_name(self) -> dict[str, Version]:
        """What each can be found under: its name or else its time; of several made in one second, the newest."""
        versions = self.all()
        unnamed = {time_name(version.time_ms): version for version in versions if version.name is None}
        return unnamed | {version.name: version for version in versions if version.name is not None}

    def find(self, number: int) -> Version | None:
        """A version by its number."""
        row = self._database.row(f"SELECT {_COLUMNS} FROM version WHERE number = ?", (number,))  # noqa: S608 - constants
        return None if row is None else _version(row)

    def put(self, version: Version, segments: Sequence[Segment]) -> None:
        """Retain a version; the name of one that is retained already changes, nothing else does."""
        self._database.write_many(
            "INSERT OR IGNORE INTO segment(number, kind, blob_bytes, shards) VALUES(?, ?, ?, ?)",
            ((one.number, one.kind, one.blob_bytes, msgspec.msgpack.encode(one.shards)) for one in segments),
        )
        self._database.write(
            f"INSERT INTO version({_COLUMNS}) VALUES(?, ?, ?, ?, ?, ?)"
            " ON CONFLICT(number) DO UPDATE SET name = excluded.name WHERE excluded.name IS NOT NULL",
            (*version[:5], msgspec.msgpack.encode(version.segments)),
        )

    def amend(self, segment: Segment) -> bool:
        """This segment has other pieces than before, wherever retained versions need it; whether any does."""
        if segment.number not in self.segment_numbers():
            return False
        if segment != self._segment(segment.number):
            shards = msgspec.msgpack.encode(segment.shards)
            self._database.write("UPDATE segment SET shards = ? WHERE number = ?", (shards, segment.number))
        return True

    def remove(self, numbers: Sequence[int]) -> list[Segment]:
        """Retain these no longer; the segments that no retained version needs now."""
        if not numbers:
            return []
        self._database.write_many("DELETE FROM version WHERE number = ?", ((number,) for number in numbers))
        needed = {segment for version in self.all() for segment in version.segments}
        unneeded = [self._segment(number) for number in sorted(self.segment_numbers() - needed)]
        self._database.write_many("DELETE FROM segment WHERE number = ?", ((one.number,) for one in unneeded))
        return unneeded

    def segment_numbers(self) -> set[int]:
        """Which segments retained versions need."""
        return {row[0] for row in self._database.rows("SELECT number FROM segment")}

    def segments(self) -> list[Segment]:
        """Every segment that a retained version needs."""
        return [self._segment(number) for number in sorted(self.segment_numbers())]

    def segments_of(self, version: Version) -> tuple[Segment, ...]:
        """What a version is made of, in order. Raises ``CorruptFile``."""
        return tuple(self._segment(number) for number in version.segments)

    def _segment(self, number: int) -> Segment:
        row = self._database.row("SELECT kind, number, blob_bytes, shards FROM segment WHERE number = ?", (number,))
        if row is None:
            raise CorruptFile(f"Segment {number} of the volume's past is not in the database: it is damaged.")
        kind, number, blob_bytes, shards = row
        return Segment(kind, number, blob_bytes, msgspec.msgpack.decode(shards, type=tuple[ShardRecord, ...]))


def _version(row: Row) -> Version:
    number, time_ms, last_shard, unsent, name, segments = row
    decoded = msgspec.msgpack.decode(segments, type=tuple[int, ...])
    return Version(number, time_ms, last_shard, unsent, name, decoded)
