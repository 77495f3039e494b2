"""Which leftover segments make a volume: any set of old and new ones gives the best version that is whole."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from layrfs.ids import Salt
from layrfs.model.notes import CONTENT, NO_BLOB, PieceNote, Purpose, blob_tag
from layrfs.model.redundancy import Redundancy
from layrfs.policy.chains import Found, chains, middle_time, whole_segments

COPIES = Redundancy(1, 2)


class Writer:
    """Publishes versions as the publisher does, and remembers which segments each consists of."""

    def __init__(self, dice: random.Random, versions: dict[int, list[Found]] | None = None, start: int = 0) -> None:
        self.dice = dice
        self.current = list(versions[start]) if versions and start else []
        self.number = start
        self.versions = dict(versions or {})
        self.segments: list[Found] = []

    def publish(self) -> None:
        self.number += self.dice.choice([1, 1, 2])  # a version may have been spent on a lease
        kind = self.dice.choice(["changes", "changes", "changes", "checkpoint"])
        first = next((at for at, one in enumerate(self.current) if one.kind == "changes"), len(self.current))
        kept = self.current[: self.dice.randint(first, len(self.current))] if kind == "changes" else []
        salts = tuple(Salt(self.dice.randbytes(16)) for _ in range(self.dice.choice([1, 1, 3])))
        previous = kept[-1].tag if kept else NO_BLOB
        new = Found(
            "changes" if kind == "changes" else "checkpoint", self.number, blob_tag(salts[0]), previous, salts, 0
        )
        self.segments.append(new)
        self.current = [*kept, new]
        self.versions[self.number] = self.current


def notes_of(segment: Found) -> list[PieceNote]:
    """The notes of all its pieces."""
    found = []
    for index, salt in enumerate(segment.salts):
        blob = segment.tag if index else NO_BLOB
        count = len(segment.salts)
        purpose = Purpose(segment.kind, segment.number, index, count, blob, segment.previous)
        found += [PieceNote(salt, position, 0, COPIES, purpose) for position in range(2)]
    return found


@given(st.integers(0, 2**32), st.data())
def test_the_best_version_of_what_is_left(seed: int, data: st.DataObject) -> None:
    writer = Writer(random.Random(seed))
    for _ in range(data.draw(st.integers(1, 12))):
        writer.publish()
    left = data.draw(st.permutations(data.draw(st.lists(st.sampled_from(writer.segments), unique=True))))
    whole = [number for number, chain in writer.versions.items() if all(segment in left for segment in chain)]
    found = list(chains(left))
    assert [chain[-1].number for chain in found] == sorted(whole, reverse=True)
    for chain in found:
        assert list(chain) == writer.versions[chain[-1].number]


@given(st.integers(0, 2**32), st.data())
def test_segments_of_two_writers_are_never_mixed(seed: int, data: st.DataObject) -> None:
    dice = random.Random(seed)
    first = Writer(dice)
    for _ in range(4):
        first.publish()
    second = Writer(dice, first.versions, data.draw(st.sampled_from(sorted(first.versions))))
    for _ in range(4):
        first.publish()
        second.publish()
    for chain in chains(first.segments + second.segments):
        assert list(chain) in [*first.versions.values(), *second.versions.values()]


@given(st.integers(0, 2**32), st.data())
def test_a_segment_counts_when_a_piece_of_every_shard_is_there(seed: int, data: st.DataObject) -> None:
    writer = Writer(random.Random(seed))
    for _ in range(3):
        writer.publish()
    notes = [note for segment in writer.segments for note in notes_of(segment)]
    notes += [PieceNote(Salt(bytes(16)), 0, 0, COPIES, CONTENT)]
    assert sorted(whole_segments([(note, 0) for note in notes])) == sorted(writer.segments)
    left = data.draw(st.lists(st.sampled_from(notes)))
    salts = {note.salt for note in left}
    expected = [segment for segment in writer.segments if salts.issuperset(segment.salts)]
    assert sorted(whole_segments([(note, 0) for note in left])) == sorted(expected)


def test_of_two_that_are_the_same_version_the_later_stored_is_first() -> None:
    one, two = (Found("checkpoint", 3, bytes([n]) * 6, NO_BLOB, (Salt(bytes([n]) * 16),), 10 - n) for n in (1, 2))
    assert list(chains([two, one])) == [(one,), (two,)]
    times = [(note, 7 + number) for number, note in enumerate(notes_of(one))]
    assert whole_segments(times)[0].stored == 7
    assert [middle_time(each) for each in ([5], [5, 9], [9, 2**62, 5], [0, 5, 9])] == [5, 5, 9, 5]


def test_a_circle_is_no_chain() -> None:
    tags = [bytes([n]) * 6 for n in (1, 2)]
    circle = [Found("changes", 5, tags[0], tags[1], (), 0), Found("changes", 5, tags[1], tags[0], (), 0)]
    assert list(chains(circle)) == []
