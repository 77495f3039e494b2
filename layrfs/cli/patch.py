"""``layrfs patch [PATH]``: have what hosts lost made anew, now, and say what cannot be."""

from __future__ import annotations

import argparse

from layrfs.cli.arguments import add_json, add_volume
from layrfs.cli.exit_codes import DONE, FAILED, NETWORK
from layrfs.cli.locating import mounted_path, running_client
from layrfs.cli.progress import ProgressBar
from layrfs.cli.rendering import say, say_json, shown_bytes, shown_count, shown_path, table
from layrfs.control.commands import PATCH, Patch
from layrfs.model.patches import LostPart, PatchedShard, PatchReport

_SHOWN_ID = 12


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("path", metavar="PATH", nargs="?", help="only what is below it; default: the whole volume")
    parser.add_argument(
        "--dry-run", action="store_true", help="ask hosts what they have, and only say what would be made"
    )
    add_volume(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises NotRunning when the volume is not mounted, ReadOnly, NotFound.

    The exit code: 1 when something is lost, 11 when something could not be made, 0 otherwise.
    """
    if arguments.path is None:
        client, within = running_client(arguments.volume), b"/"
    else:
        place = mounted_path(arguments.path)
        client, within = place.client, place.within
    with ProgressBar("patching") as bar:
        report = client.call(PATCH, Patch(within, arguments.dry_run), bar.show)
    if arguments.json:
        say_json(report)
    else:
        say(*page(report))
    return exit_code(report)


def page(report: PatchReport) -> list[str]:
    """The lines."""
    if not report.shards and report.silent_hosts:
        hosts = shown_count(report.silent_hosts, "host")
        return [f"nothing has to be made anew yet; {hosts} that have pieces are not seen now, and waited for"]
    if not report.shards:
        return ["every shard has all its pieces"]
    lines = table([_row(one, dry_run=report.dry_run) for one in report.listed], indent="  ")
    if len(report.listed) < report.shards:
        lines.append(f"  and {report.shards - len(report.listed):,} more")
    if report.lost_parts:
        lines += ["lost, unless a host returns:", *table([_lost_row(part) for part in report.lost_parts], indent="  ")]
    verb = "would be patched" if report.dry_run else "patched"
    count = report.shards - report.lost if report.dry_run else report.mended
    return [*lines, f"{count:,} of {shown_count(report.shards, 'shard')} {verb}, {report.lost:,} lost"]


def _row(one: PatchedShard, *, dry_run: bool) -> tuple[str, str, str]:
    wanted = ", ".join(map(str, one.wanted)) or "none"
    if dry_run:
        return f"shard {one.shard[:_SHOWN_ID]}", one.urgency, f"pieces to make: {wanted}"
    made = ", ".join(f"{piece.position} at {piece.host[:_SHOWN_ID]}" for piece in one.made)
    what = f"made {made}" if made else f"wanted {wanted}"
    return f"shard {one.shard[:_SHOWN_ID]}", one.urgency, f"{what}; {one.problem}" if one.problem else what


def _lost_row(part: LostPart) -> tuple[str, str]:
    return shown_path(part.path), f"bytes {part.offset:,} to {part.offset + part.length:,} ({shown_bytes(part.length)})"


def exit_code(report: PatchReport) -> int:
    """By the worst that was found."""
    if report.lost:
        return FAILED
    return DONE if report.dry_run or report.mended == report.shards else NETWORK
