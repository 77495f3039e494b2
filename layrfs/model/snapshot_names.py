"""What snapshots are called: the second in which they were made, or the name a person gave.

A time is written ``2026-11-27T12-00-00Z``, without colons, which rsync and scp would take for a host's. No given name
looks like one.
"""

from __future__ import annotations

import re
from collections.abc import Container
from datetime import UTC, datetime

from layrfs.errors import InvalidArgument

MAX_NAME_BYTES = 200
_LATEST_SECONDS = 253402300799
_TIME = re.compile(r"\d{4,}-\d\d-\d\dT\d\d-\d\d-\d\dZ")


def time_name(time_ms: int) -> str:
    """The name of a version that has no other."""
    moment = datetime.fromtimestamp(min(time_ms // 1000, _LATEST_SECONDS), UTC)
    return f"{moment:%Y-%m-%dT%H-%M-%SZ}"


def free_name(time_ms: int, taken: Container[str]) -> str:
    """A name made of the time that nobody has."""
    name, number = time_name(time_ms), 2
    while name in taken:
        name, number = f"{time_name(time_ms)}-{number}", number + 1
    return name


def check_name(name: str) -> None:
    """Raises ``InvalidArgument`` with what is wrong with a name that a person gave."""
    if not name or len(name.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
        raise InvalidArgument(f"A snapshot's name has 1 to {MAX_NAME_BYTES} bytes.")
    if "/" in name or name.startswith(".") or not name.isprintable():
        raise InvalidArgument("A snapshot's name has no slash, no dot in front and nothing that cannot be printed.")
    if _TIME.match(name):
        raise InvalidArgument("A snapshot's name must not look like a time: those are given to the others.")
