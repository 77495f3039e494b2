"""The root records a host keeps: the newest of each volume that ever sent one.

Owns the directory `roots` and the rule that a version never goes back. Must not know sockets. Thread-safe.
Layout: `roots/<volume in hex>`. Invariant: whatever `get` answers was signed by its volume, and what `put` has accepted
is on the disk.
"""

from __future__ import annotations

import os
import threading

from layrfs.config import write_atomically
from layrfs.errors import BadMessage, LocalError, NoSpace
from layrfs.model.root_record import verified_untrusted
from layrfs.wire.messages import ROOT_LIMIT_BYTES

MOST_VOLUMES = 10_000
"""660 MB at the very most."""


class RootStore:
    """One directory of records."""

    def __init__(self, directory: str, *, most: int = MOST_VOLUMES) -> None:
        """Create it if it is missing. Raises LocalError."""
        self._directory = os.path.join(directory, "roots")
        self._most = most
        self._lock = threading.Lock()
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            self._count = len(os.listdir(self._directory))
        except OSError as error:
            raise LocalError(f"{self._directory} cannot be used: {error.strerror}") from error

    def put(self, data: bytes) -> bool:
        """Keep a record; False when a newer one, or another of the same version, is here already.

        Raises BadMessage (not a record, or not signed by its volume), NoSpace (too many volumes), LocalError.
        """
        record = verified_untrusted(data)
        with self._lock:
            kept = self.get(record.volume)
            if kept == data:
                return True
            if kept is not None and verified_untrusted(kept).version >= record.version:
                return False
            if kept is None and self._count >= self._most:
                raise NoSpace("the host keeps as many root records as it may")
            write_atomically(self._path(record.volume), data)
            self._count += kept is None
        return True

    def get(self, volume: bytes) -> bytes | None:
        """The newest record of a volume; None when there is none, or it is damaged."""
        try:
            with open(self._path(volume), "rb") as file:
                data = file.read(ROOT_LIMIT_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LocalError(f"a root record cannot be read: {error.strerror}") from error
        try:
            return data if verified_untrusted(data).volume == volume else None
        except BadMessage:
            return None

    def _path(self, volume: bytes) -> str:
        return os.path.join(self._directory, volume.hex())
