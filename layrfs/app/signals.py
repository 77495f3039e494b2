"""The signals that end a drive in good order. Must not know what a drive is."""

from __future__ import annotations

import logging
import signal

import trio

_log = logging.getLogger(__name__)


async def stop_on_signals(stopping: trio.Event) -> None:
    """Set the event at every SIGTERM, SIGINT and SIGHUP, until cancelled."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for number in signals:
            _log.info("%s: unmounting", signal.Signals(number).name)
            stopping.set()
