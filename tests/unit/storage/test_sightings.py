"""The scratch database of a scan: what hosts say, by shard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layrfs.ids import NodeId, PieceId, Salt
from layrfs.model.notes import CONTENT, PieceNote, Purpose
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord
from layrfs.policy.rescuing import FoundPart
from layrfs.storage.sightings import Sightings, one_piece_each

COPIES = Redundancy(1, 3)
CHANGES = Purpose("changes", 7, 0, 1)


@pytest.fixture
def sightings(tmp_path: Path) -> Iterator[Sightings]:
    with Sightings(str(tmp_path / "sightings.db")) as sightings:
        yield sightings


def host(number: int) -> NodeId:
    return NodeId(bytes([number]) * 20)


def salt(number: int) -> Salt:
    return Salt(bytes([number]) * 16)


def piece(number: int, position: int = 0, generation: int = 0) -> PieceId:
    return PieceId(bytes([number, position, generation, *range(29)]))


def sight(
    to: Sightings, at: int, number: int, position: int, stored: int = 0, generation: int = 0, what: Purpose = CONTENT
) -> None:
    note = PieceNote(salt(number), position, generation, COPIES, what)
    to.add(host(at), [(piece(number, position, generation), stored, note)])


def test_pieces_of_a_shard_are_found_together(sightings: Sightings) -> None:
    sight(sightings, 1, 5, 0, stored=30)
    sight(sightings, 2, 5, 1, stored=2**62)
    sight(sightings, 3, 5, 2, stored=20)
    sight(sightings, 3, 6, 0)
    sight(sightings, 3, 6, 0)
    assert sightings.pieces() == 4, "the same host twice is one piece"
    shard, stored = sightings.shard(salt(5))
    assert stored == 30, "one host that lies about the time is outvoted"
    assert (shard.salt, shard.redundancy) == (salt(5), COPIES)
    assert [(each.position, each.id, each.host) for each in shard.pieces] == [
        (position, piece(5, position), host(position + 1)) for position in range(3)
    ]


def test_contents_come_in_pages_and_without_metadata(sightings: Sightings) -> None:
    for number in range(10):
        sight(sightings, 1, number, 0, what=CHANGES if number == 4 else CONTENT)
        sight(sightings, 2, number, 1)  # a piece of metadata that was made anew by somebody who did not know
    expected = [salt(number) for number in range(10) if number != 4]
    assert sightings.content_count() == 9
    page = sightings.contents(Salt(b""), 5)
    assert page + sightings.contents(page[-1], 5) == expected
    assert [(note.salt, note.purpose) for note, _ in sightings.metadata()] == [(salt(4), CHANGES)]
    assert sightings.highest_number() == 7
    sightings.forget([salt(0), salt(1)])
    assert sightings.contents(Salt(b""), 20) == expected[2:]


def test_parts_of_files(sightings: Sightings) -> None:
    parts = [FoundPart(65536, number, 5, number + 1, 10) for number in range(3)]
    for part in parts:
        sightings.add_parts(9, part)
    sightings.add_parts(8, parts[0])
    assert sightings.inodes() == [8, 9]
    assert sightings.parts(9) == parts


def test_a_record_has_one_piece_for_a_position() -> None:
    pieces = [PieceRecord(position, generation, piece(1), host(1)) for position, generation in ((1, 0), (0, 2), (0, 1))]
    assert one_piece_each(pieces) == (pieces[1], pieces[0])
