"""Whether terms are what a host offered, for this ledger and this moment: a sentence for each thing that is not. Pure.

Must not know how terms are sent. Invariant: terms without a fault can be set up, claimed and refunded as they stand.
"""

from __future__ import annotations

from layrfs.ids import NodeId
from layrfs.model.contracts import Offer, Terms
from layrfs.model.ledger import LedgerHead
from layrfs.model.lumens import shown_lumens

SETUP_SECONDS = 60
"""After the start: until then the set-up can be in the ledger."""

SETUP_LEDGERS = 12
"""After the last one closed when terms are made: a minute's worth on the public ledger."""

MOST_SETUP_LEDGERS = 100
CLOCKS_APART_SECONDS = 300
"""Between a start and the ledger's clock: the owner takes it from there, some ledgers ago."""


def terms_faults(terms: Terms, offer: Offer, node: NodeId, tenant: bytes, head: LedgerHead) -> tuple[str, ...]:
    """What a host that is ``node`` and made the offer has to say against terms that ``tenant`` sent; empty: nothing."""
    last_ledgers = range(head.sequence + 1, head.sequence + MOST_SETUP_LEDGERS + 1)
    instalments = range(offer.fewest_instalments, offer.most_instalments + 1)
    windows = range(offer.shortest_window_seconds, offer.longest_window_seconds + 1)
    found = {
        "the terms are for another ledger than the host's": terms.network != offer.network,
        "the terms name another host": terms.node != node,
        "the terms pay into another account than the host's": terms.host != offer.account,
        "the terms name another tenant than the one that sent them": terms.tenant != tenant,
        f"the terms pay {shown_lumens(terms.price)} XLM for a TiB and 30 days, and the host asks for "
        f"{shown_lumens(offer.price)}": terms.price < offer.price,
        f"the terms have {terms.instalments} instalments, and the host takes {_span(instalments)}": (
            terms.instalments not in instalments
        ),
        f"the terms have windows of {terms.window_seconds} seconds, and the host takes {_span(windows)}": (
            terms.window_seconds not in windows
        ),
        f"the terms want {shown_lumens(terms.collateral_stroops)} XLM of the host, and it gives "
        f"{shown_lumens(offer.most_collateral_stroops)} at most": terms.collateral_stroops
        > offer.most_collateral_stroops,
        "the terms start in the past, or too far ahead, by the ledger's clock": (
            abs(terms.start - head.closed_at) > CLOCKS_APART_SECONDS
        ),
        "the terms are to be set up in a ledger that is past, or too far ahead": (
            terms.last_setup_ledger not in last_ledgers
        ),
        "the terms put less into the escrow than a stroop for each instalment": (
            terms.deposit_stroops < terms.instalments
        ),
    }
    return tuple(sentence for sentence, is_so in found.items() if is_so)


def _span(numbers: range) -> str:
    return f"{numbers[0]:,} to {numbers[-1]:,}"
