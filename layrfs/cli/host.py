"""`layrfs host run|status|leave|wallet`: be a host for others, see how it does and earns, and end without loss."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from layrfs.cli import host_wallet
from layrfs.cli.arguments import add_json
from layrfs.cli.rendering import say, say_json, shown_bytes, shown_count, shown_seconds, table
from layrfs.config import Paths, parse_address, parse_size
from layrfs.errors import NotRunning, RemoteError, UsageError
from layrfs.host.directory import HostDirectory
from layrfs.ledger_config import KNOWN, LedgerConfig, check_url
from layrfs.model.contracts import MOST_STROOPS
from layrfs.model.lumens import parse_lumens, shown_lumens
from layrfs.model.records import HostAddress
from layrfs.network.links import HostLinks, HostRefused
from layrfs.wire.contracts import EarningReport, OwnerReport
from layrfs.wire.messages import NETWORK_ID_BYTES, StatusReport

AnswerT = TypeVar("AnswerT")

_SHOWN_ID = 12
_WALLET_ACTIONS = {"export": host_wallet.export, "import": host_wallet.take}


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument(
        "action",
        choices=["run", "status", "leave", "wallet"],
        help="be a host, in the foreground; ask how it does; have one that is paid end when nothing is due any more;"
        " the account that it is paid on",
    )
    parser.add_argument(
        "what",
        choices=list(_WALLET_ACTIONS),
        nargs="?",
        help="wallet: print its secret key; or, before the first run with --price, be paid on the account whose secret"
        " key is asked for or comes from standard input",
    )
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
    parser.add_argument(
        "--price", metavar="XLM", help="be paid: so much for a TiB and 30 days; default: as last time, at first nothing"
    )
    parser.add_argument(
        "--ledger", metavar="LEDGER", help="where money is: public, test, or a Horizon server's address; with --price"
    )
    parser.add_argument("--passphrase", help="of the ledger at that address; default: what it says")
    parser.add_argument(
        "--payout", metavar="ADDRESS", help="a Stellar address to which earnings go on (10 XLM at once)"
    )
    parser.add_argument(
        "--collateral",
        metavar="XLM",
        help="put up as much in each contract that asks for it; an owner who breaks it keeps that. Default: nothing",
    )
    parser.add_argument("--verbose", action="store_true", help="log more")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """The exit code. Raises LayrError, perhaps in groups."""
    if arguments.what is not None and arguments.action != "wallet":
        raise UsageError(f"`layrfs host {arguments.action}` takes no {arguments.what!r} (--help explains)")
    return {"run": _run, "status": _status, "leave": _leave, "wallet": _wallet}[arguments.action](arguments)


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
        price=_price(arguments.price) if arguments.price else None,
        ledger=_ledger(arguments.ledger, arguments.passphrase) if arguments.ledger else None,
        collateral_stroops=parse_lumens(arguments.collateral) if arguments.collateral else None,
        payout=_payout(arguments.payout) if arguments.payout else None,
    )
    logs.configure(None, verbose=arguments.verbose)
    trio.run(run_host, options, _say_now)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    report = _ask(_directory(arguments.dir), HostLinks.status)
    if arguments.json:
        say_json(report)
    else:
        say(*status_page(report))
    return 0


def _leave(arguments: argparse.Namespace) -> int:
    left = _ask(_directory(arguments.dir), HostLinks.leave)
    if arguments.json:
        say_json(left)
    elif left.contracts:
        say(
            f"it takes nothing new; {shown_count(left.contracts, 'contract')} will have ended in"
            f" {shown_seconds(max(0.0, left.until - time.time()))}, or when owners have moved their pieces, and then"
            " the host ends too"
        )
    else:
        say("nothing is due; the host ends now")
    return 0


def _wallet(arguments: argparse.Namespace) -> int:
    action = host_wallet.show if arguments.what is None else _WALLET_ACTIONS[arguments.what]
    action(HostDirectory(_directory(arguments.dir)), as_json=arguments.json)
    return 0


def _ask(path: str, question: Callable[[HostLinks, HostAddress], AnswerT]) -> AnswerT:
    """Ask the running host as itself: only who can read its key may know."""
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
        return question(links, HostAddress(identity.node_id, address, settings.port))
    except HostRefused as error:
        raise UsageError(f"the host in {path} is not paid by anybody: stop it whenever you like") from error
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
    return table(rows) if report.earning is None else [*table(rows), "", *_earning_page(report.earning)]


def _earning_page(report: EarningReport) -> list[str]:
    balance = "not on the ledger yet: send it 2 XLM or more once" if report.balance_stroops is None else ""
    rows = [
        ("price", f"{shown_lumens(report.price)} XLM for a TiB and 30 days"),
        ("wallet", balance or f"{shown_lumens(report.balance_stroops or 0)} XLM"),
        ("earned", f"{shown_lumens(report.earned_stroops)} XLM"),
        ("pending", f"{shown_lumens(report.pending_stroops)} XLM are being claimed"),
        ("at risk", f"{shown_lumens(report.at_risk_stroops)} XLM were kept for and cannot be claimed yet"),
        (
            "contracts",
            f"{shown_count(report.running, 'contract')} running" + (", none is taken" if report.leaving else ""),
        ),
    ]
    if report.problem:
        rows.append(("ledger", report.problem))
    return table([*rows, *((f"  {owner.tenant.hex()[:_SHOWN_ID]}", _owner(owner)) for owner in report.owners)])


def _owner(owner: OwnerReport) -> str:
    earned, pending = shown_lumens(owner.earned_stroops), shown_lumens(owner.pending_stroops)
    at_risk = shown_lumens(owner.at_risk_stroops)
    stored = f"{owner.state}, {shown_bytes(owner.stored_bytes)}"
    return f"{stored}; earned {earned}, pending {pending}, at risk {at_risk} XLM"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "none"


def _directory(chosen: str | None) -> str:
    return os.path.abspath(chosen) if chosen else os.path.join(Paths.from_environment().data, "host")


def _network_id(text: str) -> bytes:
    if not re.fullmatch(rf"[0-9a-fA-F]{{{2 * NETWORK_ID_BYTES}}}", text):
        raise UsageError(f"a network id is {2 * NETWORK_ID_BYTES} hexadecimal digits")
    return bytes.fromhex(text)


def _price(text: str) -> int:
    stroops = parse_lumens(text)
    if not 0 < stroops <= MOST_STROOPS:
        raise UsageError("--price takes an amount of XLM above 0; a host that is to be free needs another --dir")
    return stroops


def _ledger(text: str, passphrase: str | None) -> LedgerConfig:
    """By its name or address; the network behind an address is asked for when nobody says it."""
    if text in KNOWN:
        return KNOWN[text]
    if passphrase is None:
        from layrfs.app.wallet import ask_passphrase

        check_url(text)
        passphrase = ask_passphrase(text)
    return LedgerConfig((text,), passphrase).checked()


def _payout(text: str) -> str:
    from layrfs.payments.reading import account_key

    try:
        account_key(text)
    except ValueError:
        raise UsageError(f"--payout takes a Stellar address (G…), not {text!r}") from None
    return text


def _grace_days(days: int | None) -> int | None:
    if days is not None and days < 0:
        raise UsageError("--grace takes a number of days, 0 or more")
    return days


def _say_now(line: str) -> None:
    """Whoever started the host waits for these lines, perhaps through a pipe."""
    say(line)
    sys.stdout.flush()
