"""What ``layrfs cost`` shows, as values."""

from __future__ import annotations

from msgspec import Struct

_PRICED_BYTES = 1 << 40


class Cost(Struct, frozen=True):
    """Of what is below a path: bytes of its pieces on hosts, how many of them hosts are paid for, and bytes times
    prices (stroops for a TiB and 30 days), which add up without rounding."""

    path: bytes
    stored_bytes: int = 0
    paid_bytes: int = 0
    byte_stroops: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Of both, with this one's path."""
        return Cost(
            self.path,
            self.stored_bytes + other.stored_bytes,
            self.paid_bytes + other.paid_bytes,
            self.byte_stroops + other.byte_stroops,
        )

    @property
    def stroops(self) -> int:
        """For 30 days, rounded up."""
        return -(-self.byte_stroops // _PRICED_BYTES)


class CostReport(Struct, frozen=True):
    """After ``layrfs cost``: parts before what they are part of. ``total_stroops``: for all that hosts are paid for,
    the list of files and what only snapshots need included; for 30 days."""

    costs: tuple[Cost, ...]
    total_stroops: int
