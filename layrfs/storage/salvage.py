"""What can still be read of a damaged database.

Owns reading rows from both ends of a table until a page is in the way. Must not change the files it reads, nor believe
what it finds: everything here is a hint, or is checked by whoever uses it. Blocks: for a thread.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Any

import apsw
import msgspec

from layrfs.errors import LocalError
from layrfs.ids import BlockNumber, InodeNumber
from layrfs.storage.cache_files import failed
from layrfs.storage.checking import is_changeset
from layrfs.storage.journal import BlockKey

ENDINGS = ("", "-wal", "-shm", "-seal")
"""The files of a database that is not in use."""


class Salvaged(msgspec.Struct, frozen=True):
    """Hints. ``changes`` are the first of those that were in no segment yet, without a gap."""

    marks: dict[str, bytes | str | int] = {}
    knows_marks: bool = False
    """All marks were read: what is not among them never was."""
    changes: tuple[bytes, ...] = ()
    dirty: frozenset[BlockKey] = frozenset()
    sizes: dict[InodeNumber, int] = {}
    pinned: tuple[InodeNumber, ...] = ()
    next_inode: int = 0
    host_records: tuple[bytes, ...] = ()


def salvage(path: str, directory: str) -> Salvaged:
    """Read the database at ``path`` through a copy in ``directory``, which is empty: opening would write."""
    copy = os.path.join(directory, "metadata.db")
    try:
        for ending in ENDINGS[:2]:
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(path + ending, copy + ending)
    except OSError as error:
        raise failed(error, copy) from error
    if not os.path.exists(copy):
        return Salvaged()
    try:
        connection = apsw.Connection(copy)
    except apsw.Error as error:
        raise LocalError(f"{copy} cannot be opened: {error}") from error
    try:
        return _salvaged(connection)
    finally:
        connection.close()


def _salvaged(connection: apsw.Connection) -> Salvaged:
    marks, knows_marks = _rows(connection, "SELECT name, value FROM local_mark ORDER BY name")
    changes, _all = _rows(connection, "SELECT number, changes FROM local_change ORDER BY number", ends=1)
    whole: list[bytes] = []
    for _number, one in changes:
        if not isinstance(one, bytes) or not is_changeset(one):
            break
        whole.append(one)
    local, _all = _rows(connection, "SELECT inode, block FROM local WHERE dirty + 0 = 1 ORDER BY inode{0}, block{0}")
    sizes, _all = _rows(connection, "SELECT number, size FROM inode ORDER BY number")
    pinned, _all = _rows(connection, "SELECT inode FROM local_use WHERE pinned + 0 = 1 ORDER BY inode")
    counters, _all = _rows(connection, "SELECT value FROM volume WHERE name = 'next_inode'", ends=1)
    hosts, _all = _rows(connection, "SELECT record FROM host WHERE record IS NOT NULL ORDER BY number")
    return Salvaged(
        marks={name: value for name, value in marks if value is not None},
        knows_marks=knows_marks,
        changes=tuple(whole),
        dirty=frozenset((InodeNumber(inode), BlockNumber(block)) for inode, block in local),
        sizes={InodeNumber(number): size for number, size in sizes},
        pinned=tuple(InodeNumber(inode) for (inode,) in pinned),
        next_inode=next((value for (value,) in counters if isinstance(value, int)), 0),
        host_records=tuple(record for (record,) in hosts if isinstance(record, bytes)),
    )


def _rows(connection: apsw.Connection, query: str, *, ends: int = 2) -> tuple[list[tuple[Any, ...]], bool]:
    """What a query answers before it meets damage, then the same from the other end; whether there was none."""
    found: dict[tuple[Any, ...], None] = {}
    for direction in ("", " DESC")[:ends]:
        ordered = query.format(direction) if "{0}" in query else query + direction
        try:
            for row in connection.execute(ordered):
                found[row] = None
        except apsw.Error:
            continue
        return list(found), True
    return list(found), False
