"""`layrfs host run|status`: be a host for others, and see how it does."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time

from layrfs.cli.arguments import add_json
from layrfs.cli.rendering import say, say_json, shown_bytes, shown_count, shown_seconds, table
from layrfs.config import Paths, parse_address, parse_size
from layrfs.errors import NotRunning, RemoteError, UsageError
from layrfs.wire.messages import NETWORK_ID_BYTES, StatusReport

_SHOWN_ID = 12


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("action", choices=["run", "status"], help="be a host, in the foreground; or ask how it does")
    parser.add_argument("--space", metavar="SIZE", help="how much others may use, like 100G; later: as last time")
    parser.add_argument("--dir", metavar="DIR", help="where the pieces are; default: host/ in LayrFS's data directory")
    parser.add_argument("--listen", metavar="HOST:PORT", help="default: every address, port 4747")
    parser.add_argument("--announce", metavar="IP", help="the address others are told, when it is not found right")
    parser.add_argument(
        "--seed", metavar="HOST:PORT", action="append", default=[], help="a node of the network to join; repeatable"
    )
    parser.add_argument("--network", metavar="HEX", help="the network's id, when no seed can be asked for it")
    parser.add_argument(
        "--grace",
        metavar="DAYS",
        type=int,
        help="how long to keep pieces whose owner has been silent for the 275 days of their lease; default: 90 more",
    )
    parser.add_argument(
        "--delegate",
        action=argparse.BooleanOptionalAction,
        help="audit and repair the volumes of owners who ask for it (layrfs delegate) while they are away; it takes"
        " traffic and room beyond --space",
    )
    parser.add_argument("--verbose", action="store_true", help="log more")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """The exit code. Raises LayrError, perhaps in groups."""
    return _run(arguments) if arguments.action == "run" else _status(arguments)


def _run(arguments: argparse.Namespace) -> int:
    import trio

    from layrfs import logs
    from layrfs.app.host import HostOptions, run_host

    options = HostOptions(
        directory=_directory(arguments.dir),
        space_bytes=parse_size(arguments.space) if arguments.space else None,
        listen=parse_address(arguments.listen) if arguments.listen else None,
        announce=arguments.announce,
        seeds=tuple(parse_address(seed) for seed in arguments.seed),
        network_id=_network_id(arguments.network) if arguments.network else None,
        grace_days=_grace_days(arguments.grace),
        delegate=arguments.delegate,
    )
    logs.configure(None, verbose=arguments.verbose)
    trio.run(run_host, options, _say_now)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    report = _ask(_directory(arguments.dir))
    if arguments.json:
        say_json(report)
    else:
        say(*status_page(report))
    return 0


def _ask(path: str) -> StatusReport:
    """Ask the running host as itself: only who can read its key may know."""
    from layrfs.host.directory import HostDirectory
    from layrfs.model.records import HostAddress
    from layrfs.network.links import HostLinks

    directory = HostDirectory(path)
    settings = directory.settings()
    if settings is None:
        raise NotRunning(f"there is no host in {path}")
    if not directory.is_running():
        raise NotRunning(f"the host in {path} is not running (start it with: layrfs host run)")
    identity = directory.existing_identity()
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.listen, settings.listen)  # noqa: S104 - not bound here
    links = HostLinks(identity, bytes.fromhex(settings.network_id))
    try:
        return links.status(HostAddress(identity.node_id, address, settings.port))
    except RemoteError as error:
        raise NotRunning(f"the host in {path} runs but does not answer: {error}") from error
    finally:
        links.close()


def status_page(report: StatusReport) -> list[str]:
    """The lines of `layrfs host status`."""
    checked = "being verified now" if report.verifying else "verified since the start"
    rows = [
        ("running", f"for {shown_seconds(time.time() - report.started)}"),
        ("space", f"{shown_bytes(report.used_bytes)} of {shown_bytes(report.space_bytes)} used"),
        ("room", f"{shown_bytes(report.free_bytes)} more can be stored"),
        ("pieces", f"{shown_count(report.pieces, 'piece')}, {report.verified:,} {checked}"),
        ("damaged", f"{shown_count(report.quarantined, 'piece')} set aside in quarantine/"),
        ("requests", _counts(report.requests)),
        ("audits", f"{report.audits_answered:,} answered since the start"),
        ("refused", _counts(report.dropped)),
    ]
    return table(rows)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "none"


def _directory(chosen: str | None) -> str:
    return os.path.abspath(chosen) if chosen else os.path.join(Paths.from_environment().data, "host")


def _network_id(text: str) -> bytes:
    if not re.fullmatch(rf"[0-9a-fA-F]{{{2 * NETWORK_ID_BYTES}}}", text):
        raise UsageError(f"a network id is {2 * NETWORK_ID_BYTES} hexadecimal digits")
    return bytes.fromhex(text)


def _grace_days(days: int | None) -> int | None:
    if days is not None and days < 0:
        raise UsageError("--grace takes a number of days, 0 or more")
    return days


def _say_now(line: str) -> None:
    """Whoever started the host waits for these lines, perhaps through a pipe."""
    say(line)
    sys.stdout.flush()
