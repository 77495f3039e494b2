"""``layrfs sync [PATH]``: returns when everything below PATH is on the network."""

from __future__ import annotations

import argparse
import ctypes
import os

from layrfs.cli.arguments import add_json, add_volume
from layrfs.cli.locating import mounted_path, running_client
from layrfs.cli.progress import ProgressBar
from layrfs.cli.rendering import say, say_json, shown_bytes, shown_count
from layrfs.control.client import ControlClient
from layrfs.control.commands import STATUS, SYNC, AtPath, Nothing
from layrfs.errors import LocalError
from layrfs.model.status import SyncReport


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("path", metavar="PATH", nargs="?", help="below a mountpoint; none: the whole volume")
    add_volume(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises Unavailable when the hosts cannot be reached."""
    if arguments.path is not None:
        place = mounted_path(arguments.path)
        client, mountpoint, within = place.client, place.mountpoint, place.within
    else:
        client, within = running_client(arguments.volume), b"/"
        mountpoint = client.call(STATUS, Nothing()).mountpoint
    if mountpoint:
        flush_kernel(mountpoint)
    report = sync_all(client, "syncing", within)
    if arguments.json:
        say_json(report)
    else:
        say(_sentence(report))
    return 0


def sync_all(client: ControlClient, title: str, within: bytes = b"/") -> SyncReport:
    """Wait for the drive, with a progress bar."""
    with ProgressBar(title) as bar:
        return client.call(SYNC, AtPath(within), bar.show)


def flush_kernel(directory: str) -> None:
    """syncfs(2): what programs wrote and the kernel still holds back reaches the drive.

    Raises ``LocalError`` once for every write that failed since the last call, as the kernel reports it.
    """
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if library.syncfs(descriptor) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise LocalError(f"something written to {directory} did not reach the drive: {reason}; its log says what")
    finally:
        os.close(descriptor)


def _sentence(report: SyncReport) -> str:
    if report.degraded_shards:
        missing = shown_count(report.degraded_shards, "shard")
        return f"everything is on hosts; {missing} still lack copies because there are too few hosts"
    if report.metadata_lacks_copies:
        return "everything is on hosts, but the list of files on very few of them: others did not take it yet"
    return f"everything is on hosts ({shown_bytes(report.uploaded_bytes)} uploaded just now)"
