"""The right to write changes hands: claimed at the start of a mount, taken by another machine, given back at the end.

Owns how much trouble each may make. Must not know records.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from layrfs.app.kernel import Kernel
from layrfs.errors import LayrError, RemoteError, Superseded, VolumeHeld
from layrfs.history.publishing import Publisher
from layrfs.vfs.contents import Contents
from layrfs.vfs.filesystem import Filesystem

_log = logging.getLogger(__name__)

RELEASE_SECONDS = 6.0
"""How long the end of a drive may take for telling hosts that another machine may write: it waits for ten minutes else,
and a busy machine behind a slow line needs more than two seconds."""


async def claim(publisher: Publisher, volume: str) -> None:
    """Raises ``VolumeHeld`` when another machine was faster; hosts that are gone again are asked later."""
    try:
        await publisher.claim()
    except Superseded as error:
        sentence = f"another machine began to write to volume {volume} at the same moment; try again"
        raise VolumeHeld(sentence) from error
    except RemoteError as error:
        _log.warning("hosts do not know yet that this machine writes: %s", error)


async def release(
    publisher: Publisher, contents: Contents, superseded: trio.Event, leave: Callable[[], Awaitable[None]]
) -> None:
    """Another machine may write from now on, unless something is only here: it would be set aside then.

    ``leave``: delegates look after the volume; whoever was taken over has nothing to say to them.
    """
    with trio.move_on_after(RELEASE_SECONDS):
        try:
            if not contents.stats().dirty_blocks:
                await publisher.release()
        except LayrError as error:
            _log.warning("hosts do not know that this machine has stopped writing: %s", error)
    if not superseded.is_set():
        await leave()


async def let_go(
    superseded: trio.Event, kernel: Kernel, filesystem: Filesystem, publisher: Publisher, contents: Contents
) -> None:
    """When another machine has taken over; what the kernel still holds comes here first, to be set aside, too."""
    await superseded.wait()
    await kernel.write_back()
    filesystem.turn_read_only(publisher.problem or "")
    stats = contents.stats()
    _log.error("read-only now; %d blocks, %d bytes are on no host", stats.dirty_blocks, stats.dirty_bytes)
