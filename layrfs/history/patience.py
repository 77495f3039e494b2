"""Trying until hosts answer. Must not know what is tried."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from layrfs.errors import RemoteError

RETRY_SECONDS = 1.0

T = TypeVar("T")


async def insist(work: Callable[[], Awaitable[T]], note: Callable[[RemoteError], None]) -> T:
    """What ``work`` answers; each time it fails for hosts' sake ``note`` is told. Raises what else it raises."""
    while True:
        try:
            return await work()
        except RemoteError as error:
            note(error)
            await trio.sleep(RETRY_SECONDS)
