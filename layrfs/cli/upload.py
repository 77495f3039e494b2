"""``layrfs upload FILE``: one file into the volume, mounted or not."""

from __future__ import annotations

import argparse
import os

from layrfs.cli.arguments import add_json, add_passfile, add_volume
from layrfs.cli.locating import node_for
from layrfs.cli.places import in_volume
from layrfs.cli.progress import ProgressBar
from layrfs.cli.rendering import say, say_json, shown_bytes, shown_path
from layrfs.control.commands import UPLOAD, Upload
from layrfs.errors import AccessDenied, NotFound, NotSupported


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--to", metavar="PATH", help="its path in the volume [its name, at the top]")
    parser.add_argument("--replace", action="store_true", help="overwrite what is there")
    add_volume(parser)
    add_passfile(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Returns when the file is on hosts."""
    source = _readable_file(arguments.file)
    target = in_volume(arguments.to or os.path.basename(source))
    if arguments.to and arguments.to.endswith("/"):
        target = os.path.join(target, os.fsencode(os.path.basename(source)))
    with node_for(arguments.volume, arguments.passfile) as client, ProgressBar("uploading") as bar:
        stored = client.call(UPLOAD, Upload(os.fsencode(source), target, arguments.replace), bar.show)
    if arguments.json:
        say_json(stored)
    else:
        say(f"{shown_path(stored.path)}  {shown_bytes(stored.size)}  {stored.state}")
    return 0


def _readable_file(name: str) -> str:
    path = os.path.abspath(name)
    if not os.path.exists(path):
        raise NotFound(f"there is no {name}")
    if not os.path.isfile(path):
        raise NotSupported(f"{name} is not a regular file; mount the volume to copy directories")
    if not os.access(path, os.R_OK):
        raise AccessDenied(f"you may not read {name}")
    return path
