"""On a delegate's disk: for which volumes it works, with which keys, until when.

Owns the directory ``delegations/VOLUME/`` of a host: ``grant`` (0600), and beside it the database of what was
entrusted, whose rows are not its business. Must not know sockets. Blocking. Invariant: what ``save`` returned from is
on the disk; of a volume that ``remove`` returned from nothing is.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from typing import Annotated

import msgspec

from layrfs.durable import make_directory, raise_unusable, sync_directory, write_atomically
from layrfs.ids import VolumeId
from layrfs.wire.codec import Uint32, Uint63, encode

_NAME = re.compile("[0-9a-f]{64}")
_READ_LIMIT_BYTES = 1024

_log = logging.getLogger(__name__)


class Grant(msgspec.Struct, frozen=True):
    """One volume's. ``until`` is in Unix seconds. Printing it shows no key."""

    volume: Annotated[VolumeId, msgspec.Meta(min_length=32, max_length=32)]
    mask: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    until: Uint63
    patch_after_seconds: Uint32

    def __repr__(self) -> str:
        return f"Grant(volume={self.volume.hex()}, until={self.until})"


class Grants:
    """One host's; the host directory's lock sees to it that it is one process's."""

    def __init__(self, directory: str) -> None:
        self._directory = os.path.join(directory, "delegations")

    def all(self) -> list[Grant]:
        """Those that can be read. Of one without keys, of a crash in the first or last step, nothing stays.

        One whose keys cannot be read now stays as it is: what was made for the volume is known nowhere else, and its
        owner may delegate anew. Raises ``LocalError``.
        """
        try:
            names = [name for name in sorted(os.listdir(self._directory)) if _NAME.fullmatch(name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise_unusable(self._directory, error)
        found: list[Grant] = []
        for name in names:
            try:
                found.append(self._read(name))
            except FileNotFoundError:
                _log.warning("A delegation is unfinished and forgotten: %s", name)
                self._remove(name)
            except (OSError, msgspec.MsgspecError) as error:
                _log.warning("Delegation %s cannot be read, and is left as it is: %s", name, error)
        return found

    def save(self, grant: Grant) -> None:
        """Durably, instead of an earlier one. Raises ``LocalError``."""
        path = self._path(grant.volume.hex())
        try:
            make_directory(path)
        except OSError as error:
            raise_unusable(path, error)
        write_atomically(os.path.join(path, "grant"), encode(grant))

    def remove(self, volume: VolumeId) -> None:
        """The keys first. Raises ``LocalError``."""
        self._remove(volume.hex())

    def database(self, volume: VolumeId) -> str:
        """Where what was entrusted is to be; the directory is there once the grant was saved."""
        return os.path.join(self._path(volume.hex()), "entrusted.db")

    def _read(self, name: str) -> Grant:
        with open(os.path.join(self._path(name), "grant"), "rb") as file:
            grant = msgspec.msgpack.decode(file.read(_READ_LIMIT_BYTES), type=Grant)
        if grant.volume.hex() != name:
            raise msgspec.ValidationError("it is another volume's")
        return grant

    def _remove(self, name: str) -> None:
        path = self._path(name)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(path, "grant"))
                sync_directory(path)
            shutil.rmtree(path)
            sync_directory(self._directory)
        except OSError as error:
            raise_unusable(path, error)

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)
