"""The log of a volume's changes: what is in no segment yet, and a volume made again from segments.

Owns the tables ``local_change`` and ``local_retired``, and the files that segments are made of. Must not know hosts or
keys. The rows of ``local_change`` are written by ``Database.commit``, in the transaction of the changes themselves.

Functions that take paths block and may run in a thread; the methods of ``ChangeLog`` are plain code on the trio thread.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import apsw
import zstandard

from layrfs.crashpoints import reached
from layrfs.errors import BadMessage, CorruptFile, LocalError
from layrfs.ids import NodeId, PieceId
from layrfs.model.history import END, HEADER_BYTES, NONCE_BYTES, Kind, blob_header, check_blob_header
from layrfs.storage.cache_files import failed, sync_path
from layrfs.storage.database import Database, no_conflict
from layrfs.storage.schema import APPLICATION_ID, INDEXES, SCHEMA_VERSION, TABLES, VOLUME_TABLES
from layrfs.storage.soundness import break_seal

COPY_BYTES = 1 << 20
REPAIRED = "repaired"
"""A mark: rows were changed that did not say what was published. Changes would not fit; a checkpoint does."""

ROWS_TOGETHER = 64
"""So many rows of ``local_change`` become one, when nothing can be published for long."""

LEVEL = 6
"""zstd; metadata is small, and sent to many hosts."""


class Cut(NamedTuple):
    """A point of the log, and what the volume was there."""

    last: int
    """The number of the last change before it."""
    last_shard: int
    """The highest number of a shard."""
    unsent: int
    """How many blocks had bytes that were on no host."""


_CUT = (
    "SELECT (SELECT coalesce(max(number), 0) FROM local_change), (SELECT coalesce(max(number), 0) FROM shard),"
    " (SELECT count(*) FROM unsent)"
)


_MAY_GO = (
    "NOT EXISTS (SELECT 1 FROM contract_piece p JOIN contract c ON c.number = p.contract"
    " WHERE p.piece = local_retired.piece AND c.node = local_retired.host)"
)
"""What a running contract covers stays: the host could answer for nothing without it, and would not be paid."""


class ChangeLog:
    """What has changed since the last segment."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def cut(self) -> Cut:
        """Where the log ends now; commit before."""
        row = self._database.row(_CUT)
        return Cut(*row) if row else Cut(0, 0, 0)

    def count_never_sent(self) -> int:
        """Blocks of which hosts have nothing, neither the newest bytes nor older ones."""
        count: int = self._database.value(
            "SELECT count(*) FROM unsent u WHERE NOT EXISTS"
            " (SELECT 1 FROM block b WHERE b.inode = u.inode AND b.number = u.block)"
        )
        return count

    def pending(self) -> tuple[int, bytes]:
        """All changes in no segment yet as one changeset, and the number of the last of them; 0 and nothing."""
        rows = list(self._database.rows("SELECT number, changes FROM local_change ORDER BY number"))
        return (rows[-1][0], combined([row[1] for row in rows])) if rows else (0, b"")

    def has_pending(self) -> bool:
        """Whether there is something to publish."""
        return self._database.value("SELECT 1 FROM local_change LIMIT 1") is not None

    def compact(self) -> None:
        """Keep the table short while nothing can be published."""
        count: int = self._database.value("SELECT count(*) FROM local_change")
        if count > ROWS_TOGETHER:
            last, changes = self.pending()
            self.forget(last)
            self._database.write("INSERT INTO local_change(number, changes) VALUES(?, ?)", (last, changes))

    def forget(self, last: int) -> None:
        """Drop the changes up to a number: a segment holds them."""
        self._database.write("DELETE FROM local_change WHERE number <= ?", (last,))

    def retire(self, pieces: Iterable[tuple[PieceId, NodeId]], version: int) -> None:
        """Remember pieces that no version needs from the one on whose last segment has this number, or a higher one."""
        rows = [(piece, host, version) for piece, host in pieces]
        self._database.write_many("INSERT OR REPLACE INTO local_retired VALUES(?, ?, ?, NULL)", rows)

    def published(self, version: int, now: int) -> None:
        """Hosts keep the version whose last segment has this number: what it does not need may go some time after."""
        self._database.write("UPDATE local_retired SET since = ? WHERE since IS NULL AND version <= ?", (now, version))

    def retired_hosts(self, until: int) -> list[NodeId]:
        """Hosts that have pieces which nothing has needed since a time, or for longer."""
        query = f"SELECT DISTINCT host FROM local_retired WHERE since <= ? AND {_MAY_GO} ORDER BY host"  # noqa: S608 - _MAY_GO is a text of this module, values are bound
        rows = self._database.rows(query, (until,))
        return [NodeId(row[0]) for row in rows]

    def is_clear(self, host: NodeId, until: int) -> bool:
        """Whether all that the host has and is to drop has been needed by nothing since a time, or for longer."""
        query = "SELECT 1 FROM local_retired WHERE host = ? AND (since IS NULL OR since > ?)"
        return self._database.value(query, (host, until)) is None

    def retired(self, host: NodeId, until: int, limit: int) -> list[PieceId]:
        """Some of those pieces on one host."""
        rows = self._database.rows(
            f"SELECT piece FROM local_retired WHERE host = ? AND since <= ? AND {_MAY_GO} LIMIT ?",  # noqa: S608 - _MAY_GO is a text of this module, values are bound
            (host, until, limit),
        )
        return [PieceId(row[0]) for row in rows]

    def is_retired(self, piece: PieceId, host: NodeId) -> bool:
        """Whether the host is to drop this piece, or perhaps does just now."""
        query = "SELECT 1 FROM local_retired WHERE piece = ? AND host = ?"
        return self._database.value(query, (piece, host)) is not None

    def retired_count(self) -> int:
        """How many pieces are on hosts for nothing."""
        count: int = self._database.value("SELECT count(*) FROM local_retired")
        return count

    def forget_retired(self, host: NodeId, pieces: Iterable[PieceId]) -> None:
        """The host has dropped them."""
        rows = ((piece, host) for piece in pieces)
        self._database.write_many("DELETE FROM local_retired WHERE piece = ? AND host = ?", rows)

    def forget_long_retired(self, until: int) -> None:
        """Of hosts that could not be told for so long: they find out by themselves."""
        self._database.write(f"DELETE FROM local_retired WHERE since <= ? AND {_MAY_GO}", (until,))  # noqa: S608 - _MAY_GO is a text of this module, values are bound


