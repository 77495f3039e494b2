"""The paymaster: what is due in every contract is done, again and again, until the escrow is back.

Owns the carrying out of ``policy.paymaster``'s steps. Must not know pieces' bytes, or why a host was chosen.
Invariants: what is told to a host or to the ledger was written down before, so that a crash between any two steps costs
a repetition, which both know how to take; where a step fails, those behind it wait, and no other contract does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import trio

from layrfs.crashpoints import reached
from layrfs.errors import LayrError, MissingPiece, Unreachable
from layrfs.ids import NodeId, PieceId
from layrfs.network.connections import HostRefused
from layrfs.policy.contracts import InstalmentEvent, instalment_after
from layrfs.policy.paymaster import Batch, Contract, Step, amounts, batch_increments, first_open, lock, steps, waits
from layrfs.storage.contracts import Contracts
from layrfs.storage.database import Database
from layrfs.upkeep.agreeing import Agreements
from layrfs.upkeep.asking import TOGETHER, Asker
from layrfs.upkeep.counterparts import Counterparts
from layrfs.upkeep.escrows import Escrows
from layrfs.upkeep.handing_on import HandingOn, IsOnlyIn
from layrfs.upkeep.paid_market import PaidMarket
from layrfs.upkeep.settling import Settling
from layrfs.wire.contracts import (
    UNSIGNED,
    Cover,
    Covered,
    Disclose,
    Disclosed,
    Standing,
    StandingBatch,
    Stands,
    cover_body,
)

PASSES_PER_WINDOW = 32
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 300.0
NUDGED_SECONDS = 1.0
"""Between two rounds at least, however often something comes that is to be done."""

PIECES_PER_COVER = 8192

NOT_NOW = frozenset({"busy", "failed", "not on the ledger"})
"""What a host says that may agree a little later: its ledger lags, or is away."""

PERHAPS_DONE = frozenset({"busy", "failed"})
"""What a host says that may be about to record the same cover, as it was asked before: its word counts next time."""

Verdict = Literal["passed", "missing"]
"""What a host showed when an instalment fell due."""

_log = logging.getLogger(__name__)


class Paymaster:
    """One volume's; ``run`` once."""

    def __init__(
        self,
        *,
        contracts: Contracts,
        database: Database,
        market: PaidMarket,
        agreements: Agreements,
        escrows: Escrows,
        hosts: Counterparts,
        asker: Asker,
        is_wanted: Callable[[NodeId], bool],
        is_empty: Callable[[NodeId], bool],
        is_only_in: IsOnlyIn,
        heard: Callable[[NodeId, Verdict], None],
        nudged: Callable[[], trio.Event],
    ) -> None:
        """``is_wanted``: whether a host has pieces that are to be paid for. ``is_empty``: whether it has none that
        anybody needs. ``nudged``: set when there is something to do."""
        self._contracts = contracts
        self._database = database
        self._market = market
        self._agreements = agreements
        self._escrows = escrows
        self._hosts = hosts
        self._asker = asker
        self._is_wanted = is_wanted
        self._is_empty = is_empty
        self._handing_on = HandingOn(contracts, market, escrows, is_only_in)
        self._settling = Settling(database, agreements, escrows, hosts)
        self._heard = heard
        self._nudged = nudged
        self._refused: set[tuple[int, int]] = set()
        self._told_again, self._half_told = set[int](), set[int]()
        self.problem: str | None = None
        """Why something that is due is not done, in a sentence."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            nudged, pause_seconds = self._nudged(), LONGEST_PAUSE_SECONDS
            try:
                await self.go_round()
                pause_seconds = self._pause_seconds()
            except LayrError as error:
                self._note(f"hosts cannot be paid now: {error}")
            ended_at = trio.current_time()
            with trio.move_on_after(pause_seconds):
                await nudged.wait()
                await trio.sleep_until(ended_at + NUDGED_SECONDS)

    async def go_round(self) -> None:
        """Do what is due in all contracts on this ledger, each host's at the same time as others'.

        A salt that is disclosed before its window is lost, so nothing is done before the ledger has said the time.
        """
        live = self._contracts.live()
        here = [each for each in live if self._escrows.is_here(each.terms)]
        self.problem = None if len(here) == len(live) else "contracts wait for another ledger than the one that is used"
        if not here:
            return
        try:
            await self._escrows.look()
            await self._escrows.settle()
        except LayrError as error:
            self.problem = f"the ledger cannot be asked now: {error}"
            if not self._escrows.knows_time:
                return
        by_host: dict[NodeId, list[Contract]] = {}
        for contract in here:
            by_host.setdefault(contract.terms.node, []).append(contract)
        async with trio.open_nursery() as nursery:
            for contracts in by_host.values():
                nursery.start_soon(self._look_after, contracts)

    async def _look_after(self, contracts: list[Contract]) -> None:
        """All of one host's. What fails here as well is this machine's: files go on without it."""
        try:
            await self._look_after_each(contracts)
        except LayrError as error:
            self._note(f"host {contracts[0].terms.node.hex()[:12]} cannot be paid now: {error}")

    async def _look_after_each(self, contracts: list[Contract]) -> None:
        """The oldest first."""
        for number in [each.number for each in contracts]:
            is_handed_on = await self._handing_on.is_done(number)
            contract = self._contracts.get(number)
            uncovered = self._market.uncovered(contract)
            is_renewed = any(each.terms.start > contract.terms.start for each in contracts)
            due = steps(
                contract,
                uncovered,
                self._escrows.now(),
                is_renewed=is_renewed,
                is_wanted=self._is_wanted(contract.terms.node),
                is_empty=self._is_empty(contract.terms.node) and not self._market.expects(contract),
                is_handed_on=is_handed_on,
            )
            await self._do_all(contract, due)

    async def _do_all(self, contract: Contract, due: Sequence[Step]) -> None:
        """What fails has others wait, but a salt not for long: a host is paid for what it has, takes it more or not."""
        is_well = True
        if contract.number in self._half_told:
            await self._host_forgot(contract.number)
        for step in due:
            if not is_well and waits(step, contract.terms, self._escrows.now()):
                continue
            try:
                await self._do(contract.number, step)
            except LayrError as error:
                is_well = False
                host = contract.terms.node.hex()[:12]
                self._note(f"contract {contract.terms.number} with host {host} waits: {error}")
                if isinstance(error, HostRefused) and error.reason == "no contract":
                    await self._host_forgot(contract.number)
                    return
                if isinstance(error, Unreachable):
                    return

    async def _host_forgot(self, number: int) -> None:
        """It is told all of it again, once: a host that has lost its record can take it up, with the ledger's word.

        Raises ``LayrError`` when it cannot answer now: then it is told later, before anything else."""
        contract = self._contracts.get(number)
        if contract.whole and number not in self._told_again:
            self._half_told.add(number)
            try:
                await self._tell_again(contract)
            except (HostRefused, MissingPiece) as error:
                if isinstance(error, HostRefused) and error.reason in NOT_NOW:
                    raise
                _log.info("a host that knows no contract does not take it up again: %s", error)
            else:
                return
        self._half_told.discard(number)
        self._agreements.event(number, "host broke")

    async def _tell_again(self, contract: Contract) -> None:
        """As it was: the host compares it with what is on the ledger and on its disk."""
        await self._agreements.tell_again(contract.terms)
        known = [batch for batch in contract.batches if batch.covered]
        for count, batch in enumerate(known, 1):
            then = msgspec.structs.replace(contract, batches=tuple(known[:count]))
            pieces = self._contracts.pieces_of(contract.number, batch.number)
            await self._hosts.ask(contract.terms.node, await self._request(then, batch), Covered, cover_body(pieces))
        self._half_told.discard(contract.number)
        self._told_again.add(contract.number)

    async def _do(self, number: int, step: Step) -> None:
        contract = self._contracts.get(number)
        if contract.state == "merged":
            return
        match step.kind:
            case "look":
                await self._look(contract)
            case "cover again":
                await self._cover_again(contract)
            case "cover":
                await self._cover(contract)
            case "watch":
                await self._watch(contract, step.instalment)
            case "disclose":
                await self._disclose(contract, step.instalment)
            case "renew":
                await self._agreements.make(contract.terms.node)
            case _:
                await self._do_last(contract, step)

    async def _do_last(self, contract: Contract, step: Step) -> None:
        match step.kind:
            case "settled":
                await self._settling.look(contract)
            case "settle":
                await self._settling.settle(contract)
            case "end":
                self._agreements.event(contract.number, "period over")
            case "refund":
                await self._refund(contract)

    async def _look(self, contract: Contract) -> None:
        event = await self._escrows.look_for_set_up(contract.terms)
        if event is not None:
            self._agreements.event(contract.number, event)

    async def _refund(self, contract: Contract) -> None:
        if await self._escrows.refund(contract.terms):
            reached("escrow back")
            self._agreements.event(contract.number, "merged")

    # ------------------------------------------------------------------- covers

    async def _cover(self, contract: Contract) -> None:
        now = self._escrows.now()
        first = first_open(contract, now)
        waiting, since = self._market.to_cover(contract, PIECES_PER_COVER)
        if first is None or not waiting:
            return
        await self._agreements.make_ready(contract)
        pieces = await self._market.have_funds_for(contract, waiting, now)
        first = max(first, *(piece.first for piece in pieces))
        salts = self._market.salts(contract, first)
        batch = self._contracts.offer(contract.number, pieces, first, since, salts)
        await self._database.sync()
        reached("cover offered")
        await self._offer(self._contracts.get(contract.number), batch)

    async def _cover_again(self, contract: Contract) -> None:
        """The host may have it: the answer was lost, or one of us ended meanwhile."""
        batch = contract.batches[-1]
        there = await self._batches_there(contract)
        if _is_last_of(there, batch, len(self._contracts.pieces_of(contract.number, batch.number))):
            self._agreed(contract, batch)
        elif first_open(contract, self._escrows.now()) == batch.first:
            await self._offer(contract, batch)
        else:
            self._contracts.withdraw(contract.number, batch.number)

    async def _request(self, contract: Contract, batch: Batch) -> Cover:
        """The cover of the contract's last batch."""
        terms = contract.terms
        salts = enumerate(self._market.salts(contract, batch.first), batch.first)
        locks = [(instalment, lock(terms, contract.batches, instalment, salt)) for instalment, salt in salts]
        return Cover(
            tenant=terms.tenant,
            contract=terms.contract_id,
            batch=batch.number,
            first=batch.first,
            at=batch.at,
            bytes=batch.stored_bytes,
            locks=await self._escrows.sign_locks(terms, locks),
            signature=UNSIGNED,
        )

    async def _offer(self, contract: Contract, batch: Batch) -> None:
        terms, request = contract.terms, await self._request(contract, batch)
        pieces = self._contracts.pieces_of(contract.number, batch.number)
        try:
            await self._hosts.ask(terms.node, request, Covered, cover_body(pieces))
        except MissingPiece:
            self._contracts.withdraw(contract.number, batch.number)
            await self._forget_missing(contract, pieces)
            raise
        except HostRefused as error:
            if error.reason in PERHAPS_DONE:
                raise
            self._contracts.withdraw(contract.number, batch.number)
            if error.reason == "no funds":
                self._market.note_no_funds(contract)
            if error.reason == "bad terms":
                await self._look_for_other_covers(contract, batch)
            raise
        reached("cover agreed")
        self._agreed(contract, batch)

    async def _batches_there(self, contract: Contract) -> tuple[StandingBatch, ...]:
        request = Standing(contract.terms.tenant, contract.terms.number, UNSIGNED)
        return (await self._hosts.ask(contract.terms.node, request, Stands)).batches

    async def _look_for_other_covers(self, contract: Contract, batch: Batch) -> None:
        """Another machine covered more, and ended before that was published: there has to be another contract.

        Once while this one lives: a host that only says so would have us put ever more into escrows.
        """
        is_first = all(each.whole for each in self._contracts.of_host(contract.terms.node))
        if is_first and len(await self._batches_there(contract)) > batch.number:
            self._contracts.set_not_whole(contract.number)

    def _agreed(self, contract: Contract, batch: Batch) -> None:
        self._contracts.set_covered(contract.number, batch.number)
        self._market.note_covered(contract, sum(batch_increments(contract.terms, batch)))

    async def _forget_missing(self, contract: Contract, offered: Sequence[PieceId]) -> None:
        """Which of these pieces has the host not? It is not paid for those; who keeps them finds out, too."""
        for at in range(0, len(offered), TOGETHER):
            asked = offered[at : at + TOGETHER]
            held = await self._asker.renew(contract.terms.node, asked)
            missing = (piece for piece, is_there in zip(asked, held, strict=True) if not is_there)
            self._contracts.forget_payable(contract.number, missing)
        self._market.note_less_waits(contract)

    # -------------------------------------------------------------- instalments

    async def _disclose(self, contract: Contract, instalment: int) -> None:
        state = contract.instalments[instalment].state
        if state in {"claimed", "missed"} or (contract.number, instalment) in self._refused:
            return
        if state == "waiting":
            self._instalment(contract, instalment, "disclosed")
            await self._database.sync()
            reached("disclosure noted")
        terms = contract.terms
        salt = self._market.salts(contract, instalment)[0]
        request = Disclose(terms.tenant, terms.contract_id, instalment, salt, UNSIGNED)
        try:
            await self._hosts.ask(terms.node, request, Disclosed)
        except MissingPiece:
            self._refused.add((contract.number, instalment))
            self._heard(terms.node, "missing")
            raise
        except HostRefused as error:
            if error.reason not in NOT_NOW | {"wrong window", "no contract", "ending"}:
                self._refused.add((contract.number, instalment))
            raise
        reached("salt disclosed")

    async def _watch(self, contract: Contract, instalment: int) -> None:
        terms = contract.terms
        found = await self._escrows.look_for_claim(terms, instalment)
        if found == "never":
            self._instalment(contract, instalment, "window over")
        elif found != "open":
            state = instalment_after(contract.instalments[instalment].state, "claimed")
            self._contracts.set_instalment(contract.number, instalment, state, found.stroops, found.hash)
            if found.stroops > amounts(terms, contract.batches)[instalment]:  # signed by another machine of ours
                self._contracts.set_not_whole(contract.number)
            reached("claim noted")
            self._heard(terms.node, "passed")

    def _instalment(self, contract: Contract, instalment: int, event: InstalmentEvent) -> None:
        state = instalment_after(contract.instalments[instalment].state, event)
        self._contracts.set_instalment(contract.number, instalment, state)

    def _note(self, problem: str) -> None:
        self.problem = problem
        _log.info("%s", problem)

    def _pause_seconds(self) -> float:
        windows = [each.terms.window_seconds for each in self._contracts.live()]
        pause = min(windows, default=LONGEST_PAUSE_SECONDS * PASSES_PER_WINDOW) / PASSES_PER_WINDOW
        return min(LONGEST_PAUSE_SECONDS, max(SHORTEST_PAUSE_SECONDS, pause))


def _is_last_of(there: Sequence[StandingBatch], batch: Batch, pieces: int) -> bool:
    return there[batch.number :] == (StandingBatch(batch.first, batch.at, batch.stored_bytes, pieces),)
