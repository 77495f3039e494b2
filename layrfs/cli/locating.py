"""Which drive a command speaks to: the one a path is mounted from, or the one that runs a volume."""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass

from layrfs.cli.background import start_node
from layrfs.config import DEFAULT_VOLUME, Paths, valid_volume_name
from layrfs.control.client import ControlClient
from layrfs.control.commands import STOP, Nothing
from layrfs.errors import LocalError, NotFound, NotRunning, NoVolume, UsageError

CONTROL_ATTRIBUTE = "user.layrfs.control"
STOP_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class MountedPath:
    """A path below a LayrFS mountpoint. ``within`` is absolute within the volume."""

    client: ControlClient
    mountpoint: str
    within: bytes


def mounted_path(path: str) -> MountedPath:
    """Find the drive behind a path. Raises NotFound, or NotRunning with what is wrong."""
    path = os.path.abspath(path)
    parent, name = (path, "") if os.path.ismount(path) else os.path.split(path)
    real_parent = os.path.realpath(parent)
    _require_existing(path)
    directory = path if os.path.isdir(path) and not os.path.islink(path) else real_parent
    client = ControlClient(_control_socket(directory, path))
    mountpoint = _mountpoint_of(os.path.realpath(directory))
    within = os.path.relpath(os.path.join(real_parent, name), mountpoint)
    return MountedPath(client, mountpoint, b"/" if within == "." else b"/" + os.fsencode(within))


def chosen_volume(paths: Paths, name: str | None) -> str:
    """``name``, else $LAYRFS_VOLUME, else the default volume, else the only one. Raises NoVolume or UsageError."""
    known = paths.volumes()
    name = name or os.environ.get("LAYRFS_VOLUME")
    if name:
        if valid_volume_name(name) not in known:
            raise NoVolume(f"there is no volume {name!r} on this machine{_which_exist(known)}")
        return name
    if not known:
        raise NoVolume("there is no volume on this machine yet; `layrfs init` makes one")
    if DEFAULT_VOLUME not in known and len(known) > 1:
        raise UsageError(f"there are several volumes: say --volume with one of {', '.join(known)}")
    return DEFAULT_VOLUME if DEFAULT_VOLUME in known else known[0]


def running_client(volume_name: str | None) -> ControlClient:
    """The drive of a volume that must be running. Raises NotRunning."""
    paths = Paths.from_environment()
    volume = chosen_volume(paths, volume_name)
    client = ControlClient(paths.control_socket(volume))
    if not client.is_running():
        raise NotRunning(f"volume {volume} is not mounted")
    return client


@contextlib.contextmanager
def node_for(volume_name: str | None, passfile: str | None, *, reading: bool = False) -> Iterator[ControlClient]:
    """The running drive of a volume, or one without a mount that lives as long as the block.

    One that only reads can be had while another machine writes.
    """
    paths = Paths.from_environment()
    paths.check()
    volume = chosen_volume(paths, volume_name)
    client = ControlClient(paths.control_socket(volume))
    if client.is_running():
        yield client
        return
    start_node(paths, volume, passfile, reading=reading)
    process = client.process_id()
    try:
        yield client
    finally:
        stop(client, process)


def stop(client: ControlClient, process: int) -> None:
    """End a drive in order and wait until it is gone."""
    with contextlib.suppress(NotRunning, LocalError):
        client.call(STOP, Nothing())
    wait_for_end(process, STOP_SECONDS)


def wait_for_end(process: int, seconds: float) -> None:
    """Wait for a process that is not our child. Raises LocalError when it stays."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        if not select.select([descriptor], [], [], seconds)[0]:
            raise LocalError(f"the drive's process {process} has not ended after {seconds:.0f} s; its log says why")
    finally:
        os.close(descriptor)


def _control_socket(directory: str, path: str) -> str:
    try:
        return os.fsdecode(os.getxattr(directory, CONTROL_ATTRIBUTE))
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise _left_over(path) from error
        raise NotRunning(f"{path} is not in a mounted LayrFS volume") from error


def _require_existing(path: str) -> None:
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise _left_over(path) from error
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            raise NotFound(f"there is no {path}") from error
        raise


def _left_over(path: str) -> NotRunning:
    return NotRunning(f"the drive behind {path} has ended; `layrfs umount` of its mountpoint cleans up")


def _mountpoint_of(directory: str) -> str:
    while not os.path.ismount(directory):
        directory = os.path.dirname(directory)
    return directory


def _which_exist(known: list[str]) -> str:
    return f"; there is {', '.join(known)}" if known else "; `layrfs init` makes one"
