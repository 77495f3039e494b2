"""`layrfs host wallet`: the account that a host is paid on: shown, exported, and taken over by a host elsewhere.

Must not know contracts, or whether the host runs. Invariant: the secret key is printed by `export` alone, and never
taken from the command line.
"""

from __future__ import annotations

import getpass
import resource
import sys

from msgspec import Struct

from layrfs.cli.rendering import say, say_json, table
from layrfs.errors import LayrError
from layrfs.host.directory import HostDirectory
from layrfs.ledger_config import LedgerConfig
from layrfs.model.lumens import shown_lumens

_READ_LIMIT = 4096


class HostWalletReport(Struct, frozen=True):
    """Of `layrfs host wallet`. `balance` in XLM; None: not known, `problem` says why."""

    address: str
    ledger: str
    balance: str | None
    problem: str


def show(directory: HostDirectory, *, as_json: bool) -> None:
    """Address and balance. Raises UsageError."""
    from layrfs.cli.wallet_pages import show_code
    from layrfs.payments.reading import address_of

    account = directory.existing_wallet().public_key
    report = _report(directory, account, address_of(account))
    if as_json:
        say_json(report)
        return
    if sys.stdout.isatty():
        show_code(report.address)
    balance = report.problem if report.balance is None else f"{report.balance} XLM"
    say(*table([("address", report.address), ("ledger", report.ledger), ("balance", balance)]))


def export(directory: HostDirectory, *, as_json: bool) -> None:
    """The secret key, for another wallet, or for `take` elsewhere. Raises UsageError."""
    from layrfs.payments.reading import address_of
    from layrfs.payments.wallet import secret_of

    _leave_no_core()
    identity = directory.existing_wallet()
    sys.stderr.write("whoever sees this key can spend all that the host has earned\n")
    if as_json:
        say_json({"address": address_of(identity.public_key), "secret": secret_of(identity.private)})
    else:
        say(secret_of(identity.private))


def take(directory: HostDirectory, *, as_json: bool) -> None:
    """Have a host that was never paid be paid on an earlier one's account: the secret key comes from standard input.

    Raises UsageError, AlreadyExists, StateInUse, LocalError.
    """
    from layrfs.payments.reading import address_of
    from layrfs.payments.wallet import private_of

    _leave_no_core()
    private = private_of(_said_secret())
    directory.lock()
    try:
        directory.take_wallet(private)
        address = address_of(directory.wallet().public_key)
    finally:
        directory.unlock()
    if as_json:
        say_json({"address": address})
    else:
        say(f"the host in {directory.path} will be paid on {address}")


def _report(directory: HostDirectory, account: bytes, address: str) -> HostWalletReport:
    from layrfs.app.wallet import account_on

    settings = directory.settings()
    if settings is None or not settings.horizon:
        return HostWalletReport(address, "", None, "the host was not run with --price yet")
    config = LedgerConfig(settings.horizon, settings.passphrase)
    try:
        found = account_on(config, account)
    except LayrError as error:
        return HostWalletReport(address, config.name, None, f"not known: {error}")
    if found is None:
        return HostWalletReport(address, config.name, "0", "")
    return HostWalletReport(address, config.name, shown_lumens(found.balance_stroops), "")


def _said_secret() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("Secret key (S…): ").strip()
    return sys.stdin.readline(_READ_LIMIT).strip()


def _leave_no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the key
