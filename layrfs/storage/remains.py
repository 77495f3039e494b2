"""A delegate's database is opened, or made anew from what a damaged one still says.

Owns the directory ``damaged`` beside it, which keeps the last one that could not be opened. Nobody else may know what
was made here since the owner was last heard of, so nothing that can be read of that is thrown away; what was read wrong
is told as something that hosts and the shard itself do not prove. Must not know grants or owners. Blocks: for a thread.
Invariant: killed at any point, it is done again from all that was there.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import apsw
import msgspec

from layrfs.durable import make_directory, sync_directory
from layrfs.errors import CorruptFile, LocalError, NoSpace
from layrfs.model.redundancy import is_possible
from layrfs.storage import soundness
from layrfs.storage.cache_files import failed
from layrfs.storage.changes import settle
from layrfs.storage.database import Database
from layrfs.storage.salvage import ENDINGS
from layrfs.storage.schema import APPLICATION_ID, INDEXES, SCHEMA_VERSION, TABLES
from layrfs.wire.codec import Uint16, Uint32, Uint63
from layrfs.wire.delegation import BUCKET_DIGEST_BYTES, EntrustedPurpose, Node, Piece, Shard, bucket_of

_log = logging.getLogger(__name__)

_Salt = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class _Table(NamedTuple):
    """What is read of one, and what a row of it has to look like."""

    columns: str
    key: str
    row: Any


_TABLES: Mapping[str, _Table] = {
    "host": _Table("number, node_id, NULL", "number{0}", tuple[Uint63, Node, None]),
    "shard": _Table(
        "number, id, salt, plain_bytes, sealed_bytes, needed, total, generation",
        "number{0}",
        tuple[Uint63, Shard, _Salt, Uint63, Uint63, Uint16, Uint16, Uint32],
    ),
    "piece": _Table(
        "shard, position, generation, id, host",
        "shard{0}, position{0}",
        tuple[Uint63, Uint16, Uint32, Piece, Uint63],
    ),
    "local_entrusted": _Table("shard, generation, pieces, purpose", "shard{0}", tuple[Uint63, Uint32, bytes, bytes]),
}

_UNFOUNDED = (
    "DELETE FROM shard WHERE number NOT IN (SELECT shard FROM local_entrusted)",
    "DELETE FROM local_entrusted WHERE shard NOT IN (SELECT number FROM shard)",
    "DELETE FROM piece WHERE shard NOT IN (SELECT number FROM shard) OR host NOT IN (SELECT number FROM host)",
)
"""Rows that stand for nothing without others that could not be read."""

_UNLIKE_ANY = b"\xff" * BUCKET_DIGEST_BYTES
"""The digest of a bucket that its owner is to hand over again, though it were empty by now."""


def open_entrusted(path: str) -> Database:
    """Raises ``NewerFormat``, ``LocalError``; ``CorruptFile`` only when not even a new one stays sound."""
    try:
        return Database(path)
    except CorruptFile as error:
        _log.warning("What was entrusted is made anew from what can be read of it: %s", error)
        soundness.write_note(path, soundness.Note(str(error)))
    aside = os.path.join(os.path.dirname(path), "damaged")
    _set_aside(path, aside)
    new = os.path.join(aside, "new.db")
    _carry_over(os.path.join(aside, os.path.basename(path)), new)
    settle(new, path)
    soundness.remove_note(path)
    return Database(path)


def _set_aside(path: str, directory: str) -> None:
    """The database first, so that it is known whether its log went with it. The note stays until all is done."""
    kept = os.path.join(directory, os.path.basename(path))
    try:
        make_directory(directory)
        for ending in ENDINGS if os.path.exists(path) else ():  # of another time
            with contextlib.suppress(FileNotFoundError):
                os.unlink(kept + ending)
        for ending in ENDINGS:
            with contextlib.suppress(FileNotFoundError):
                os.rename(path + ending, kept + ending)
        sync_directory(directory)
    except OSError as error:
        raise failed(error, directory) from error


def _carry_over(source: str, target: str) -> None:
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        with contextlib.closing(apsw.Connection(target)) as new, contextlib.closing(apsw.Connection(source)) as old:
            new.pragma("synchronous", "off")
            new.pragma("journal_mode", "off")
            with new:
                new.execute(TABLES + INDEXES)
                _fill(new, old)
                new.pragma("application_id", APPLICATION_ID)
                new.pragma("user_version", SCHEMA_VERSION)
    except apsw.FullError as error:
        raise NoSpace(f"The disk that holds {target} is full.") from error
    except apsw.Error as error:
        raise LocalError(f"{target} could not be made: {error}") from error
    except OSError as error:
        raise failed(error, target) from error


def _fill(new: apsw.Connection, old: apsw.Connection) -> None:
    for name, table in _TABLES.items():
        marks = ", ".join("?" * (1 + table.columns.count(",")))
        new.executemany(f"INSERT OR IGNORE INTO {name} VALUES({marks})", _rows(old, name, table))
    for statement in _UNFOUNDED:
        new.execute(statement)
    buckets = {bucket_of(shard) for (shard,) in new.execute("SELECT id FROM shard")}
    new.executemany("INSERT INTO local_bucket VALUES(?, ?, 0)", ((bucket, _UNLIKE_ANY) for bucket in buckets))


def _rows(old: apsw.Connection, name: str, table: _Table) -> Iterator[tuple[Any, ...]]:
    """Those before damage is met, and those from the other end."""
    for direction in ("", " DESC"):
        query = f"SELECT {table.columns} FROM {name} ORDER BY {table.key.format(direction)}"  # noqa: S608 - names of _TABLES above, no value
        try:
            for row in old.execute(query):
                if _is_sound(name, table, row):
                    yield row
        except apsw.Error:
            continue
        return


def _is_sound(name: str, table: _Table, row: tuple[Any, ...]) -> bool:
    try:
        msgspec.convert(row, table.row)
        if name == "local_entrusted":
            msgspec.msgpack.decode(row[2], type=dict[int, bytes])
            msgspec.msgpack.decode(row[3], type=EntrustedPurpose)
    except msgspec.MsgspecError:
        return False
    return name != "shard" or is_possible(row[5], row[6])
