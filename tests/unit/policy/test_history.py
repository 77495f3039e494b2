"""The chain of changes stays short, and every byte is sent few times."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from layrfs.policy.history import SMALLEST_CHECKPOINT_BYTES, checkpoint_due, first_merged


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=400))
def test_chains_are_logarithmic_and_so_is_what_is_sent(changes: list[int]) -> None:
    chain: list[int] = []
    sent = 0
    for size in changes:
        first = first_merged(chain, size)
        merged = sum(chain[first:]) + size
        chain = [*chain[:first], merged]
        sent += merged
    assert sum(chain) == sum(changes)
    bound = math.log2(sum(changes)) + 2
    assert len(chain) <= bound
    assert all(one > 2 * two for one, two in pairwise(chain))
    assert sent <= sum(changes) * 3 * bound


def test_a_checkpoint_is_due_when_changes_have_outgrown_the_last() -> None:
    assert not checkpoint_due(0, SMALLEST_CHECKPOINT_BYTES)
    assert checkpoint_due(0, SMALLEST_CHECKPOINT_BYTES + 1)
    assert not checkpoint_due(10 * SMALLEST_CHECKPOINT_BYTES, 10 * SMALLEST_CHECKPOINT_BYTES)
    assert checkpoint_due(10 * SMALLEST_CHECKPOINT_BYTES, 10 * SMALLEST_CHECKPOINT_BYTES + 1)
