"""Retained versions share segments; a segment stays as long as one of them needs it."""

from pathlib import Path

from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.history import Segment
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.storage.database import Database
from layrfs.storage.versions import Version, Versions


def segment(number: int) -> Segment:
    """One of a single shard."""
    pieces = (PieceRecord(0, 0, PieceId(bytes([number]) * 32), NodeId(bytes([number]) * 20)),)
    record = ShardRecord(ShardId(bytes([number]) * 32), Salt(bytes(16)), 100, 140, Redundancy(1, 5), pieces)
    return Segment("changes" if number > 1 else "checkpoint", number, 100, (record,))


def version(number: int, segments: tuple[int, ...], name: str | None = None) -> Version:
    """One whose other numbers follow from its own."""
    return Version(number, 1000 * number, 10 * number, 0, name, segments)


def test_versions_and_their_segments_come_back(tmp_path: Path) -> None:
    with Database(str(tmp_path / "metadata.db")) as database:
        versions = Versions(database)
        versions.put(version(3, (1, 3)), [segment(1), segment(3)])
        versions.put(version(2, (1, 2)), [segment(1), segment(2)])
    with Database(str(tmp_path / "metadata.db")) as database:
        versions = Versions(database)
        assert versions.all() == [version(2, (1, 2)), version(3, (1, 3))]
        assert versions.find(3) == version(3, (1, 3))
        assert versions.find(4) is None
        assert versions.segments_of(version(3, (1, 3))) == (segment(1), segment(3))
        assert versions.segments() == [segment(1), segment(2), segment(3)]
        assert versions.segment_numbers() == {1, 2, 3}


def test_a_segment_goes_with_the_last_version_that_needs_it(tmp_path: Path) -> None:
    with Database(str(tmp_path / "metadata.db")) as database:
        versions = Versions(database)
        versions.put(version(2, (1, 2)), [segment(1), segment(2)])
        versions.put(version(3, (1, 3)), [segment(1), segment(3)])
        assert versions.remove([]) == []
        assert versions.remove([2]) == [segment(2)]
        assert versions.remove([3, 9]) == [segment(1), segment(3)]
        assert (versions.all(), versions.segments()) == ([], [])


def test_retaining_again_changes_nothing_but_a_name(tmp_path: Path) -> None:
    with Database(str(tmp_path / "metadata.db")) as database:
        versions = Versions(database)
        versions.put(version(1, (1,)), [segment(1)])
        versions.put(version(1, (1,), "first")._replace(time_ms=5), [segment(1)])
        assert versions.all() == [version(1, (1,), "first")]
        versions.put(version(1, (1,)), [segment(1)])
        assert versions.all() == [version(1, (1,), "first")]
