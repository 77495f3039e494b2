"""What storage costs, in stroops, rounded up for whoever is paid: by bytes and time, by batch, by contract. Pure.

Invariant: whole stroops only, never negative, and the instalments of a batch together never pay less than what is due.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from layrfs.model.contracts import Terms

PRICED_BYTES = 1 << 40
PRICED_SECONDS = 30 * 86_400
"""A price is for one TiB and 30 days."""

FEE_STROOPS = 100
"""Of an operation, the least the ledger takes: what claims and refunds are signed with, for months ahead."""

BASE_RESERVE_STROOPS = 5_000_000
ESCROW_RESERVES = 4
"""The ledger holds two base reserves for an account and one for each further signer: the host, and the refund."""


def due_stroops(price: int, stored_bytes: int, seconds: int) -> int:
    """What keeping so many bytes for so long costs."""
    return _divided_up(price * stored_bytes * max(0, seconds), PRICED_BYTES * PRICED_SECONDS)


def increments(terms: Terms, added_bytes: int, at_seconds: int, first: int) -> tuple[int, ...]:
    """What a batch that is stored from ``at_seconds`` on adds to each instalment: nothing before ``first``.

    Each pays for its own window, the first for all until its window ends. So whoever has claimed one is paid until
    then and no longer, and can gain one instalment at most by letting everything go. A stroop each, at least.
    """
    since = max(terms.start, at_seconds)
    ends = [terms.window(at)[1] + 1 for at in range(first, terms.instalments)]
    spans = [ends[0] - since, *(min(terms.window_seconds, end - since) for end in ends[1:])]
    return (*[0] * first, *(max(1, due_stroops(terms.price, added_bytes, seconds)) for seconds in spans))


def credit_bytes(terms: Terms) -> int:
    """How many bytes a host takes before instalments cover them: what one instalment of the deposit pays for."""
    instalment_stroops = terms.deposit_stroops // terms.instalments
    return instalment_stroops * PRICED_BYTES * PRICED_SECONDS // (terms.price * terms.window_seconds)


def collateral_shares(terms: Terms) -> tuple[int, ...]:
    """What of the host's collateral each instalment brings back: all of it together, the odd stroops with the last."""
    share, odd = divmod(terms.collateral_stroops, terms.instalments)
    return (*[share] * (terms.instalments - 1), share + odd)


def locked_stroops(base_reserve_stroops: int = BASE_RESERVE_STROOPS) -> int:
    """What an escrow holds that pays nobody, and comes back to the owner with the refund."""
    return ESCROW_RESERVES * base_reserve_stroops


def escrow_needs(unclaimed_stroops: Collection[int], base_reserve_stroops: int = BASE_RESERVE_STROOPS) -> int:
    """What an escrow has to hold so that these instalments and the refund can all be paid, fees included."""
    return sum(unclaimed_stroops) + locked_stroops(base_reserve_stroops) + (len(unclaimed_stroops) + 1) * FEE_STROOPS


def starting_stroops(terms: Terms) -> int:
    """What the owner puts into the escrow when it is set up: the host's collateral comes on top."""
    return terms.deposit_stroops + locked_stroops() + (terms.instalments + 1) * FEE_STROOPS


def deposit_for(price: int, stored_bytes: int, instalments: int, window_seconds: int) -> int:
    """What pays for so many bytes through all instalments of a contract; a stroop for each at least."""
    due = due_stroops(price, stored_bytes, instalments * window_seconds)
    return instalments * max(1, _divided_up(due, instalments))


def amounts_with(amounts: Sequence[int], added: Sequence[int]) -> tuple[int, ...]:
    """The instalments' amounts after a batch has added to them."""
    return tuple(amount + more for amount, more in zip(amounts, added, strict=True))


def _divided_up(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
