"""What an outdated copy of a volume has that nobody else has: found, and put out of the way before it is replaced.

Owns the directories ``aside-TIME``: ``metadata.db`` has all tables as they were, ``files`` every file that was not on
the network and is whole here, under its own path, ``cache`` the bytes of those that are not whole, named as in the
cache. Must not know hosts. Invariant: nothing leaves the cache before the directory has its name and is on the disk.

Bytes get another name rather than a copy, so that a full disk is no reason to lose any. Functions block.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import apsw

from layrfs.errors import LocalError
from layrfs.ids import ROOT_INODE, InodeNumber
from layrfs.storage.cache_files import CacheFiles, failed, sync_path
from layrfs.storage.database import Database

PREFIX = "aside-"
_UNFINISHED = ".unfinished"
_ATIME_COLUMN = 8
_MODE_COLUMN = 1


class Unsynced(NamedTuple):
    """What is on no host: ``files`` have other bytes than there; ``anything`` also counts names and attributes."""

    files: frozenset[InodeNumber]
    anything: bool


class Aside(NamedTuple):
    """Where it is now: ``whole`` files as files, ``partial`` ones as what the cache has of them."""

    directory: str
    whole: int
    partial: int


def find_unsynced(database: Database, unpublished: Iterable[bytes]) -> Unsynced:
    """From what is dirty, and from changesets that no published version has."""
    files = {InodeNumber(row[0]) for row in database.rows("SELECT DISTINCT inode FROM local WHERE dirty = 1")}
    anything = bool(files)
    for changes in unpublished:
        for change in apsw.Changeset.iter(changes):
            anything = anything or _matters(change)
            if _has_new_bytes(change):
                files.add(InodeNumber(_number(change.old or change.new, 0)))
    return Unsynced(frozenset(files), anything)


def _matters(change: apsw.TableChange) -> bool:
    """Whether somebody would miss it: when files were read, and where pieces are, is found out again."""
    if change.name != "inode" or change.op != "UPDATE" or change.new is None:
        return change.name in {"inode", "entry", "attribute", "block"}
    changed = {column for column, value in enumerate(change.new) if value is not apsw.no_change}
    return bool(changed - {_ATIME_COLUMN})


def _has_new_bytes(change: apsw.TableChange) -> bool:
    if change.name == "block":
        return True
    return change.name == "inode" and change.op == "INSERT" and stat.S_ISREG(_number(change.new, _MODE_COLUMN))


def _number(row: tuple[object, ...] | None, column: int) -> int:
    value = row[column] if row is not None else 0
    return value if isinstance(value, int) else 0


def set_aside(database_path: str, cache: CacheFiles, directory: str, files: Iterable[InodeNumber]) -> Aside:
    """Have a directory of what a volume's database and cache hold of these files, as last committed.

    ``directory`` is where the new one is made. Raises ``NoSpace``, ``LocalError``; the cache is not touched.
    """
    remove_unfinished(directory)
    final = _free_name(os.path.join(directory, PREFIX + time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())))
    unfinished = final + _UNFINISHED
    try:
        os.mkdir(unfinished, 0o700)
        whole, partial = _fill(database_path, cache, unfinished, files)
        _sync_tree(unfinished)
        os.rename(unfinished, final)
        sync_path(directory, os.fsync)
    except OSError as error:
        raise failed(error, unfinished) from error
    except apsw.Error as error:
        raise LocalError(f"{database_path} cannot be copied: {error}") from error
    return Aside(final, whole, partial)


def remove_unfinished(directory: str) -> None:
    """Drop what an interrupted ``set_aside`` left: all of it is still in its place."""
    for name in os.listdir(directory):
        if name.startswith(PREFIX) and name.endswith(_UNFINISHED):
            shutil.rmtree(os.path.join(directory, name), ignore_errors=True)


def asides(directory: str) -> list[str]:
    """Finished directories, the oldest first."""
    found = sorted(name for name in os.listdir(directory) if name.startswith(PREFIX))
    return [os.path.join(directory, name) for name in found if not name.endswith(_UNFINISHED)]


def _free_name(wanted: str) -> str:
    name, number = wanted, 1
    while os.path.exists(name):
        number += 1
        name = f"{wanted}-{number}"
    return name


def _fill(database_path: str, cache: CacheFiles, target: str, files: Iterable[InodeNumber]) -> tuple[int, int]:
    whole = partial = 0
    with _opened(database_path) as connection:
        tables = os.path.join(target, "metadata.db")
        os.close(os.open(tables, os.O_WRONLY | os.O_CREAT, 0o600))
        with _opened(tables) as copy, copy.backup("main", connection, "main") as backup:
            backup.step()
        for inode in sorted(files):
            found = connection.execute("SELECT mode, size FROM inode WHERE number = ?", (inode,)).fetchone()
            path = _path_of(connection, inode)
            if found is None or path is None or not stat.S_ISREG(found[0]):
                continue
            if _is_whole(connection, inode):
                whole += _keep_file(cache.path(inode), os.path.join(os.fsencode(target), b"files", path), found[1])
            else:
                below = os.path.relpath(cache.path(inode), cache.directory)
                partial += _link(cache.path(inode), os.fsencode(os.path.join(target, "cache", below)))
    return whole, partial


@contextlib.contextmanager
def _opened(path: str) -> Iterator[apsw.Connection]:
    connection = apsw.Connection(path)
    try:
        yield connection
    finally:
        connection.close()


def _is_whole(connection: apsw.Connection, inode: InodeNumber) -> bool:
    """Whether each of its blocks is in the cache."""
    absent = connection.execute(
        "SELECT 1 FROM block b WHERE b.inode = ?1 AND NOT EXISTS"
        " (SELECT 1 FROM local l WHERE l.inode = ?1 AND l.block = b.number) LIMIT 1",
        (inode,),
    )
    return absent.fetchone() is None


def _path_of(connection: apsw.Connection, inode: int) -> bytes | None:
    """Relative to the root; None for what has no name."""
    parts: list[bytes] = []
    while inode != ROOT_INODE:
        found = connection.execute("SELECT parent, name FROM entry WHERE inode = ? LIMIT 1", (inode,)).fetchone()
        if found is None:
            return None
        inode = found[0]
        parts.append(found[1])
    return b"/".join(reversed(parts)) if parts else None


def _keep_file(source: str, target: bytes, size: int) -> bool:
    """False and nothing when the cache has none of it: an earlier start set it aside, and zeros are not what it was."""
    if not _link(source, target) and size:
        return False
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb", closefd=True) as file:
        os.ftruncate(file.fileno(), size)
        os.fsync(file.fileno())
    return True


def _link(source: str, target: bytes) -> bool:
    """Another name for a file, a copy where the disk knows no such thing; False and nothing when there is no file."""
    _make_directories(os.path.dirname(target))
    try:
        os.link(source, target)
    except FileNotFoundError:
        return False
    except PermissionError:
        shutil.copyfile(source, target)
    return True


def _make_directories(path: bytes) -> None:
    """``os.makedirs`` would leave those above open to others."""
    if not os.path.isdir(path):
        _make_directories(os.path.dirname(path))
        os.mkdir(path, 0o700)


def _sync_tree(top: str) -> None:
    for directory, _directories, names in os.walk(top):
        for name in [*names, "."]:
            sync_path(os.path.join(directory, name), os.fsync)
