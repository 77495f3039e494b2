"""Whether a transaction can still get into the ledger, and what to bid so that it does. Pure.

The invariant: "never" follows only from what a ledger says of its own time and of the source account, before it was
asked for the transaction (`layrfs.model.ledger.Fate`), and so long before that no server lags that much; our clock
proves nothing.
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


def is_number_used(fate: Fate, sequence: int) -> bool:
    """Whether the source account is past a transaction's number, by that one or by another."""
    begins_at = fate.head.sequence << _LEDGER_BITS  # of an account that does not exist, should it be created
    return (fate.source.sequence if fate.source is not None else begins_at) >= sequence


def can_never_come(fate: Fate, sequence: int, latest: int, used_since: int | None = None) -> bool:
    """Of a transaction with this number that may be in until `latest` (0: whenever).

    `used_since`: since when, by the ledger, its number is known to be used; None: not before now.
    """
    if fate.transaction is not None:
        return False
    since = fate.head.closed_at if used_since is None else used_since
    is_known_used = is_number_used(fate, sequence) and since <= fate.head.closed_at - fate.lag_seconds
    return (latest > 0 and is_certainly_past(fate, latest)) or is_known_used


def is_certainly_past(fate: Fate, last_second: int) -> bool:
    """Whether what may be in until then would have been seen, however far behind the server is that was asked last."""
    return last_second < fate.head.closed_at - fate.lag_seconds


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
