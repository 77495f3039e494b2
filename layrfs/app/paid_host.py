"""What makes a host a paid one, put together: its wallet, its record, the ledger, claims, and where earnings go.

Loads the ledger's library, so it is imported only where a price was named. Owns ``wallet.key`` and ``contracts.db`` in
the host's directory. Invariant: the database is open as long as anything that writes to it runs.
"""

from __future__ import annotations

import logging
import os
from functools import partial

import trio

from layrfs.app.earning import Earning
from layrfs.app.earning_plan import EarningPlan
from layrfs.app.trade import LedgerClock, Trade
from layrfs.errors import LayrError
from layrfs.host.directory import HostDirectory
from layrfs.ids import NodeId
from layrfs.ledger_config import addresses_now
from layrfs.model.contracts import Offer
from layrfs.model.lumens import shown_lumens
from layrfs.payments.devledger.state import DEVELOPMENT_PREFIX
from layrfs.payments.envelopes import network_id
from layrfs.payments.horizon import Horizon
from layrfs.payments.reading import address_of
from layrfs.payments.submitting import Submitter
from layrfs.payments.wallet import Wallet
from layrfs.storage.database import Database
from layrfs.storage.host_contracts import HostContracts
from layrfs.storage.intents import IntentTable
from layrfs.storage.piece_store import PieceStore

PAYOUT_SECONDS = 3600.0
KEPT_STROOPS = 5 * 10**7
"""Stays in the host's own account: for its reserve, and fees that have to be raised."""

LEAST_PAYOUT_STROOPS = 10**8
SHORTEST_TRIAL_SECONDS = 5
"""Windows on a development ledger may be so short: nothing is at stake, and people want to see something happen."""

_log = logging.getLogger(__name__)


class PaidHost:
    """One host's; ``run`` once."""

    def __init__(self, directory: HostDirectory, node: NodeId, store: PieceStore, plan: EarningPlan) -> None:
        """Raises CorruptFile, NewerFormat, LocalError. Blocking."""
        key = directory.wallet()
        self.account = key.public_key
        self._plan = plan
        self._database = Database(os.path.join(directory.path, "contracts.db"), remedy="start the host again")
        record = HostContracts(self._database)
        ledger = Horizon(plan.horizon, plan.passphrase, partial(addresses_now, plan.ledger_files, plan.passphrase))
        if plan.stays:
            record.set_leaving(leaving=False)
        intents = IntentTable(self._database)
        self._submitter = Submitter(ledger, intents, key.private)
        self._wallet = Wallet(ledger, intents, key.private)
        clock = LedgerClock(ledger)
        self.earning = Earning(
            Trade(
                node,
                _offer(plan, self.account),
                key.private,
                self._database,
                record,
                store,
                ledger,
                clock,
                self._submitter,
            )
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Raises LocalError when nothing can be put on record any more."""
        with self._database:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._database.run)
                nursery.start_soon(self._submitter.run)
                if self._plan.payout:
                    nursery.start_soon(self._pay_out)
                await nursery.start(self.earning.run)
                task_status.started()

    @property
    def address(self) -> str:
        """Of the account, as people write it."""
        return address_of(self.account)

    async def _pay_out(self) -> None:
        """What was earned goes on, whenever it is worth a fee."""
        while True:
            try:
                await self._pay_once()
            except LayrError as error:
                _log.warning("Earnings stay here for now: %s", error)
            await trio.sleep(PAYOUT_SECONDS)

    async def _pay_once(self) -> None:
        balance = await self._wallet.balance()
        stroops = balance.spendable_stroops - KEPT_STROOPS
        if stroops >= LEAST_PAYOUT_STROOPS and not balance.open_purposes:
            await self._wallet.send(self._plan.payout, stroops, "")
            _log.info("%s XLM were sent on to %s", shown_lumens(stroops), self._plan.payout)


def _offer(plan: EarningPlan, account: bytes) -> Offer:
    shortest = SHORTEST_TRIAL_SECONDS if plan.passphrase.startswith(DEVELOPMENT_PREFIX) else 3_600
    return Offer(
        plan.price,
        account,
        network_id(plan.passphrase),
        shortest_window_seconds=shortest,
        most_collateral_stroops=plan.collateral_stroops,
    )
