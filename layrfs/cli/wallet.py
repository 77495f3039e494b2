"""``layrfs wallet …``: the volume's account on a Stellar ledger, mounted or not."""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Callable

from layrfs.cli import exit_codes
from layrfs.cli import wallet_pages as pages
from layrfs.cli.arguments import add_json, add_passfile, add_volume
from layrfs.cli.locating import chosen_volume
from layrfs.cli.passphrase import asker
from layrfs.cli.rendering import say, say_json
from layrfs.config import Paths
from layrfs.errors import UsageError
from layrfs.ledger_config import KNOWN, LedgerConfig, check_url
from layrfs.model.intents import Settled

_EPILOG = """
  address                 where to pay, as text and as a code to scan
  balance                 what is there, and how much of it can be spent
  history                 what came and went, the newest first
  send ADDRESS AMOUNT     pay somebody, in XLM
  audit                   check that every stroop is where ledger and records say; 1 when one is not
  fund                    have a test network give lumens
  export                  the secret key, for another wallet; the 24 words do as well
  ledger [public|test|URL…]  which ledger all this is on; show it, or choose one
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("action", choices=list(_ACTIONS), help="see below")
    parser.add_argument("words", metavar="WORD", nargs="*", help="what some of them need, see below")
    parser.add_argument("--memo", metavar="TEXT", default="", help="send: what the payee asks to be told")
    parser.add_argument("--yes", action="store_true", help="send: do not ask whether it is meant")
    parser.add_argument("--limit", metavar="N", type=int, default=20, help="history: so many [20]")
    parser.add_argument("--passphrase", metavar="TEXT", help="ledger: the network's; default: as the server says")
    add_volume(parser)
    add_passfile(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """The exit code. Raises LayrError."""
    words, (fewest, most, takes, action) = arguments.words, _ACTIONS[arguments.action]
    if not fewest <= len(words) <= most:
        raise UsageError(f"`layrfs wallet {arguments.action}` takes {takes} (--help explains)")
    paths = Paths.from_environment()
    paths.check()
    return action(paths, arguments) or exit_codes.DONE


def _address(paths: Paths, arguments: argparse.Namespace) -> None:
    address = _own_address(paths, arguments)
    if arguments.json:
        say_json({"address": address})
        return
    if sys.stdout.isatty():
        pages.show_code(address)
    say(address)


def _balance(paths: Paths, arguments: argparse.Namespace) -> None:
    from layrfs.app.wallet import ledger_of, run_with_wallet
    from layrfs.payments.wallet import Balance, Wallet

    async def ask(wallet: Wallet) -> tuple[list[Settled], Balance]:
        return await wallet.settle(), await wallet.balance()

    volume, private = _opened(paths, arguments)
    settled, balance = run_with_wallet(paths, volume, private, ask)
    pages.note_settled(settled)
    report = pages.balance_report(balance, _address_of(private), ledger_of(paths).name)
    if arguments.json:
        say_json(report)
    else:
        say(*pages.balance_page(report))


def _history(paths: Paths, arguments: argparse.Namespace) -> None:
    from layrfs.app.wallet import run_with_wallet
    from layrfs.payments.wallet import Line, Wallet

    if arguments.limit < 1:
        raise UsageError("--limit takes a number, 1 or more")

    async def ask(wallet: Wallet) -> tuple[list[Settled], list[Line]]:
        return await wallet.settle(), await wallet.history(arguments.limit)

    volume, private = _opened(paths, arguments)
    settled, lines = run_with_wallet(paths, volume, private, ask)
    pages.note_settled(settled)
    rows = [pages.history_row(line) for line in lines]
    if arguments.json:
        say_json(rows)
    else:
        say(*pages.history_page(rows))


def _send(paths: Paths, arguments: argparse.Namespace) -> None:
    from layrfs.app.wallet import ledger_of, run_with_wallet
    from layrfs.model.ledger import LedgerTransaction
    from layrfs.payments.wallet import Wallet, checked_destination, stroops_to_send

    destination, amount = arguments.words
    stroops = stroops_to_send(amount)
    volume, private = _opened(paths, arguments)
    checked_destination(destination, _account_of(private))
    _confirm(f"Send {amount} XLM to {destination} on the ledger {ledger_of(paths).name!r}?", yes=arguments.yes)

    async def pay(wallet: Wallet) -> LedgerTransaction:
        pages.note_settled(await wallet.settle())
        return await wallet.send(destination, stroops, arguments.memo)

    done = run_with_wallet(paths, volume, private, pay)
    report = pages.sent_report(done)
    if arguments.json:
        say_json(report)
    else:
        say(f"sent: transaction {report.hash}, fee {report.fee} XLM")


def _audit(paths: Paths, arguments: argparse.Namespace) -> int:
    from layrfs.app.wallet_audit import audit
    from layrfs.cli.wallet_audit import audit_page, audit_report

    volume, private = _opened(paths, arguments)
    report = audit_report(*audit(paths, volume, private))
    if arguments.json:
        say_json(report)
    else:
        say(*audit_page(report))
    return exit_codes.FAILED if report.differences else exit_codes.DONE


def _fund(paths: Paths, arguments: argparse.Namespace) -> None:
    from layrfs.app.wallet import fund

    volume, private = _opened(paths, arguments)
    fund(paths, _account_of(private))
    if arguments.json:
        say_json({"address": _address_of(private), "funded": True})
    else:
        say(f"volume {volume} has been given lumens: `layrfs wallet balance` shows how many")


def _export(paths: Paths, arguments: argparse.Namespace) -> None:
    from layrfs.payments.wallet import secret_of

    _volume, private = _opened(paths, arguments)
    sys.stderr.write("whoever sees this key can spend all that the wallet has\n")
    if arguments.json:
        say_json({"address": _address_of(private), "secret": secret_of(private)})
    else:
        say(secret_of(private))


def _ledger(paths: Paths, arguments: argparse.Namespace) -> None:
    from layrfs.app.wallet import ledger_of

    if arguments.words:
        paths.prepare()
        _named_ledger(arguments.words, arguments.passphrase).save(paths.ledger_files[0])
    config = ledger_of(paths)
    if arguments.json:
        say_json({"name": config.name, "horizon": config.horizon, "passphrase": config.passphrase})
    else:
        say(config.passphrase, *(f"  {url}" for url in config.horizon))


def _named_ledger(words: list[str], passphrase: str | None) -> LedgerConfig:
    if words[0] in KNOWN:
        if len(words) > 1 or passphrase is not None:
            raise UsageError(f"`layrfs wallet ledger {words[0]}` is known and takes nothing more")
        return KNOWN[words[0]]
    for url in words:
        check_url(url)
    return LedgerConfig(tuple(words), passphrase or _said_by(words[0])).checked()


def _said_by(url: str) -> str:
    from layrfs.app.wallet import ask_passphrase

    return ask_passphrase(url)


def _opened(paths: Paths, arguments: argparse.Namespace) -> tuple[str, bytes]:
    """The volume and its wallet's private key."""
    from layrfs.storage.keyring import load_volume_key

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the key
    volume = chosen_volume(paths, arguments.volume)
    return volume, load_volume_key(paths.volume_key(volume), asker(arguments.passfile)).wallet_private


