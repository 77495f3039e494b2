"""What is due in a contract with a host that is paid: cover, disclose, watch, top up, renew, refund. The owner's side.

Pure: what is on record and the time in, steps out, in the order in which they are to be done; where one fails,
some of those behind it wait. Times are Unix seconds by the ledger's clock. Must not know how anybody is reached.
Invariants: a salt is disclosed only while its window is open, and never of a contract that is broken or over; what an
instalment pays never changes once its salt is disclosed; whatever happened before, a contract that is over is refunded;
while a piece is needed, a contract with its host covers it: one ends early when another does.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Literal

from msgspec import Struct

from layrfs.crypto.instalments import answer, lock_hash
from layrfs.model.contracts import Lock, Terms
from layrfs.model.lumens import shown_lumens
from layrfs.policy.contracts import InstalmentState, OwnerState
from layrfs.policy.ending import Cover, host_due_stroops, last_second
from layrfs.policy.pricing import (
    PRICED_BYTES,
    amounts_with,
    collateral_shares,
    credit_bytes,
    deposit_for,
    increments,
)
from layrfs.wire.contracts import BATCHES_LIMIT

FIRST_BYTES = 16 << 30
"""A new contract is for so much, or for what the budget has left."""

FEWEST_BYTES = 64 << 20
"""For less than this nobody is paid: it would cost more than it is worth."""

QUIET_SHARE, LONGEST_QUIET_SECONDS = 32, 600.0
"""Of a window: nothing new for so long, and what there is gets covered."""

LITTLE_SHARE = 64
"""Of the credit: what is less waits for others to be covered with, as each cover brings pieces itself."""

NO_PRICE = 1
"""In terms that were read from the ledger stands for one that is not known."""

LATE_SHARE = 8
"""In the last eighth of a window its instalment does not grow any more: the host needs time to answer for it."""

SALT_WAITS_SHARE = 0.75
"""Of a window: so long a salt waits for a cover that fails."""

MARGIN_SHARE = 32
"""A salt is disclosed so long after its window has opened: clocks differ, and ledgers close now and then."""


class Batch(Struct, frozen=True):
    """The pieces of one cover. ``digests``: of the batch, for each instalment from ``first`` on."""

    number: int
    first: int
    at: int
    stored_bytes: int
    digests: tuple[bytes, ...]
    covered: bool
    """Whether the host is known to have agreed."""


class Instalment(Struct, frozen=True):
    """How far it is, and what it paid, as seen on the ledger."""

    state: InstalmentState = "waiting"
    paid_stroops: int = 0


class Contract(Struct, frozen=True):
    """One contract as its owner has it on record. ``number`` is that of the record."""

    number: int
    terms: Terms
    state: OwnerState
    batches: tuple[Batch, ...] = ()
    instalments: tuple[Instalment, ...] = ()
    whole: bool = True
    """Not: the host has covers that are not here."""


class Uncovered(Struct, frozen=True):
    """Pieces that the host has and no batch; ``quiet_seconds``: how long ago the last one came; ``covered_seconds``:
    and the last cover was agreed to. ``is_waited_for``: by another contract that is to end."""

    pieces: int = 0
    stored_bytes: int = 0
    quiet_seconds: float = 0.0
    covered_seconds: float = math.inf
    is_waited_for: bool = False


Kind = Literal["look", "cover again", "cover", "watch", "settled", "settle", "disclose", "renew", "end", "refund"]


class Step(Struct, frozen=True):
    """``look``: is the set-up on the ledger? ``cover again``: a batch the host may not have got. ``watch``: has the
    instalment been claimed? ``settled``: is an end by consent on the ledger? ``settle``: have the host agree to one.
    ``renew``: another contract, for the time after this one. ``end``: nothing more happens but the refund."""

    kind: Kind
    instalment: int = 0


def steps(
    contract: Contract,
    uncovered: Uncovered,
    now: float,
    *,
    is_renewed: bool,
    is_wanted: bool,
    is_empty: bool = False,
    is_handed_on: bool = False,
) -> tuple[Step, ...]:
    """What is due. ``is_renewed``: there is another contract with the host for later; ``is_wanted``: and pieces for it;
    ``is_empty``: nothing of the owner's is there, on its way there, or needed by readers of older lists of files;
    ``is_handed_on``: of what this contract covers, or that is on its way under it, all that anybody needs is covered by
    a later one.

    An instalment that is watched may turn out to be claimed or missed; then it is not disclosed.
    """
    if contract.state in {"agreed", "submitted"}:
        return (Step("look"),)
    if contract.state not in {"open", "settling", "broken", "ended"}:
        return ()
    watched = tuple(Step("watch", at) for at in _to_watch(contract, now))
    if contract.state == "ended":
        return (*watched, Step("refund"))
    if now >= contract.terms.end:
        return (*watched, Step("end"))
    if contract.state == "broken":
        return watched
    is_needed = bool(uncovered.pieces) or not (is_empty or is_handed_on)
    is_to_end = not is_needed and is_to_be_settled(contract, now, is_handed_on=is_handed_on)
    salts = _to_disclose(contract, uncovered, now)
    if is_handed_on:  # by now nobody is paid twice for the same: what of the rest is due, the end pays
        salts = [step for step in salts if contract.instalments[step.instalment].state == "disclosed"]
    if is_to_end or contract.state == "settling":
        looked = (Step("settled"),) if contract.state == "settling" else ()
        ends = (Step("settle"),) if is_to_end else ()
        return (*looked, *watched, *ends, *salts)
    covers = _covers(contract, uncovered, now, is_empty=is_empty)
    renewals = (Step("renew"),) if is_wanted and not is_renewed and _is_to_be_renewed(contract, now) else ()
    return (*watched, *covers, *salts, *renewals)


def is_to_be_settled(contract: Contract, now: float, *, is_handed_on: bool = False) -> bool:
    """Whether a contract that nothing needs, or nothing any more because a later one covers it, is to end by consent.

    Not while an instalment may be claimed, nor in the second half of a window that is not paid for: an end that is
    signed keeps salts waiting, and the host must have time to claim; but what was handed on has no salts to tell. One
    that was never used yet has a window's time.
    """
    terms, at = contract.terms, contract.terms.instalment_at(now)
    if not contract.whole or at is None or last_second(terms, int(now)) is None:
        return False
    if any(one.state == "disclosed" for one in contract.instalments) or not all(
        one.covered for one in contract.batches
    ):
        return False
    if any(one.state == "waiting" for one in contract.instalments[:at]):
        return False
    if is_handed_on:
        return True
    is_paid = contract.instalments[at].state != "waiting" or not lockable(contract, at)
    is_early = now < terms.window(at)[0] + terms.window_seconds / 2
    return (is_paid or is_early) and (bool(contract.batches) or at > 0)


def host_due(contract: Contract, until: int) -> int:
    """What the host gets when the contract ends by consent, in stroops."""
    covers = [Cover(batch.first, batch.at, batch.stored_bytes) for batch in contract.batches]
    unpaid = [at for at, one in enumerate(contract.instalments) if one.state in {"waiting", "disclosed"}]
    return host_due_stroops(contract.terms, covers, unpaid, until)


def paid_until(contract: Contract, now: float) -> int | None:
    """Until when all that a contract covers is paid for, so that a later one need not pay for it before; None: it is
    not, or who is to be paid for what is not settled yet."""
    at = contract.terms.instalment_at(now)
    if contract.state not in {"open", "settling"} or not contract.whole or at is None:
        return None
    is_paid = contract.instalments[at].state == "claimed"
    is_all = all(batch.covered and batch.first <= at for batch in contract.batches)
    return contract.terms.window(at)[1] + 1 if is_paid and is_all else None


def waits(step: Step, terms: Terms, now: float) -> bool:
    """Whether the step waits when one before it has failed: a cover might go through yet, and be part of the salt's
    instalment; but the host must have time to claim for what it has."""
    if step.kind == "disclose":
        return now < terms.window(step.instalment)[0] + terms.window_seconds * SALT_WAITS_SHARE
    return step.kind in {"cover", "end"}


def _to_watch(contract: Contract, now: float) -> list[int]:
    """Disclosed ones, and those whose window is over: somebody may have claimed them before this machine was lost."""
    return [
        at
        for at, one in enumerate(contract.instalments)
        if one.state == "disclosed" or (one.state == "waiting" and now > contract.terms.window(at)[1])
    ]


def _covers(contract: Contract, uncovered: Uncovered, now: float, *, is_empty: bool) -> list[Step]:
    found = [] if all(batch.covered for batch in contract.batches) else [Step("cover again")]
    terms = contract.terms
    is_much = 2 * uncovered.stored_bytes >= credit_bytes(terms)
    late_at = _late_at(terms, terms.instalment_at(now) or 0)
    is_nearly_late = late_at - _usually_quiet_for(terms) <= now < late_at
    is_quiet = uncovered.quiet_seconds >= quiet_for(contract, now) and (
        is_empty or not _is_too_little(terms, uncovered)
    )
    if uncovered.pieces and first_open(contract, now) is not None and (is_much or is_nearly_late or is_quiet):
        found.append(Step("cover"))
    return found


def _is_too_little(terms: Terms, uncovered: Uncovered) -> bool:
    """Whether what came since the last cover waits for more. What a cover changes is published, in pieces that are to
    be covered as well: a drive that nobody uses would go on with that for ever."""
    share = QUIET_SHARE if uncovered.is_waited_for else LATE_SHARE
    is_soon = uncovered.quiet_seconds <= uncovered.covered_seconds < terms.window_seconds / share
    return is_soon and LITTLE_SHARE * uncovered.stored_bytes < credit_bytes(terms)


def _to_disclose(contract: Contract, uncovered: Uncovered, now: float) -> list[Step]:
    terms = contract.terms
    at = terms.instalment_at(now)
    if (
        not is_complete(contract)
        or at is None
        or contract.instalments[at].state not in {"waiting", "disclosed"}
        or not lockable(contract, at)
    ):
        return []
    opens, _last = terms.window(at)
    if at == 0 and contract.instalments[0].state == "waiting":
        is_due = now >= opens + terms.window_seconds / 2 or (
            not uncovered.pieces and uncovered.quiet_seconds >= 2 * quiet_for(contract, now)
        )
    else:
        is_due = now >= opens + terms.window_seconds / MARGIN_SHARE
    return [Step("disclose", at)] if is_due else []


def _is_to_be_renewed(contract: Contract, now: float) -> bool:
    """In the second half of the last window, or when nothing more can be added to it."""
    terms = contract.terms
    opens, _last = terms.window(terms.instalments - 1)
    return now >= opens + terms.window_seconds / 2 or is_full(contract)


def is_full(contract: Contract) -> bool:
    """Whether no batch can be added any more, however much time there is."""
    return not contract.whole or len(contract.batches) >= BATCHES_LIMIT


def quiet_for(contract: Contract, now: float) -> float:
    """How long nothing has to come before what is there is covered, in seconds; the longer, the fewer batches are left
    for the rest of the contract."""
    left = max(1, BATCHES_LIMIT - len(contract.batches))
    spaced = (contract.terms.end - now) / left if 2 * left < BATCHES_LIMIT else 0.0
    return max(_usually_quiet_for(contract.terms), spaced)


def _usually_quiet_for(terms: Terms) -> float:
    return min(LONGEST_QUIET_SECONDS, terms.window_seconds / QUIET_SHARE)


def _late_at(terms: Terms, instalment: int) -> float:
    return terms.window(instalment)[1] + 1 - terms.window_seconds / LATE_SHARE


def first_open(contract: Contract, now: float) -> int | None:
    """The first instalment that another batch would be part of; None when the contract can take no more."""
    terms = contract.terms
    if contract.state != "open" or is_full(contract) or now >= terms.end:
        return None
    begun = max((at for at, one in enumerate(contract.instalments) if one.state != "waiting"), default=-1)
    running = terms.instalment_at(now) or 0
    first = max(begun + 1, running + (now >= _late_at(terms, running)))
    return first if first < terms.instalments else None


def is_complete(contract: Contract) -> bool:
    """Whether the terms have their price, and so the contract its id; of what the ledger alone knows, only hosts do."""
    return contract.whole or contract.terms.price != NO_PRICE


def out_of_reach(prices: Collection[int], highest: int | None) -> str | None:
    """Why no host takes anything, in a sentence, when it is its price; None when there are cheaper ones, or none."""
    cheapest = min(prices, default=0)
    if cheapest <= (highest or 0):
        return None
    paid = "nobody is paid" if highest is None else f"{shown_lumens(highest)} are paid"
    return (
        f"every host wants money, the cheapest {shown_lumens(cheapest)} XLM for a TiB and 30 days, and {paid}:"
        " `layrfs set MOUNTPOINT max_price=XLM`"
    )


def left_unpaid(prices: Collection[int]) -> str | None:
    """What may become of pieces at hosts that want these prices and get nothing, in a sentence."""
    if not prices:
        return None
    return (
        f"{len(prices)} hosts that have pieces want money for them by now, up to {shown_lumens(max(prices))} XLM for a"
        " TiB and 30 days, and are not paid: they may let what they have go (`layrfs set MOUNTPOINT max_price=XLM`)"
    )


def is_paid_on(contract: Contract, now: float) -> bool:
    """Whether a host will be paid for some time, by the newest contract with it: else it lets its pieces go."""
    terms = contract.terms
    return contract.state in {"agreed", "submitted", "open"} and now < _late_at(terms, terms.instalments - 1)


def lockable(contract: Contract, instalment: int) -> bool:
    """Whether any batch is part of the instalment, or may be: not all are known."""
    return not contract.whole or any(batch.first <= instalment for batch in contract.batches)


def amounts(terms: Terms, batches: Sequence[Batch]) -> tuple[int, ...]:
    """What each instalment pays for these batches, the collateral's share included; 0 where none is part of it."""
    found: tuple[int, ...] = (0,) * terms.instalments
    for batch in batches:
        found = amounts_with(found, batch_increments(terms, batch))
    return tuple(amount + share if amount else 0 for amount, share in zip(found, collateral_shares(terms), strict=True))


