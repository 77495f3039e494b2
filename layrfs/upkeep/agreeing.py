"""Making contracts with hosts that are paid, when a piece is to go there or a contract nears its end.

Owns the order: what the host takes, terms, its agreement, the record, the escrow, and the host's look at it. Must not
know pieces. Invariants: terms are on the disk before money moves; a number is used once; one contract is made with a
host at a time, and nobody is paid more than the owner's limit.
"""

from __future__ import annotations

import logging
from collections import defaultdict

import msgspec
import trio

from layrfs.crashpoints import reached
from layrfs.crypto.wallet_keys import SetupMemo, account_of, escrow_private
from layrfs.errors import LayrError, Rejected, RemoteError, Unavailable
from layrfs.ids import NodeId
from layrfs.model.contracts import Terms
from layrfs.model.lumens import shown_lumens
from layrfs.policy.agreeing import SETUP_LEDGERS
from layrfs.policy.backoff import NO_FAILURES, Failures
from layrfs.policy.budgeting import Holding, holding, kept_bytes, left_for, running
from layrfs.policy.contracts import OwnerEvent, owner_after
from layrfs.policy.paymaster import Contract, deposit, next_number
from layrfs.storage.contracts import Contracts
from layrfs.storage.database import Database
from layrfs.storage.spending import SpendingLimits
from layrfs.upkeep.counterparts import Counterparts
from layrfs.upkeep.escrows import Escrows, Turn
from layrfs.wire.contracts import UNSIGNED, Agreed, Opened, Propose, Quoted, Ready

PROPOSE_SECONDS = 10.0

_log = logging.getLogger(__name__)


class Period(msgspec.Struct, frozen=True):
    """What the owner proposes."""

    instalments: int
    window_seconds: int


