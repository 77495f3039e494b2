"""Which bytes on hosts are kept otherwise than their files want: the policy attribute against the tables.

Owns those queries; changes nothing. Must not know what is done about it. A file's wish is its attribute, or else the
default: files get it from their directory when they are made, so no directory has to be asked.
"""

from __future__ import annotations

import apsw

from layrfs.errors import LocalError
from layrfs.ids import InodeNumber
from layrfs.model.redundancy import DEFAULT_REDUNDANCY, REDUNDANCY_ATTRIBUTE, Redundancy
from layrfs.storage.database import Database

_SPELLED = "CAST(CASE s.needed WHEN 1 THEN 'mirror:' || s.total ELSE 'rs:' || s.needed || '/' || s.total END AS BLOB)"
_OTHERWISE = (
    " FROM block b CROSS JOIN content c ON c.number = b.content CROSS JOIN shard s ON s.number = c.shard"
    " LEFT JOIN attribute a ON a.inode = b.inode AND a.name = ?1"
    f" WHERE coalesce(a.value, ?2) <> {_SPELLED}"
)
_SURVEY = f"SELECT DISTINCT s.number, s.plain_bytes {_OTHERWISE} ORDER BY s.number"
_OF_FILE = f"SELECT coalesce(sum(b.length), 0) {_OTHERWISE} AND b.inode = ?3"
_OTHER_SHARD = f"SELECT 1 FROM shard s WHERE ?2 <> {_SPELLED}"  # noqa: S608 - a constant
_MAY_DIFFER = f"SELECT EXISTS (SELECT 1 FROM attribute WHERE name = ?1) OR EXISTS ({_OTHER_SHARD})"  # noqa: S608 - the text above, values are bound
_WISHES = (
    "SELECT DISTINCT c.number, a.value FROM content c INDEXED BY content_shard"
    " CROSS JOIN block b INDEXED BY block_content ON b.content = c.number"
    " LEFT JOIN attribute a ON a.inode = b.inode AND a.name = ?1 WHERE c.shard = ?2"
)
_NAMED = (REDUNDANCY_ATTRIBUTE, str(DEFAULT_REDUNDANCY).encode())


def survey(path: str) -> list[tuple[int, int]]:
    """Shards, with how long they are, of which some file wants another redundancy, as of the last commit.

    For a thread: it looks at every block, unless no file ever wanted anything.
    """
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        try:
            may_differ = connection.execute(_MAY_DIFFER, _NAMED).get
            return list(connection.execute(_SURVEY, _NAMED)) if may_differ else []
        finally:
            connection.close()
    except apsw.Error as error:
        raise LocalError(f"The database {path} cannot be read: {error}") from error


class Recoding:
    """Plain code on the trio thread, in the open transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def wishes(self, shard: int) -> dict[int, set[Redundancy]]:
        """Of each content of a shard that some block needs, what the files of those blocks want."""
        found: dict[int, set[Redundancy]] = {}
        for content, value in self._database.rows(_WISHES, (REDUNDANCY_ATTRIBUTE, shard)):
            found.setdefault(content, set()).add(Redundancy.of_attribute(value))
        return found

    def otherwise_bytes(self, inode: InodeNumber) -> int:
        """How many of a file's bytes are on hosts otherwise than it wants."""
        return int(self._database.value(_OF_FILE, (*_NAMED, inode)))
