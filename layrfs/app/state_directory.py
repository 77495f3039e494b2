"""A volume's state directory: one process at a time, and the database that belongs into it.

Owns the file ``lock`` and what is looked at before anything is opened. Must not know the network.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from layrfs.config import Paths
from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import CorruptFile, StateInUse
from layrfs.storage.database import Database
from layrfs.storage.soundness import damaged


@contextlib.contextmanager
def locked(directory: str, what: str = "volume") -> Iterator[None]:
    """One process for a volume (or `what` is there); the lock goes with the process, however that ends."""
    descriptor = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StateInUse(f"another process is using the {what} in {directory}") from None
    finally:
        os.close(descriptor)


def check_database_is_there(paths: Paths, volume: str) -> None:
    """A new volume has no database yet; one that has left anything else here has lost it. Raises ``CorruptFile``."""
    path = paths.database(volume)
    if os.path.exists(path):
        return
    left = [name for name in os.listdir(paths.volume_dir(volume)) if name.startswith(os.path.basename(path))]
    kept = [name for name in (paths.cache_dir(volume), paths.history_dir(volume)) if has_entries(name)]
    if left or kept:
        raise damaged(path, "it is missing")


def has_entries(directory: str) -> bool:
    """Whether there is anything in a directory."""
    return os.path.isdir(directory) and bool(os.listdir(directory))


def check_volume(database: Database, keys: VolumeKeys, path: str, *, follows: bool) -> None:
    """The database is this volume's, or empty; who ``follows`` another machine leaves it so. Raises ``CorruptFile``."""
    found = database.value("SELECT value FROM volume WHERE name = 'id'")
    if found is None and follows:
        return
    if found is None:
        database.write("INSERT INTO volume VALUES('id', ?)", (keys.volume_id,))
    elif found != keys.volume_id:
        raise CorruptFile(f"{path} belongs to another volume than the key beside it")
