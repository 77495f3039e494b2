"""How a host is paid, as its person says it: the one part of it that costs nothing to load."""

from __future__ import annotations

from msgspec import Struct


class EarningPlan(Struct, frozen=True):
    """How a host is paid. ``price`` in stroops for one TiB and 30 days."""

    price: int
    horizon: tuple[str, ...]
    passphrase: str
    collateral_stroops: int = 0
    """The most it puts up in one contract."""
    payout: str = ""
    """The address to which earnings go on; empty: they stay."""
    stays: bool = False
    """Whether it takes new contracts again after it was told to leave."""
    ledger_files: tuple[str, ...] = ()
    """That say where the ledger is when it is not there any more."""
