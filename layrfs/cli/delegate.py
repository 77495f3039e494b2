"""``layrfs delegate NODE``: a node audits and repairs the volume while this machine is away, and cannot read it."""

from __future__ import annotations

import argparse
import time

from layrfs.cli.arguments import add_json, add_passfile, add_volume
from layrfs.cli.locating import node_for
from layrfs.cli.progress import ProgressBar
from layrfs.cli.rendering import say, say_json, shown_seconds, table
from layrfs.config import parse_duration
from layrfs.control.client import ControlClient
from layrfs.control.commands import DELEGATE, DELEGATE_LIST, DELEGATE_REVOKE, DelegateOf, DelegateTo, Nothing
from layrfs.errors import UsageError
from layrfs.model.status import DelegateList, DelegateStatus

_SHOWN_ID = 12


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument(
        "node", metavar="NODE", nargs="?", help="a host that is run with --delegate: its id (as it said), or HOST:PORT"
    )
    parser.add_argument("--revoke", action="store_true", help="have NODE forget the volume")
    parser.add_argument("--list", action="store_true", help="show who looks after the volume")
    parser.add_argument(
        "--until",
        metavar="DURATION",
        default="180d",
        help="how long it goes on after it last heard of this machine, like 30d; default: 180d",
    )
    add_volume(parser)
    add_passfile(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Mounted or not. Raises UsageError, NotFound, RemoteError."""
    if arguments.list == bool(arguments.node) or (arguments.list and arguments.revoke):
        raise UsageError("say which NODE is to look after the volume (or to forget it), or --list")
    seconds = parse_duration(arguments.until)
    with node_for(arguments.volume, arguments.passfile, reading=arguments.list) as client:
        if arguments.list:
            _show(client.call(DELEGATE_LIST, Nothing()), as_json=arguments.json)
        elif arguments.revoke:
            _revoke(client, arguments.node, as_json=arguments.json)
        else:
            request = DelegateTo(arguments.node, seconds)
            with ProgressBar("handing over") as bar:
                report = client.call(DELEGATE, request, bar.show)
            _show(report, as_json=arguments.json)
    return 0


def _revoke(client: ControlClient, node: str, *, as_json: bool) -> None:
    done = client.call(DELEGATE_REVOKE, DelegateOf(node))
    if as_json:
        say_json(done)
        return
    name = done.node[:_SHOWN_ID]
    if done.told:
        say(f"{name} has forgotten the volume. If it is not honest, it still has the key that pieces are masked with.")
    else:
        say(f"{name} cannot be told now. It goes on until its time is over, and nothing that it does is believed.")


def _show(report: DelegateList, *, as_json: bool) -> None:
    if as_json:
        say_json(report)
    else:
        say(*page(report, time.time()))


def page(report: DelegateList, now: float) -> list[str]:
    """The lines of ``layrfs delegate --list``."""
    if not report.delegates:
        return ["nobody looks after this volume while this machine is away"]
    return table(_line(delegate, now) for delegate in report.delegates)


def _line(delegate: DelegateStatus, now: float) -> tuple[str, str, str]:
    heard = "knows nothing yet" if delegate.heard is None else f"was told all {shown_seconds(now - delegate.heard)} ago"
    lasts = f"{heard}, goes on for {shown_seconds(delegate.seconds)} after that"
    if delegate.lies:
        lasts = "SAID WHAT WAS NOT SO, is believed no more: revoke it"
    elif delegate.problem:
        lasts = f"{lasts}; now: {delegate.problem}"
    return delegate.node[:_SHOWN_ID], delegate.place or "not seen", lasts
