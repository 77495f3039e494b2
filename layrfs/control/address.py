"""Reaching a unix socket by a path of any length.

The kernel takes 107 bytes; state directories can be deeper. ``/proc/self/fd/N/NAME`` names the same socket through an
open directory, whatever its path.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

LONGEST_BYTES = 107


@contextlib.contextmanager
def short_address(path: str) -> Iterator[str]:
    """An address for ``bind`` or ``connect`` that is valid inside the block. OSError when the directory is gone."""
    if len(os.fsencode(path)) <= LONGEST_BYTES:
        yield path
        return
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    finally:
        os.close(directory)
