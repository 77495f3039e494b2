"""The life cycle of contracts and instalments: what each side makes of each event, in each state. Pure; tables only.

The ledger is the truth, and it may be learnt late, twice, or after a crash: so events repeat and come out of order, and
every table says what then. A state stands still where an event says nothing new.
Invariant: once the ledger says the end (the escrow is merged, the instalment is claimed) nothing is said after it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal, get_args

from layrfs.model.contracts import Terms

OwnerState = Literal["agreed", "submitted", "open", "settling", "broken", "ended", "merged", "void"]
"""``submitted``: the set-up is on its way, and whether it arrives is not known. ``settling``: no piece needs
it any more and nothing is stored under it again; the host is asked for an end by consent. ``broken``: the host did
wrong: nothing more is stored there or disclosed to it. ``ended``: the period is over, the refund is due. ``merged``:
the escrow is gone, what was left is back. ``void``: the set-up can never come."""

OwnerEvent = Literal["sent", "set up", "too late", "host broke", "period over", "merged", "unwanted"]
"""``sent``: the set-up is recorded as about to be sent. ``set up``, ``merged``: seen on the ledger. ``too late``: the
ledger is past what the set-up may be in, and it is not there. ``unwanted``: no piece is there, nor going
there, or none that no later contract covers."""

OWNER: Final[dict[OwnerState, tuple[OwnerState, ...]]] = {
    #            sent         set up      too late     host broke   period over  merged    unwanted
    "agreed":    ("submitted", "open",     "void",      "void",      "void",      "merged", "agreed"),
    "submitted": ("submitted", "open",     "void",      "submitted", "submitted", "merged", "submitted"),
    "open":      ("open",      "open",     "open",      "broken",    "ended",     "merged", "settling"),
    "settling":  ("settling",  "settling", "settling",  "broken",    "ended",     "merged", "settling"),
    "broken":    ("broken",    "broken",   "broken",    "broken",    "ended",     "merged", "broken"),
    "ended":     ("ended",     "ended",    "ended",     "ended",     "ended",     "merged", "ended"),
    "merged":    ("merged",    "merged",   "merged",    "merged",    "merged",    "merged", "merged"),
    "void":      ("void",      "open",     "void",      "void",      "void",      "merged", "void"),
}  # fmt: skip
"""A set-up that was given up and is there all the same counts: money is in it."""

HostState = Literal["agreed", "open", "notice", "ended"]
"""``notice``: the owner has been silent for so long that its pieces are kept, but no longer served."""

HostEvent = Literal["set up", "too late", "silent", "heard", "released", "period over", "merged"]
"""``set up``: the escrow was read and is exactly what was agreed. ``silent``: `SILENT_WINDOWS` ended without a payment.
``heard``: there was one. ``released``: the time of notice is over. ``merged``: an end by consent is on the ledger."""

HOST: Final[dict[HostState, tuple[HostState, ...]]] = {
    #         set up   too late  silent    heard    released  period over  merged
    "agreed": ("open",   "ended",  "agreed", "agreed", "agreed", "ended", "ended"),
    "open":   ("open",   "open",   "notice", "open",   "open",   "ended", "ended"),
    "notice": ("notice", "notice", "notice", "open",   "ended",  "ended", "ended"),
    "ended":  ("ended",  "ended",  "ended",  "ended",  "ended",  "ended", "ended"),
}  # fmt: skip

SILENT_WINDOWS = 3
"""So many windows in a row without a payment are no holiday of the owner's machine."""

InstalmentState = Literal["waiting", "disclosed", "claimed", "missed"]
InstalmentEvent = Literal["disclosed", "claimed", "window over"]
"""``claimed``: the payment was seen on the ledger. ``window over``: the ledger's time is past the window, and it was
not seen."""

INSTALMENT: Final[dict[InstalmentState, tuple[InstalmentState, ...]]] = {
    #            disclosed    claimed    window over
    "waiting":   ("disclosed", "claimed", "missed"),
    "disclosed": ("disclosed", "claimed", "missed"),
    "claimed":   ("claimed",   "claimed", "claimed"),
    "missed":    ("missed",    "claimed", "missed"),
}  # fmt: skip
"""An instalment that was believed missed and is on the ledger was claimed: we had been told late."""


def owner_after(state: OwnerState, event: OwnerEvent) -> OwnerState:
    """What the owner makes of the event."""
    return OWNER[state][get_args(OwnerEvent).index(event)]


def host_after(state: HostState, event: HostEvent) -> HostState:
    """What the host makes of the event."""
    return HOST[state][get_args(HostEvent).index(event)]


def instalment_after(state: InstalmentState, event: InstalmentEvent) -> InstalmentState:
    """What either makes of the event."""
    return INSTALMENT[state][get_args(InstalmentEvent).index(event)]


def silent_windows(terms: Terms, disclosed: Collection[int], now_seconds: float) -> int:
    """How many windows in a row have ended, up to now, since the last one for which the owner disclosed a salt."""
    ended = int(max(0.0, min(now_seconds, terms.end) - terms.start)) // terms.window_seconds
    return max(0, ended - 1 - max(disclosed, default=-1))
