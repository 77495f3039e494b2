"""Who still knows an inode."""

from __future__ import annotations

import random
import sys
from collections import Counter

import pytest

from layrfs.ids import InodeNumber
from layrfs.vfs.lifetimes import PAGE, Lifetimes, References

NUMBER = InodeNumber(7)


def test_references_count_like_a_dictionary() -> None:
    references, model, dice = References(), Counter[int](), random.Random(7)
    for _ in range(20_000):
        inode = dice.choice([1, 2, PAGE - 1, PAGE, PAGE * 5 + 3, 10**12])
        if dice.random() < 0.6:
            references.add(inode)
            model[inode] += 1
        else:
            count = dice.randint(1, 3)
            model[inode] = max(0, model[inode] - count)
            assert references.drop(inode, count) == model[inode]
        assert references.count(inode) == model[inode]
    for inode in model:
        references.drop(inode, 10**6)
    assert not references._pages


def test_a_million_references_take_little_memory() -> None:
    references = References()
    for inode in range(1, 1_000_001, 16):
        references.add(inode)
    assert sum(sys.getsizeof(page) for page in references._pages.values()) < 5_000_000


@pytest.mark.parametrize("seed", range(50))
def test_an_inode_is_over_once_when_nobody_knows_it(seed: int) -> None:
    steps = ["forget"] * 3 + ["close"] * 2 + ["lose_name"]
    random.Random(seed).shuffle(steps)
    lifetimes = Lifetimes()
    for _ in range(3):
        lifetimes.refer(NUMBER)
    for _ in range(2):
        lifetimes.open(NUMBER)
    answers = [lifetimes.forget(NUMBER, 1) if step == "forget" else getattr(lifetimes, step)(NUMBER) for step in steps]
    assert answers == [False] * 5 + [True]
    assert lifetimes.end() == []


def test_what_is_never_forgotten_ends_with_the_mount() -> None:
    lifetimes = Lifetimes()
    lifetimes.refer(NUMBER)
    assert not lifetimes.lose_name(NUMBER)
    assert lifetimes.end() == [NUMBER]
    assert lifetimes.end() == []
