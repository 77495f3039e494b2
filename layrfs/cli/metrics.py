"""``layrfs metrics``: the drive's numbers as Prometheus reads them, for a collector of text files or for a look."""

from __future__ import annotations

import argparse

from layrfs.cli.arguments import add_volume
from layrfs.cli.locating import running_client
from layrfs.cli.rendering import say
from layrfs.control.commands import STATUS, Nothing
from layrfs.control.metrics import exposition


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    add_volume(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises NotRunning when nothing is mounted."""
    say(*exposition(running_client(arguments.volume).call(STATUS, Nothing())).splitlines())
    return 0
