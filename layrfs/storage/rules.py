"""What must be true of a volume's rows, as SQL, and what is done where it is not.

Owns the statements. Must not know when they run. Every rule's query answers with a value for each thing that is wrong
and its repair leaves none; the order is the order of repair: what a row names is put right before the row itself.
The invariant of all repairs: bytes that could be read before can be read after. A row goes only when it names nothing;
a block whose place on hosts is unknown becomes lost (reading it fails, and never gives zeros), or, when its bytes are
in the cache, is sent again.
"""

from __future__ import annotations

from typing import NamedTuple

from layrfs.model.redundancy import MAX_CODED_PIECES
from layrfs.model.sharding import MAX_BLOCK_BYTES, MIN_BLOCK_BYTES


class Rule(NamedTuple):
    """``text`` says what the rows of ``query`` are; ``repair`` are statements, in order."""

    name: str
    text: str
    query: str
    repair: tuple[str, ...]


def _update(table: str, change: str, wrong: str) -> str:
    return f"UPDATE {table} SET {change} WHERE {wrong}"


def _delete(table: str, wrong: str) -> str:
    return f"DELETE FROM {table} WHERE {wrong}"


def _select(column: str, table: str, wrong: str) -> str:
    return f"SELECT {column} FROM {table} WHERE {wrong}"


def _removed(name: str, text: str, table: str, wrong: str, column: str = "number") -> Rule:
    return Rule(name, text, _select(column, table, wrong), (_delete(table, wrong),))


def _changed(name: str, text: str, table: str, wrong: str, change: str, column: str = "number") -> Rule:
    return Rule(name, text, _select(column, table, wrong), (_update(table, change, wrong),))


_REGULAR = "mode & 0xF000 = 0x8000"
_DIRECTORY = "mode & 0xF000 = 0x4000"
_LINK = "mode & 0xF000 = 0xA000"
_NO_KIND = "mode & 0xF000 NOT IN (0x1000, 0x2000, 0x4000, 0x6000, 0x8000, 0xA000, 0xC000) OR mode < 0 OR mode > 0xFFFF"
_HAS_BLOCKS = (
    "(EXISTS (SELECT 1 FROM block b WHERE b.inode = inode.number)"
    " OR EXISTS (SELECT 1 FROM local l WHERE l.inode = inode.number))"
)
_HAS_NAMES = "EXISTS (SELECT 1 FROM entry e WHERE e.parent = inode.number)"
_NOT_A_DIRECTORY = "NOT EXISTS (SELECT 1 FROM inode i WHERE i.number = entry.parent AND i.mode & 0xF000 = 0x4000)"
_WRONG_BLOCK_BYTES = f"block_bytes NOT BETWEEN {MIN_BLOCK_BYTES} AND {MAX_BLOCK_BYTES} OR block_bytes % 4096 <> 0"
_FILLED = "coalesce((SELECT max(c.offset + c.length) FROM content c WHERE c.shard = shard.number), 1)"
_TAKEN = "(SELECT c.length FROM content c WHERE c.number = block.content)"
_CACHED_ONLY = (
    "dirty = 0 AND EXISTS (SELECT 1 FROM block b JOIN content c ON c.number = b.content"
    " JOIN shard ON shard.number = c.shard WHERE b.inode = local.inode AND b.number = local.block"
    " AND (SELECT count(*) FROM piece p WHERE p.shard = shard.number) < shard.needed)"
)
_CACHED_CONTENT = (
    f"SELECT b.content FROM block b JOIN local ON local.inode = b.inode AND local.block = b.number WHERE {_CACHED_ONLY}"
)
_NO_CONTENT = "content <> 0 AND NOT EXISTS (SELECT 1 FROM content c WHERE c.number = block.content)"
_NO_PLACE = (
    "dirty = 0 AND NOT EXISTS (SELECT 1 FROM block b WHERE b.inode = local.inode AND b.number = local.block"
    " AND b.content <> 0)"
)
_RIGHT_LINKS = (
    "CASE WHEN mode & 0xF000 = 0x4000 THEN 2 + (SELECT count(*) FROM entry e JOIN inode i ON i.number = e.inode"
    " WHERE e.parent = inode.number AND i.mode & 0xF000 = 0x4000)"
    " ELSE (SELECT count(*) FROM entry e WHERE e.inode = inode.number) END"
)
_NAMED = "(number = 1 OR EXISTS (SELECT 1 FROM entry e WHERE e.inode = inode.number))"
_END = "coalesce((SELECT max(b.number * inode.block_bytes + b.length) FROM block b WHERE b.inode = inode.number), 0)"
_CACHED_BYTES = (
    "coalesce((SELECT sum((b.length + 4095) / 4096 * 4096) FROM local l JOIN block b"
    " ON b.inode = l.inode AND b.number = l.block WHERE l.inode = local_use.inode AND l.dirty = 0), 0)"
)
_CACHED_NOT_COUNTED = (
    "SELECT DISTINCT l.inode FROM local l WHERE l.dirty = 0"
    " AND NOT EXISTS (SELECT 1 FROM local_use u WHERE u.inode = l.inode)"
)
_HIGHEST = (
    "(SELECT max(n) FROM (SELECT max(number) AS n FROM inode UNION ALL SELECT max(inode) FROM entry"
    " UNION ALL SELECT max(inode) FROM block UNION ALL SELECT max(inode) FROM local))"
)
_SENT_AGAIN = "INSERT OR REPLACE INTO local(inode, block, dirty) SELECT inode, block, 1 FROM local WHERE {}"
_SEND_LOST = (
    "INSERT OR REPLACE INTO local(inode, block, dirty) SELECT l.inode, l.block, 1 FROM local l"
    " JOIN block ON block.inode = l.inode AND block.number = l.block WHERE l.dirty = 0 AND "
)

