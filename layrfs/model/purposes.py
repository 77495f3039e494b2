"""What shards are for, as owners tell delegates, who write the notes of the pieces that they make."""

from __future__ import annotations

from typing import Literal

from layrfs.model.notes import Purpose, Role
from layrfs.wire.delegation import EntrustedPurpose

_NUMBERS: dict[Role, Literal[0, 1, 2]] = {"content": 0, "checkpoint": 1, "changes": 2}
_ROLES = {number: role for role, number in _NUMBERS.items()}


def entrusted_purpose(purpose: Purpose) -> EntrustedPurpose:
    """As it is handed over."""
    role, place = _NUMBERS[purpose.role], (purpose.number, purpose.index, purpose.count)
    return EntrustedPurpose(role, *place, purpose.blob, purpose.previous)


def purpose_of(entrusted: EntrustedPurpose) -> Purpose:
    """As notes are made of it."""
    place = (entrusted.number, entrusted.index, entrusted.count)
    return Purpose(_ROLES[entrusted.role], *place, entrusted.blob, entrusted.previous)
