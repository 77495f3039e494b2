"""What ``layrfs cost`` shows, as values."""

from __future__ import annotations

from msgspec import Struct


class Cost(Struct, frozen=True):
    """Of what is below a path: bytes of its pieces on hosts, how many of them hosts are paid for, and what they are
    paid for 30 days. Parts add up to the whole in each of the three."""

    path: bytes
    stored_bytes: int
    paid_bytes: int
    stroops: int


class CostReport(Struct, frozen=True):
    """After ``layrfs cost``: parts before what they are part of. ``total_stroops``: for all that hosts are paid for,
    the list of files and what only snapshots need included; for 30 days."""

    costs: tuple[Cost, ...]
    total_stroops: int