_IMPOSSIBLE = (
    f"needed < 1 OR needed > total OR total > 65535 OR needed > 1 AND (needed = total OR total > {MAX_CODED_PIECES})"
)

ON_HOSTS = (
    _removed("hosts", "hosts without an id", "host", "length(node_id) <> 20"),
    _changed("redundancy", "shards with an impossible number of copies", "shard",
             _IMPOSSIBLE, "needed = 1, total = 3"),
    _removed("shards", "shards that cannot be opened", "shard",
             "length(id) <> 32 OR length(salt) <> 16 OR number < 1"),
    _removed("pieces", "copies that are described wrongly", "piece",
             "length(id) <> 32 OR position NOT BETWEEN 0 AND 65535 OR generation NOT BETWEEN 0 AND 4294967295",
             "shard"),
    _removed("pieces' hosts", "copies on hosts that nobody knows", "piece",
             "NOT EXISTS (SELECT 1 FROM host h WHERE h.number = piece.host)", "shard"),
    _removed("pieces' shards", "copies of shards that nobody knows", "piece",
             "NOT EXISTS (SELECT 1 FROM shard s WHERE s.number = piece.shard)", "shard"),
    _changed("digests", "contents without a digest", "content", "length(digest) <> 32", "digest = randomblob(32)"),
    _removed("contents", "contents whose place is unknown", "content",
             f"number < 1 OR offset < 0 OR length < 1 OR offset + length > {MAX_BLOCK_BYTES}"
             " OR NOT EXISTS (SELECT 1 FROM shard s WHERE s.number = content.shard)"),
    _changed("lengths of shards", "shards that are shorter than what is in them", "shard",
             f"plain_bytes < {_FILLED}", f"plain_bytes = {_FILLED}"),
    _changed("sealed lengths", "shards with an impossible length", "shard", "sealed_bytes < 1",
             "sealed_bytes = plain_bytes"),
)  # fmt: skip
"""Hosts, shards, copies and contents."""

