"""Paying hosts, for a drive: off until the owner sets a limit, and nothing of it is loaded before.

Opens the pay desk when there is something to pay, and is the drive's ``Market`` before and after. Decides nothing.
Invariant: what was promised is seen to its end, also when the limit is taken away again: contracts run out, and escrows
come back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import trio

from layrfs.app.reach_of_payments import Reach
from layrfs.config import MountOptions, Paths
from layrfs.control import commands
from layrfs.control.commands import Progress
from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import LayrError, ReadOnly
from layrfs.ids import InodeNumber, NodeId, PieceId
from layrfs.ledger_config import addresses_now, chosen_ledger
from layrfs.model.costs import CostReport
from layrfs.model.lumens import parse_lumens
from layrfs.model.payables import PieceDigests, Salts
from layrfs.model.records import NodeRecord
from layrfs.model.shards import PieceRecord
from layrfs.model.status import MoneyStatus, SpendingLimit
from layrfs.pipeline.paying import Market, OnlyFree
from layrfs.policy.bookkeeping import Records
from layrfs.policy.budgeting import monthly
from layrfs.policy.paymaster import left_unpaid, out_of_reach
from layrfs.policy.purse import Facts, Purse, purse
from layrfs.storage.bookkeeping import read_holdings, read_records
from layrfs.storage.contracts import Contracts
from layrfs.storage.costs import read_costs
from layrfs.storage.database import Database
from layrfs.storage.spending import Spending, SpendingLimits

if TYPE_CHECKING:
    from layrfs.app.pay_desk import PayDesk

LOOK_SECONDS = 5.0
"""How often it is looked whether a ledger has been chosen: the embedded network says which after a moment."""

OFF = "off"


class Money(NamedTuple):
    """``status`` None: nobody is paid. ``warnings``: what an owner should be told early."""

    status: MoneyStatus | None
    warnings: tuple[str, ...]


class Payments:
    """One drive's; ``run`` once."""

    def __init__(self, *, database: Database, paths: Paths, keys: VolumeKeys, options: MountOptions) -> None:
        self._database = database
        self._paths = paths
        self._keys = keys
        self._options = options
        self._contracts = Contracts(database)
        self._changed = trio.Event()
        self._running = trio.CancelScope()
        self._desk: PayDesk | None = None
        self._problem: str | None = None
        self.limits = SpendingLimits(database)

    # ------------------------------------------------------------- the market

    def _market(self) -> Market:
        return OnlyFree() if self._desk is None else self._desk.market

    def highest_price(self) -> int:
        """See ``Market``, as for all that follow."""
        return self._market().highest_price()

    async def agree(self, host: NodeRecord, piece: PieceId, piece_bytes: int) -> Salts:
        return await self._market().agree(host, piece, piece_bytes)

    def lacking(self, piece: PieceRecord) -> Salts | None:
        return self._market().lacking(piece)

    def keep(self, digests: Iterable[PieceDigests]) -> None:
        self._market().keep(digests)

    # --------------------------------------------------------------- commands

    def table(self) -> list[commands.Bound]:
        """For the control socket's table."""
        return [
            commands.SET_SPENDING.bind(self.set),
            commands.GET_SPENDING.bind(self.get),
            commands.RECORDS.bind(self.records),
        ]

    async def set(self, request: commands.SetSpending, _progress: Progress) -> SpendingLimit:
        """Returns when it is on the disk. Raises ``UsageError`` before anything is changed, ``ReadOnly``."""
        if self._options.read_only:
            raise ReadOnly("The volume is mounted read-only; set limits where it is written.")
        now = self.limits.get()
        chosen = Spending(_limit(request.max_price, now.max_price), _limit(request.budget, now.budget))
        self.limits.set(chosen)
        self._changed.set()
        await self._database.sync()
        return SpendingLimit(chosen.max_price, chosen.budget)

    async def get(self, _request: commands.Nothing, _progress: Progress) -> SpendingLimit:
        """The limits in force."""
        return SpendingLimit(self.limits.get().max_price, self.limits.get().budget)

    async def records(self, _request: commands.Nothing, _progress: Progress) -> Records:
        """All that is on record about money. Raises ``LocalError``."""
        self._database.commit()
        return await trio.to_thread.run_sync(read_records, self._database.path)

    async def cost(self, inode: InodeNumber, path: bytes, depth: int) -> CostReport:
        """What hosts are paid for what is below a path. Raises ``LocalError``."""
        self._database.commit()
        contracts, now = ([], 0.0) if self._desk is None else (self._contracts.live(), self._desk.now())

        def look() -> CostReport:
            costs = read_costs(self._database.path, inode, path, depth)
            return CostReport(costs, monthly(read_holdings(self._database.path, contracts, now)))

        return await trio.to_thread.run_sync(look)

    def hosts_appeared(self) -> None:
        """Hosts have been found or come back."""
        if self._desk is not None:
            self._desk.hosts_appeared()

    def unpaid(self) -> frozenset[NodeId]:
        """Hosts that are going to let their pieces go, because nobody pays for them."""
        return frozenset() if self._desk is None else self._desk.unpaid()

    def problems(self, hosts: Sequence[NodeRecord], holders: Callable[[], Iterable[NodeId]]) -> list[str]:
        """What keeps hosts from being paid, in sentences; ``hosts`` are known, ``holders`` have pieces."""
        dear = out_of_reach([host.price for host in hosts if host.tcp_port], self.limits.get().max_price)
        of_desk = () if self._desk is None else self._desk.problems()
        found = (dear, self._left_unpaid(hosts, holders), self._problem, *of_desk)
        return [problem for problem in found if problem]

    def _left_unpaid(self, hosts: Sequence[NodeRecord], holders: Callable[[], Iterable[NodeId]]) -> str | None:
        """Of hosts that were free when they got pieces: those with a contract are the pay desk's."""
        highest = self.limits.get().max_price or 0
        dear = {host.node_id: host.price for host in hosts if host.price > highest}
        if not dear:
            return None
        try:
            others = self.unpaid() | {each.terms.node for each in self._contracts.live()}
            concerned = [host for host in holders() if host in dear and host not in others]
        except LayrError:  # a database that fails says so itself
            return None
        return left_unpaid([dear[host] for host in concerned])

    async def money(self, hosts: Iterable[NodeRecord], placed_bytes: int, waiting_bytes: int) -> Money:
        """All there is to know. Bytes are of files: on hosts, and not there yet. Raises ``LocalError``."""
        limits, contracts = self.limits.get(), self._contracts.live()
        if self._desk is None or (limits.max_price is None and not contracts):
            return Money(None, ())
        now, spendable = int(self._desk.now()), self._desk.wallet.spendable_stroops

        def look() -> Purse:
            return purse(
                Facts(
                    contracts=contracts,
                    holdings=read_holdings(self._database.path, contracts, now),
                    spendable=spendable,
                    max_price=limits.max_price,
                    budget=limits.budget,
                    placed_bytes=placed_bytes,
                    waiting_bytes=waiting_bytes,
                    now=now,
                )
            )

        found = await trio.to_thread.run_sync(look)
        status = MoneyStatus(
            max_price=limits.max_price,
            budget=limits.budget,
            per_month=found.per_month,
            forecast=found.forecast,
            paid=sum(one.paid_stroops for each in contracts for one in each.instalments),
            in_contracts=found.in_contracts,
            wallet=spendable,
            runway_seconds=found.runway_seconds,
            contracts=found.open_contracts,
            too_dear=sum(host.tcp_port > 0 and host.price > (limits.max_price or 0) for host in hosts),
        )
        return Money(status, found.warnings)

    # -------------------------------------------------------------------- life

    async def run(self, reach: Reach) -> None:
        """Pay, from when there is something to pay for, until stopped or cancelled."""
        with self._running:
            while self.limits.get().max_price is None and not self._owes():
                await self._changed.wait()
                self._changed = trio.Event()
            self._desk = await self._open(reach)
            await self._desk.run()

    def stop(self) -> None:
        """Another machine has taken over: it pays, from the same wallet, and makes its own contracts."""
        self._running.cancel()

    def _owes(self) -> bool:
        """Whether there may be contracts to see to their end: a database that fails says so to whoever pays."""
        try:
            return bool(self._contracts.live())
        except LayrError:
            return True

    async def _open(self, reach: Reach) -> PayDesk:
        """Returns when a ledger has been chosen."""
        from layrfs.app.pay_desk import PayDesk

        while True:
            try:
                config = chosen_ledger(self._paths.ledger_files)
            except LayrError as error:
                self._problem = f"no host can be paid: {error}"
                await trio.sleep(LOOK_SECONDS)
                continue
            self._problem = None
            return PayDesk(
                config=config,
                look=partial(addresses_now, self._paths.ledger_files, config.passphrase),
                database=self._database,
                contracts=self._contracts,
                limits=self.limits,
                keys=self._keys,
                options=self._options,
                reach=reach,
            )


def _limit(text: str, now: int | None) -> int | None:
    """In stroops. Empty: as it is."""
    if not text:
        return now
    return None if text == OFF else parse_lumens(text)