def batch_increments(terms: Terms, batch: Batch) -> tuple[int, ...]:
    """What a batch adds to each instalment."""
    return increments(terms, batch.stored_bytes, batch.at, batch.first)


def lock(terms: Terms, batches: Sequence[Batch], instalment: int, salt: bytes) -> Lock:
    """What opens the instalment and what it pays, for these batches, of which one at least is part of it."""
    parts = [batch.digests[instalment - batch.first] for batch in batches if batch.first <= instalment]
    answered = answer(salt, terms.contract_id, instalment, parts)
    return Lock(amounts(terms, batches)[instalment], lock_hash(answered))


def unclaimed(contract: Contract) -> tuple[int, ...]:
    """What the escrow may still have to pay, of each instalment that can come."""
    return tuple(
        amount
        for amount, one in zip(amounts(contract.terms, contract.batches), contract.instalments, strict=True)
        if one.state in {"waiting", "disclosed"}
    )


def cost_of(contract: Contract, stored_bytes: int, now: float) -> int | None:
    """What covering so many bytes from now on takes out of the escrow in all; None when it cannot be done."""
    first = first_open(contract, now)
    if first is None:
        return None
    return sum(increments(contract.terms, stored_bytes, int(now), first))


def has_credit(contract: Contract, uncovered_bytes: int) -> bool:
    """Whether the host takes so many bytes before a cover has to come."""
    return uncovered_bytes <= credit_bytes(contract.terms)


def deposit(
    price: int, *, left_per_month: int | None, instalments: int, window_seconds: int, kept_bytes: int = 0
) -> int | None:
    """What to put into a new contract; None when the budget leaves too little for one. ``left_per_month``: stroops.

    ``kept_bytes``: what the host has already, and is to be paid for further.
    """
    stored_bytes = FIRST_BYTES
    if left_per_month is not None:
        affordable = left_per_month * PRICED_BYTES // price
        if affordable < (kept_bytes or FEWEST_BYTES):
            return None
        stored_bytes = min(FIRST_BYTES, affordable)
    return deposit_for(price, stored_bytes, instalments, window_seconds)


def top_up(wanted_stroops: int, free_stroops: int, terms: Terms) -> int:
    """What to add to an escrow of which ``free_stroops`` are for nothing yet: as much as it began with, so that it
    happens seldom; 0: nothing."""
    lacking = wanted_stroops - free_stroops
    return max(lacking, terms.deposit_stroops) if lacking > 0 else 0


def next_number(numbers: Collection[int]) -> int:
    """Of the next contract with a host, after those there ever were: its salts and its escrow must be new."""
    return max(numbers, default=-1) + 1
