"""Tells whoever sits at this machine, once, when files become endangered: by the desktop, if it has one that can.

Owns when something is said again. Must not know what endangers files. Invariant: nothing that a desktop does, or that
it is missing, disturbs the drive.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from layrfs import tempo
from layrfs.errors import LayrError

PROGRAM = "notify-send"
"""Of libnotify; whoever has a desktop mostly has it."""

LOOK_SECONDS = 10.0
TELL_SECONDS = 10.0
QUIET_SECONDS = 3600.0
"""What goes away and comes back within this is the same trouble."""

Tell = Callable[[str], Awaitable[None]]
"""Shows a sentence; raises nothing."""

_DESKTOPS = ("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS")
_log = logging.getLogger(__name__)


class Notices:
    """One drive's; ``run`` once."""

    def __init__(self, sentence: Callable[[], str | None], tell: Tell | None) -> None:
        """``sentence``: what a person should know at once; None when all is well. Without ``tell`` nobody is told."""
        self._sentence = sentence
        self._tell = tell

    async def run(self) -> None:
        """Until cancelled; at once over when nobody can be told."""
        if self._tell is None:
            return
        quiet_until = float("-inf")
        while True:
            sentence, now = self._now(), tempo.current_time()
            if sentence is not None:
                if now >= quiet_until:
                    await self._tell(sentence)
                quiet_until = now + QUIET_SECONDS
            await tempo.sleep(LOOK_SECONDS)

    def _now(self) -> str | None:
        try:
            return self._sentence()
        except LayrError as error:  # of the database, which says so itself
            _log.info("whether files are endangered is not known: %s", error)
            return None


def desktop(title: str) -> Tell | None:
    """How to tell the person at this machine; None where there is nobody, or no way."""
    program = shutil.which(PROGRAM)
    if program is None or not any(os.environ.get(name) for name in _DESKTOPS):
        return None
    return partial(_notify, program, title)


async def _notify(program: str, title: str, sentence: str) -> None:
    command = [program, "--app-name=LayrFS", "--urgency=critical", "--", title, sentence]
    try:
        with trio.move_on_after(TELL_SECONDS):
            await trio.run_process(command, check=False, capture_stdout=True, capture_stderr=True)
    except OSError as error:
        _log.info("nobody was told on the desktop: %s", error)
