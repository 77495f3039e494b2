"""Whether a database is what LayrFS left: the seal beside it, SQLite's own check, and a note once it was found damaged.

Owns three files beside a database: ``-seal`` (the digest of all its bytes, made at an orderly close and gone while it
is in use), ``-damaged`` (why it must not be opened, and where its remains went; JSON) and the choice of how thoroughly
one is checked. Must not know tables. Invariant: a database with a note is not opened until it was replaced.

SQLite notices a page that is no page; it does not notice payload that changed, nor without a full check a page that
belongs elsewhere. So the seal is compared at every start (1.3 GB/s), and only what was not closed in order is left to
SQLite: to its full check at once when that takes a second or two, else to that while the volume is in use.
"""

from __future__ import annotations

import contextlib
import os
from typing import Literal

import apsw
import msgspec
from blake3 import blake3

from layrfs.durable import write_atomically
from layrfs.errors import CorruptFile
from layrfs.storage.cache_files import failed, sync_path

SealState = Literal["kept", "broken", "none"]

CHECKED_FULLY_BYTES = 48 << 20
"""Before the start after a crash; `integrity_check` reads 25 MB/s. Larger ones get it while they are in use."""

CHECKED_AT_ONCE_BYTES = 160 << 20
"""Before that start at least `quick_check`, at 100 MB/s."""

TABLES_FIRST = ("inode", "local")
"""Of still larger ones these alone: with them wrong, the start of a mount would clear away cache files."""

REMEDY = "`layrfs fsck --repair` brings it back from the network and from what is in the cache"
_MAGIC = b"LYRB\x01"
_SENTENCES = 3


class Note(msgspec.Struct, frozen=True):
    """Why a database must not be used; ``aside``: the directory that its files were moved to, when a repair began."""

    reason: str
    aside: str = ""


def write_seal(path: str) -> None:
    """The database was closed in order, and all of it is in its file. Raises ``LocalError``."""
    if not os.path.exists(path + "-wal"):
        write_atomically(path + "-seal", _MAGIC + _digest(path))


def seal_state(path: str) -> SealState:
    """Whether the database is byte for byte what was sealed. Raises ``LocalError``."""
    try:
        with open(path + "-seal", "rb") as file:
            sealed = file.read()
    except FileNotFoundError:
        return "none"
    return "kept" if sealed == _MAGIC + _digest(path) else "broken"


def break_seal(path: str) -> None:
    """The database is about to change. Durable before anything else is: an old seal would condemn a sound file."""
    try:
        os.unlink(path + "-seal")
    except FileNotFoundError:
        return
    sync_path(os.path.dirname(path) or ".", os.fsync)


def read_note(path: str) -> Note | None:
    """What was noted about a damaged database; None when nothing was."""
    try:
        with open(path + "-damaged", "rb") as file:
            return msgspec.json.decode(file.read(), type=Note)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError:
        return Note("it was found damaged")


def write_note(path: str, note: Note) -> None:
    """Have nobody open the database any more. Raises ``LocalError``."""
    write_atomically(path + "-damaged", msgspec.json.encode(note) + b"\n")


def remove_note(path: str) -> None:
    """The database was replaced, or proven sound."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + "-damaged")
    sync_path(os.path.dirname(path) or ".", os.fsync)


def check_before_use(path: str) -> bool:
    """Look at a database before it is opened; False when ``integrity_check`` has yet to be run.

    Raises ``CorruptFile``, and notes it, when it is damaged.
    """
    note = read_note(path)
    if note is not None:
        raise damaged(path, note.reason)
    if not os.path.exists(path):
        return True
    state = seal_state(path)
    if state == "broken":
        raise noted(path, "its bytes changed while nobody was using it")
    if state == "kept":
        return True
    size = os.path.getsize(path)
    if size <= CHECKED_FULLY_BYTES:
        found = integrity_check(path)
    elif size <= CHECKED_AT_ONCE_BYTES:
        found = quick_check(path)
    else:
        found = [line for table in TABLES_FIRST for line in quick_check(path, table)]
    if found:
        raise noted(path, found[0])
    return size <= CHECKED_FULLY_BYTES


def quick_check(path: str, table: str = "") -> list[str]:
    """What SQLite finds wrong with the structure of a database, or one table of it; blocks."""
    return _pragma(path, f"quick_check({table})" if table else "quick_check")


def integrity_check(path: str) -> list[str]:
    """The same, and every index compared with its table."""
    return _pragma(path, "integrity_check")


def noted(path: str, reason: str) -> CorruptFile:
    """Note that a database is damaged; the error to raise."""
    write_note(path, Note(reason))
    return damaged(path, reason)


def damaged(path: str, reason: str) -> CorruptFile:
    """What a person is told."""
    return CorruptFile(f"The database {path} is damaged ({reason}); unmount, then {REMEDY}")


def _pragma(path: str, pragma: str) -> list[str]:
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    except apsw.Error as error:
        return [str(error)]
    try:
        rows = connection.execute(f"PRAGMA {pragma}").fetchall()
    except (apsw.CorruptError, apsw.NotADBError) as error:
        return [str(error)]
    finally:
        connection.close()
    lines = [line for (text,) in rows for line in str(text).splitlines() if line != "ok"]
    return lines[:_SENTENCES]


def _digest(path: str) -> bytes:
    digest = blake3()
    try:
        return digest.update_mmap(path).digest()
    except OSError as error:
        raise failed(error, path) from error
