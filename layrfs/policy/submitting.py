"""Whether a transaction can still get into the ledger, and what to bid so that it does. Pure.

The invariant: "never" follows only from what a ledger says of its own time and of the source account, as seen by one
server before it was asked for the transaction (`layrfs.model.ledger.Fate`); our clock proves nothing.
"""

from __future__ import annotations

from layrfs.model.ledger import Fate

LEDGERS_UNTIL_STUCK = 3
"""So many closed without it although it was sent: others pay more."""

BID_FACTOR = 10
"""The least by which a bid must be raised to replace one that waits (stellar-core's rule)."""

MOST_FEE_STROOPS = 100_000
"""The most that is bid for one operation: a hundredth of a lumen."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
_LEDGER_BITS = 32


def can_never_come(fate: Fate, sequence: int, latest: int) -> bool:
    """Of a transaction with this number that may be in until `latest` (0: whenever)."""
    if fate.transaction is not None:
        return False
    begins_at = fate.head.sequence << _LEDGER_BITS  # of an account that does not exist, should it be created
    used = fate.source.sequence if fate.source is not None else begins_at
    return used >= sequence or 0 < latest < fate.head.closed_at


def is_stuck(first_seen_ledger: int, head_ledger: int) -> bool:
    """Whether it waits because of its fee."""
    return head_ledger - first_seen_ledger >= LEDGERS_UNTIL_STUCK


def next_bid(bid_stroops: int) -> int | None:
    """What to bid for each operation after a bid was too low; None when that is more than we pay."""
    raised = max(bid_stroops * BID_FACTOR, bid_stroops + 1)
    return raised if raised <= MOST_FEE_STROOPS else None


def pause_seconds(attempt: int) -> float:
    """Between two attempts, counted from 0."""
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 16))
