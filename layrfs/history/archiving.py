"""What stays of the volume's past: versions are retained, pruned by the schedule, and what none needs goes from hosts.

Owns when a segment is needed by nobody. Must not know how versions are made or looked at. Invariant: a segment that
the newest version or any retained one needs is never retired.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from layrfs.errors import AlreadyExists
from layrfs.model.history import History, Segment
from layrfs.model.snapshot_names import free_name
from layrfs.policy.retention import Retained, dropped
from layrfs.storage.changes import ChangeLog
from layrfs.storage.database import Database
from layrfs.storage.versions import Version, Versions


class Archive:
    """Plain code, in the open transaction."""

    def __init__(self, database: Database, in_use: Callable[[], Collection[int]], now: Callable[[], float]) -> None:
        """``in_use`` tells the numbers of versions that somebody is looking at: those are not pruned."""
        self._versions = Versions(database)
        self._changes = ChangeLog(database)
        self._in_use = in_use
        self._now = now

    def retain(self, history: History) -> None:
        """Keep a version. One that only renewed the lease is the one before it; without segments there is none."""
        if history.segments:
            self._versions.put(_version(history, None), history.segments)

    def name(self, history: History, name: str | None) -> Version:
        """Keep a version until it is deleted, by default under the time it was made.

        Everything was sent just before: what hosts have of blocks that are written all the time counts in it. Raises
        ``AlreadyExists``.
        """
        taken = self._versions.by_name()
        if name is not None and name in taken:
            raise AlreadyExists(f"There is a snapshot {name} already.")
        version = _version(history, name or free_name(history.moment.time_ms, taken))
        version = version._replace(unsent=min(version.unsent, self._changes.count_never_sent()))
        self._versions.put(version, history.segments)
        return version

    def amend(self, segment: Segment) -> bool:
        """It has other pieces than before; whether a retained version needs it."""
        return self._versions.amend(segment)

    def chains(self) -> Iterator[tuple[Segment, ...]]:
        """The segments of each retained version in order, as they are when it is its turn."""
        for version in self._versions.all():
            if self._versions.find(version.number) is not None:
                yield self._versions.segments_of(version)

    def expired(self) -> list[int]:
        """Retained versions that the schedule does not keep any longer."""
        versions = [Retained(one.number, one.time_ms, one.unsent, one.name) for one in self._versions.all()]
        return dropped(versions, int(self._now() * 1000), self._in_use())

    def prune(self, newest: History) -> None:
        """Drop what the schedule does not keep; ``newest`` is what hosts are told next to be the volume."""
        self.drop(self.expired(), newest)

    def drop(self, numbers: Collection[int], newest: History) -> None:
        """Retain these versions no longer."""
        self.retire(
            self._versions.remove(list(numbers)), newest, 1 + max((one.number for one in newest.segments), default=0)
        )

    def retire(self, segments: Iterable[Segment], newest: History, version: int) -> None:
        """Have the pieces of segments dropped from hosts later, but for those that are still needed.

        Not before hosts have a version whose last segment has the number ``version`` or a higher one.
        """
        needed = self._versions.segment_numbers() | {segment.number for segment in newest.segments}
        shards = [shard for segment in segments if segment.number not in needed for shard in segment.shards]
        self._changes.retire(((piece.id, piece.host) for shard in shards for piece in shard.pieces), version)


def _version(history: History, name: str | None) -> Version:
    numbers = tuple(segment.number for segment in history.segments)
    moment = history.moment
    return Version(numbers[-1], moment.time_ms, moment.last_shard, moment.unsent, name, numbers)