def combined(changesets: Sequence[bytes]) -> bytes:
    """Changesets in order as one with the same effect."""
    if len(changesets) == 1:
        return changesets[0]
    builder = apsw.ChangesetBuilder()  # type: ignore[no-untyped-call]  # apsw's stub leaves __init__ untyped
    try:
        for changes in changesets:
            builder.add(changes)
        return builder.output()
    finally:
        builder.close()


# --- blobs


def write_blob(path: str, kind: Kind, source: str | bytes) -> int:
    """Write a blob from a file or from bytes; its length. Raises ``LocalError``."""
    try:
        with open(path, "wb") as blob:
            blob.write(blob_header(kind, secrets.token_bytes(NONCE_BYTES)))
            compressor = zstandard.ZstdCompressor(level=LEVEL)
            if isinstance(source, bytes):
                blob.write(compressor.compress(source))
            else:
                with open(source, "rb") as plain:
                    compressor.copy_stream(plain, blob)
            blob.write(END)
            return blob.tell()
    except OSError as error:
        raise failed(error, path) from error


def read_blob(path: str, kind: Kind, output: str) -> None:
    """Write what is in a blob to another file. Raises ``BadMessage``, ``NoSpace``, ``LocalError``."""
    try:
        with open(path, "rb") as blob, open(output, "wb") as plain:
            check_blob_header(blob.read(HEADER_BYTES), kind)
            frame = zstandard.ZstdDecompressor().decompressobj()
            while not frame.eof and (data := blob.read(COPY_BYTES)):
                plain.write(frame.decompress(data))
            if not frame.eof or frame.unused_data + blob.read() != END:
                raise BadMessage("a segment of the volume's history does not end as one")
    except OSError as error:
        raise failed(error, path) from error
    except zstandard.ZstdError as error:
        raise BadMessage(f"a segment of the volume's history is damaged: {error}") from None


# --- checkpoints and restoring


