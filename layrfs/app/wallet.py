"""Composition root of `layrfs wallet`: a volume's key, the ledger that was chosen, and where payments are written down.

Owns what is put together. Must not know arguments or how things are shown. The invariant: no private key leaves it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from layrfs.config import Paths
from layrfs.errors import LedgerUnavailable
from layrfs.ledger_config import LedgerConfig, chosen_ledger
from layrfs.model.ledger import LedgerAccount
from layrfs.payments.horizon import Horizon, Server
from layrfs.payments.wallet import Wallet
from layrfs.storage.intents import IntentFile

T = TypeVar("T")

PATIENCE_SECONDS = 100.0
"""A person waits so long; what was begun is finished by a later command."""

LOOK_SECONDS = 20.0
"""The same for a question alone."""


def ledger_of(paths: Paths) -> LedgerConfig:
    """Raises UsageError when none was chosen."""
    return chosen_ledger(paths.ledger_files)


def run_with_wallet(paths: Paths, volume: str, private: bytes, what: Callable[[Wallet], Awaitable[T]]) -> T:
    """Do something with the volume's wallet. Raises LedgerUnavailable when it takes too long."""
    config = ledger_of(paths)

    async def run() -> T:
        wallet = Wallet(horizon_of(config), IntentFile(paths.intents_file(volume)), private)
        with trio.move_on_after(PATIENCE_SECONDS):
            return await what(wallet)
        raise LedgerUnavailable(
            "the ledger does not answer; a payment that was begun is written down and seen to by the next"
            " `layrfs wallet` command"
        )

    return trio.run(run)


def account_on(config: LedgerConfig, account: bytes) -> LedgerAccount | None:
    """As the ledger has it now; None: it has not begun. Raises LedgerUnavailable, WrongLedger."""

    async def run() -> LedgerAccount | None:
        with trio.move_on_after(LOOK_SECONDS):
            return await horizon_of(config).account(account)
        raise LedgerUnavailable("the ledger does not answer")

    return trio.run(run)


def horizon_of(config: LedgerConfig) -> Horizon:
    """Its client; to be used inside a trio loop."""
    return Horizon(config.horizon, config.passphrase)


def fund(paths: Paths, account: bytes) -> None:
    """Have a test network pay into an account. Raises Rejected, Unfunded, LedgerUnavailable."""
    config = ledger_of(paths)

    async def run() -> None:
        await horizon_of(config).fund(account)

    trio.run(run)


def ask_passphrase(url: str) -> str:
    """Which network a server says it is. Raises LedgerUnavailable."""
    return Server(url, "").network()
