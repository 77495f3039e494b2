"""What is remembered of a host, and what it amounts to: new, good, suspended, excluded. Pure.

Three memories, each with forgetting, because they say different things:

* *integrity*: does it have what it took? Beta reputation over audits (Jøsang and Ismail 2002, as Storj uses it): only
  wrong bytes and pieces it no longer has count against it. It alone can exclude at once, and never in one step.
* *serving*: does it hand over what it can prove? The same over retrievals, for hosts that pass audits and give nothing.
* *presence*: the share of the observed time in which it answered. By time, not by audits: Storj found that counted
  audits ruin a host with many pieces in one short outage (blueprint "downtime tracking with audits").

Silence is what was observed: time in which nobody asked does not count, so an owner who was away for a month
blames nobody. Invariants: silence alone never excludes; only an excluded host was suspended before; every exclusion
and every suspension ends, by passing or by time. A liar can return under a new identity for nothing, so an exclusion
for ever would hit only those who mend.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

HOUR_SECONDS = 3600.0
DAY_SECONDS = 24 * HOUR_SECONDS

Outcome = Literal["passed", "failed", "missing", "offline", "timed out", "refused", "unknown"]
"""Of one audit of one piece. ``failed``: wrong bytes. ``missing``: it says it has it not. ``timed out``: reached, but
no answer in time, also not when asked for the same piece again. ``refused``: it said no. ``unknown``: our own fault,
also when no host at all can be reached."""

Standing = Literal["new", "good", "suspended", "excluded"]
"""``suspended``: gets nothing new while others take it. ``excluded``: gets nothing, and nothing there is counted on."""

AUDIT_MEMORY = 1000.0
"""Audits that count: Storj's forgetting factor 0.999 and its initial alpha of 1000 (storj/storj issue 4354)."""

FAILED_WEIGHT = 50.0
"""One proof of wrong bytes suspends, the third excludes: hosts verify what they read and call rot missing, so
wrong bytes are a lie or broken memory, and never a disk."""

MISSING_WEIGHT = 5.0
"""From a host that loses more than 0.8 % nothing is expected (test: a wiped disk is suspended by the 9th missing piece,
excluded by the 27th; one rotten piece in a thousand costs nothing)."""

SUSPENDING_INTEGRITY = 0.96
"""Storj's threshold since 2022 (storj/docs issue 227); it disqualifies there, where we first suspend."""

EXCLUDING_INTEGRITY = 0.88
"""Three times the distance of the other, so that one failure cannot leap over suspension (test)."""

RETRIEVAL_MEMORY = 20.0
SUSPENDING_SERVING = 0.6
"""Both Storj's of 2019 (storj/storj pull request 2264: lambda 0.95, threshold 0.6): ten refusals in a row."""

PRESENCE_MEMORY_SECONDS = 30 * DAY_SECONDS
"""Storj's tracking period of 30 days."""

PRESENCE_CREDIT_SECONDS = 7 * DAY_SECONDS
"""What a new host is believed in advance: one that is hardly there is noticed after 30 days, as at Storj."""

SUSPENDING_PRESENCE = 0.3
"""Storj asks for 60 % of operators who are paid. A machine that is on for eight hours a day is there for 33 %."""

SUSPENSION_SECONDS = 7 * DAY_SECONDS
"""For what was proven, at least; and who goes on after it is excluded. Storj's suspension grace of 168 hours."""

EXCLUSION_SECONDS = 90 * DAY_SECONDS
"""Then it is new again. A new identity costs a liar less, so more would gain nothing."""

VETTED_AUDITS = 100.0
"""Passed by who is no longer new: Storj's AuditCount."""

UNOBSERVED_SECONDS = 6 * HOUR_SECONDS
"""A gap between two observations counts so far at most; hosts are asked hourly while the owner's machine is on."""

SHORTEST_DOUBT_SECONDS = 300.0
"""A restart of a machine or a router takes less."""

