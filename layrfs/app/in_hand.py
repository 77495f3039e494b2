"""Pieces that are being covered, or being deleted, at this moment: never both.

Owns who has which in hand. Must not know disk or record. On the trio thread. Invariant: what an owner pays for is not
deleted at its own word while the cover is looked at: it could never be claimed for, nor anything else in the contract.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence

from layrfs.ids import PieceId


class InHand:
    """One host's. Those of one tenant say nothing about another's."""

    def __init__(self) -> None:
        self._covered: Counter[tuple[bytes, PieceId]] = Counter()
        self._deleted: Counter[tuple[bytes, PieceId]] = Counter()

    @contextlib.contextmanager
    def covering(self, tenant: bytes, pieces: Sequence[PieceId]) -> Iterator[bool]:
        """Whether none of them is being deleted; while the block runs none begins to be."""
        mine = [(tenant, piece) for piece in pieces]
        self._covered.update(mine)
        try:
            yield not any(each in self._deleted for each in mine)
        finally:
            _drop(self._covered, mine)

    def begin_deleting(self, tenant: bytes, pieces: Sequence[PieceId]) -> list[PieceId]:
        """Those that may be, until ``end_deleting`` of just these."""
        free = [piece for piece in pieces if (tenant, piece) not in self._covered]
        self._deleted.update((tenant, piece) for piece in free)
        return free

    def is_deleted(self, tenant: bytes, piece: PieceId) -> bool:
        """Whether it is being deleted now."""
        return (tenant, piece) in self._deleted

    def end_deleting(self, tenant: bytes, free: Sequence[PieceId]) -> None:
        """They are gone, or stay after all."""
        _drop(self._deleted, [(tenant, piece) for piece in free])


def _drop(counts: Counter[tuple[bytes, PieceId]], those: Sequence[tuple[bytes, PieceId]]) -> None:
    for each in those:
        counts[each] -= 1
        if not counts[each]:
            del counts[each]
