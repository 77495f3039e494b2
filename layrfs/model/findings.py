"""What a check of a volume found, as a value."""

from __future__ import annotations

from typing import Literal

import msgspec

Severity = Literal["note", "problem", "lost"]
"""``note``: worth knowing, nothing is wrong. ``lost``: bytes that nobody has any more, or that no host shows."""


class Finding(msgspec.Struct, frozen=True):
    """One kind of thing that is wrong; ``count`` says how often."""

    check: str
    severity: Severity
    text: str
    count: int = 1
    repairable: bool = False


class CheckReport(msgspec.Struct, frozen=True):
    """A whole check: what it found, what was done about it (sentences), and what is still so afterwards."""

    findings: tuple[Finding, ...] = ()
    repairs: tuple[str, ...] = ()
    left: tuple[Finding, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong now; notes do not count."""
        return all(finding.severity == "note" for finding in self.left)
