"""What a shard that cannot be fetched takes with it, and what of it is in the cache all the same.

Owns queries over ``content``, ``block`` and ``local``. Must not know hosts, or why a shard is lost.
"""

from __future__ import annotations

from typing import NamedTuple

from layrfs.ids import InodeNumber
from layrfs.storage.database import Database
from layrfs.storage.tree import Tree

_BLOCKS = (
    " FROM content c INDEXED BY content_shard CROSS JOIN block b INDEXED BY block_content ON b.content = c.number"
    " JOIN inode i ON i.number = b.inode LEFT JOIN local l ON l.inode = b.inode AND l.block = b.number"
    " WHERE c.shard = ?"
)
_ABSENT = (
    f"SELECT b.inode, b.number * i.block_bytes, b.length {_BLOCKS} AND l.inode IS NULL"
    " ORDER BY b.inode, b.number LIMIT ?"
)
_CACHED = (
    f"SELECT c.number, b.inode, min(b.number), i.block_bytes, c.length {_BLOCKS}"
    " AND l.dirty = 0 AND b.length >= c.length GROUP BY c.number ORDER BY c.offset"
)


class LostRange(NamedTuple):
    """Bytes of a file that are nowhere: ``length`` of them from ``offset`` on."""

    path: bytes
    offset: int
    length: int


class CachedContent(NamedTuple):
    """A content of a shard whose bytes are in a cache file, as the clean block of some file."""

    content: int
    inode: InodeNumber
    block: int
    block_bytes: int
    length: int


class Lost:
    """Plain code on the trio thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tree = Tree(database)

    def ranges(self, shard: int, limit: int) -> list[LostRange]:
        """Of the files that need the shard, the bytes that are not in the cache either; neighbours are one range."""
        found: list[LostRange] = []
        last = InodeNumber(0)
        for inode, offset, length in self._database.rows(_ABSENT, (shard, limit)):
            if inode == last and found[-1].offset + found[-1].length == offset:
                found[-1] = found[-1]._replace(length=found[-1].length + length)
            else:
                path = found[-1].path if inode == last else self._tree.path_of(inode) or b"#%d" % inode
                found.append(LostRange(path, offset, length))
            last = inode
        return found

    def cached(self, shard: int) -> list[CachedContent]:
        """What of the shard can be sent again, in the order of the payload."""
        return [CachedContent(*row) for row in self._database.rows(_CACHED, (shard,))]
