"""Reading accounts whole: all transactions and the balance, of one moment, though the ledger goes on meanwhile.

Owns the repeating. Must not know what transactions mean. Invariant: what is answered was true at one moment between
question and answer, of all the accounts together as far as the wallet had a part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import trio

from layrfs.errors import LedgerUnavailable
from layrfs.model.contracts import Terms
from layrfs.model.ledger import LedgerAccount, LedgerTransaction
from layrfs.payments.books import Account, Ledgers, Owner, unrecorded
from layrfs.payments.envelopes import network_id
from layrfs.payments.ledger import Ledger
from layrfs.policy.bookkeeping import Recorded, Records

TRIES = 8
"""Something happens to an account again and again while it is read: then it is asked for later."""

AT_ONCE = 4


async def read_all(
    ledger: Ledger, wallet: bytes, owner: Owner, records: Callable[[], Records]
) -> tuple[Ledgers, Records]:
    """Everything that the books are about. ``records``: as they are now. Raises LedgerUnavailable, WrongLedger."""
    for _try in range(TRIES):
        before = await ledger.account(wallet)
        on_record = await trio.to_thread.run_sync(records)
        account = await _read(ledger, wallet)
        escrows = await _read_escrows(ledger, _escrows(ledger, account, on_record.contracts, owner))
        head = await ledger.head()
        if await ledger.account(wallet) == before:
            return Ledgers(ledger.passphrase, account, escrows, head.base_reserve_stroops), on_record
    raise _too_busy()


def _escrows(ledger: Ledger, wallet: Account, records: Sequence[Recorded], owner: Owner) -> list[bytes]:
    terms: Iterable[Terms] = [*(each.contract.terms for each in records), *unrecorded(wallet, records, owner)]
    here = network_id(ledger.passphrase)
    return [each.escrow for each in terms if each.network == here]


async def _read_escrows(ledger: Ledger, keys: Sequence[bytes]) -> dict[bytes, Account]:
    found: dict[bytes, Account] = {}
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def read(key: bytes) -> None:
        async with limiter:
            found[key] = await _read(ledger, key)

    async with trio.open_nursery() as nursery:
        for key in keys:
            nursery.start_soon(read, key)
    return found


async def _read(ledger: Ledger, key: bytes) -> Account:
    for _try in range(TRIES):
        before = await ledger.account(key)
        transactions = await _history(ledger, key)
        if await ledger.account(key) == before:
            return _account(key, before, transactions)
    raise _too_busy()


async def _history(ledger: Ledger, key: bytes) -> list[LedgerTransaction]:
    found: list[LedgerTransaction] = []
    cursor = ""
    while True:
        page = await ledger.history(key, cursor)
        found += page.transactions
        if not page.transactions or page.cursor == cursor:
            return found
        cursor = page.cursor


def _account(key: bytes, account: LedgerAccount | None, transactions: Sequence[LedgerTransaction]) -> Account:
    balance = 0 if account is None else account.balance_stroops
    return Account(key, balance, account is not None, tuple(transactions))


def _too_busy() -> LedgerUnavailable:
    return LedgerUnavailable("money moves while the books are read; try again in a moment")
