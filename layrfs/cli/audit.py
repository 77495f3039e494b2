"""``layrfs audit [PATH]``: hosts are asked to prove that they have the pieces of what is below PATH.

The exit code is that of the worst answer: 0 when all passed, 1 when a piece is wrong or missing, else 11: a host could
not be asked, so trying again later may help. A piece that is wrong or missing is made anew by the drive, by itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from layrfs.cli import exit_codes
from layrfs.cli.arguments import add_json, add_volume
from layrfs.cli.locating import mounted_path, running_client
from layrfs.cli.progress import ProgressBar
from layrfs.cli.rendering import say, say_json, shown_count, shown_path, table
from layrfs.control.commands import AUDIT, Audit
from layrfs.model.audits import AuditedHost, AuditedPiece, AuditReport, Level, counted, worst

MOST_ROWS = 40
"""Pieces that passed are listed only when there are so few; ``--json`` lists more."""

_LEVELS: dict[Level, str] = {
    "prove": "a part that the host cannot foresee, with its Merkle proof (the default)",
    "answer": "a digest of all or part of it, compared with one prepared when it was at hand; each is used once",
    "deep": "all of it, fetched and verified",
}
_SILENT = {"offline", "timed out"}
_SHOWN_ID = 12


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("path", metavar="PATH", nargs="?", help="below a mountpoint; none: the whole volume")
    how = parser.add_mutually_exclusive_group()
    for level, text in _LEVELS.items():
        how.add_argument(f"--{level}", dest="level", action="store_const", const=level, help=text)
    parser.add_argument("--host", action="store_true", help="only the table of hosts")
    parser.set_defaults(level="prove")
    add_volume(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises NotRunning when the volume is not mounted, NotFound."""
    level: Level = arguments.level
    if arguments.path is None:
        client, within = running_client(arguments.volume), b"/"
    else:
        place = mounted_path(arguments.path)
        client, within = place.client, place.within
    with ProgressBar("auditing") as bar:
        report = client.call(AUDIT, Audit(within, level), bar.show)
    if arguments.json:
        say_json(report)
    else:
        say(*page(report, only_hosts=arguments.host))
    return exit_code(report)


def exit_code(report: AuditReport) -> int:
    """Of the worst answer."""
    found = worst(report.outcomes)
    if found == "passed" and report.root_keepers != 0:
        return exit_codes.DONE
    return exit_codes.FAILED if found in {"failed", "missing"} else exit_codes.NETWORK


def page(report: AuditReport, *, only_hosts: bool) -> list[str]:
    """The lines."""
    if not report.outcomes:
        return ["nothing of it is on hosts yet; `layrfs sync` sends it" if report.unsent_files else "nothing to audit"]
    rows = [] if only_hosts else _listed(report)
    lines = table(map(_piece_row, rows))
    lines += ["", *table(map(_host_row, report.hosts))] if rows else table(map(_host_row, report.hosts))
    return [*lines, "", *_summary(report)]


def _listed(report: AuditReport) -> Sequence[AuditedPiece]:
    """All of them, or when they are many only what did not pass."""
    bad = [piece for piece in report.pieces if piece.outcome != "passed"]
    if len(report.pieces) + report.left_off <= MOST_ROWS:
        return sorted(report.pieces, key=lambda piece: (piece.path, piece.shard, piece.position))
    return bad


def _piece_row(piece: AuditedPiece) -> tuple[str, ...]:
    return (
        shown_path(piece.path),
        f"shard {piece.shard[:_SHOWN_ID]}",
        f"piece {piece.position}",
        f"host {piece.host[:_SHOWN_ID]}",
        piece.level,
        piece.outcome,
        f"{piece.seconds * 1000:.0f} ms",
    )


def _host_row(host: AuditedHost) -> tuple[str, ...]:
    return f"host {host.host[:_SHOWN_ID]}", host.standing, counted(host.outcomes)


def _summary(report: AuditReport) -> list[str]:
    pieces = shown_count(sum(report.outcomes.values()), "piece")
    lines = [
        f"{pieces} of {shown_count(report.shards, 'shard')} asked for ({report.level}): {counted(report.outcomes)}"
    ]
    if report.short_shards:
        lines.append(f"{shown_count(report.short_shards, 'shard')} could not be read now: too few pieces passed")
    if report.outcomes.get("failed") or report.outcomes.get("missing"):
        lines.append("what was wrong or missing is made anew as soon as hosts take it; `layrfs status` shows how far")
    if not set(report.outcomes) - _SILENT:
        lines.append("no host answered at all: this machine's own line may be down, so it is not held against them")
    if report.outcomes.get("unknown"):
        lines.append("unknown: this machine had nothing (left) to ask with, which says nothing about the host")
    if report.outcomes.get("unknown") and report.level == "answer":
        lines.append("new answers are prepared whenever a piece is fetched, by reading or by `layrfs audit --deep`")
    if report.unsent_files:
        lines.append(f"{shown_count(report.unsent_files, 'file')} not (wholly) on hosts yet: `layrfs sync` sends them")
    if report.root_keepers is not None:
        lines.append(f"the newest root record is shown by {shown_count(report.root_keepers, 'host')}")
    return lines
