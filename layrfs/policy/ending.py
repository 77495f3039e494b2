"""An end of a contract by consent, before its period is over: what the host is due, and when it signs. Pure.

Both sides reckon by the same rule from what each has on record, so that neither takes the other's word. All times are
the ledger's. Must not know how it is asked for, signed or sent.
Invariant: who ends by consent pays for each second in which pieces were kept and no instalment was paid or missed, up
to the last second in which the end may come, and gives back the host's collateral for those.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

from layrfs.model.contracts import Terms
from layrfs.model.hosted import Batch, Ending, Hosted, Owed
from layrfs.model.ledger import LedgerAccount
from layrfs.policy.pricing import FEE_STROOPS, collateral_shares, due_stroops, escrow_needs

LONGEST_SECONDS = 600
"""How far ahead an end may be dated: until then the host does not know whether it will come, and takes nothing new."""

SHORTEST_SECONDS, USUAL_SECONDS, WINDOW_SHARE = 10, 300, 8
"""How far ahead an owner dates it: an eighth of a window, within these."""

FEES_STROOPS = 2 * FEE_STROOPS
"""What one costs the escrow when it fails: there has to be so much that nobody needs."""

EndFault = Literal["wrong window", "ending", "no credit", "no funds", "bad terms", "wrong price"]


class Cover(NamedTuple):
    """Pieces that were covered together: the first instalment, since when they are paid for, and how much it is."""

    first: int
    at: int
    stored_bytes: int


def covers_of(batches: Sequence[Batch]) -> list[Cover]:
    """As a host has them on record."""
    return [Cover(batch.first, batch.at, batch.bytes) for batch in batches]


def host_due_stroops(terms: Terms, covers: Sequence[Cover], unpaid: Collection[int], until: int) -> int:
    """What the host has to get when the contract ends at `until`. `unpaid`: instalments neither claimed nor missed.

    What an instalment that was claimed is for, and what one that was missed was for, is settled.
    """
    shares = collateral_shares(terms)
    kept = sum(_kept_stroops(terms, cover, at, until) for cover in covers for at in unpaid if at >= cover.first)
    return kept + sum(shares[at] for at in unpaid)


def _kept_stroops(terms: Terms, cover: Cover, instalment: int, until: int) -> int:
    """The first instalment is for all until its window ends, each other one for its own window."""
    opens, last = terms.window(instalment)
    since = max(terms.start, cover.at) if instalment == cover.first else max(opens, cover.at)
    return due_stroops(terms.price, cover.stored_bytes, min(until, last + 1) - since)


def end_fault(
    hosted: Hosted,
    covers: Sequence[Cover],
    owed: Sequence[Owed],
    asked: Ending,
    *,
    account: LedgerAccount,
    on_credit_bytes: int,
    now: int,
) -> EndFault | None:
    """Why a host does not sign; None: it does. `account`: the escrow's, which was found to be as agreed.

    One may be open at a time, so that what is signed is known; a salt that was disclosed is claimed with before.
    """
    unpaid = [one for one in owed if one.state in {"waiting", "disclosed"}]
    promised = [one.amount_stroops for one in unpaid if one.amount_stroops]
    if hosted.ending is not None:
        return "ending"
    if not now < asked.latest <= now + LONGEST_SECONDS or any(one.state == "disclosed" for one in owed):
        return "wrong window"
    if on_credit_bytes:
        return "no credit"
    if asked.sequence != account.sequence + 1:
        return "bad terms"
    if account.balance_stroops < escrow_needs(promised) + FEES_STROOPS:
        return "no funds"
    least = host_due_stroops(hosted.terms, covers, [one.instalment for one in unpaid], asked.latest)
    return "wrong price" if asked.stroops < least else None


def last_second(terms: Terms, now: int) -> int | None:
    """Until when an owner asks for it to be taken; None: the period is over so soon that it is not worth it."""
    latest = now + min(USUAL_SECONDS, max(SHORTEST_SECONDS, terms.window_seconds // WINDOW_SHARE))
    return latest if latest < terms.end else None
