"""What hosts' answers about copies, or their silence, mean for a shard. Pure."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from typing import Literal

Fate = Literal["good", "fewer", "unseen", "lost"]
"""``fewer``: some copies are gone, enough are not. ``unseen``: no copy was shown, but some hosts did not answer."""


def fate(needed: int, recorded: AbstractSet[bytes], held: AbstractSet[bytes], missing: AbstractSet[bytes]) -> Fate:
    """Of a shard with these pieces on record, those that hosts say they hold, and those they say they do not."""
    gone = recorded & missing
    if len(recorded & held) >= needed:
        return "fewer" if gone else "good"
    return "lost" if len(recorded - gone) < needed else "unseen"


def to_forget(
    needed: int, recorded: AbstractSet[bytes], held: AbstractSet[bytes], missing: AbstractSet[bytes]
) -> AbstractSet[bytes]:
    """The pieces that may go off the record: only what no reader would need, because a host may find it again."""
    return recorded & missing if len(recorded & held) >= needed else frozenset()


def within_reach(needed: int, holders: Collection[bytes], silent: AbstractSet[bytes]) -> bool:
    """Whether enough pieces, which are on these hosts, are on others than those that do not answer."""
    return sum(holder not in silent for holder in holders) >= needed
