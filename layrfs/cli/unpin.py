"""``layrfs unpin PATH...``: what was pinned may leave the cache again."""

from __future__ import annotations

import argparse

from layrfs.cli.arguments import add_passfile, add_volume
from layrfs.cli.places import place_in_volume
from layrfs.control.commands import UNPIN, AtPath


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("paths", metavar="PATH", nargs="+", help="with all that is below")
    add_volume(parser)
    add_passfile(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises NotFound."""
    for path in arguments.paths:
        with place_in_volume(path, arguments.volume, arguments.passfile) as (client, within):
            client.call(UNPIN, AtPath(within))
    return 0
