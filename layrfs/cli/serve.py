"""The process that is the drive: unlock the keys, build it, run it until it is unmounted or told to stop."""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Callable

import trio

from layrfs import logs
from layrfs.app.drive import Drive
from layrfs.cli.background import ReadyChannel
from layrfs.cli.mount_request import MountRequest
from layrfs.cli.passphrase import asker
from layrfs.errors import LayrError, LocalError, innermost
from layrfs.storage import keyring

_log = logging.getLogger(__name__)


def serve(request: MountRequest) -> int:
    """Returns when the drive has ended in order. Raises LayrError, after telling the process that started this one."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the keys; workers inherit this
    paths = request.paths()
    paths.prepare(request.volume)
    channel = None if request.ready_fd is None else ReadyChannel(request.ready_fd)
    log_file = None if channel is None else paths.log_file(request.volume)
    logs.configure(log_file, verbose=bool(os.environ.get("LAYRFS_DEBUG")))
    ask = asker(request.passfile) if channel is None else channel.ask_passphrase
    ready = _ready_in_terminal(request) if channel is None else channel.ready
    try:
        keys = keyring.load_volume_key(paths.volume_key(request.volume), ask)
        say = _say_nothing_more if channel is None else channel.say
        drive = Drive(paths=paths, volume=request.volume, keys=keys, options=request.options, say=say)
        trio.run(drive.run, request.mountpoint, ready)
    except (Exception, KeyboardInterrupt) as error:
        reason = _as_layr_error(innermost(error))
        if channel is not None:
            channel.failed(reason)
        raise reason from error
    return 0


def _say_nothing_more(_sentence: str) -> None:
    """In a terminal the log is read at once."""


def _ready_in_terminal(request: MountRequest) -> Callable[[], None]:
    place = f"mounted at {request.mountpoint}" if request.mountpoint else "running"
    return lambda: _log.info("volume %s is %s; Ctrl-C unmounts", request.volume, place)


def _as_layr_error(error: BaseException) -> LayrError:
    if isinstance(error, LayrError):
        return error
    _log.error("the drive failed", exc_info=error)
    return LocalError(f"the drive failed: {type(error).__name__}: {error}")
