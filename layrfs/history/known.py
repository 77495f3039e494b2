"""What this machine has of the volume's versions, as three marks of its database say it.

Owns the marks: ``history`` (the segments), ``root`` (the newest record, signed) and ``published`` (the newest version
that hosts keep). Must not know how versions are made. Invariant: who sets marks does so in the transaction that makes
them true.
"""

from __future__ import annotations

from dataclasses import dataclass

from layrfs.model.history import History
from layrfs.model.root_record import RootRecord, verified_untrusted
from layrfs.storage.journal import Journal


@dataclass(frozen=True, slots=True)
class Known:
    """As of when it was read."""

    record: RootRecord | None
    history: History
    published: int

    @classmethod
    def read(cls, marks: Journal) -> Known:
        """Nothing of a volume that was never published."""
        history, root = marks.mark("history"), marks.mark("root")
        return cls(
            verified_untrusted(root) if isinstance(root, bytes) else None,
            History.from_bytes(history) if isinstance(history, bytes) else History(),
            int(marks.mark("published") or 0),
        )


def mark_prepared(marks: Journal, history: History, record: RootRecord) -> None:
    """This is the newest version of the volume, as far as this machine knows."""
    marks.set_mark("history", history.to_bytes())
    marks.set_mark("root", record.to_bytes())


def mark_published(marks: Journal, record: RootRecord) -> None:
    """Hosts keep this version."""
    marks.set_mark("published", record.version)


def newest_segment(history: History) -> int:
    """The number of the newest version that says something about files; 0 before the first."""
    return max((segment.number for segment in history.segments), default=0)
