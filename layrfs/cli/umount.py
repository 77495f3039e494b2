"""``layrfs umount MOUNTPOINT``: everything to the hosts, unmount, wait until the drive's process has ended."""

from __future__ import annotations

import argparse
import os
import sys

from layrfs.cli import exit_codes
from layrfs.cli.locating import CONTROL_ATTRIBUTE, STOP_SECONDS, wait_for_end
from layrfs.cli.mountpoint import is_stale, mount_at, unmount, users_of
from layrfs.cli.rendering import say
from layrfs.cli.sync import flush_kernel, sync_all
from layrfs.control.client import ControlClient
from layrfs.errors import BadMountpoint, LocalError, NotRunning, RemoteError, Superseded, Unavailable

_MOST_NAMED = 5


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    wait = parser.add_mutually_exclusive_group()
    wait.add_argument("--wait", action="store_true", help="first wait until everything is on the network (the default)")
    wait.add_argument(
        "--no-wait", action="store_true", help="unmount now; what is missing is uploaded after the next mount"
    )


def run(arguments: argparse.Namespace) -> int:
    """Raises BadMountpoint when it cannot be unmounted, Unavailable when not everything could be uploaded."""
    directory = os.path.realpath(arguments.mountpoint)
    if is_stale(directory):
        unmount(directory, lazily=True)
        say(f"{directory} was left over from a drive that died, and is clean now")
        return 0
    client = _client_at(directory)
    process = client.process_id()
    if not arguments.no_wait and not _upload_everything(client, directory):
        return exit_codes.INTERRUPTED
    _unmount_or_say_who(directory)
    wait_for_end(process, STOP_SECONDS)
    return 0


def _client_at(directory: str) -> ControlClient:
    if mount_at(directory) is None:
        raise NotRunning(f"{directory} is not mounted")
    try:
        return ControlClient(os.fsdecode(os.getxattr(directory, CONTROL_ATTRIBUTE)))
    except OSError as error:
        raise BadMountpoint(f"{directory} is mounted, but not by LayrFS") from error


def _upload_everything(client: ControlClient, directory: str) -> bool:
    """Whether nobody pressed Ctrl-C meanwhile, which leaves all as it is."""
    try:
        flush_kernel(directory)
    except LocalError as error:
        sys.stderr.write(f"layrfs umount: {error}\n")  # staying mounted would not bring it back
    try:
        sync_all(client, "uploading")
    except Superseded as error:
        sys.stderr.write(f"layrfs umount: {error}\n")  # staying mounted would not bring it there
    except RemoteError as error:
        raise Unavailable(
            f"{directory} stays mounted: not everything is on hosts yet ({error}); it is safe on this disk, and "
            "--no-wait unmounts now and uploads the rest after the next mount"
        ) from error
    except KeyboardInterrupt:
        sys.stderr.write(
            f"layrfs umount: interrupted; {directory} stays mounted and uploads go on "
            "(--no-wait unmounts now and uploads the rest after the next mount)\n"
        )
        return False
    return True


def _unmount_or_say_who(directory: str) -> None:
    try:
        unmount(directory)
    except BadMountpoint as error:
        users = users_of(directory)
        if not users:
            raise
        more = f" and {len(users) - _MOST_NAMED} more" if len(users) > _MOST_NAMED else ""
        raise BadMountpoint(f"{directory} is in use by {', '.join(users[:_MOST_NAMED])}{more}") from error
