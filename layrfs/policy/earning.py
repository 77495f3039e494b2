"""A host's decisions about its contracts: what a cover has to pay, what falls due when, who is served how long. Pure.

All times are the ledger's. Must not know how anything is sent or kept.
Invariant: what a host gives before it can claim for it is at most the credit of the contract, and then what an owner
who falls silent is kept for: `layrfs.policy.contracts.SILENT_WINDOWS` windows, and `KEPT_WINDOWS` of notice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from layrfs.model.contracts import Terms
from layrfs.model.hosted import Batch, Earnings, Ending, Hosted, Owed, Uncovered
from layrfs.policy.contracts import SILENT_WINDOWS, HostEvent, InstalmentState, silent_windows
from layrfs.policy.pricing import (
    PRICED_BYTES,
    PRICED_SECONDS,
    amounts_with,
    collateral_shares,
    credit_bytes,
    due_stroops,
    increments,
)

KEPT_WINDOWS = 1
"""After a notice, or an end: so long an owner may come back and find everything there."""

CLOCKS_APART_SECONDS = 300

MOST_SALTS = 3
"""Different ones for one instalment: each costs a reading of all pieces."""

SHORTEST_ROUND_SECONDS, LONGEST_ROUND_SECONDS = 1.0, 60.0
ROUNDS_PER_WINDOW = 20

NOTED_ROUNDS, AWAY_ROUNDS = 2, 4
"""Every so many rounds a host writes down that it was there; after so many without one it was away."""

CoverFault = Literal["wrong window", "bad lock"]


def round_seconds(kept: Collection[Hosted]) -> float:
    """How long a host may wait until it looks at these contracts again."""
    windows = [one.terms.window_seconds for one in kept]
    shortest = min(windows, default=LONGEST_ROUND_SECONDS * ROUNDS_PER_WINDOW)
    return min(LONGEST_ROUND_SECONDS, max(SHORTEST_ROUND_SECONDS, shortest / ROUNDS_PER_WINDOW))


def is_round_to_note(seen: int, now: int, round_seconds: float) -> bool:
    """Whether the last time that was written down is too long ago."""
    return now - seen >= NOTED_ROUNDS * round_seconds


def was_away(seen: int, now: int, round_seconds: float) -> bool:
    """Whether a host that comes back missed more than a few rounds: a short one changes nobody's deadline."""
    return now - seen > AWAY_ROUNDS * round_seconds


def claimable(terms: Terms, owed: Sequence[Owed], now: int) -> list[Owed]:
    """Instalments whose salt is known and whose window is open."""
    return [one for one in owed if one.state == "disclosed" and is_window_open(terms, one.instalment, now)]


def amounts_due(terms: Terms, batches: Sequence[Batch]) -> tuple[int, ...]:
    """What each instalment has to pay at least, the collateral's share included."""
    amounts = collateral_shares(terms)
    for batch in batches:
        amounts = amounts_with(amounts, increments(terms, batch.bytes, batch.at, batch.first))
    return amounts


def cover_fault(
    hosted: Hosted,
    batches: Sequence[Batch],
    owed: Sequence[Owed],
    new: Batch,
    amounts: Sequence[int],
    now: int,
    paid_until: int = 0,
) -> CoverFault | None:
    """Why one more batch is not covered by these amounts of the instalments from its first on; None: it is.

    The first is the one whose window is open, or the next: nobody can put off paying, nor pay in windows that are over.
    ``paid_until``: so long another contract has paid for all of its pieces, and this one need not.
    Covers of a contract that is taken up again are said again as they were: they count by the time that they name.
    """
    terms, seen = hosted.terms, min(new.at, now) if hosted.late else now
    if new.at > max(now + CLOCKS_APART_SECONDS, paid_until) or now >= terms.end:
        return "wrong window"
    open_then = terms.instalment_at(min(max(terms.start, seen), terms.end - 1)) or 0
    if new.first not in {open_then, min(open_then + 1, terms.instalments - 1)}:
        return "wrong window"
    settled = {"disclosed", "claimed"} if hosted.late else {"disclosed", "claimed", "missed"}
    if any(one.state in settled for one in owed[new.first :]):
        return "wrong window"
    due = amounts_due(terms, [*batches, new])[new.first :]
    if len(amounts) != len(due) or any(paid < least for paid, least in zip(amounts, due, strict=True)):
        return "bad lock"
    return None


def batches_of(batches: Sequence[Batch], instalment: int) -> tuple[int, ...]:
    """The numbers of the batches that an instalment is about, in order."""
    return tuple(number for number, batch in enumerate(batches) if batch.first <= instalment)


def paid_now(terms: Terms, owed: Sequence[Owed], now: int) -> int | None:
    """The instalment whose window is open, when it was claimed: what it is about is paid for until the window ends."""
    at = terms.instalment_at(now)
    return at if at is not None and owed[at].state == "claimed" else None


def unclaimed(terms: Terms, owed: Sequence[Owed], now: int) -> set[int]:
    """The instalments that can still be claimed: the escrow has to hold what they pay."""
    return {
        one.instalment
        for one in owed
        if one.state in {"waiting", "disclosed"} and terms.window(one.instalment)[1] >= now
    }


def last_claimed(owed: Sequence[Owed]) -> int:
    """How many instalments there are up to the last one that was claimed."""
    return max((one.instalment + 1 for one in owed if one.state == "claimed"), default=0)


def has_credit(terms: Terms, uncovered_bytes: int, piece_bytes: int) -> bool:
    """Whether one more piece is taken before a cover comes."""
    return uncovered_bytes + piece_bytes <= credit_bytes(terms)


