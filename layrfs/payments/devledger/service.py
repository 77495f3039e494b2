"""The development ledger while it runs: ledgers close as time passes, and who submits something waits for its ledger.

Owns the rhythm of closing and who is told what. Must not know HTTP. State changes in plain functions, which take as
long as the disk does: nobody else lives in this process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from layrfs.errors import LocalError
from layrfs.payments.devledger.books import Books, Entry
from layrfs.payments.devledger.friendbot import gifts, root_keypair
from layrfs.payments.devledger.ledger import DevelopmentLedger, Rejected, Waiting
from layrfs.payments.devledger.state import Account, Header

_log = logging.getLogger(__name__)

SUBMIT_SECONDS = 25.0
"""How long somebody waits for a ledger; Horizon's own bound is 30."""


class _Next:
    """The ledger that is to close: an end to wait for, and what was in it."""

    def __init__(self) -> None:
        self.closed = trio.Event()
        self.outcomes: dict[bytes, Entry | Rejected] = {}


class LedgerService:
    """`now` is the clock (Unix seconds); with `close_seconds` of 0 ledgers close only when somebody says so."""

    def __init__(self, ledger: DevelopmentLedger, now: Callable[[], float], close_seconds: float) -> None:
        self._ledger = ledger
        self._now = now
        self._close_seconds = close_seconds
        self._next = _Next()

    @property
    def passphrase(self) -> str:
        """The network's."""
        return self._ledger.passphrase

    @property
    def header(self) -> Header:
        """The last closed ledger."""
        return self._ledger.header

    @property
    def books(self) -> Books:
        """The history."""
        return self._ledger.books

    def account(self, key: bytes) -> Account | None:
        """As of the last closed ledger."""
        return self._ledger.account(key)

    async def run(self) -> None:
        """Close ledgers until cancelled; what cannot be written waits for the next time."""
        while self._close_seconds:
            await trio.sleep(self._close_seconds)
            try:
                self.close(is_idle=True)
            except LocalError as error:
                _log.error("no ledger was closed: %s", error)
        await trio.sleep_forever()

    def close(
        self,
        at_seconds: int | None = None,
        *,
        base_fee_stroops: int | None = None,
        base_reserve_stroops: int | None = None,
        is_idle: bool = False,
    ) -> Header:
        """Close the next ledger, now or at the time given, and tell who waits for it. Raises LocalError."""
        found = self._ledger.close(
            int(self._now()) if at_seconds is None else at_seconds,
            base_fee_stroops=base_fee_stroops,
            base_reserve_stroops=base_reserve_stroops,
            is_idle=is_idle,
        )
        last, self._next = self._next, _Next()
        last.outcomes.update((each.hash, each) for each in found)
        last.closed.set()
        return self._ledger.header

    async def submit(self, envelope: str) -> Entry | Rejected | None:
        """What came of it; None when no ledger closed in time. Raises BadMessage."""
        with trio.move_on_after(SUBMIT_SECONDS):
            while True:
                answer, coming = self._ledger.submit(envelope), self._next
                if isinstance(answer, Entry | Rejected):
                    return answer
                await coming.closed.wait()
                if isinstance(answer, Waiting):
                    return coming.outcomes[answer.hash]
        return None

    def give(self, key: bytes) -> tuple[str, Entry | Rejected]:
        """Begin an account with a gift, in a ledger of its own that closes at once: (envelope, what came of it)."""
        root = self._ledger.account(root_keypair(self.passphrase).raw_public_key())
        sequence = root.sequence if root else 0
        envelope = gifts(self.passphrase, sequence, [key], self.header.base_fee_stroops)
        answer = self._ledger.submit(envelope)
        if isinstance(answer, Entry | Rejected):
            return envelope, answer
        coming = self._next
        self.close()
        return envelope, coming.outcomes[answer.hash]
