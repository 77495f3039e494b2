"""Files beside a database: its write-ahead log as bytes, and the room set aside for it. Blocking.

Must not know the connection that writes them, nor any table.
"""

from __future__ import annotations

import contextlib
import logging
import os

import apsw

from layrfs.storage.cache_files import failed

logger = logging.getLogger(__name__)

COPY_BYTES = 1 << 20


def checkpoint(path: str) -> None:
    """Move the log into the database file, as far as nobody needs it. In a thread. Raises ``apsw.Error``."""
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.pragma("synchronous", "normal")
        connection.pragma("wal_autocheckpoint", 0)
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    except apsw.BusyError:
        pass  # somebody else is at it
    finally:
        connection.close()


def write_again(path: str) -> None:
    """The log of a run that did not end in order, onto the disk: that run may have ended because it could not do so.

    Nobody may have the database open. Raises ``LocalError``.
    """
    try:
        log = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise failed(error, path) from error
    try:
        at = 0
        while data := os.pread(log, COPY_BYTES, at):
            at += os.pwrite(log, data, at)
        os.fdatasync(log)
    except OSError as error:
        raise failed(error, path) from error
    finally:
        os.close(log)


def set_aside(path: str, room_bytes: int) -> None:
    """A file that takes room which it can give back; on a disk that has none there is none."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, room_bytes)
        finally:
            os.close(handle)
    except OSError as error:
        logger.warning("no room could be set aside in %s: %s", path, error)
        with contextlib.suppress(OSError):
            os.unlink(path)