def write_checkpoint(database_path: str, output: str) -> Cut:
    """Copy the volume's tables as they were last committed into a new database; where the log ended then.

    Reads with a connection of its own: for a thread.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(output)
    connection = apsw.Connection(database_path)
    try:
        connection.execute("ATTACH DATABASE ? AS copy", (output,))
        connection.execute("PRAGMA copy.journal_mode = off")
        with connection:
            cut = Cut(*next(iter(connection.execute(_CUT))))
            for statement in _table_statements(connection):
                connection.execute(statement)
            _copy_rows(connection, "main", "copy")
        connection.execute("DETACH DATABASE copy")
    except apsw.Error as error:
        raise LocalError(f"no checkpoint of {database_path} could be made: {error}") from error
    finally:
        connection.close()
    return cut


def _table_statements(connection: apsw.Connection) -> list[str]:
    rows = connection.execute("SELECT name, sql FROM main.sqlite_schema WHERE type = 'table'")
    prefix = "CREATE TABLE "
    return [f"{prefix}copy.{sql[len(prefix) :]}" for name, sql in rows if name in VOLUME_TABLES]


def restore(path: str, checkpoint: str | None, changesets: Iterable[bytes]) -> None:
    """Make the database of a volume at ``path``, which does not exist yet: for a thread.

    Raises ``CorruptFile`` when the parts do not fit together: one is missing, or of another volume.
    """
    partial = path + "-partial"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(partial)
    connection = apsw.Connection(partial)
    try:
        connection.pragma("synchronous", "off")
        with connection:
            connection.execute(TABLES)
        if checkpoint is not None:
            _fill(connection, checkpoint)
        for changes in changesets:
            apsw.Changeset.apply(changes, connection, conflict=no_conflict)
        with connection:
            connection.execute(INDEXES)
            connection.pragma("application_id", APPLICATION_ID)
            connection.pragma("user_version", SCHEMA_VERSION)
        if connection.pragma("quick_check") != "ok":
            raise CorruptFile("The volume's history does not make a sound database.")
        connection.pragma("journal_mode", "wal")
    except apsw.Error as error:
        raise CorruptFile(f"The volume's history does not fit together: {error}") from error
    finally:
        connection.close()
    settle(partial, path)


def _fill(connection: apsw.Connection, checkpoint: str) -> None:
    connection.execute("ATTACH DATABASE ? AS copy", (checkpoint,))
    with connection:
        _copy_rows(connection, "copy", "main")
    connection.execute("DETACH DATABASE copy")


def _copy_rows(connection: apsw.Connection, source: str, target: str) -> None:
    """Of every volume table, from one attached database to another."""
    for table in VOLUME_TABLES:
        statement = f"INSERT INTO {target}.{table} SELECT * FROM {source}.{table}"  # noqa: S608 - SQL cannot bind names
        connection.execute(statement)


def settle(partial: str, path: str) -> None:
    """A finished database gets its name, when its bytes are on the disk; the seal of one that had it goes first."""
    break_seal(path)
    sync_path(partial, os.fsync)
    reached("database rebuilt")
    try:
        os.rename(partial, path)
    except OSError as error:
        raise failed(error, path) from error
    reached("database named")
    sync_path(os.path.dirname(path), os.fsync)


_ELSEWHERE = """unsent u JOIN inode i ON i.number = u.inode
    WHERE NOT EXISTS (SELECT 1 FROM local l WHERE l.inode = u.inode AND l.block = u.block AND l.dirty = 1)"""
"""Blocks whose newest bytes are neither on a host nor here: the machine that wrote them has them, or nobody."""


def count_unsent(database: Database) -> tuple[int, int]:
    """How many files would lose blocks by ``lose_unsent`` (or have lost some), and how many would be older."""
    older: int = database.value(
        "SELECT count(DISTINCT u.inode) FROM unsent u JOIN block b ON b.inode = u.inode AND b.number = u.block"
    )
    lost: int = database.value(
        "SELECT count(*) FROM (SELECT inode FROM block WHERE content = 0 UNION SELECT u.inode"  # noqa: S608 - a constant
        f" FROM {_ELSEWHERE} AND NOT EXISTS (SELECT 1 FROM block b WHERE b.inode = u.inode AND b.number = u.block))"
    )
    return lost, older


def end_where_sent(database: Database) -> None:
    """Files that grew while they were sent end where they ended when what hosts have was all of them.

    What was appended since is on no host, and the zeros that fill up a block are nobody's bytes. Of a file that is on
    no host at all nothing changes: reading it is an error.
    """
    database.write(
        "UPDATE inode SET size = e.size FROM"
        " (SELECT u.inode, min(u.block * i.block_bytes + u.before) AS size FROM unsent u"
        " JOIN inode i ON i.number = u.inode WHERE u.before < i.block_bytes GROUP BY u.inode) e"
        " WHERE e.inode = number AND e.size BETWEEN 1 AND inode.size"
    )


def lose_unsent(database: Database) -> None:
    """This machine writes to the volume from now on: what another one never sent is marked lost.

    So that nobody takes zeros for it; where hosts have older bytes of a block, those count again. What is only *here*
    is not touched: it can be called at every start.
    """
    if database.value(f"SELECT 1 FROM {_ELSEWHERE} LIMIT 1") is None:  # noqa: S608 - a constant
        return
    database.write(
        f"INSERT OR IGNORE INTO block(inode, number, content, length) SELECT u.inode, u.block, 0, 0 FROM {_ELSEWHERE}"  # noqa: S608 - a constant
    )
    database.write(
        "DELETE FROM unsent WHERE NOT EXISTS"
        " (SELECT 1 FROM local l WHERE l.inode = unsent.inode AND l.block = unsent.block AND l.dirty = 1)"
    )
