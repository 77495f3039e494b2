"""What is in the owner's wallet, as of some seconds ago: for people, not for decisions.

Owns asking again. Must not know what it is spent on. Invariant: what is not known is None, and no old balance is shown
as if it were one of now.
"""

from __future__ import annotations

import logging

import trio

from layrfs.errors import LayrError
from layrfs.payments.ledger import Ledger

LOOK_SECONDS = 20.0

_log = logging.getLogger(__name__)


class WalletWatch:
    """One account's; ``run`` once."""

    def __init__(self, ledger: Ledger, account: bytes) -> None:
        self._ledger = ledger
        self._account = account
        self.spendable_stroops: int | None = None
        """0 also of an account that is not on the ledger yet."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.spendable_stroops = await self._look()
            await trio.sleep(LOOK_SECONDS)

    async def _look(self) -> int | None:
        try:
            head, account = await self._ledger.head(), await self._ledger.account(self._account)
        except LayrError as error:
            _log.info("the wallet cannot be looked at now: %s", error)
            return None
        return 0 if account is None else account.spendable_stroops(head.base_reserve_stroops)
