"""How long a wallet lasts: contracts renewed one after the other, until one cannot be. Pure.

Times are Unix seconds, amounts stroops. Must not know where either comes from. Invariant: never too hopeful: what is
set aside for a contract comes back when it is over, and not before; what is not known to come back does not.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from layrfs.policy.earning import KEPT_WINDOWS
from layrfs.policy.paymaster import Contract, amounts, deposit
from layrfs.policy.pricing import FEE_STROOPS, deposit_for, due_stroops, locked_stroops

HORIZON_SECONDS = 2 * 365 * 86_400
"""Beyond this nobody can tell what hosts will ask."""

MOST_RENEWALS = 32
"""Of each contract: two years and more of usual ones, and not millions of those that last seconds."""

SETUP_OPERATIONS = 3


class Running(Struct, frozen=True):
    """A contract as its owner goes on with it. ``comes_back`` at its end, at least.

    ``is_renewed``: there is another with the host already, for what comes after it.
    """

    price: int
    stored_bytes: int
    instalments: int
    window_seconds: int
    end: int
    comes_back: int
    is_renewed: bool = False

    @property
    def seconds(self) -> int:
        """Of the whole period."""
        return self.instalments * self.window_seconds

    @property
    def renewed_at(self) -> int:
        """In the middle of its last window."""
        return self.end - self.window_seconds // 2

    @property
    def set_aside(self) -> int:
        """What another one takes out of the wallet."""
        usual = deposit(
            self.price, left_per_month=None, instalments=self.instalments, window_seconds=self.window_seconds
        )
        needed = deposit_for(self.price, self.stored_bytes, self.instalments, self.window_seconds)
        return max(usual or 0, needed) + locked_stroops() + self._fees

    @property
    def _fees(self) -> int:
        return (SETUP_OPERATIONS + self.instalments + 1) * FEE_STROOPS

    def next(self, at: int) -> Running:
        """That other one, when it is made then."""
        paid = due_stroops(self.price, self.stored_bytes, self.seconds) + self.instalments
        rest = max(0, self.set_aside - self._fees - paid)
        return msgspec.structs.replace(self, end=at + self.seconds, comes_back=rest)


class Shortage(Struct, frozen=True):
    """When the wallet has too little to renew a contract, and how much is lacking then; until when all hosts keep what
    they have all the same."""

    at: int
    lacking: int
    kept_until: int


def running(contract: Contract, stored_bytes: int, *, is_renewed: bool = False) -> Running:
    """``stored_bytes``: what its host has."""
    terms = contract.terms
    back = locked_stroops() + max(0, terms.deposit_stroops - _to_be_paid(contract))
    size = terms.price, stored_bytes, terms.instalments, terms.window_seconds
    return Running(*size, terms.end, back, is_renewed)


def in_contract(contract: Contract) -> int:
    """What is in the escrow of a contract, as far as its records tell."""
    paid = sum(one.paid_stroops for one in contract.instalments)
    return locked_stroops() + max(contract.terms.deposit_stroops, _to_be_paid(contract)) - paid


def shortage(spendable: int, contracts: Sequence[Running], now: int) -> Shortage | None:
    """When the money ends, at the prices and bytes of now; None: not within ``HORIZON_SECONDS``, ``MOST_RENEWALS``."""
    events = [event for order, each in enumerate(contracts) for event in _events(each, order, now)]
    heapq.heapify(events)
    order, left = len(contracts), spendable
    most = len(contracts) * (1 + MOST_RENEWALS)
    while events and order < most and events[0][0] <= now + HORIZON_SECONDS:
        at, is_renewal, _order, each = heapq.heappop(events)
        if not is_renewal:
            left += each.comes_back
        elif each.set_aside > left:
            return Shortage(at, each.set_aside - left, each.end + KEPT_WINDOWS * each.window_seconds)
        else:
            left, order = left - each.set_aside, order + 1
            for event in _events(each.next(at), order, at):
                heapq.heappush(events, event)
    return None


def _events(each: Running, order: int, now: int) -> Iterable[tuple[int, bool, int, Running]]:
    """At one moment what comes back does so before anything is set aside."""
    yield max(now, each.end), False, order, each
    if not each.is_renewed:
        yield max(now, each.renewed_at), True, order, each


def _to_be_paid(contract: Contract) -> int:
    """By all instalments that came or may come."""
    found = zip(amounts(contract.terms, contract.batches), contract.instalments, strict=True)
    return sum(amount for amount, one in found if one.state != "missed")