GRACE_SECONDS = 72 * HOUR_SECONDS
"""Silence after which nobody counts on a host: longer than a weekend (62 h). The simulation in docs/durability.md
compares others: with 24 h home machines fill the line with false alarms, with 168 h twice as many shards are lost."""

HABIT_FACTOR = 1.5
"""A host that comes back from its nights is doubted when this one is half as long again as its longest lately. Doubting
it after a day in any case would make half as many pieces again of home machines (docs/durability.md)."""


class Trust(msgspec.Struct, frozen=True):
    """The long memory of one host. All times in seconds since the epoch, None for never."""

    kept: float = AUDIT_MEMORY
    broken: float = 0.0
    passed: float = 0.0
    served: float = RETRIEVAL_MEMORY
    withheld: float = 0.0
    present_seconds: float = PRESENCE_CREDIT_SECONDS
    absent_seconds: float = 0.0
    habit_seconds: float = 0.0
    """The longest silence that it came back from lately."""

    silence_seconds: float = 0.0
    """Observed silence up to ``asked_at``."""

    silent: bool = False
    asked_at: float | None = None
    suspended_at: float | None = None
    """Since when for something proven (integrity or serving); want of presence is seen from its share alone."""

    excluded_at: float | None = None

    @property
    def integrity(self) -> float:
        """The share of audits, weighted, in which it had what it took."""
        return self.kept / (self.kept + self.broken)

    @property
    def serving(self) -> float:
        """The share of retrievals that it served."""
        return self.served / (self.served + self.withheld)

    @property
    def presence(self) -> float:
        """The share of the observed time in which it answered."""
        return self.present_seconds / (self.present_seconds + self.absent_seconds)


NEW_HOST = Trust()


def after(trust: Trust, outcome: Outcome, now_seconds: float, *, retrieval: bool = False) -> Trust:
    """What is remembered after one more audit; ``retrieval``: all bytes were asked for, not a proof."""
    if outcome == "unknown":
        return trust
    if trust.excluded_at is not None and not _excluded(trust, now_seconds):
        trust = msgspec.structs.replace(NEW_HOST, habit_seconds=trust.habit_seconds, asked_at=trust.asked_at)
    trust = _with_presence(trust, outcome, now_seconds)
    trust = _with_integrity(trust, outcome)
    if retrieval:
        trust = _with_serving(trust, outcome)
    return _judged(trust, outcome, now_seconds, retrieval=retrieval)


def standing(trust: Trust, now_seconds: float) -> Standing:
    """What the host may be used for now."""
    if _excluded(trust, now_seconds):
        return "excluded"
    if trust.excluded_at is not None:
        return "new"
    if doubted(trust, now_seconds) or silent_seconds(trust, now_seconds) >= GRACE_SECONDS:
        return "suspended"
    if trust.presence < SUSPENDING_PRESENCE:
        return "suspended"
    return "new" if trust.passed < VETTED_AUDITS else "good"


def doubted(trust: Trust, now_seconds: float) -> bool:
    """Whether something was proven against it that still counts: suspension that says something of its pieces."""
    return trust.suspended_at is not None and trust.excluded_at is None and not _served_out(trust, now_seconds)


def silent_seconds(trust: Trust, now_seconds: float) -> float:
    """For how long it has been silent as far as somebody asked; 0 when it answered last."""
    return trust.silence_seconds + _observed(trust, now_seconds) if trust.silent else 0.0


def doubt_seconds(trust: Trust) -> float:
    """The silence from which on a host is doubted: one that sleeps at night is not, until it oversleeps."""
    return min(GRACE_SECONDS, max(SHORTEST_DOUBT_SECONDS, HABIT_FACTOR * trust.habit_seconds))


