"""The monthly budget: what it leaves for another contract or piece, given what is paid for already. Pure.

Amounts are stroops for 30 days. Must not know how contracts are made. Invariants: nothing that is let in takes the sum
over all hosts above the budget; and while the sum is within it, every contract may be renewed for what is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct

from layrfs.ids import NodeId
from layrfs.policy.paymaster import Contract
from layrfs.policy.pricing import PRICED_SECONDS, due_stroops


class Holding(Struct, frozen=True):
    """Pieces that one host is paid for, in one contract (by the number of its record), at its price; no piece is in two
    of them."""

    host: NodeId
    price: int
    stored_bytes: int
    contract: int = 0


def running(contracts: Sequence[Contract], now: float) -> Iterator[tuple[Contract, list[int]]]:
    """Contracts that hosts are paid by, each with the numbers of the others with the same host: what those cover does
    not wait. What one covers ahead of time another pays for so far, so it is left out."""
    found = [each for each in contracts if each.state == "open" and now < each.terms.end]
    for each in found:
        others = [one.number for one in found if one.terms.node == each.terms.node and one is not each]
        paying = tuple(batch for batch in each.batches if not others or batch.at <= now)
        yield msgspec.structs.replace(each, batches=paying), others


def holding(contract: Contract, waiting_bytes: int) -> Holding:
    """``waiting_bytes``: of pieces that are not covered yet."""
    covered_bytes = sum(batch.stored_bytes for batch in contract.batches)
    return Holding(contract.terms.node, contract.terms.price, covered_bytes + waiting_bytes, contract.number)


def monthly(holdings: Iterable[Holding]) -> int:
    """What all of them come to."""
    return sum(due_stroops(each.price, each.stored_bytes, PRICED_SECONDS) for each in holdings)


def left_for(budget: int | None, holdings: Iterable[Holding], host: NodeId) -> int | None:
    """What a contract with a host may come to; None: there is no budget.

    What the host has now is part of it, because that is what it goes on with: so renewal comes before growth.
    """
    if budget is None:
        return None
    return max(0, budget - monthly(each for each in holdings if each.host != host))


def kept_bytes(holdings: Iterable[Holding], host: NodeId) -> int:
    """What a contract with a host would go on with."""
    return sum(each.stored_bytes for each in holdings if each.host == host)


def fits(budget: int | None, holdings: Iterable[Holding], promised: Iterable[Holding]) -> bool:
    """Whether all that was promised to hosts, one more piece included, is within the budget with what they have."""
    return budget is None or monthly(holdings) + monthly(promised) <= budget
