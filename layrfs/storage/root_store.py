"""The root records a host keeps: the newest of each volume that ever sent one.

Owns the directory `roots` and the rule that a version never goes back. Must not know sockets. Thread-safe.
Layout: `roots/<volume in hex>`; a file that was found damaged has `.damaged` behind its name and counts no more.
Invariant: whatever `get` answers was signed by its volume, and what `put` has accepted is on the disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading

from layrfs.crashpoints import reached
from layrfs.durable import make_directory, write_atomically
from layrfs.errors import BadMessage, CorruptFile, LocalError, NoSpace
from layrfs.model.root_record import RootRecord, verified_untrusted
from layrfs.wire.messages import ROOT_LIMIT_BYTES

_log = logging.getLogger(__name__)

MOST_VOLUMES = 10_000
"""660 MB at the very most."""

_NAME = re.compile("[0-9a-f]{64}")
_UNFINISHED = ".new-"
"""How `write_atomically` begins the names of files that have no content yet."""


class RootStore:
    """One directory of records; one process at a time (the host directory's lock sees to that)."""

    def __init__(self, directory: str, *, most: int = MOST_VOLUMES) -> None:
        """Create it if it is missing, remove what a crash left unfinished. Raises LocalError."""
        self._directory = os.path.join(directory, "roots")
        self._most = most
        self._lock = threading.Lock()
        try:
            make_directory(self._directory)
            names = os.listdir(self._directory)
            for name in names:
                if name.startswith(_UNFINISHED):
                    os.unlink(os.path.join(self._directory, name))
        except OSError as error:
            raise LocalError(f"{self._directory} cannot be used: {error.strerror}") from error
        self._count = sum(_NAME.fullmatch(name) is not None for name in names)

    def put(self, data: bytes) -> bool:
        """Keep a record; False when a newer one, or another of the same version, is here already.

        Raises BadMessage (not a record, or not signed by its volume), NoSpace (too many volumes), LocalError.
        """
        record = verified_untrusted(data)
        with self._lock:
            kept = self._read_or_set_aside(record.volume)
            if kept == record:
                return True
            if kept is not None and kept.version >= record.version:
                return False
            if kept is None and self._count >= self._most:
                raise NoSpace("the host keeps as many root records as it may")
            write_atomically(self._path(record.volume), data)
            reached("root kept")
            self._count += kept is None
        return True

    def get(self, volume: bytes) -> bytes | None:
        """The newest record of a volume; None when there is none, or it was damaged. Raises LocalError."""
        try:
            kept = self._read(volume)
        except CorruptFile:
            with self._lock:  # a good one may be there by now
                kept = self._read_or_set_aside(volume)
        return None if kept is None else kept.to_bytes()

    def _read(self, volume: bytes) -> RootRecord | None:
        """Raises CorruptFile when the file is not this volume's record any more."""
        try:
            with open(self._path(volume), "rb") as file:
                data = file.read(ROOT_LIMIT_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LocalError(f"a root record cannot be read: {error.strerror}") from error
        try:
            record = verified_untrusted(data)
        except BadMessage as error:
            raise CorruptFile(str(error)) from error
        if record.volume != volume:
            raise CorruptFile("a root record is under the name of another volume")
        return record

    def _read_or_set_aside(self, volume: bytes) -> RootRecord | None:
        """A damaged file goes out of the way, for a person to look at. Call with the lock."""
        try:
            return self._read(volume)
        except CorruptFile as error:
            _log.warning("The root record of %s is damaged and set aside: %s", volume.hex(), error)
        with contextlib.suppress(OSError):
            os.replace(self._path(volume), self._path(volume) + ".damaged")
            self._count -= 1
        return None

    def _path(self, volume: bytes) -> str:
        return os.path.join(self._directory, volume.hex())
