"""Files from parts alone: nothing is made up, nothing that was found is left out, the newest of each block wins."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layrfs.policy.rescuing import FoundPart, RescuedFile, rescued_files

KIB64, MIB4 = 1 << 16, 1 << 22

found = st.builds(
    FoundPart,
    st.sampled_from([KIB64, MIB4]),
    st.integers(0, 12),
    st.integers(0, 5),
    st.integers(1, 1000),
    st.integers(1, KIB64),
)
parts = st.lists(found, max_size=30, unique_by=lambda part: part.content)


def offset_of(file: RescuedFile) -> int:
    return int(file.name.partition("@")[2] or 0)


def test_a_whole_file_is_one_and_called_by_its_number() -> None:
    blocks = [FoundPart(KIB64, 1, 7, 11, KIB64), FoundPart(KIB64, 0, 7, 10, 500), FoundPart(KIB64, 2, 9, 12, 3)]
    expected = RescuedFile("42", KIB64, 2 * KIB64 + 3, 9, ((0, 10, 500), (1, 11, KIB64), (2, 12, 3)))
    assert rescued_files(42, blocks) == [expected]


def test_a_gap_ends_a_file() -> None:
    blocks = [FoundPart(KIB64, 0, 7, 10, 5), FoundPart(KIB64, 3, 7, 11, 6), FoundPart(KIB64, 4, 7, 12, 7)]
    first, second = rescued_files(42, blocks)
    assert (first.name, first.size) == ("42", 5)
    assert (second.name, second.size) == (f"42@{3 * KIB64}", KIB64 + 7)
    assert second.blocks == ((0, 11, 6), (1, 12, 7))


def test_blocks_of_another_size_are_of_another_time() -> None:
    old, new = FoundPart(KIB64, 0, 1, 10, 5), FoundPart(MIB4, 1, 2, 11, 6)
    assert [file.name for file in rescued_files(42, [old, new])] == [f"42+{KIB64}", f"42@{MIB4}"]


@given(parts)
def test_every_block_found_is_in_one_file_in_its_newest_state(found: list[FoundPart]) -> None:
    files = rescued_files(42, found)
    assert len({file.name for file in files}) == len(files)
    newest: dict[tuple[int, int], FoundPart] = {}
    for part in found:
        place = (part.block_bytes, part.block * part.block_bytes)
        if place not in newest or (part.stored, part.content) > (newest[place].stored, newest[place].content):
            newest[place] = part
    seen = {}
    for file in files:
        assert [number for number, _, _ in file.blocks] == list(range(len(file.blocks)))
        assert file.size == (len(file.blocks) - 1) * file.block_bytes + file.blocks[-1][2]
        for number, content, length in file.blocks:
            seen[file.block_bytes, offset_of(file) + number * file.block_bytes] = (content, length)
        assert (file.block_bytes, offset_of(file) + len(file.blocks) * file.block_bytes) not in newest, (
            "as long as can be"
        )
    assert seen == {place: (part.content, part.length) for place, part in newest.items()}
