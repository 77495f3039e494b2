"""The changesets of segments that are on hosts, kept on this disk to merge the next ones with, or to undo them.

Owns the files of one directory, each named by its segment's number: tag of the segment, digest, changeset. Must not
know why one is wanted. Invariant: what is answered is the changeset of that very segment. A file that a power cut left
empty or torn, that the disk has spoilt, or that belongs to a segment of the same number in another history (its removal
was not on the disk yet) counts as missing: published from here it would be the end of the volume, and nothing local
would show it. So the directory may be emptied at any time.

Everything here blocks.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
from collections.abc import Iterable

from layrfs.durable import make_directory, write_atomically
from layrfs.model.history import Segment
from layrfs.model.notes import BLOB_TAG_BYTES
from layrfs.storage.cache_files import failed

_DIGEST_BYTES = 32
_HEADER_BYTES = BLOB_TAG_BYTES + _DIGEST_BYTES


class KeptChanges:
    """Of one volume."""

    def __init__(self, directory: str) -> None:
        """The directory is made when there is something to keep."""
        self._directory = directory

    def keep(self, segment: Segment, changes: bytes) -> None:
        """Have a segment's changeset here, on the disk. Raises ``NoSpace``, ``LocalError``."""
        self._make_directory()
        write_atomically(self._path(segment.number), _header(segment, changes) + changes)

    def read(self, segment: Segment) -> bytes | None:
        """A segment's changeset; None when it is not here."""
        try:
            with open(self._path(segment.number), "rb") as file:
                header, changes = file.read(_HEADER_BYTES), file.read()
        except OSError:
            return None
        return changes if hmac.compare_digest(header, _header(segment, changes)) else None

    def size(self, segment: Segment) -> int | None:
        """Likewise, how many bytes it has, judged by its file's beginning: ``read`` may find that it is damaged."""
        try:
            with open(self._path(segment.number), "rb") as file:
                header, size = file.read(_HEADER_BYTES), os.fstat(file.fileno()).st_size
        except OSError:
            return None
        return size - _HEADER_BYTES if len(header) == _HEADER_BYTES and header.startswith(segment.tag) else None

    def forget(self, numbers: Iterable[int]) -> None:
        """Drop those of segments that count no longer."""
        for number in numbers:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(number))

    def keep_only(self, segments: Iterable[Segment]) -> None:
        """Drop all others."""
        self.forget(self._numbers() - {segment.number for segment in segments})

    def adopt(self, other: KeptChanges) -> None:
        """Take over what another directory on the same disk keeps. Raises ``LocalError``."""
        self._make_directory()
        for number in other._numbers():
            try:
                os.replace(other._path(number), self._path(number))
            except OSError as error:
                raise failed(error, self._directory) from error

    def _make_directory(self) -> None:
        try:
            make_directory(self._directory)
        except OSError as error:
            raise failed(error, self._directory) from error

    def _numbers(self) -> set[int]:
        try:
            return {int(name) for name in os.listdir(self._directory) if name.isdecimal()}
        except FileNotFoundError:
            return set()

    def _path(self, number: int) -> str:
        return os.path.join(self._directory, str(number))


def _header(segment: Segment, changes: bytes) -> bytes:
    return segment.tag + hashlib.blake2b(changes, digest_size=_DIGEST_BYTES).digest()
