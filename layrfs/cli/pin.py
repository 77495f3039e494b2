"""``layrfs pin PATH...``: keeps files, and all that is in directories, on this machine."""

from __future__ import annotations

import argparse
import sys

from layrfs.cli.arguments import add_json, add_passfile, add_volume
from layrfs.cli.places import place_in_volume
from layrfs.cli.progress import ProgressBar
from layrfs.cli.rendering import say, say_json, shown_bytes, shown_path
from layrfs.control.commands import PIN, PINS, PINS_WAIT, AtPath, Nothing
from layrfs.errors import UsageError
from layrfs.model.status import PinReport


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument(
        "paths", metavar="PATH", nargs="*", help="what is below a directory is kept as well, also what comes later"
    )
    parser.add_argument("--list", action="store_true", help="show what is pinned")
    parser.add_argument("--wait", action="store_true", help="return when all that is pinned is here")
    add_volume(parser)
    add_passfile(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises UsageError when there is nothing to do, NotFound."""
    if not (arguments.paths or arguments.list or arguments.wait):
        raise UsageError("say what to pin, or --list")
    for path in arguments.paths:
        with place_in_volume(path, arguments.volume, arguments.passfile) as (client, within):
            _warn(client.call(PIN, AtPath(within)))
    place = arguments.paths[-1] if arguments.paths else "/"
    report = _wait_or_look(place, arguments) if arguments.wait or arguments.list or arguments.json else None
    if report is not None and arguments.json:
        say_json(report)
    elif report is not None and arguments.list:
        say(*page(report))
    return 0


def _wait_or_look(path: str, arguments: argparse.Namespace) -> PinReport:
    with place_in_volume(path, arguments.volume, arguments.passfile) as (client, _within):
        if not arguments.wait:
            return client.call(PINS, Nothing())
        with ProgressBar("fetching what is pinned") as bar:
            return client.call(PINS_WAIT, Nothing(), bar.show)


def page(report: PinReport) -> list[str]:
    """The lines of ``layrfs pin --list``."""
    if not report.paths:
        return ["nothing is pinned"]
    missing = f", {shown_bytes(report.missing_bytes)} on the way" if report.missing_bytes else ""
    return [*(shown_path(path) for path in report.paths), f"{shown_bytes(report.here_bytes)} here{missing}"]


def _warn(report: PinReport) -> None:
    """What is pinned stays, even where that takes more room than the cache was given."""
    pinned = report.here_bytes + report.missing_bytes
    if pinned > report.cache_limit_bytes:
        sys.stderr.write(
            f"layrfs pin: what is pinned takes {shown_bytes(pinned)}, the cache's limit is "
            f"{shown_bytes(report.cache_limit_bytes)}: it is kept all the same, and the cache grows beyond its limit "
            "(mount with a larger -o cache_size=, or unpin something)\n"
        )
