"""All that paying hosts takes, built when the owner pays: ledger, escrows, contracts, paymaster.

Decides nothing. Loaded by ``layrfs.app.paying`` when it is needed, as the ledger's library is large.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Sequence

import trio

from layrfs.app.reach_of_payments import Reach
from layrfs.app.wallet_watch import WalletWatch
from layrfs.config import MountOptions
from layrfs.crypto.keys import VolumeKeys
from layrfs.crypto.wallet_keys import salts_key
from layrfs.errors import LayrError, Unavailable
from layrfs.ids import NodeId
from layrfs.ledger_config import LedgerConfig
from layrfs.network.contract_links import ContractLinks
from layrfs.payments.horizon import Horizon
from layrfs.pipeline.finding import HostFinder
from layrfs.policy.collecting import RETENTION_SECONDS
from layrfs.policy.earning import KEPT_WINDOWS
from layrfs.policy.paymaster import Contract
from layrfs.storage.changes import ChangeLog
from layrfs.storage.contracts import Contracts
from layrfs.storage.database import Database
from layrfs.storage.intents import IntentTable
from layrfs.storage.journal import Journal
from layrfs.storage.spending import Spending, SpendingLimits
from layrfs.tempo import lasting
from layrfs.upkeep.agreeing import Agreements, Period
from layrfs.upkeep.counterparts import HostCounterparts
from layrfs.upkeep.escrows import Escrows
from layrfs.upkeep.lost_contracts import LostContracts
from layrfs.upkeep.paid_market import PaidMarket
from layrfs.upkeep.paymaster import Paymaster, Verdict
from layrfs.upkeep.refilling import Refiller, RefillRounds

REFILLS_PER_WINDOW = 16
AGAIN_SECONDS = 60.0

_log = logging.getLogger(__name__)


def has_nothing(host: NodeId, holders: Collection[NodeId], changes: ChangeLog, until: int) -> bool:
    """Whether a host has nothing that any list of files of the volume may still name, nor a part of such a list.

    ``holders``: who has what the newest one names, or a part of any. ``until``: nobody reads an older one than of then.
    """
    return host not in holders and changes.is_clear(host, until)


def is_wanted(host: NodeId, holders: Collection[NodeId], limits: Spending, finder: HostFinder) -> bool:
    """Whether a host is to be paid for another period; who is leaving agrees to none."""
    return limits.max_price is not None and host in holders and not finder.is_leaving(host)


def _nobody_reads_older() -> int:
    """Unix seconds."""
    return int(time.time() - lasting(RETENTION_SECONDS))


class PayDesk:
    """One drive's; ``run`` once."""

    def __init__(
        self,
        *,
        config: LedgerConfig,
        look: Callable[[], Sequence[str]],
        database: Database,
        contracts: Contracts,
        limits: SpendingLimits,
        keys: VolumeKeys,
        options: MountOptions,
        reach: Reach,
    ) -> None:
        """``look``: where that ledger is now, should it have moved."""
        self._contracts = contracts
        self._limits = limits
        self._reach = reach
        self._changes = ChangeLog(database)
        self._nudged = trio.Event()
        self._window_seconds = options.contract_window_seconds
        ledger = Horizon(config.horizon, config.passphrase, look)
        marks = Journal(database)
        self._escrows = Escrows(ledger, IntentTable(database), keys.wallet_private)
        hosts = HostCounterparts(ContractLinks(reach.links, keys.mask), reach.finder, keys.mask)
        self._agreements = Agreements(
            contracts=contracts,
            limits=limits,
            database=database,
            escrows=self._escrows,
            hosts=hosts,
            wallet_private=keys.wallet_private,
            period=Period(options.instalments, self._window_seconds),
        )
        self.market = PaidMarket(
            contracts=contracts,
            limits=limits,
            agreements=self._agreements,
            escrows=self._escrows,
            salts_key=salts_key(keys.wallet_private),
            wake=self._nudge,
        )
        self._paymaster = Paymaster(
            contracts=contracts,
            database=database,
            market=self.market,
            agreements=self._agreements,
            escrows=self._escrows,
            hosts=hosts,
            asker=reach.asker,
            is_wanted=self._is_wanted,
            is_empty=self._is_empty,
            is_only_in=self._is_only_in,
            heard=self._heard,
            nudged=self._next_nudge,
        )
        self.wallet = WalletWatch(ledger, self._escrows.account)
        self._lost = LostContracts(
            contracts=contracts, marks=marks, ledger=ledger, hosts=hosts, wallet_private=keys.wallet_private
        )
        self._refills = RefillRounds(
            refiller=Refiller(holdings=reach.holdings, market=self.market, digester=reach.transfers),
            hosts=self._paid_holders,
            contract_with=self._contract_with,
            refilled=self._nudge,
            again_seconds=self._window_seconds / REFILLS_PER_WINDOW,
        )

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._paymaster.run)
            nursery.start_soon(self._refills.run)
            nursery.start_soon(self._find_lost)
            nursery.start_soon(self.wallet.run)

    def hosts_appeared(self) -> None:
        """Hosts have been found or come back."""
        self._refills.hosts_appeared()

    def now(self) -> float:
        """By the ledger's clock, in Unix seconds."""
        return self._escrows.now()

    def unpaid(self) -> frozenset[NodeId]:
        """Hosts that are going to let their pieces go, because nobody pays for them."""
        prices = {record.node_id: record.price for record in self._reach.finder.known_hosts()}
        return self.market.unpaid(lambda host: prices.get(host, 0) > 0)

    def problems(self) -> list[str]:
        """What keeps hosts from being paid, in sentences."""
        found = (self._contracts.problem, self._agreements.problem, self._paymaster.problem, self._unpaid_sentence())
        return [problem for problem in found if problem]

    def _unpaid_sentence(self) -> str | None:
        """What is going to happen when, if nothing is done."""
        concerned = self.unpaid() & set(self._reach.holders())
        newest = [each.terms for each in self._contracts.newest() if each.terms.node in concerned]
        if not newest:
            return None
        first = min(terms.end + KEPT_WINDOWS * terms.window_seconds for terms in newest)
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(first))
        return f"{len(newest)} hosts are not paid any more, and may let what they have go from {when} on"

    async def _find_lost(self) -> None:
        """Once; a ledger or a host that is away is asked again."""
        while True:
            try:
                await self._lost.find(self._escrows.account)
                left = await self._lost.complete(self._escrows.now())
            except LayrError as error:
                _log.info("it is not known whether contracts are lost: %s", error)
            else:
                self._nudge()
                if not left:
                    return
            await trio.sleep(AGAIN_SECONDS)

    async def _contract_with(self, host: NodeId) -> int | None:
        """Have all that a host keeps for money paid for: also what came when it was free, or unpaid for long."""
        if self.market.usable(host) is None and not self._reach.finder.is_leaving(host):
            with contextlib.suppress(Unavailable):
                await self._agreements.make(host)
                self._nudge()
        usable = self.market.usable(host)
        return None if usable is None else usable.number

    def _paid_holders(self) -> list[NodeId]:
        """Hosts that have pieces and are to be paid for them."""
        holders, known = set(self._reach.holders()), self._reach.finder.known_hosts()
        return [record.node_id for record in known if record.node_id in holders and self.market.pays_on(record)]

    def _is_wanted(self, host: NodeId) -> bool:
        return is_wanted(host, self._reach.holders(), self._limits.get(), self._reach.finder)

    def _is_empty(self, host: NodeId) -> bool:
        return has_nothing(host, self._reach.holders(), self._changes, _nobody_reads_older())

    async def _is_only_in(self, contract: Contract, others: Sequence[int], digesting: Sequence[int]) -> bool:
        host, until = contract.terms.node, _nobody_reads_older()
        return await self._reach.holdings.is_only_in(contract.number, others, digesting, host, until)

    def _heard(self, host: NodeId, verdict: Verdict) -> None:
        self._reach.trusts.heard(host, verdict)

    def _nudge(self) -> None:
        self._nudged.set()

    def _next_nudge(self) -> trio.Event:
        self._nudged = trio.Event()
        return self._nudged
