"""What one flush still has to see on hosts: the blocks that were dirty when it began.

Owns that list (16 bytes a block: a million waiting files are no burden) and how its uploads end. Must not know the
journal, or how anything is sent.
Invariant: a block is struck off only by an upload whose claim was made after the flush began, or is of a block that
nobody had changed since when the flush met it; or when the block itself has ended.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

import trio

from layrfs.ids import BlockNumber, InodeNumber
from layrfs.storage.journal import BlockKey
from layrfs.vfs.blocks import Mark

Progress = Callable[[int, int], None]
"""Told bytes sent so far and bytes still to go."""


class Owed:
    """Filled with ``add``, gone through with ``turn`` and ``take`` until nothing comes back."""

    def __init__(self, began: int, progress: Progress | None) -> None:
        """``began``: how many claims had been made."""
        self.began = began
        self.progress = progress
        self.fixed: set[InodeNumber] = set()
        """Files that must not be cut into other blocks while they are in this list."""
        self.outstanding = 0
        """Uploads under way that are waited for."""
        self.sent_bytes = 0
        self.changed = trio.Event()
        self._now = array("q")
        self._at = 0
        self._later = array("q")

    def add(self, key: BlockKey) -> None:
        """In the next turn."""
        self._later.extend(key)

    def turn(self) -> bool:
        """Begin anew with what is left; whether anything is."""
        self._later, self._now = array("q"), self._now[self._at :] + self._later
        self._at = 0
        return bool(self._now)

    def take(self, limit: int) -> list[BlockKey]:
        """The next blocks of this turn; empty at its end."""
        part = self._now[self._at : self._at + 2 * limit]
        self._at += len(part)
        return [(InodeNumber(part[at]), BlockNumber(part[at + 1])) for at in range(0, len(part), 2)]

    def waits_for(self, mark: Mark) -> Claim:
        """An upload of one of its blocks is under way."""
        self.outstanding += 1
        return Claim(self, counts=mark.number > self.began or not mark.changed)


class Claim:
    """One flush waits for the end of one claim."""

    __slots__ = ("_counts", "_owed")

    def __init__(self, owed: Owed, *, counts: bool) -> None:
        self._owed = owed
        self._counts = counts

    def ended(self, key: BlockKey, plain_bytes: int, *, well: bool) -> None:
        """``well``: hosts have what the upload has read, or the block has ended."""
        owed = self._owed
        owed.outstanding -= 1
        if well:
            owed.sent_bytes += plain_bytes
        if not (well and self._counts):
            owed.add(key)
        owed.changed.set()
