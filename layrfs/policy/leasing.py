"""Who may write to a volume: what a machine does at the start of a mount, and when it says again that it writes. Pure.

One machine writes at a time. It says so in every version it publishes: until when, by its own clock. Clocks may be an
hour off, so what another machine's clock says counts only with an hour on top; but a machine that lives publishes a
version at least every `RENEWAL_SECONDS`, so a version that stays the newest for `LEASE_SECONDS` by *our* clock (the one
that counts seconds since the machine started and never jumps) has no writer any more, whatever anybody's calendar says.

What counts in the end is not the lease but the order of versions: hosts keep one record of each version, the first
that came, so of two machines that publish the same version at most one is believed (`outcome`). The lease only spares
people that race.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from layrfs.model.history import Lease

LEASE_SECONDS = 600
RENEWAL_SECONDS = LEASE_SECONDS / 2
"""A lease is renewed when less than this is left."""

CLOCK_SLACK_SECONDS = 3600
"""How far two machines' clocks may be apart."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A version of the volume, and whom it lets write."""

    version: int
    lease: Lease | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a machine knows that is about to mount.

    ``known``: the newest version it has; None when the volume was never published. ``found``: the newest that hosts
    show; None when they have none or none answers. ``same``: both are one record. ``unchanged_seconds``: how long ago
    this machine first saw the newest one.
    """

    device: bytes
    known: Seen | None
    found: Seen | None
    reached: bool
    same: bool
    unchanged_seconds: float
    now_ms: int
    take_over: bool = False


@dataclass(frozen=True, slots=True)
class Proceed:
    """This machine has the newest version and the right to write, or the volume is new."""


@dataclass(frozen=True, slots=True)
class ClaimFirst:
    """This machine has the newest version, and nobody the right to write: publish that we do before anything else."""


@dataclass(frozen=True, slots=True)
class Offline:
    """No host answers, and this machine wrote last: go on with what is here, claim when hosts answer."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """No host answers, and ``holder`` wrote last: what is here may be old."""

    holder: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """``holder`` writes. Should it have crashed, the volume is free at ``until_ms`` by our clock."""

    holder: str
    until_ms: int


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Hosts have a newer version: what is only here is set aside, that version is taken, and then claimed."""


Plan = Proceed | ClaimFirst | Offline | Unknown | Refuse | CatchUp


def plan(facts: Facts) -> Plan:
    """What a mount that wants to write does."""
    if not facts.reached:
        wrote = facts.known is None or _is_own(facts.known.lease, facts.device)
        return Offline() if wrote or facts.take_over else Unknown(_name(facts.known))
    is_newer = is_behind(facts)
    newest = facts.found if is_newer else facts.known
    if newest is None:
        return Proceed()
    if not facts.take_over and (until_ms := _held_until_ms(newest.lease, facts)) is not None:
        return Refuse(_name(newest), until_ms)
    if is_newer:
        return CatchUp()
    return ClaimFirst() if renewal_due(newest.lease, facts.device, facts.now_ms) else Proceed()


def is_behind(facts: Facts) -> bool:
    """Whether hosts have a version that this machine has not: a higher one, or another of the same number."""
    if facts.found is None or facts.same:
        return False
    return facts.known is None or facts.found.version >= facts.known.version


def held_until_ms(lease: Lease | None, device: bytes, now_ms: int, unchanged_seconds: float = 0.0) -> int | None:
    """When at the latest the lease of another than ``device`` is over, by our clock; None when there is none."""
    if lease is None or lease.device == device or not lease.until_ms:
        return None
    seconds_left = LEASE_SECONDS - unchanged_seconds
    until_ms = min(lease.until_ms + CLOCK_SLACK_SECONDS * 1000, now_ms + int(seconds_left * 1000))
    return until_ms if until_ms > now_ms else None


def renewal_due(lease: Lease | None, device: bytes, now_ms: int) -> bool:
    """Whether a machine that writes should publish that it does; also when its clock was set back."""
    if lease is None or lease.device != device:
        return True
    return not RENEWAL_SECONDS * 1000 < lease.until_ms - now_ms <= LEASE_SECONDS * 1000


def outcome(own: int, found: int | None, *, same: bool) -> Literal["won", "lost", "unproven"]:
    """How a publication went that a host called stale, from the number of the newest that hosts show afterwards.

    Every host keeps one record of a version for good, and of two that hosts keep all machines prefer the same: so
    whatever the order of events, not both machines lose, and those that see the same hosts do not both win.
    """
    if found is None or found < own:
        return "unproven"
    return "won" if same else "lost"


def _held_until_ms(lease: Lease | None, facts: Facts) -> int | None:
    return held_until_ms(lease, facts.device, facts.now_ms, facts.unchanged_seconds)


def _is_own(lease: Lease | None, device: bytes) -> bool:
    return lease is not None and lease.device == device


def _name(seen: Seen | None) -> str:
    return (seen.lease.name if seen is not None and seen.lease is not None else "") or "another machine"