def _observed(trust: Trust, now_seconds: float) -> float:
    """Of the time since it was last asked, what may be attributed to what it does now. Never negative."""
    if trust.asked_at is None:
        return 0.0
    return min(UNOBSERVED_SECONDS, max(0.0, now_seconds - trust.asked_at))


def _with_presence(trust: Trust, outcome: Outcome, now_seconds: float) -> Trust:
    """``refused`` breaks a silence, but whoever refuses is as good as away."""
    silent = outcome in {"offline", "timed out"}
    observed = _observed(trust, now_seconds)
    kept = math.exp(-observed / PRESENCE_MEMORY_SECONDS)
    absent = silent or outcome == "refused"
    habit = trust.habit_seconds * kept
    if trust.silent and not silent:
        habit = max(habit, trust.silence_seconds + observed)
    return msgspec.structs.replace(
        trust,
        present_seconds=trust.present_seconds * kept + (0.0 if absent else observed),
        absent_seconds=trust.absent_seconds * kept + (observed if absent else 0.0),
        habit_seconds=habit,
        silence_seconds=trust.silence_seconds + observed if silent and trust.silent else 0.0,
        silent=silent,
        asked_at=now_seconds,
    )


def _with_integrity(trust: Trust, outcome: Outcome) -> Trust:
    if outcome not in {"passed", "failed", "missing"}:
        return trust
    good = 1.0 if outcome == "passed" else 0.0
    bad = {"failed": FAILED_WEIGHT, "missing": MISSING_WEIGHT}.get(outcome, 0.0)
    forget = 1 - 1 / AUDIT_MEMORY
    return msgspec.structs.replace(
        trust,
        kept=trust.kept * forget + good,
        broken=trust.broken * forget + bad,
        passed=trust.passed + good,
    )


def _with_serving(trust: Trust, outcome: Outcome) -> Trust:
    """Who cannot be reached withholds nothing: that is presence."""
    if outcome == "offline":
        return trust
    served = 0.0 if outcome in {"timed out", "refused"} else 1.0
    forget = 1 - 1 / RETRIEVAL_MEMORY
    return msgspec.structs.replace(
        trust, served=trust.served * forget + served, withheld=trust.withheld * forget + 1 - served
    )


def _judged(trust: Trust, outcome: Outcome, now_seconds: float, *, retrieval: bool) -> Trust:
    """Suspended at the first proof, excluded at the next ones; let go when both are over."""
    bad = outcome in {"failed", "missing"} or (retrieval and outcome in {"timed out", "refused"})
    below = trust.integrity < SUSPENDING_INTEGRITY or trust.serving < SUSPENDING_SERVING
    if trust.suspended_at is None:
        return msgspec.structs.replace(trust, suspended_at=now_seconds) if below else trust
    goes_on = trust.integrity < EXCLUDING_INTEGRITY or (below and _long(trust, now_seconds))
    if trust.excluded_at is None and bad and goes_on:
        return msgspec.structs.replace(trust, excluded_at=now_seconds)
    if not below and _long(trust, now_seconds) and trust.excluded_at is None:
        return msgspec.structs.replace(trust, suspended_at=None)
    return trust


def _served_out(trust: Trust, now_seconds: float) -> bool:
    """A suspension that nothing has confirmed for as long as an exclusion takes is over: there is always a way back."""
    return trust.suspended_at is not None and _apart(now_seconds, trust.suspended_at) >= EXCLUSION_SECONDS


def _long(trust: Trust, now_seconds: float) -> bool:
    return trust.suspended_at is not None and _apart(now_seconds, trust.suspended_at) >= SUSPENSION_SECONDS


def _excluded(trust: Trust, now_seconds: float) -> bool:
    return trust.excluded_at is not None and _apart(now_seconds, trust.excluded_at) < EXCLUSION_SECONDS


def _apart(now_seconds: float, then_seconds: float) -> float:
    """A time in the future says that a clock was wrong; counted both ways, none of them keeps a host out for ever."""
    return abs(now_seconds - then_seconds)
