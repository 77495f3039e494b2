"""What hosts have lost since the drive started, for the sentence in ``layrfs status``.

Owns the sum only: that a piece is gone and made anew is recorded in the catalog.
"""

from __future__ import annotations

from layrfs.ids import NodeId, PieceId

MOST_NAMED = 3
MOST_REMEMBERED = 100_000
_SHOWN_CHARACTERS = 12


class Losses:
    """Pieces that were wrong or missing at their hosts."""

    def __init__(self) -> None:
        self._pieces: set[PieceId] = set()
        self._hosts: dict[NodeId, None] = {}

    def add(self, piece: PieceId, host: NodeId) -> None:
        """A host has proven not to have a piece; said twice, it counts once."""
        self._hosts[host] = None
        if len(self._pieces) < MOST_REMEMBERED:
            self._pieces.add(piece)

    def sentence(self) -> str | None:
        """What a person should know; None when nothing was lost."""
        if not self._pieces:
            return None
        names = [host.hex()[:_SHOWN_CHARACTERS] for host in self._hosts]
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        return (
            f"{len(self._pieces)} pieces were wrong or missing at hosts {', '.join(names[:MOST_NAMED])}{more}; "
            "other copies were used and new ones are made"
        )
