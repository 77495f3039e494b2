"""What an owner should know of money: what it costs, how long it lasts, and what is going to happen when. Pure.

Amounts are stroops, times Unix seconds by the ledger's clock. Must not know how anything is shown or read.
Invariant: whatever happens to the money, files that hosts have are served; every warning says what does end, and when.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from layrfs.model.lumens import shown_lumens
from layrfs.policy.budgeting import Holding, monthly
from layrfs.policy.earning import KEPT_WINDOWS
from layrfs.policy.paymaster import Contract
from layrfs.policy.runway import Shortage, in_contract, running, shortage

WARNED_SECONDS = 30 * 86_400
"""So long before the money ends it is said; for shorter contracts, two periods before."""

NEARLY_USED = 0.9
"""Of the budget."""


class Facts(Struct, frozen=True):
    """``contracts``: live ones, the oldest first; ``holdings``: of those that hosts are paid by. ``spendable``: in the
    wallet, None: not known. ``placed_bytes`` and ``waiting_bytes`` of files: on hosts, and not there yet."""

    contracts: Sequence[Contract]
    holdings: Sequence[Holding]
    spendable: int | None
    max_price: int | None
    budget: int | None
    placed_bytes: int
    waiting_bytes: int
    now: int


class Purse(Struct, frozen=True):
    """``forecast``: of a month, when what waits is on hosts too. ``runway_seconds`` None: not known, or very long."""

    per_month: int
    forecast: int
    in_contracts: int
    open_contracts: int
    runway_seconds: int | None
    warnings: tuple[str, ...]


def purse(facts: Facts) -> Purse:
    """All of it."""
    per_month = monthly(facts.holdings)
    end = _shortage(facts)
    return Purse(
        per_month=per_month,
        forecast=_forecast(facts, per_month),
        in_contracts=sum(
            in_contract(each) for each in facts.contracts if each.state in {"open", "settling", "broken", "ended"}
        ),
        open_contracts=sum(each.state == "open" for each in facts.contracts),
        runway_seconds=None if end is None else max(0, end.at - facts.now),
        warnings=tuple(_warnings(facts, per_month, end)),
    )


def _forecast(facts: Facts, per_month: int) -> int:
    if not facts.placed_bytes:
        return per_month
    grown = -(-per_month * (facts.placed_bytes + facts.waiting_bytes) // facts.placed_bytes)
    return grown if facts.budget is None else max(per_month, min(grown, facts.budget))


def _shortage(facts: Facts) -> Shortage | None:
    """None also where nobody is to be paid any more."""
    if facts.spendable is None or facts.max_price is None:
        return None
    stored = {each.contract: each.stored_bytes for each in facts.holdings}
    paid = [each for each in facts.contracts if each.number in stored]
    newest = {each.terms.node: each.number for each in paid}
    found = [running(each, stored[each.number], is_renewed=newest[each.terms.node] != each.number) for each in paid]
    return shortage(facts.spendable, found, facts.now)


def _warnings(facts: Facts, per_month: int, end: Shortage | None) -> Iterator[str]:
    open_ = [each for each in facts.contracts if each.state == "open"]
    periods = [each.terms.end - each.terms.start for each in open_]
    if end is not None and end.at < facts.now + min(WARNED_SECONDS, 2 * min(periods)):
        yield (
            f"the wallet lasts until {shown_moment(end.at)}: then {shown_lumens(end.lacking)} XLM are lacking to renew"
            f" a contract, and if they do not come, hosts may let pieces go from {shown_moment(end.kept_until)} on"
            " (`layrfs wallet address`); until then all files are served"
        )
    if facts.max_price is None and open_:
        last = min(each.terms.end for each in open_)
        yield (
            "hosts are not paid any more when their contracts end, the first at"
            f" {shown_moment(last)} (`layrfs set MOUNTPOINT max_price=XLM`); until then all files are served"
        )
    if facts.budget is None or facts.max_price is None:
        return
    if open_ and per_month > facts.budget:
        first = min(open_, key=lambda each: each.terms.end).terms
        yield (
            f"what hosts have costs {shown_lumens(per_month)} XLM a month, more than the budget of"
            f" {shown_lumens(facts.budget)}: contracts that do not fit are not renewed, the first ends at"
            f" {shown_moment(first.end)}, and hosts may let pieces go from"
            f" {shown_moment(first.end + KEPT_WINDOWS * first.window_seconds)} on; until then all files are served"
        )
    elif per_month >= NEARLY_USED * facts.budget:
        share = 100 * per_month // facts.budget if facts.budget else 100
        waits = " and what is written waits here" if facts.waiting_bytes else ""
        yield (
            f"the budget of {shown_lumens(facts.budget)} XLM a month is used to {share} %: beyond it nothing more goes"
            f" to hosts that are paid{waits}; what they have is paid for first"
        )


def shown_moment(seconds: int) -> str:
    """For people anywhere."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
