"""Composition root of `layrfs wallet audit`: the ledger that was chosen, what is on record, and the books of both.

Owns where records come from: of the drive when it runs, else from its database. Must not know how books look. Changes
nothing, and signs nothing.
"""

from __future__ import annotations

from functools import partial

import trio

from layrfs.app.wallet import PATIENCE_SECONDS, horizon_of, ledger_of
from layrfs.config import Paths
from layrfs.control.client import ControlClient
from layrfs.control.commands import RECORDS, Nothing
from layrfs.crypto.wallet_keys import account_of, instalment_salt, salts_key
from layrfs.errors import LedgerUnavailable, NotRunning
from layrfs.model.contracts import Terms
from layrfs.model.intents import Intent
from layrfs.payments.books import Books, Owner, reconcile
from layrfs.payments.rediscovering import found_terms
from layrfs.payments.statements import read_all
from layrfs.policy.bookkeeping import Records
from layrfs.storage.bookkeeping import read_records
from layrfs.storage.intents import IntentFile


def audit(paths: Paths, volume: str, private: bytes) -> tuple[Books, tuple[Intent, ...]]:
    """The books, and what is still under way. Raises LedgerUnavailable, WrongLedger, LocalError."""
    config = ledger_of(paths)
    owner = owner_of(config.passphrase, private)

    async def run() -> tuple[Books, tuple[Intent, ...]]:
        with trio.move_on_after(PATIENCE_SECONDS):
            ledgers, records = await read_all(
                horizon_of(config), account_of(private), owner, partial(_records, paths, volume)
            )
            books = await trio.to_thread.run_sync(reconcile, ledgers, records.contracts, owner)
            return books, (*records.intents, *IntentFile(paths.intents_file(volume)).all())
        raise LedgerUnavailable("the ledger has not shown all that is to be looked at; try again later")

    return trio.run(run)


def owner_of(passphrase: str, private: bytes) -> Owner:
    """What only who has the wallet's key can say."""
    salts = salts_key(private)

    def salt(terms: Terms, instalment: int) -> bytes:
        return instalment_salt(salts, terms.escrow, instalment)

    return Owner(salt, partial(found_terms, passphrase=passphrase, wallet_private=private))


def _records(paths: Paths, volume: str) -> Records:
    try:
        return ControlClient(paths.control_socket(volume)).call(RECORDS, Nothing())
    except NotRunning:
        return read_records(paths.database(volume))