class Agreements:
    """One volume's."""

    def __init__(
        self,
        *,
        contracts: Contracts,
        limits: SpendingLimits,
        database: Database,
        escrows: Escrows,
        hosts: Counterparts,
        wallet_private: bytes,
        period: Period,
    ) -> None:
        self._contracts = contracts
        self._limits = limits
        self._database = database
        self._escrows = escrows
        self._hosts = hosts
        self._private = wallet_private
        self._period = period
        self._locks: defaultdict[NodeId, trio.Lock] = defaultdict(trio.Lock)
        self._ready: set[int] = set()
        self._failures: dict[NodeId, Failures] = {}
        self.problem: str | None = None
        """Why the last contract was not made, in a sentence, until one is."""

    def is_ready(self, contract: Contract) -> bool:
        """Whether the host has said in this run that it found the escrow as agreed."""
        return contract.number in self._ready

    async def make_ready(self, contract: Contract) -> None:
        """Have the host look. Raises ``RemoteError``, also for a while after it did not like what it saw."""
        terms, host = contract.terms, contract.terms.node
        async with self._locks[host]:
            if self.is_ready(contract):
                return
            self._check_rest(host)
            try:
                await self._hosts.ask(host, Opened(terms.tenant, terms.contract_id, UNSIGNED), Ready)
            except RemoteError as error:
                self._failed(host, f"host {host.hex()[:12]} does not go on with its contract: {error}")
                raise
            self._succeeded(host)
            self._ready.add(contract.number)

    async def tell_again(self, terms: Terms) -> None:
        """Of a contract that the host knows nothing of any more. Raises ``RemoteError``."""
        await self._hosts.ask(terms.node, Propose(terms.tenant, terms.to_bytes(), UNSIGNED), Agreed)
        await self._hosts.ask(terms.node, Opened(terms.tenant, terms.contract_id, UNSIGNED), Ready)

    async def make(self, host: NodeId) -> None:
        """Returns when there is a contract that was not open before; several who ask get the same.

        Raises ``Unavailable``, also for a while after it could not be done.
        """
        known = self._settled(host)
        async with self._locks[host]:
            if any(each.number not in known and each.state == "open" for each in self._contracts.of_host(host)):
                return
            self._check_rest(host)
            try:
                await self._make(host)
            except LayrError as error:
                problem = f"no contract could be made with host {host.hex()[:12]}: {error}"
                self._failed(host, problem)
                raise Unavailable(problem) from error
            self._succeeded(host)

    def _settled(self, host: NodeId) -> set[int]:
        """Contracts with a host that will not come to be open: one that is being set up may."""
        return {each.number for each in self._contracts.of_host(host) if each.state not in {"agreed", "submitted"}}

    def _check_rest(self, host: NodeId) -> None:
        if self._failures.get(host, NO_FAILURES).resting(trio.current_time()):
            raise Unavailable(self.problem or "There is no contract with the host.")

    def _failed(self, host: NodeId, problem: str) -> None:
        self._failures[host] = self._failures.get(host, NO_FAILURES).after_failure(trio.current_time())
        self.problem = problem
        _log.warning("%s", problem)

    def _succeeded(self, host: NodeId) -> None:
        self._failures.pop(host, None)
        self.problem = None

    def event(self, number: int, event: OwnerEvent) -> None:
        """What the contract is in after this."""
        self._contracts.set_state(number, owner_after(self._contracts.get(number).state, event))

    async def _make(self, host: NodeId) -> None:
        quoted = await self._hosts.quote(host)
        async with self._escrows.turn() as turn:
            terms = self._terms(host, quoted, turn)
            await self._propose(terms)
            number = self._contracts.add(terms, "agreed")
            self.event(number, "sent")
            await self._database.sync()
            reached("terms kept")
            try:
                await self._escrows.set_up(terms, turn)
            except Rejected:
                self.event(number, await self._escrows.look_for_set_up(terms) or "sent")
                raise
        self.event(number, "set up")
        reached("escrow seen")
        await self._hosts.ask(host, Opened(terms.tenant, terms.contract_id, UNSIGNED), Ready)
        self._ready.add(number)

    async def _propose(self, terms: Terms) -> None:
        """Others wait for the account meanwhile, and terms grow old: no host has long for this."""
        with trio.move_on_after(PROPOSE_SECONDS):
            await self._hosts.ask(terms.node, Propose(terms.tenant, terms.to_bytes(), UNSIGNED), Agreed)
            return
        raise Unavailable("it takes too long to agree")

    def _terms(self, host: NodeId, quoted: Quoted, turn: Turn) -> Terms:
        """Raises ``Unavailable`` when owner and host do not fit."""
        instalments, window_seconds = self._period.instalments, self._period.window_seconds
        self._check(quoted)
        holdings = self.holdings()
        stroops = deposit(
            quoted.price,
            left_per_month=left_for(self._limits.get().budget, holdings, host),
            kept_bytes=kept_bytes(holdings, host),
            instalments=instalments,
            window_seconds=window_seconds,
        )
        if stroops is None:
            raise Unavailable("the budget leaves nothing for another contract")
        number = next_number([terms.number for terms in self._contracts.terms_with(host)])
        sequence, start = turn.account.sequence + 1, turn.head.closed_at
        escrow = account_of(escrow_private(self._private, host, number, sequence))
        memo = SetupMemo(host, number, start, window_seconds, instalments).hidden(self._private, escrow)
        return Terms(
            owner=self._escrows.account,
            host=quoted.account,
            escrow=escrow,
            node=host,
            tenant=self._hosts.tenant(host),
            number=number,
            start=start,
            window_seconds=window_seconds,
            instalments=instalments,
            price=quoted.price,
            deposit_stroops=stroops,
            last_setup_ledger=turn.head.sequence + SETUP_LEDGERS,
            collateral_stroops=0,
            memo=memo,
            owner_sequence=sequence,
            network=self._escrows.network,
        )

    def _check(self, quoted: Quoted) -> None:
        highest, period = self._limits.get().max_price or 0, self._period
        wrong = {
            f"it asks for {shown_lumens(quoted.price)} XLM, and the limit is {shown_lumens(highest)}": (
                not 0 < quoted.price <= highest
            ),
            "it is paid on another ledger": quoted.ledger != self._escrows.network,
            f"it does not take {period.instalments} instalments": (
                not quoted.instalments_min <= period.instalments <= quoted.instalments_max
            ),
            f"it does not take windows of {period.window_seconds} seconds": (
                not quoted.window_min_seconds <= period.window_seconds <= quoted.window_max_seconds
            ),
            "it wants to be paid into the owner's own account": quoted.account == self._escrows.account,
        }
        if sentences := [sentence for sentence, is_so in wrong.items() if is_so]:
            raise Unavailable(sentences[0])

    def holdings(self) -> list[Holding]:
        """What hosts are paid for now, and what waits to be covered; no piece twice."""
        found = running(self._contracts.live(), self._escrows.now())
        return [holding(each, self._contracts.uncovered(each.number, others)[1]) for each, others in found]
