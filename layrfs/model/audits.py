"""What ``layrfs audit`` shows, as values: every piece that was asked for, and the sums over hosts and shards.

Outcomes are words of ``policy.trust``; their order from bad to good is here, because whoever shows them needs it. The
lists are bounded, the sums are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

Level = Literal["prove", "answer", "deep"]
"""How hard a host is asked: leaves it cannot foresee, a digest that was prepared, or the whole piece."""

WORST_FIRST = ("failed", "missing", "offline", "timed out", "refused", "unknown", "passed")
"""Proven loss before silence before what says nothing about the host."""

MOST_LISTED = 5_000
"""Pieces in one report; a line of JSON is made of it on the thread that answers the kernel."""


class AuditedPiece(msgspec.Struct, frozen=True):
    """One piece that one host was asked for. ``path`` names a file that needs it, or what else does."""

    path: bytes
    shard: str
    position: int
    piece: str
    host: str
    level: str
    outcome: str
    seconds: float


class AuditedHost(msgspec.Struct, frozen=True):
    """How many pieces of one host had which outcome; ``standing`` as the host's long memory says after this."""

    host: str
    standing: str
    outcomes: dict[str, int]


class AuditReport(msgspec.Struct, frozen=True):
    """After ``layrfs audit``."""

    level: str
    files: int = 0
    """With something on hosts."""
    unsent_files: int = 0
    """With something that is on no host yet, which nobody can audit."""
    shards: int = 0
    short_shards: int = 0
    """So many of their pieces did not pass that they could not be read."""
    outcomes: dict[str, int] = msgspec.field(default_factory=dict)
    hosts: tuple[AuditedHost, ...] = ()
    pieces: tuple[AuditedPiece, ...] = ()
    """Those that did not pass before those that did, ``MOST_LISTED`` at most."""
    left_off: int = 0
    """Pieces that are in the sums only."""
    root_keepers: int | None = None
    """How many hosts showed the newest root record; None when they were not asked."""


def worst(outcomes: Iterable[str]) -> str:
    """The worst of some outcomes, ``passed`` when there are none."""
    return min(outcomes, key=WORST_FIRST.index, default="passed")


def counted(outcomes: Mapping[str, int]) -> str:
    """``1 missing, 23 passed``: worst first, without zeros."""
    return ", ".join(f"{outcomes[word]:,} {word}" for word in WORST_FIRST if outcomes.get(word))
