"""What must be true of a volume's database and cache directory whenever nobody is using them after a proper stop.

Looks without changing anything, with a connection of its own. Each answer is one sentence.
"""

from __future__ import annotations

from collections.abc import Iterator

import apsw

from layrfs.ids import InodeNumber
from layrfs.model.sharding import MIN_BLOCK_BYTES
from layrfs.storage.cache_files import CacheFiles

QUERIES = {
    "entries without an inode": "SELECT count(*) FROM entry WHERE inode NOT IN (SELECT number FROM inode)",
    "entries in what is no directory": "SELECT count(*) FROM entry e LEFT JOIN inode i ON i.number = e.parent"
    " WHERE i.number IS NULL OR i.mode & 61440 != 16384",
    "inodes without a name": "SELECT count(*) FROM inode WHERE number != 1 AND number NOT IN (SELECT inode FROM entry)",
    "files with a wrong link count": "SELECT count(*) FROM inode i WHERE i.mode & 61440 != 16384"
    " AND i.nlink != (SELECT count(*) FROM entry e WHERE e.inode = i.number)",
    "blocks of no file": "SELECT count(*) FROM block WHERE inode NOT IN (SELECT number FROM inode)",
    "cached blocks of no file": "SELECT count(*) FROM local WHERE inode NOT IN (SELECT number FROM inode)",
    "blocks beyond the end of their file": "SELECT count(*) FROM block b JOIN inode i ON i.number = b.inode"
    " WHERE b.number * i.block_bytes >= i.size AND b.number > 0",
    "blocks without content": "SELECT count(*) FROM block WHERE content NOT IN (SELECT number FROM content)",
    "content without a shard": "SELECT count(*) FROM content WHERE shard NOT IN (SELECT number FROM shard)",
    "shards without a piece": "SELECT count(*) FROM shard WHERE number NOT IN (SELECT shard FROM piece)",
    "clean blocks that hosts do not have": "SELECT count(*) FROM local l LEFT JOIN block b"
    " ON b.inode = l.inode AND b.number = l.block WHERE l.dirty = 0 AND b.inode IS NULL",
    "unsent blocks that are not dirty": "SELECT count(*) FROM unsent u LEFT JOIN local l"
    " ON l.inode = u.inode AND l.block = u.block AND l.dirty = 1 WHERE l.inode IS NULL",
    "dirty blocks that are not unsent": "SELECT count(*) FROM local l LEFT JOIN unsent u"
    " ON l.inode = u.inode AND l.block = u.block WHERE l.dirty = 1 AND u.inode IS NULL",
}


def violations(database: str, cache: str) -> list[str]:
    """Everything that is not as it must be."""
    connection = apsw.Connection(database)
    try:
        return [*_of_rows(connection), *_of_cache_files(connection, cache)]
    finally:
        connection.close()


def _of_rows(connection: apsw.Connection) -> Iterator[str]:
    if (verdict := connection.pragma("integrity_check")) != "ok":
        yield f"SQLite: {verdict}"
    for what, query in QUERIES.items():
        if count := connection.execute(query).get:
            yield f"{count} {what}"


def _of_cache_files(connection: apsw.Connection, directory: str) -> Iterator[str]:
    files = CacheFiles(directory)
    for group in files.groups():
        for inode in files.inodes(group):
            yield from _of_cache_file(connection, files, inode)


def _of_cache_file(connection: apsw.Connection, files: CacheFiles, inode: InodeNumber) -> Iterator[str]:
    """A place whose block is not here is zeros, or the next fetch or growth of the file would show what lies there."""
    found = connection.execute("SELECT block_bytes, size FROM inode WHERE number = ?", (inode,)).fetchone()
    if found is None:
        yield f"a cache file of inode {inode}, which does not exist"
        return
    block_bytes, size = found
    here = {block for (block,) in connection.execute("SELECT block FROM local WHERE inode = ?", (inode,))}
    with open(files.path(inode), "rb") as file:
        data = file.read()
    for start in range(0, len(data), block_bytes):
        if start // block_bytes not in here and data[start : start + block_bytes].strip(b"\0"):
            yield f"inode {inode}: bytes in the cache file where block {start // block_bytes} is not here"
    if len(data) > max(size, MIN_BLOCK_BYTES) and data[size:].strip(b"\0"):
        yield f"inode {inode}: bytes in the cache file beyond its end"
