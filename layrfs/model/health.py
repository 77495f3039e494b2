"""The health of files in the words that people read: a file's, a volume's, and the sentence when something is wrong.

Owns the words and what they mean in terms of patching. Must not know how health is found.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Health = Literal["good", "degraded", "at risk", "lost"]
"""``degraded``: pieces are missing, and made anew in their turn. ``at risk``: with few more losses the file would be
gone, so its pieces are made anew before others'. ``lost``: too few hosts have it, as far as is known now."""

HEALTHY: Health = "good"
WORST_FIRST: tuple[Health, ...] = ("lost", "at risk", "degraded", "good")
_OF_URGENCY: dict[str, Health] = {
    "none": "good",
    "later": "degraded",
    "soon": "degraded",
    "now": "at risk",
    "lost": "lost",
}


class HealthReport(msgspec.Struct, frozen=True):
    """How many shards are in which state, how many wait to be patched, and some of the files most endangered.

    ``eta_seconds`` is for all that wait, at the pace of the last ones; None when nothing waits, or was done yet.
    """

    degraded: int = 0
    at_risk: int = 0
    lost: int = 0
    waiting: int = 0
    eta_seconds: int | None = None
    files: tuple[bytes, ...] = ()
    made_anew: int = 0
    """Pieces, since the drive was started."""


def health_of(urgency: str) -> Health:
    """What an urgency of ``policy.patching`` means for a file."""
    return _OF_URGENCY[urgency]


def at_risk_sentence(report: HealthReport) -> str | None:
    """For whoever is not looking; None when there is no danger."""
    parts = [f"{report.at_risk:,} at risk"] if report.at_risk else []
    parts += [f"{report.lost:,} lost"] if report.lost else []
    if not parts:
        return None
    names = ", ".join(path.decode("utf-8", "replace") for path in report.files)
    return f"Of the shards of your files {' and '.join(parts)}{f': {names}' if names else ''}. See `layrfs status`."
