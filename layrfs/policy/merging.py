"""What becomes of a piece that a delegate says it made, when the owner hears of it. Pure: what is known in, a word out.

The owner's own patches win: a delegate that repaired the same position meanwhile has made garbage, which costs room and
no shard. A piece that may be worth having has to prove itself first; a signature proves only who says so.
"""

from __future__ import annotations

from typing import Literal

from layrfs.model.shards import PieceRecord, ShardRecord

MOST_AHEAD = 1000
"""Generations by which a delegate can be ahead of what the owner knows: a repair a week for twenty years.

A generation has four bytes; whoever could use them up could end a shard's repair.
"""

Verdict = Literal["worth proving", "known", "garbage", "lie"]
"""``known``: on record as said. ``garbage``: nothing needs the piece. ``lie``: no honest delegate says that."""


def verdict(
    made: PieceRecord, replaced: bytes, shard: ShardRecord | None, *, highest: int = 0, is_retired: bool = False
) -> Verdict:
    """About a piece of a shard as on record now (None: nothing needs it), made instead of ``replaced`` (empty: none).

    ``highest`` is the highest generation that any piece of the shard ever had, as far as the owner knows;
    ``is_retired``: an order to drop just this piece may be on its way to its host.
    """
    if shard is None:
        return "garbage"
    if made.position >= shard.redundancy.total or made.generation > highest + MOST_AHEAD:
        return "lie"
    current = next((piece for piece in shard.pieces if piece.position == made.position), None)
    if current == made:
        return "known"
    if is_retired or any(piece.host == made.host for piece in shard.pieces if piece is not current):
        return "garbage"
    if current is None:
        return "worth proving"
    if current.id != replaced:
        return "garbage"
    return "worth proving" if made.generation > current.generation else "lie"