BLOCKS = (
    _removed("block numbers", "blocks before the beginning of their file", "block",
             "number NOT BETWEEN 0 AND 1 << 40 OR inode < 1", "inode"),
    Rule("blocks", "blocks whose place on hosts is unknown", _select("inode", "block", _NO_CONTENT),
         (_SEND_LOST + _NO_CONTENT, _update("block", "content = 0, length = 0", _NO_CONTENT))),
    _changed("lengths of blocks", "blocks that claim more than was stored of them", "block",
             f"content <> 0 AND (length < 0 OR length > {_TAKEN})", f"length = {_TAKEN}", "inode"),
    _changed("lost blocks", "lost blocks with a length", "block", "content = 0 AND length <> 0", "length = 0",
             "inode"),
    _removed("journal", "blocks in the cache before the beginning of their file", "local",
             "block NOT BETWEEN 0 AND 1 << 40 OR inode < 1", "inode"),
    Rule("journal's marks", "blocks in the cache that are neither clean nor dirty",
         _select("inode", "local", "dirty NOT IN (0, 1)"), (_SENT_AGAIN.format("dirty NOT IN (0, 1)"),)),
    Rule("cached blocks", "blocks called clean that no host was given", _select("inode", "local", _NO_PLACE),
         (_SENT_AGAIN.format(_NO_PLACE),)),
    Rule("last copies", "blocks that are in the cache and on no host any more",
         _select("inode", "local", _CACHED_ONLY),
         (_update("content", "digest = randomblob(32)", f"number IN ({_CACHED_CONTENT})"),
          _SENT_AGAIN.format(_CACHED_ONLY))),
)  # fmt: skip
"""What files are made of. A new digest keeps a content from being offered as stored already."""

INODES = (
    _removed("inode numbers", "files without a number", "inode", "number < 1"),
    _changed("directories", "directories that are called something else", "inode",
             f"NOT ({_DIRECTORY}) AND (number = 1 OR ({_HAS_NAMES} AND NOT {_HAS_BLOCKS}))",
             "mode = 0x4000 | 0x1C0 | (mode & 0xFFF), target = NULL"),
    _changed("files", "files that are called something else", "inode",
             f"NOT ({_REGULAR}) AND number > 1 AND {_HAS_BLOCKS} AND NOT {_HAS_NAMES}",
             "mode = 0x8000 | 0x180 | (mode & 0xFFF), target = NULL"),
    _changed("kinds", "files of an unknown kind", "inode", _NO_KIND, "mode = 0x8000 | (mode & 0xFFF)"),
    _changed("links", "symbolic links that lead nowhere", "inode", f"{_LINK} AND target IS NULL",
             "mode = 0x8000 | (mode & 0xFFF)"),
    _changed("lengths of links", "symbolic links of a wrong length", "inode",
             f"{_LINK} AND size <> length(target)", "size = length(target)"),
    _changed("block sizes", "files in blocks of an impossible size", "inode", _WRONG_BLOCK_BYTES,
             f"block_bytes = {MAX_BLOCK_BYTES}"),
    _changed("block sizes of files", "files in blocks that are too small for what is in them", "inode",
             "block_bytes < (SELECT max(b.length) FROM block b WHERE b.inode = inode.number)",
             f"block_bytes = {MAX_BLOCK_BYTES}"),
    _changed("lengths", "files that are shorter than what was stored of them", "inode",
             f"size < 0 OR ({_REGULAR} AND size < {_END})", f"size = max(0, size, {_END})"),
)  # fmt: skip
"""What each file is. A damaged kind is told from what depends on it: names below it, or blocks."""

