from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layrfs.policy.readahead import SLACK_BYTES, Reader, most_blocks, observe

BLOCK = 4 << 20
READ = 128 << 10


def windows(offsets: list[int], block_bytes: int = BLOCK) -> list[int]:
    reader, seen = Reader(), []
    for offset in offsets:
        reader = observe(reader, offset, READ, block_bytes)
        seen.append(reader.window)
    return seen


def test_window_doubles_with_every_block_up_to_eight() -> None:
    seen = windows(list(range(0, 10 * BLOCK, READ)))
    per_block = [max(seen[first : first + BLOCK // READ]) for first in range(0, len(seen), BLOCK // READ)]
    assert per_block == [1, 2, 4, 8, 8, 8, 8, 8, 8, 8]
    assert seen == sorted(seen)


def test_first_read_in_the_middle_promises_nothing_the_second_does() -> None:
    assert windows([10 * BLOCK, 10 * BLOCK + READ]) == [0, 1]


def test_reads_the_kernel_reordered_are_sequential() -> None:
    assert windows([0, 2 * READ, READ, 4 * READ, 3 * READ]) == [1, 1, 1, 1, 1]


def test_jump_forgets_the_window() -> None:
    assert windows([0, READ, 50 * BLOCK, 50 * BLOCK + READ])[2:] == [0, 1]


def test_small_blocks_have_a_window_of_more_blocks() -> None:
    assert most_blocks(4 << 20) == 8
    assert most_blocks(1 << 20) == 32
    assert most_blocks(64 << 10) == 64


@given(st.lists(st.integers(0, 1000), min_size=1).map(lambda jumps: [jump * 8 * SLACK_BYTES for jump in jumps]))
def test_random_access_fetches_nothing_ahead(offsets: list[int]) -> None:
    distinct = [offset for index, offset in enumerate(offsets) if index == 0 or offset != offsets[index - 1]]
    reader = Reader()
    for offset in distinct:
        reader = observe(reader, offset, 4096, BLOCK)
        assert reader.window == 0 or offset == 0
