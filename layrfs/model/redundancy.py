"""How many pieces a shard becomes, and how many of them bring it back.

Mirroring is the case ``needed == 1``: every piece is the whole shard. Otherwise it is a Reed-Solomon code, and pieces
are about ``needed`` times smaller (docs/format.md, section 5). Must not know how pieces are made.
Invariant: a value of this type can be carried out.
"""

from __future__ import annotations

import re

import msgspec

from layrfs.errors import CorruptFile, UsageError

MAX_MIRRORS = 16
MAX_CODED_PIECES = 32
"""As many as the library codes. More hosts for one shard are also more than most networks have."""

FRAGMENT_STEP_BYTES = 16
"""A fragment is a multiple of this: what the library works on without padding of its own."""

REDUNDANCY_ATTRIBUTE = b"user.layrfs.redundancy"
"""Where a file or directory keeps it, in the words that ``parse`` understands."""

_LARGEST = 2**16
_MIRRORS = frozenset(str(number) for number in range(1, MAX_MIRRORS + 1))
_CODE = re.compile(r"rs:([1-9][0-9]?)/([1-9][0-9]?)", re.ASCII)


def is_possible(needed: int, total: int) -> bool:
    """Whether there is a ``Redundancy`` of these numbers; what strangers and damaged disks say has to be asked this."""
    if needed == 1:
        return 1 <= total < _LARGEST
    return 1 < needed < total <= MAX_CODED_PIECES


class Redundancy(msgspec.Struct, frozen=True):
    """Any `needed` of `total` pieces are enough."""

    needed: int
    total: int

    def __post_init__(self) -> None:
        if not is_possible(self.needed, self.total):
            raise ValueError(f"{self.needed} of {self.total} pieces is no redundancy")

    @classmethod
    def parse(cls, text: str) -> Redundancy:
        """`mirror:3` -> three copies; `rs:4/8` -> eight pieces, of which any four are enough. Raises UsageError."""
        kind, _, number = text.strip().partition(":")
        if kind == "mirror" and number in _MIRRORS:
            return cls(needed=1, total=int(number))
        code = _CODE.fullmatch(text.strip())
        if code is not None and int(code[1]) > 1 and is_possible(int(code[1]), int(code[2])):
            return cls(needed=int(code[1]), total=int(code[2]))
        raise UsageError(
            f"redundancy is written mirror:N with N from 1 to {MAX_MIRRORS}, or rs:K/N with K from 2 and N greater"
            f" than K, up to {MAX_CODED_PIECES}; not {text!r}"
        )

    @classmethod
    def of_attribute(cls, value: bytes | None) -> Redundancy:
        """What a file's attribute says; the default without one, and for one that says nothing sensible."""
        try:
            return DEFAULT_REDUNDANCY if value is None else cls.parse(value.decode("ascii", "replace"))
        except UsageError:
            return DEFAULT_REDUNDANCY

    @classmethod
    def of_row(cls, needed: int, total: int) -> Redundancy:
        """What a database says of a shard. Raises CorruptFile."""
        if not is_possible(needed, total):
            raise CorruptFile(
                f"The database says that {needed} of {total} pieces are a shard; try layrfs fsck --repair."
            )
        return cls(needed, total)

    @property
    def mirrors(self) -> bool:
        """Whether every piece is the whole shard."""
        return self.needed == 1

    def piece_bytes(self, sealed_bytes: int) -> int:
        """How long each piece of a sealed shard of so many bytes is."""
        if self.mirrors:
            return sealed_bytes
        step = self.needed * FRAGMENT_STEP_BYTES
        return -(-(sealed_bytes + 1) // step) * FRAGMENT_STEP_BYTES

    def __str__(self) -> str:
        return f"mirror:{self.total}" if self.mirrors else f"rs:{self.needed}/{self.total}"


DEFAULT_REDUNDANCY = Redundancy(needed=1, total=3)
