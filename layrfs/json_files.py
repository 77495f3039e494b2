"""Small files of settings: a JSON object with a version, read or written whole.

Must not know what is in them. Standard library only, as ``layrfs.config``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from layrfs.durable import write_atomically
from layrfs.errors import CorruptFile, NewerFormat


def load(path: str, what: str, newest: int) -> dict[str, Any] | None:
    """What the file says of ``what`` ("a network"); None when there is none. Raises CorruptFile or NewerFormat."""
    try:
        with open(path, "rb") as file:
            found = json.load(file)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CorruptFile(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise CorruptFile(f"{path} does not describe {what}")
    if isinstance(version := found.get("version", 1), int) and version > newest:
        raise NewerFormat(f"{path} was written by a newer LayrFS; update this one")
    return found


def save(path: str, version: int, content: Mapping[str, object]) -> None:
    """Atomically and durably."""
    write_atomically(path, (json.dumps({"version": version, **content}, indent=1) + "\n").encode())
