"""Names and small files that are on the disk when a call returns, whatever happens the moment after.

Owns the order (bytes, then name, then the directory that holds the name) and the errors of the local disk for it. Must
not know what the files are. Standard library only, as ``layrfs.config``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from typing import NoReturn

from layrfs.crashpoints import reached
from layrfs.errors import LocalError, NoSpace


def write_atomically(path: str, data: bytes) -> None:
    """Replace ``path`` (0600) so that a crash leaves the old or the new bytes, durably. Raises NoSpace, LocalError."""
    directory = os.path.dirname(path)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=directory)
    except OSError as error:
        raise_unusable(directory, error)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        reached("new file written")
        os.replace(temporary, path)
        reached("new file named")
        sync_directory(directory)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise_unusable(directory, error)


def make_directory(path: str) -> None:
    """Have a private (0700) directory, and those above it; the names of new ones are durable. Raises OSError."""
    above, missing = os.path.abspath(path), []
    while not os.path.lexists(above):
        missing.append(above)
        above = os.path.dirname(above)
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(each, 0o700)
        sync_directory(os.path.dirname(each))
    if not os.path.isdir(path):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)


def sync_directory(path: str) -> None:
    """Make names given and taken in a directory durable. Raises OSError."""
    descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def raise_unusable(directory: str, error: OSError) -> NoReturn:
    """What the disk said of a directory of ours, as one sentence."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        raise NoSpace(f"no space left for LayrFS's state in {directory}") from error
    raise LocalError(f"the state directory {directory} cannot be used: {error.strerror}") from error
