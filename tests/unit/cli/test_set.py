"""What `layrfs set` says of what it did."""

from __future__ import annotations

import pytest

from layrfs.cli.set import notes, shown_limits
from layrfs.model.status import PoliciesSet, SpendingLimit


@pytest.mark.parametrize(
    ("done", "redundancy", "words"),
    [
        (PoliciesSet(5, 0, 8), "rs:4/8", []),
        (PoliciesSet(5, 0, 0), None, []),
        (PoliciesSet(5, 2, 8), "mirror:3", ["bytes are in them: 2 files"]),
        (PoliciesSet(5, 0, 5), "rs:4/8", ["is for 8 hosts and there are 5"]),
        (PoliciesSet(5, 0, 5), "mirror:16", ["is for 16 hosts and there are 5"]),
        (PoliciesSet(5, 1, 3), "rs:4/8", ["1 file", "needs 4 hosts at least and there are 3"]),
    ],
)
def test_what_somebody_might_not_expect_is_said(done: PoliciesSet, redundancy: str | None, words: list[str]) -> None:
    said = notes(done, redundancy)
    assert len(said) == len(words)
    assert all(word in sentence for word, sentence in zip(words, said, strict=True))


def test_limits_are_shown_as_they_are_set() -> None:
    assert shown_limits(SpendingLimit(None, None)) == {"max_price": "off", "budget": "off"}
    assert shown_limits(SpendingLimit(25_000_000, 0)) == {"max_price": "2.5", "budget": "0"}
