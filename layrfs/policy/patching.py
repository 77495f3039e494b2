"""Which pieces of a shard are made anew, and how much that hurries. Pure: states of pieces in, a plan out.

A doubtful piece is probably there, so it counts against loss but not against danger: it is not replaced for being
doubtful, only when too few others are good. Otherwise each night in which laptops sleep would move their pieces to
those that are awake, and the next one back. Where `needed` more losses would end it, nobody waits. A leaving piece is
as one that is gone, but it is there to be read until then: so it is replaced whatever else is left.

Invariants (test): the fewer good pieces, the more urgent; no piece that may stay is given up unless `needed` others
are left; a plan that is carried out leaves nothing that hurries as much.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal, NamedTuple

from layrfs.model.redundancy import Redundancy
from layrfs.policy.trust import GRACE_SECONDS, Trust, doubt_seconds, doubted, silent_seconds, standing

PieceState = Literal["good", "doubtful", "leaving", "gone"]
"""``doubtful``: its host is silent for longer than it usually is, or under suspicion. ``leaving``: its host is going to
let it go, because it says so or because nobody pays. ``gone``: proven wrong or missing, its host excluded, or silent
beyond the grace."""

Urgency = Literal["none", "later", "soon", "now", "lost"]
"""``later``: one of many is missing; reading `needed` pieces to make one pays better for two. ``soon``: in its turn.
``now``: before all others. ``lost``: fewer than `needed` are not gone, as far as is known; silent hosts may return."""

URGENCIES: tuple[Urgency, ...] = ("none", "later", "soon", "now", "lost")

CRITICAL_SHARE = 4
"""A shard is patched at once when no more than a quarter of its spare pieces is left; of three or less: none. Without
that rs:4/8 lost twenty times as many shards in the simulation (docs/durability.md)."""

PATIENT_SHARE = 8
"""Of so many spare pieces one may be missing for a while: to make one takes as much reading as to make two. Mirrors and
rs:4/8 have fewer, so each piece is made anew in its turn: waiting saves half of the traffic, and loses more shards."""

_LOST_KEY = 1 << 40


class Repair(NamedTuple):
    """``positions`` to be made anew in this order; empty when nothing can or need be done."""

    urgency: Urgency
    positions: tuple[int, ...]


def piece_state(trust: Trust, now_seconds: float) -> PieceState:
    """Of a piece on such a host, nothing being known against the piece itself.

    A host that is suspended only because it is seldom there is judged by its silence, not by its habits: in a small
    network of such hosts all pieces would be doubtful for ever, and patching would not end.
    """
    silence = silent_seconds(trust, now_seconds)
    if silence >= GRACE_SECONDS or standing(trust, now_seconds) == "excluded":
        return "gone"
    return "doubtful" if silence >= doubt_seconds(trust) or doubted(trust, now_seconds) else "good"


def patch_below(redundancy: Redundancy) -> int:
    """With fewer pieces than this that are to stay a shard is patched."""
    return redundancy.total - (redundancy.total - redundancy.needed) // PATIENT_SHARE


def critical(redundancy: Redundancy) -> int:
    """With so few good pieces it is patched at once."""
    return redundancy.needed + (redundancy.total - redundancy.needed) // CRITICAL_SHARE


def repair(redundancy: Redundancy, pieces: Mapping[int, PieceState]) -> Repair:
    """What to do for a shard; positions without a piece are absent from ``pieces``, those beyond its total ignored."""
    states: tuple[PieceState | None, ...] = ("good", "doubtful", "leaving", None)
    good, doubtful, leaving, gone = (_positions(redundancy, pieces, state) for state in states)
    staying, anew = len(good) + len(doubtful), (*gone, *leaving)
    if staying + len(leaving) < redundancy.needed:
        return Repair("lost", tuple(position for position in gone if position not in pieces))
    if len(good) == redundancy.total:
        return Repair("none", ())
    if len(good) <= critical(redundancy):
        lacking = max(0, critical(redundancy) + 1 - len(good) - len(anew))
        given_up = doubtful[:lacking] if len(good) >= redundancy.needed else ()
        return Repair("now", (*anew, *given_up))
    if not anew:
        return Repair("none", ())
    return Repair("soon" if staying < patch_below(redundancy) else "later", anew)


def endangered(redundancy: Redundancy, pieces: Mapping[int, PieceState]) -> int:
    """A sort key, most endangered first: by the losses a shard survives counting on good pieces, then on all.

    Lost ones come last: nothing can be done for them until a host returns.
    """
    count = Counter(state for position, state in pieces.items() if position < redundancy.total)
    alive = count["good"] + count["doubtful"] + count["leaving"]
    if alive < redundancy.needed:
        return _LOST_KEY - redundancy.needed + alive
    return (count["good"] - redundancy.needed << 17) + alive - redundancy.needed


def _positions(redundancy: Redundancy, pieces: Mapping[int, PieceState], state: PieceState | None) -> list[int]:
    """Positions in a state, in order; None for those that have no piece or one that is gone."""
    wanted = ("gone", None) if state is None else (state,)
    return [position for position in range(redundancy.total) if pieces.get(position) in wanted]
