"""Retained versions of the volume, and the segments they are made of: the tables ``version`` and ``segment``.

Owns those rows. Must not know why a version is retained, nor hosts. Invariant: a version's segments have rows, and a
segment has a row only while some version needs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from layrfs.errors import CorruptFile
from layrfs.ids import ShardId
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
    """How many blocks were on no host then: those cannot be read."""
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

    def remove(self, numbers: Sequence[int]) -> list[Segment]:
        """Retain these no longer; the segments that no retained version needs now."""
        if not numbers:
            return []
        self._database.write_many("DELETE FROM version WHERE number = ?", ((number,) for number in numbers))
        needed = {segment for version in self.all() for segment in version.segments}
        unneeded = [segment for segment in self.segments() if segment.number not in needed]
        self._database.write_many("DELETE FROM segment WHERE number = ?", ((one.number,) for one in unneeded))
        return unneeded

    def segments(self) -> Iterator[Segment]:
        """Every segment that a retained version needs. Do not await while iterating."""
        rows = self._database.rows("SELECT number, kind, blob_bytes, shards FROM segment ORDER BY number")
        return (_segment(row) for row in rows)

    def segments_of(self, version: Version) -> tuple[Segment, ...]:
        """What a version is made of, in order. Raises ``CorruptFile``."""
        found = {segment.number: segment for segment in self.segments()}
        if not found.keys() >= set(version.segments):
            raise CorruptFile(f"A part of version {version.number} is not in the database: it is damaged.")
        return tuple(found[number] for number in version.segments)

    def shards(self) -> set[ShardId]:
        """The shards of metadata that retained versions need."""
        return {shard.id for segment in self.segments() for shard in segment.shards}


def _version(row: Row) -> Version:
    number, time_ms, last_shard, unsent, name, segments = row
    decoded = msgspec.msgpack.decode(segments, type=tuple[int, ...])
    return Version(number, time_ms, last_shard, unsent, name, decoded)


def _segment(row: Row) -> Segment:
    number, kind, blob_bytes, shards = row
    return Segment(kind, number, blob_bytes, msgspec.msgpack.decode(shards, type=tuple[ShardRecord, ...]))
