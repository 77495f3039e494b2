"""How many pieces a shard becomes, and how many of them bring it back.

Mirroring is the case `needed == 1`. Erasure codes will be the others; their spelling is not accepted before they work.
"""

from __future__ import annotations

import msgspec

from layrfs.errors import UsageError

MAX_MIRRORS = 16
_MIRRORS = frozenset(str(number) for number in range(1, MAX_MIRRORS + 1))


class Redundancy(msgspec.Struct, frozen=True):
    """Any `needed` of `total` pieces are enough."""

    needed: int
    total: int

    def __post_init__(self) -> None:
        if not 1 <= self.needed <= self.total < 2**16:
            raise ValueError(f"{self.needed} of {self.total} pieces is no redundancy")

    @classmethod
    def parse(cls, text: str) -> Redundancy:
        """`mirror:3` -> three copies. Raises UsageError."""
        kind, _, number = text.strip().partition(":")
        if kind == "mirror" and number in _MIRRORS:
            return cls(needed=1, total=int(number))
        raise UsageError(f"redundancy is written mirror:N with N from 1 to {MAX_MIRRORS}, not {text!r}")

    def __str__(self) -> str:
        return f"mirror:{self.total}" if self.needed == 1 else f"rs:{self.needed}/{self.total}"


DEFAULT_REDUNDANCY = Redundancy(needed=1, total=3)
