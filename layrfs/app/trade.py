"""What a host that is paid works with, and the ledger's clock by which it does.

Owns nothing that changes but the last head of the ledger. Invariant: time is the ledger's, as far as it is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from layrfs.host.instalments import Holdings
from layrfs.ids import NodeId, PieceId
from layrfs.model.contracts import Offer
from layrfs.model.ledger import LedgerHead, LedgerTransaction
from layrfs.payments.ledger import Ledger
from layrfs.storage.database import Database
from layrfs.storage.host_contracts import HostContracts

FRESH_SECONDS = 2.0
"""What the ledger said so lately is not asked for again."""


class Submitting(Protocol):
    """What this needs of `layrfs.payments.submitting.Submitter`."""

    async def submit(self, xdr: str, purpose: str) -> LedgerTransaction:
        """Until it is in, or never can be: Rejected. Twice is as good as once."""
        ...


class StoredPieces(Holdings, Protocol):
    """What this needs of `layrfs.storage.piece_store.PieceStore`."""

    def has(self, piece: PieceId) -> bool: ...
    def delete(self, piece: PieceId, tenant: bytes) -> bool: ...


class LedgerClock:
    """The ledger's newest head, and its time now."""

    def __init__(
        self, ledger: Ledger, *, fresh_seconds: float = FRESH_SECONDS, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._ledger = ledger
        self._fresh_seconds = fresh_seconds
        self._monotonic = monotonic
        self._head: LedgerHead | None = None
        self._asked = 0.0

    async def ask(self) -> LedgerHead:
        """What the ledger says now. Raises LedgerUnavailable, WrongLedger."""
        asked = self._monotonic()
        self._head = await self._ledger.head()
        self._asked = asked
        return self._head

    async def head(self) -> LedgerHead:
        """Not older than a moment. Raises LedgerUnavailable, WrongLedger."""
        if self._head is None or self._monotonic() > self._asked + self._fresh_seconds:
            return await self.ask()
        return self._head

    async def now(self) -> int:
        """Unix seconds. Raises LedgerUnavailable, WrongLedger."""
        head = await self.head()
        return head.closed_at + int(self._monotonic() - self._asked)

    def last_known(self) -> int:
        """The same without asking; this machine's own time before the ledger was ever heard of."""
        if self._head is None:
            return int(time.time())
        return self._head.closed_at + int(self._monotonic() - self._asked)


class Trade(Struct, frozen=True):
    """One host's. Printing it shows no key."""

    node: NodeId
    offer: Offer
    private: bytes
    """Of the account that is paid."""

    database: Database
    record: HostContracts
    store: StoredPieces
    ledger: Ledger
    clock: LedgerClock
    submitter: Submitting

    def __repr__(self) -> str:
        return f"Trade(node={self.node.hex()})"
