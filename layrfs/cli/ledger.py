"""`layrfs ledger run`: a ledger for development, with Horizon's interface, on this machine."""

from __future__ import annotations

import argparse
import os
import sys

from layrfs.cli.rendering import say
from layrfs.config import Paths, parse_address
from layrfs.errors import UsageError

_MOST_SECONDS = 60.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("action", choices=["run"], help="be a ledger, in the foreground")
    parser.add_argument("--dir", metavar="DIR", help="where it is kept; default: ledger/ in LayrFS's data directory")
    parser.add_argument(
        "--listen", metavar="HOST:PORT", help="default: as last time, the first time 127.0.0.1, port 4748"
    )
    parser.add_argument(
        "--close-seconds",
        metavar="SECONDS",
        type=float,
        default=1.0,
        help="how often a ledger closes [1]; 0: only by POST /layrfs/close",
    )
    parser.add_argument("--passphrase", help="of a new ledger; default: one of its own")
    parser.add_argument("--verbose", action="store_true", help="log more")


def run(arguments: argparse.Namespace) -> int:
    """The exit code. Raises LayrError, perhaps in groups."""
    import trio

    from layrfs import logs
    from layrfs.app.ledger import LedgerOptions, run_until_signal

    options = LedgerOptions(
        directory=_directory(arguments.dir),
        listen=parse_address(arguments.listen) if arguments.listen else None,
        close_seconds=_seconds(arguments.close_seconds),
        passphrase=arguments.passphrase,
    )
    logs.configure(None, verbose=arguments.verbose)
    trio.run(run_until_signal, options, _say_now)
    return 0


def _directory(chosen: str | None) -> str:
    return os.path.abspath(chosen) if chosen else os.path.join(Paths.from_environment().data, "ledger")


def _seconds(chosen: float) -> float:
    if not 0 <= chosen <= _MOST_SECONDS:
        raise UsageError("--close-seconds takes 0 to 60")
    return chosen


def _say_now(line: str) -> None:
    """Whoever started the ledger waits for these lines, perhaps through a pipe."""
    say(line)
    sys.stdout.flush()
