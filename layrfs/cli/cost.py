"""``layrfs cost [PATH]``: what hosts are paid in 30 days for what is below PATH, by directory."""

from __future__ import annotations

import argparse

from msgspec import Struct

from layrfs.cli.arguments import add_json, add_volume
from layrfs.cli.locating import mounted_path, running_client
from layrfs.cli.rendering import say, say_json, shown_bytes, shown_path, table
from layrfs.control.commands import COST, Cost
from layrfs.errors import UsageError
from layrfs.model.costs import Cost as PathCost
from layrfs.model.costs import CostReport
from layrfs.model.lumens import shown_lumens

_EPILOG = """
Like du: bytes that several files share count for the first of them, and what small files are packed in is divided by
the bytes of each, so that parts add up. Amounts are XLM for 30 days, at the prices of the contracts of now.
"""


class CostRow(Struct, frozen=True):
    """Of `layrfs cost --json`. `cost` is a string, in XLM for 30 days; bytes are of pieces on hosts."""

    path: bytes
    cost: str
    stored_bytes: int
    paid_bytes: int


class CostTable(Struct, frozen=True):
    """`total`: of the whole volume, its list of files and snapshots included."""

    paths: tuple[CostRow, ...]
    total: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("path", metavar="PATH", nargs="?", help="below a mountpoint; none: the whole volume")
    parser.add_argument("--depth", metavar="N", type=int, default=1, help="directories so many steps below it [1]")
    add_volume(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises NotRunning when the volume is not mounted, NotFound."""
    if arguments.depth < 0:
        raise UsageError("--depth takes a number, 0 or more")
    if arguments.path is None:
        client, within = running_client(arguments.volume), b"/"
    else:
        place = mounted_path(arguments.path)
        client, within = place.client, place.within
    report = client.call(COST, Cost(within, arguments.depth))
    rows = tuple(map(_row, report.costs))
    if arguments.json:
        say_json(CostTable(rows, shown_lumens(report.total_stroops)))
    else:
        say(*page(report, rows))
    return 0


def page(report: CostReport, rows: tuple[CostRow, ...]) -> list[str]:
    """The lines."""
    shown = [
        (each.cost, shown_bytes(each.paid_bytes), shown_bytes(each.stored_bytes), shown_path(each.path))
        for each in rows
    ]
    lines = table([("XLM a month", "paid for", "on hosts", ""), *shown])
    whole = report.costs[-1]
    if whole.path == b"/" and report.total_stroops > whole.stroops:
        rest = shown_lumens(report.total_stroops - whole.stroops)
        lines.append(f"and {rest} XLM for the list of files and for what only snapshots need")
    return lines


def _row(cost: PathCost) -> CostRow:
    return CostRow(cost.path, shown_lumens(cost.stroops), cost.stored_bytes, cost.paid_bytes)