def _own_address(paths: Paths, arguments: argparse.Namespace) -> str:
    return _address_of(_opened(paths, arguments)[1])


def _account_of(private: bytes) -> bytes:
    from layrfs.crypto.wallet_keys import account_of

    return account_of(private)


def _address_of(private: bytes) -> str:
    from layrfs.payments.reading import address_of

    return address_of(_account_of(private))


def _confirm(question: str, *, yes: bool) -> None:
    """Only a person at a terminal is asked. Raises UsageError."""
    if yes or not sys.stdin.isatty():
        return
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise UsageError("nothing was sent")


_MOST_SERVERS = 8
_ACTIONS: dict[str, tuple[int, int, str, Callable[[Paths, argparse.Namespace], int | None]]] = {
    "address": (0, 0, "nothing more", _address),
    "balance": (0, 0, "nothing more", _balance),
    "history": (0, 0, "nothing more", _history),
    "send": (2, 2, "an ADDRESS and an AMOUNT", _send),
    "audit": (0, 0, "nothing more", _audit),
    "fund": (0, 0, "nothing more", _fund),
    "export": (0, 0, "nothing more", _export),
    "ledger": (0, _MOST_SERVERS, "public, test, or addresses of Horizon servers", _ledger),
}
"""With the fewest and the most words that follow, and what they are."""
