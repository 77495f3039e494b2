"""Which shards can be fetched now, as far as anybody knows.

Owns what is remembered of shards that could not be fetched (since this start) or that are lost, and the question
whether enough pieces of a shard are on hosts that are believed to live. Must not know how hosts are found or bytes
travel, or what makes a shard lost.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

from layrfs.ids import NodeId
from layrfs.storage.database import Database
from layrfs.storage.pieces import IS_REFUTED

Alive = Callable[[], Container[NodeId]]
"""The hosts that are believed to live at this moment; asked once for all shards of one question."""


class Reach:
    """One volume's."""

    def __init__(self, database: Database, alive: Alive | None) -> None:
        """Without ``alive`` every host is believed to live."""
        self._database = database
        self._alive = alive
        self._distrusted: set[int] = set()
        self._lost: frozenset[int] = frozenset()

    def distrust(self, shard: int) -> None:
        """The shard could not be fetched: until ``trust``, its content is not offered as already stored."""
        self._distrusted.add(shard)

    def trust(self, shard: int) -> None:
        """It could be fetched, or is there no more."""
        self._distrusted.discard(shard)

    def lose(self, shards: Iterable[int]) -> None:
        """These are lost as far as is known, and no others: what is on record of them is not there."""
        self._lost = frozenset(shards)

    def forget(self) -> None:
        """Numbers of shards mean other shards now."""
        self._distrusted.clear()
        self._lost = frozenset()

    @property
    def distrusted(self) -> frozenset[int]:
        """Shards that could not be fetched when last tried (since this start)."""
        return frozenset(self._distrusted)

    @property
    def lost(self) -> frozenset[int]:
        """Shards of which too few pieces are left, whoever lives."""
        return self._lost

    def within(self, shards: Iterable[int]) -> set[int]:
        """Of the shards, those that can be fetched now: not distrusted, and enough pieces on living hosts."""
        return self.held(set(shards) - self._distrusted)

    def held(self, shards: Iterable[int]) -> set[int]:
        """Of the shards, those of which enough pieces are on living hosts, whatever happened when last tried."""
        alive = None if self._alive is None else self._alive()
        left = set(shards) - self._lost
        return left if alive is None else {shard for shard in left if self._is_held(shard, alive)}

    def _is_held(self, shard: int, alive: Container[NodeId]) -> bool:
        rows = self._database.rows(
            "SELECT s.needed, h.node_id FROM shard s JOIN piece p ON p.shard = s.number"  # noqa: S608 - a constant
            f" JOIN host h ON h.number = p.host WHERE s.number = ? AND NOT {IS_REFUTED}",
            (shard,),
        )
        needed = [(count, node in alive) for count, node in rows]
        return bool(needed) and sum(lives for _count, lives in needed) >= needed[0][0]
