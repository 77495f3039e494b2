"""What hosts say they keep, and what was found in it: the scratch database of a scan.

On disk, because there may be millions of pieces and only so much memory. Must not know hosts or keys. Thrown away with
its directory; nothing in it needs to survive anything.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

import apsw

from layrfs.errors import LocalError
from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.notes import PieceNote, Purpose
from layrfs.model.redundancy import Redundancy
from layrfs.model.shard_format import MAX_SEALED_BYTES
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.policy.chains import middle_time
from layrfs.policy.rescuing import FoundPart

_TABLES = """
CREATE TABLE piece(
    salt BLOB, position INTEGER, generation INTEGER, id BLOB, host BLOB, stored INTEGER, needed INTEGER, total INTEGER,
    role TEXT, number INTEGER, place INTEGER, count INTEGER, blob BLOB, previous BLOB,
    PRIMARY KEY(salt, position, generation, host)
) WITHOUT ROWID;
CREATE INDEX piece_metadata ON piece(role) WHERE role <> 'content';
CREATE TABLE part(
    inode INTEGER, block_bytes INTEGER, block INTEGER, stored INTEGER, content INTEGER, length INTEGER,
    PRIMARY KEY(inode, block_bytes, block, content)
) WITHOUT ROWID;
"""

_SHARD_UNKNOWN = ShardId(bytes(32))


class Sightings:
    """Plain code; every method is a few statements."""

    def __init__(self, path: str) -> None:
        """Raises ``LocalError``."""
        try:
            self._connection = apsw.Connection(path)
            self._connection.pragma("journal_mode", "off")
            self._connection.pragma("synchronous", "off")
            self._connection.execute(_TABLES)
        except apsw.Error as error:
            raise LocalError(f"{path} cannot be written: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    # ------------------------------------------------------------------ pieces

    def add(self, host: NodeId, pieces: Iterable[tuple[PieceId, int, PieceNote]]) -> None:
        """A host says that it has these, since when, with these notes. Raises ``LocalError``."""
        rows = (
            (
                note.salt,
                note.position,
                note.generation,
                piece,
                host,
                stored,
                note.redundancy.needed,
                note.redundancy.total,
                note.purpose.role,
                note.purpose.number,
                note.purpose.index,
                note.purpose.count,
                note.purpose.blob,
                note.purpose.previous,
            )
            for piece, stored, note in pieces
        )
        self._write("INSERT OR REPLACE INTO piece VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?)", rows)

    def pieces(self) -> int:
        """How many there are."""
        count: int = self._connection.execute("SELECT count(*) FROM piece").get
        return count

    def highest_number(self) -> int:
        """Of the segments of which anything was seen, whole or not; 0 when there is none."""
        number: int = self._connection.execute("SELECT coalesce(max(number), 0) FROM piece WHERE role <> 'content'").get
        return number

    def metadata(self) -> Iterator[tuple[PieceNote, int]]:
        """The notes of metadata's pieces, and when they were stored."""
        for row in self._connection.execute(
            "SELECT salt, position, generation, needed, total, stored, role, number, place, count, blob, previous"
            " FROM piece WHERE role <> 'content'"
        ):
            salt, position, generation, needed, total, stored, *purpose = row
            yield PieceNote(salt, position, generation, Redundancy(needed, total), Purpose(*purpose)), stored

    def forget(self, salts: Iterable[Salt]) -> None:
        """These shards are known: what is left is not."""
        self._write("DELETE FROM piece WHERE salt = ?", ((salt,) for salt in salts))

    def contents(self, after: Salt, limit: int) -> list[Salt]:
        """The next shards that hold contents of files."""
        query = "SELECT salt FROM piece WHERE salt > ? GROUP BY salt HAVING min(role = 'content') LIMIT ?"
        return [row[0] for row in self._connection.execute(query, (after, limit))]

    def content_count(self) -> int:
        """How many such shards there are."""
        count: int = self._connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM piece GROUP BY salt HAVING min(role = 'content'))"
        ).get
        return count

    def shard(self, salt: Salt) -> tuple[ShardRecord, int]:
        """All that is known of a shard before it is fetched, every piece of it included; and when it was stored."""
        rows = list(
            self._connection.execute(
                "SELECT position, generation, id, host, needed, total, stored FROM piece WHERE salt = ?", (salt,)
            )
        )
        pieces = tuple(PieceRecord(*row[:4]) for row in rows)
        redundancy = Redundancy(*rows[0][4:6])
        record = ShardRecord(_SHARD_UNKNOWN, salt, 0, MAX_SEALED_BYTES, redundancy, pieces)
        return record, middle_time(row[6] for row in rows)

    # ------------------------------------------------------------------- parts

    def add_parts(self, inode: int, part: FoundPart) -> None:
        """A block of a file was found."""
        self._write("INSERT OR REPLACE INTO part VALUES(?,?,?,?,?,?)", [(inode, *part)])

    def inodes(self) -> list[int]:
        """Files of which anything was found."""
        return [row[0] for row in self._connection.execute("SELECT DISTINCT inode FROM part ORDER BY inode")]

    def parts(self, inode: int) -> list[FoundPart]:
        """What was found of a file."""
        query = "SELECT block_bytes, block, stored, content, length FROM part WHERE inode = ?"
        return [FoundPart(*row) for row in self._connection.execute(query, (inode,))]

    def _write(self, sql: str, rows: Iterable[Sequence[int | str | bytes]]) -> None:
        try:
            with self._connection:
                self._connection.executemany(sql, rows)
        except apsw.Error as error:
            raise LocalError(f"The scratch database failed: {error}") from error


def one_piece_each(pieces: Iterable[PieceRecord]) -> tuple[PieceRecord, ...]:
    """Of several at one position the one made last: a record has room for one."""
    best = {piece.position: piece for piece in sorted(pieces, key=operator.attrgetter("generation", "id"))}
    return tuple(best[position] for position in sorted(best))