NAMES = (
    _removed("names of nothing", "names of files that do not exist", "entry",
             "NOT EXISTS (SELECT 1 FROM inode i WHERE i.number = entry.inode)", "cookie"),
    _removed("names in nothing", "names in what is no directory", "entry", _NOT_A_DIRECTORY, "cookie"),
    _removed("names of the root", "names of the root directory", "entry", "inode = 1", "cookie"),
    _removed("names of directories", "second names of directories", "entry",
             "EXISTS (SELECT 1 FROM inode i WHERE i.number = entry.inode AND i.mode & 0xF000 = 0x4000)"
             " AND cookie > (SELECT min(e.cookie) FROM entry e WHERE e.inode = entry.inode)", "cookie"),
    _changed("names", "names that no file can have", "entry",
             "length(name) NOT BETWEEN 1 AND 255 OR instr(name, x'2F') OR instr(name, x'00')"
             " OR name IN (x'2E', x'2E2E')",
             "name = CAST('#name-' || cookie AS BLOB)", "cookie"),
    _changed("order of names", "names that no listing shows", "entry", "cookie < 1",
             "cookie = abs(random() % 1000000000) + (SELECT max(cookie) + 1 FROM entry)", "cookie"),
)  # fmt: skip
"""Where each file is found."""

SUMS = (
    _changed("link counts", "files with a wrong number of names", "inode",
             f"{_NAMED} AND nlink <> ({_RIGHT_LINKS})", f"nlink = ({_RIGHT_LINKS})"),
    _removed("attributes", "attributes of files that do not exist", "attribute",
             "NOT EXISTS (SELECT 1 FROM inode i WHERE i.number = attribute.inode)", "inode"),
    Rule("unsent blocks", "dirty blocks that are not listed as such on the network",
         "SELECT inode FROM local l WHERE dirty = 1 AND NOT EXISTS"
         " (SELECT 1 FROM unsent u WHERE u.inode = l.inode AND u.block = l.block)",
         ("INSERT OR IGNORE INTO unsent(inode, block) SELECT inode, block FROM local WHERE dirty = 1",)),
    _removed("cache sums of nothing", "sums of what is in the cache of files that do not exist", "local_use",
             "NOT EXISTS (SELECT 1 FROM inode i WHERE i.number = local_use.inode)", "inode"),
    Rule("cache sums", "files with a wrong sum of what is in the cache",
         f"SELECT inode FROM local_use WHERE bytes <> {_CACHED_BYTES} UNION {_CACHED_NOT_COUNTED}",
         (f"INSERT INTO local_use(inode, bytes, used) SELECT inode, 0, 0 FROM ({_CACHED_NOT_COUNTED})",
          _update("local_use", f"bytes = {_CACHED_BYTES}", f"bytes <> {_CACHED_BYTES}"))),
    Rule("next inode", "a counter of files that lags behind",
         f"SELECT {_HIGHEST} WHERE {_HIGHEST} > 1 AND {_HIGHEST} >="
         " coalesce((SELECT value FROM volume WHERE name = 'next_inode'), 0)",
         (f"INSERT OR REPLACE INTO volume(name, value) SELECT 'next_inode', 1 + {_HIGHEST}",)),
    Rule("number of files", "a wrong number of files",
         "SELECT value FROM volume WHERE name = 'inodes' AND value <> (SELECT count(*) FROM inode)",
         ("INSERT OR REPLACE INTO volume(name, value) SELECT 'inodes', count(*) FROM inode",)),
)  # fmt: skip
"""What is counted twice, so that it need not be counted."""

LOST = Rule(
    "lost blocks",
    "files with blocks that were lost before they reached a host, or that no host is known to have",
    "SELECT DISTINCT b.inode FROM block b WHERE NOT EXISTS"
    " (SELECT 1 FROM local l WHERE l.inode = b.inode AND l.block = b.number)"
    " AND (b.content = 0 OR EXISTS (SELECT 1 FROM content c JOIN shard s ON s.number = c.shard WHERE"
    " c.number = b.content AND (SELECT count(*) FROM piece p WHERE p.shard = s.number) < s.needed))",
    (),
)
"""Not wrong, but worth saying: there is nothing to repair them from."""
