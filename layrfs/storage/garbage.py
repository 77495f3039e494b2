"""Shards that nothing needs any more: noticed, marked, and removed with all that is known of them.

Owns the table ``dead`` and the queries that say what is needed. Must not know hosts, or when a shard may go
(``policy.collecting`` does). Invariant: a shard is removed only if, in the transaction that removes it, no block needs
it, it is marked, and no retained version is older than its mark and younger than the shard.
"""

from __future__ import annotations

from typing import NamedTuple

import apsw

from layrfs.errors import LocalError
from layrfs.ids import NodeId, PieceId
from layrfs.policy.collecting import SPARSE, Retained, ShardUse
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database

_IS_NEEDED = (
    "EXISTS (SELECT 1 FROM content c INDEXED BY content_shard CROSS JOIN block b INDEXED BY block_content"
    " ON b.content = c.number WHERE c.shard = ?1)"
)
MAY_BE_NEEDED = f"""
SELECT {_IS_NEEDED} OR EXISTS (SELECT 1 FROM version v WHERE v.last_shard >= ?1
    AND v.number < coalesce((SELECT d.since FROM dead d WHERE d.shard = ?1), v.number + 1))
"""  # noqa: S608 - a constant
"""Shard ``?1``: by a block, or by a retained version."""

_USES = f"""
SELECT number, stored_bytes, plain_bytes, live_bytes, since FROM (
    SELECT s.number, s.plain_bytes, d.since,
        s.sealed_bytes * (SELECT count(*) FROM piece p WHERE p.shard = s.number) AS stored_bytes,
        (SELECT coalesce(sum(c.length), 0) FROM content c INDEXED BY content_shard WHERE c.shard = s.number
            AND EXISTS (SELECT 1 FROM block b INDEXED BY block_content WHERE b.content = c.number)) AS live_bytes
    FROM shard s LEFT JOIN dead d ON d.shard = s.number
) WHERE live_bytes * {SPARSE} < plain_bytes OR live_bytes = 0 ORDER BY number
"""  # noqa: S608 - a constant number


_MARK = f"""
INSERT OR IGNORE INTO dead(shard, since) SELECT number, ?2 FROM shard WHERE number = ?1 AND NOT {_IS_NEEDED}
"""  # noqa: S608 - a constant


class LiveContent(NamedTuple):
    """A content that some block needs, and one of those blocks."""

    number: int
    digest: bytes
    offset: int
    length: int
    inode: int
    block: int
    block_bytes: int
    """Of that file."""


def survey(path: str) -> list[ShardUse]:
    """Shards of which little or nothing is needed, as of the last commit. For a thread: it looks at every content."""
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return [ShardUse(*row) for row in connection.execute(_USES)]
        finally:
            connection.close()
    except apsw.Error as error:
        raise LocalError(f"The database {path} cannot be read: {error}") from error


class Garbage:
    """Plain code on the trio thread, in the open transaction."""

    def __init__(self, database: Database, catalog: Catalog) -> None:
        self._database = database
        self._catalog = catalog

    def retained(self) -> list[Retained]:
        """The versions that stay, the oldest first."""
        rows = self._database.rows("SELECT number, last_shard, name IS NOT NULL FROM version ORDER BY number")
        return [Retained(number, last_shard, bool(by_hand)) for number, last_shard, by_hand in rows]

    def mark(self, shard: int, since: int) -> None:
        """Note that no version from ``since`` on needs a shard, unless that is not so or it was noted before."""
        self._database.write(_MARK, (shard, since))

    def sweep(self, shard: int, newest: int) -> list[tuple[PieceId, NodeId]]:
        """Forget a dead shard, and what is in it; the pieces that are left on hosts. Nothing, when it is needed."""
        may_go = self._database.value(
            f"SELECT 1 FROM dead d WHERE d.shard = ?1 AND d.since <= ?2 AND NOT {_IS_NEEDED}"  # noqa: S608 - a constant
            " AND NOT EXISTS (SELECT 1 FROM version v WHERE v.number < d.since AND v.last_shard >= ?1)",
            (shard, newest),
        )
        return [] if may_go is None else self._remove(shard)

    def _remove(self, shard: int) -> list[tuple[PieceId, NodeId]]:
        pieces = [(piece.id, piece.host) for piece in self._catalog.shard(shard).pieces]
        for table, column in (("content", "shard"), ("piece", "shard"), ("dead", "shard"), ("shard", "number")):
            self._database.write(f"DELETE FROM {table} WHERE {column} = ?", (shard,))  # noqa: S608 - constants
        self._catalog.reach.trust(shard)
        self._catalog.pieces.recount(shard)
        return pieces

    def may_be_needed(self, shard: int) -> bool:
        """Whether a block needs it, or a retained version may."""
        return bool(self._database.value(MAY_BE_NEEDED, (shard,)))

    def live_contents(self, shard: int) -> list[LiveContent]:
        """What is needed of a shard, in the order of the payload."""
        rows = self._database.rows(
            "SELECT c.number, c.digest, c.offset, c.length, b.inode, min(b.number), i.block_bytes"
            " FROM content c INDEXED BY content_shard CROSS JOIN block b INDEXED BY block_content"
            " ON b.content = c.number JOIN inode i ON i.number = b.inode"
            " WHERE c.shard = ? GROUP BY c.number ORDER BY c.offset",
            (shard,),
        )
        return [LiveContent(*row) for row in rows]
