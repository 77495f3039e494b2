"""``layrfs gc``: have hosts drop what neither the newest version of the volume nor a snapshot needs."""

from __future__ import annotations

import argparse

from layrfs.cli.arguments import add_json, add_volume
from layrfs.cli.locating import running_client
from layrfs.cli.progress import ProgressBar
from layrfs.cli.rendering import say, say_json, shown_bytes, shown_count
from layrfs.control.commands import COLLECT, Collect
from layrfs.errors import UsageError
from layrfs.logs import printable
from layrfs.model.status import Collected, Waits


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    parser.add_argument(
        "--retention",
        metavar="SECONDS",
        type=int,
        help="how long readers of an older list of files may still read what it names; default: an hour",
    )
    add_volume(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises NotRunning when the volume is not mounted, ReadOnly."""
    if arguments.retention is not None and arguments.retention < 0:
        raise UsageError("--retention takes a number of seconds, 0 or more")
    client = running_client(arguments.volume)
    with ProgressBar("collecting") as bar:
        report = client.call(COLLECT, Collect(arguments.dry_run, arguments.retention), bar.show)
    if arguments.json:
        say_json(report)
    else:
        say(*page(report, dry_run=arguments.dry_run))
    return 0


def page(report: Collected, *, dry_run: bool) -> list[str]:
    """The lines."""
    lines = []
    if report.dead_shards:
        verb = "can go" if dry_run else "given up"
        lines.append(f"{shown_count(report.dead_shards, 'shard')} {verb}, {shown_bytes(report.dead_bytes)} on hosts")
    if report.repacked_shards:
        verb = "can be packed" if dry_run else "packed"
        freed = shown_bytes(report.repacked_bytes)
        lines.append(f"{shown_count(report.repacked_shards, 'nearly empty shard')} {verb} anew, which frees {freed}")
    if report.dropped_pieces:
        lines.append(f"{shown_count(report.dropped_pieces, 'piece')} dropped by hosts")
    if report.retired_pieces:
        lines.append(f"{shown_count(report.retired_pieces, 'piece')} still on hosts, to be dropped within the hour")
    if report.silent_hosts:
        lines.append(f"{shown_count(report.silent_hosts, 'host')} did not answer; asked again later")
    lines += [_waiting_line(one) for one in report.waiting]
    return lines or ["nothing to collect"]


def _waiting_line(one: Waits) -> str:
    kept = f"{shown_count(one.shards, 'shard')}, {shown_bytes(one.stored_bytes)}"
    return f"{kept} kept for the snapshot {printable(one.name)}"
