"""Paths of the classic interface: below a mountpoint, or ``/...`` in a volume that need not be mounted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from layrfs.cli.locating import MountedPath, mounted_path, node_for
from layrfs.control.client import ControlClient
from layrfs.errors import NotFound, NotRunning


@contextlib.contextmanager
def place_in_volume(path: str, volume: str | None, passfile: str | None) -> Iterator[tuple[ControlClient, bytes]]:
    """The drive to ask something, and the path in its volume.

    A path below a mountpoint is found there, when no volume is named; any other is taken as one from the volume's root.
    """
    place = _mounted(path) if volume is None else None
    if place is not None:
        yield place.client, place.within
        return
    with node_for(volume, passfile, reading=True) as client:
        yield client, in_volume(path)


def _mounted(path: str) -> MountedPath | None:
    with contextlib.suppress(NotFound, NotRunning):
        return mounted_path(path)
    return None


def in_volume(path: str) -> bytes:
    """``a//b/`` and ``/a/b`` are both ``/a/b``."""
    return os.fsencode(os.path.normpath("/" + path.lstrip("/")))
