"""The numbers of ``df``."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layrfs.vfs.statfs import BLOCK_BYTES, Space, statistics

BYTES = st.integers(-(2**40), 2**62)


@given(total=BYTES, free=BYTES, inodes=st.integers(0, 2**40))
def test_whatever_is_said_programs_can_calculate_with_it(total: int, free: int, inodes: int) -> None:
    found = statistics(Space(total, free), inodes, 255)
    assert 0 <= found.free_blocks <= found.blocks
    assert found.blocks >= 1
    assert found.inodes - found.free_inodes == inodes
    assert max(found) < 2**63
    assert found.name_bytes == 255


def test_bytes_become_blocks() -> None:
    found = statistics(Space(100 * BLOCK_BYTES, 30 * BLOCK_BYTES + 5), 7, 255)
    assert (found.blocks, found.free_blocks, found.block_bytes) == (100, 30, 4096)