def is_window_open(terms: Terms, instalment: int, now: int) -> bool:
    """Whether an instalment can be claimed."""
    first, last = terms.window(instalment)
    return first <= now <= last


def missed(terms: Terms, owed: Sequence[Owed], now: int) -> list[Owed]:
    """Instalments that can be claimed no more, and are not called so yet."""
    return [one for one in owed if one.state in {"waiting", "disclosed"} and terms.window(one.instalment)[1] < now]


def event(
    hosted: Hosted,
    owed: Sequence[Owed],
    *,
    first: int | None,
    on_credit: Uncovered,
    ledger: int,
    now: int,
) -> HostEvent | None:
    """What time alone has brought about. ``first``: see ``first_in_use``; ``ledger``: the last one closed.

    Who keeps things on credit until that is worth an instalment is as good as silent, whatever else is paid; so is
    whose salts come to nothing: too late to claim with, wrong, or of an escrow that does not pay.
    "too late" is to be believed only when the ledger proves that the set-up can never come.
    """
    terms = hosted.terms
    if now >= terms.end:
        return None if hosted.state == "ended" else "period over"
    if hosted.state == "agreed" and ledger > terms.last_setup_ledger:
        return "too late"
    owes_too_much = _worth_on_credit(terms, on_credit) > terms.deposit_stroops // terms.instalments
    if hosted.state == "open":
        is_silent = _is_silent(terms, owed, first, {"disclosed", "claimed"}, now)
        return "silent" if owes_too_much or is_silent else None
    if hosted.state != "notice":
        return None
    if not owes_too_much and not _is_silent(terms, owed, first, {"claimed"}, now):
        return "heard"
    is_over = now >= hosted.since + KEPT_WINDOWS * terms.window_seconds
    return "released" if is_over and not any(one.state == "disclosed" for one in owed) else None


def first_in_use(terms: Terms, batches: Sequence[Batch], on_credit: Uncovered) -> int | None:
    """The first instalment of a contract for which something was here to be paid for; None: nothing is."""
    firsts = [batch.first for batch in batches]
    if on_credit.bytes:
        firsts.append(max(0, on_credit.since - terms.start) // terms.window_seconds)
    return min(firsts, default=None)


def _is_silent(
    terms: Terms, owed: Sequence[Owed], first: int | None, heard: Collection[InstalmentState], now: int
) -> bool:
    """Nobody has to pay in windows in which nothing was here."""
    if first is None:
        return False
    found = [first - 1, *(one.instalment for one in owed if one.state in heard)]
    return silent_windows(terms, found, now) >= SILENT_WINDOWS


def is_to_be_released(hosted: Hosted, now: int) -> bool:
    """Whether its pieces are not kept any more. Who was given notice has had the time already."""
    terms = hosted.terms
    has_notice = hosted.since >= terms.end or was_settled(hosted)
    kept_until = hosted.since + KEPT_WINDOWS * terms.window_seconds if has_notice else hosted.since
    return hosted.state == "ended" and now >= kept_until


def handed_until(terms: Terms, now: int) -> int:
    """Until when what a contract has paid for, which is let go of now, is kept for its owner's next one."""
    return now + KEPT_WINDOWS * terms.window_seconds


def kept_until(terms: Terms) -> int:
    """Until when at least, of an owner who has another contract, a host that keeps time keeps what this one covers."""
    return handed_until(terms, terms.end + KEPT_WINDOWS * terms.window_seconds)


def was_settled(hosted: Hosted) -> bool:
    """Whether it ended by consent. What is signed and undecided ends nothing; what never came is forgotten first."""
    return hosted.state == "ended" and hosted.ending is not None


def earnings(
    terms: Terms,
    batches: Sequence[Batch],
    owed: Sequence[Owed],
    uncovered: Uncovered,
    now: int,
    settled: Ending | None = None,
) -> Earnings:
    """Of one contract, up to now, or to the end by consent that it had; collateral that comes back is no earning."""
    shares = collateral_shares(terms)
    earned = sum(one.amount_stroops - shares[one.instalment] for one in owed if one.state == "claimed")
    if settled is not None:
        earned += settled.stroops - sum(shares[one.instalment] for one in owed if one.state == "waiting")
        now = min(now, settled.latest)
    pending = sum(one.amount_stroops - shares[one.instalment] for one in owed if one.state == "disclosed")
    kept = _kept_stroops(terms, batches, now) + _worth_on_credit(terms, uncovered)
    return Earnings(earned, pending, max(0, kept - earned - pending))


def is_in_arrears(brought: Earnings, window_stroops: int) -> bool:
    """Whether an owner is to have no further contract while its pieces are here: one could follow another for ever.

    For each window that it paid, and one more, so many may be missing as silence is borne for: whose machine is on for
    one window in four can go on. ``window_stroops``: what a window of all that it has is worth.
    """
    return brought.at_risk_stroops > (SILENT_WINDOWS + KEPT_WINDOWS) * (brought.earned_stroops + window_stroops)


def _worth_on_credit(terms: Terms, uncovered: Uncovered) -> int:
    return -(-terms.price * uncovered.byte_seconds // (PRICED_BYTES * PRICED_SECONDS))


def _kept_stroops(terms: Terms, batches: Sequence[Batch], now: int) -> int:
    until = min(now, terms.end)
    return sum(due_stroops(terms.price, batch.bytes, until - max(terms.start, batch.at)) for batch in batches)
