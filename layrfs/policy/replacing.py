"""Which pieces of a shard are on record when others have been made: one rule for files and for metadata. Pure.

Invariants: no host has two pieces of one shard on record; at a position the newest stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from layrfs.model.shards import PieceRecord


class Replacement(NamedTuple):
    """``pieces``: all on record from now on, by position; ``new``: those of them that were not, ``needless``: others.

    What is needless was on record, or was made and is of no use.
    """

    pieces: tuple[PieceRecord, ...]
    new: tuple[PieceRecord, ...]
    needless: tuple[PieceRecord, ...]


def replacement(recorded: Iterable[PieceRecord], made: Iterable[PieceRecord]) -> Replacement:
    """Of no use is a piece no newer than what is recorded at its position, and one on a host that has another piece.

    Two who patch at the same time make such.
    """
    before = {piece.position: piece for piece in recorded}
    pieces, needless = dict(before), list[PieceRecord]()
    for piece in made:
        old = pieces.get(piece.position)
        if old is not None and (old.id, old.host) == (piece.id, piece.host):
            continue
        is_stale = old is not None and piece.generation <= old.generation
        if is_stale or any(one.host == piece.host for one in pieces.values() if one is not old):
            needless.append(piece)
            continue
        needless += [] if old is None else [old]
        pieces[piece.position] = piece
    new = tuple(piece for position, piece in sorted(pieces.items()) if piece is not before.get(position))
    return Replacement(tuple(pieces[position] for position in sorted(pieces)), new, tuple(needless))
