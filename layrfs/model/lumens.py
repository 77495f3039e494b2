"""Amounts of money: whole stroops inside, XLM with up to seven decimals for people.

Owns the two spellings. Must not know what is paid for. Invariant: no amount is ever a float.
"""

from __future__ import annotations

import re

from layrfs.errors import UsageError
from layrfs.model.ledger import STROOPS_PER_XLM

MOST_STROOPS = 2**63 - 1
"""Of any amount: the ledger's integers end there."""

_AMOUNT = re.compile(r"(\d{1,12})(?:\.(\d{1,7}))?", re.ASCII)


def parse_lumens(text: str) -> int:
    """``2`` or ``0.25`` XLM as stroops. UsageError."""
    match = _AMOUNT.fullmatch(text.strip())
    stroops = 0 if match is None else int(match[1]) * STROOPS_PER_XLM + int((match[2] or "").ljust(7, "0"))
    if match is None or stroops > MOST_STROOPS:
        raise UsageError(f"{text!r} is no amount of XLM; write it like 2 or 0.25, with at most seven decimals")
    return stroops


def ledger_amount(stroops: int) -> str:
    """As the ledger's library and Horizon spell it: ``1.5000000``. Never of less than nothing."""
    whole, rest = divmod(stroops, STROOPS_PER_XLM)
    return f"{whole}.{rest:07d}"


def shown_lumens(stroops: int) -> str:
    """As `parse_lumens` reads it, without zeros at the end; a minus sign before what is owed."""
    whole, rest = divmod(abs(stroops), STROOPS_PER_XLM)
    decimals = f".{rest:07d}".rstrip("0").rstrip(".")
    return f"{'-' if stroops < 0 else ''}{whole}{decimals}"
