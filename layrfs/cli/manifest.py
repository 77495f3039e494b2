"""``layrfs manifest PATH``: a file's shards and their hosts as JSON. With the volume's key, enough to fetch it."""

from __future__ import annotations

import argparse
import sys

from layrfs.cli.arguments import add_passfile, add_volume
from layrfs.cli.places import place_in_volume
from layrfs.control.commands import MANIFEST, AtPath


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("path", metavar="PATH", help="a file below a mountpoint, or its path in the volume")
    add_volume(parser)
    add_passfile(parser)
    parser.add_argument("--json", action="store_true", help="accepted: a manifest is JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints it."""
    with place_in_volume(arguments.path, arguments.volume, arguments.passfile) as (client, within):
        text = client.call(MANIFEST, AtPath(within)).text
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    return 0
