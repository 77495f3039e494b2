"""``layrfs snapshot create|list|delete``: the volume's past, kept on hosts and seen in MOUNTPOINT/.snapshots."""

from __future__ import annotations

import argparse
import os
import time

from layrfs.cli.arguments import add_json, add_passfile, add_volume
from layrfs.cli.locating import node_for
from layrfs.cli.progress import ProgressBar
from layrfs.cli.rendering import say, say_json, shown_count, table
from layrfs.cli.sync import flush_kernel
from layrfs.control.client import ControlClient
from layrfs.control.commands import (
    SNAPSHOT_CREATE,
    SNAPSHOT_DELETE,
    SNAPSHOT_LIST,
    STATUS,
    CreateSnapshot,
    DeleteSnapshot,
    Nothing,
)
from layrfs.errors import UsageError
from layrfs.logs import printable
from layrfs.model.status import Snapshot


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument(
        "action", choices=["create", "list", "delete"], help="keep one until it is deleted, list, delete"
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="of the snapshot [create: the time]")
    add_volume(parser)
    add_passfile(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Mounted or not."""
    action, name = arguments.action, arguments.name
    if action == "delete" and name is None:
        raise UsageError("`layrfs snapshot delete` needs the name of one; `layrfs snapshot list` shows them")
    if action == "list" and name is not None:
        raise UsageError("`layrfs snapshot list` shows all of them, and takes no name")
    with node_for(arguments.volume, arguments.passfile, reading=action == "list") as client:
        if action == "create":
            _create(client, name, as_json=arguments.json)
        elif action == "delete":
            client.call(SNAPSHOT_DELETE, DeleteSnapshot(name))
        else:
            _list(client, as_json=arguments.json)
    return 0


def _create(client: ControlClient, name: str | None, *, as_json: bool) -> None:
    mountpoint = client.call(STATUS, Nothing()).mountpoint
    if mountpoint:
        flush_kernel(mountpoint)
    with ProgressBar("keeping") as bar:
        made = client.call(SNAPSHOT_CREATE, CreateSnapshot(name), bar.show)
    if as_json:
        say_json(made)
        return
    say(printable(os.path.join(mountpoint, ".snapshots", made.name)))
    if made.unsent_blocks:
        say(f"{shown_count(made.unsent_blocks, 'block')} written meanwhile cannot be read in it")


def _list(client: ControlClient, *, as_json: bool) -> None:
    snapshots = client.call(SNAPSHOT_LIST, Nothing()).snapshots
    if as_json:
        say_json(snapshots)
    elif snapshots:
        say(*table(map(_line, snapshots)))


def _line(snapshot: Snapshot) -> tuple[str, str, str, str]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot.time_ms / 1000))
    missing = f"{shown_count(snapshot.unsent_blocks, 'block')} not on hosts then" if snapshot.unsent_blocks else "whole"
    return printable(snapshot.name), when, missing, "kept" if snapshot.kept else ""
