"""The port to a ledger: what everybody above asks of one, whichever it is and however it is reached.

Owns the questions. Must not know Horizon, HTTP or keys. The invariant: a method either says what the ledger says or
raises; silence is never taken for an answer. Implementations: `layrfs.payments.horizon`, and a ledger in the process
itself for tests; both pass `tests/contracts/test_ledger.py`.
"""

from __future__ import annotations

from typing import Protocol

from layrfs.model.ledger import Fate, HistoryPage, LedgerAccount, LedgerHead, LedgerTransaction


class Ledger(Protocol):
    """All methods raise LedgerUnavailable when no answer is to be had, which may be so for days, and WrongLedger."""

    @property
    def passphrase(self) -> str:
        """The network's passphrase: what signatures are for."""

    async def head(self) -> LedgerHead:
        """The newest closed ledger."""

    async def account(self, key: bytes) -> LedgerAccount | None:
        """An account as it is now; None when there is none (any more)."""

    async def transaction(self, hash_: bytes) -> LedgerTransaction | None:
        """The transaction that was signed with this hash; None while it is not in. See `fate` for what None proves."""

    async def fate(self, hash_: bytes, source: bytes) -> Fate:
        """The same with all it takes to tell whether it can still come."""

    async def submit(self, xdr: str) -> LedgerTransaction:
        """Hand in a signed transaction and wait until it is in; twice is as good as once.

        Raises Rejected with the ledger's codes, also when it is in and has failed. LedgerUnavailable leaves open
        whether it gets in.
        """

    async def history(self, key: bytes, cursor: str = "", *, newest_first: bool = False) -> HistoryPage:
        """The next transactions that touched an account, failed ones included, after a page's cursor."""
