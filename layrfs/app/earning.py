"""A host that is paid: what strangers' threads ask of it, and the rounds in which time, silence and salts take effect.

Owns the state of its contracts from agreement to release, and who gets room and is served. Must not know sockets, how
an instalment is read or paid, nor how pieces go. Invariants: the record changes on the trio thread alone; a ledger that
is silent stops claims and agreements, never what hosts do for those who have a contract; no failure ends a round for
others.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import trio

from layrfs.app.agreeing import Agreements, ending_of
from layrfs.app.claiming import Claimer
from layrfs.app.earning_report import earning_report, running
from layrfs.app.in_hand import InHand
from layrfs.app.letting_go import LettingGo, kept_for
from layrfs.app.outages import Outages
from layrfs.app.trade import Trade
from layrfs.crashpoints import reached
from layrfs.errors import LayrError, LedgerUnavailable, LocalError, WrongLedger
from layrfs.ids import PieceId
from layrfs.model.contracts import paid_bytes
from layrfs.model.hosted import Ending, Hosted, Owed
from layrfs.model.ledger import LedgerHead
from layrfs.payments.envelopes import setup
from layrfs.policy import earning
from layrfs.policy.agreeing import SETUP_SECONDS
from layrfs.policy.contracts import HostEvent, host_after
from layrfs.policy.pricing import credit_bytes
from layrfs.policy.submitting import can_never_come
from layrfs.wire.contracts import ContractRequest, ContractResponse, EarningReport, Leaving, Quoted
from layrfs.wire.messages import Reason, Refused

LOOKS_PER_ROUND = 4
REPORT_SECONDS = 3.0

_log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")


class Earning:
    """One host's; ``run`` must be running before anything is asked."""

    def __init__(self, trade: Trade) -> None:
        self._trade = trade
        self._record = trade.record
        self._claimer = Claimer(trade)
        self._outages = Outages(trade)
        self._told = trio.Event()
        self._reserved: Counter[bytes] = Counter()
        in_hand = InHand()
        self._letting_go = LettingGo(trade, in_hand)
        self._agreements = Agreements(trade, self._wake, self._reserved.__getitem__, in_hand)
        self._unserved: frozenset[bytes] = frozenset()
        self._pause_seconds = earning.LONGEST_ROUND_SECONDS
        self._token: trio.lowlevel.TrioToken | None = None
        self._balance_stroops: int | None = None
        self._problem = ""
        self._staying = ""
        self._is_letting_go = False
        self._looks_left = 0
        self.left = trio.Event()
        """Set when the host is leaving and nothing is due any more."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. What was claimed when the host last ended is claimed again.

        Raises LocalError once nothing can be put on record any more: only a host that is started again can claim.
        """
        self._token = trio.lowlevel.current_trio_token()
        self._see_who_is_served()
        async with trio.open_nursery() as nursery:
            task_status.started()
            nursery.start_soon(self._letting_go.run)
            while True:
                self._check_record()
                await self._round(nursery)
                with trio.move_on_after(self._pause_seconds):
                    await self._told.wait()
                self._told = trio.Event()

    @property
    def is_leaving(self) -> bool:
        """Whether nothing new is taken."""
        return self._record.leaving

    def quote(self) -> Quoted:
        """See ``layrfs.host.handlers.Contracts``."""
        return self._agreements.quote()

    def answer(self, request: ContractRequest, body: memoryview) -> ContractResponse | Refused:
        """Called from the threads that serve connections."""
        try:
            return trio.from_thread.run(self._agreements.respond, request, bytes(body), trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled) as error:
            raise LocalError("the host is stopping") from error
        except (LedgerUnavailable, WrongLedger) as error:
            raise LocalError(f"the ledger is needed for an answer: {error}") from error

    @contextlib.contextmanager
    def room(self, tenant: bytes, piece_bytes: int) -> Iterator[Reason | None]:
        """Credit for one piece while it is on its way: None, or why there is none. Called from threads."""
        counted_bytes = paid_bytes(piece_bytes)
        reason = self._on_trio(partial(self._reserve, tenant, counted_bytes))
        try:
            yield reason
        finally:
            if reason is None:
                with contextlib.suppress(LocalError):
                    self._on_trio(partial(self._reserved.subtract, {tenant: counted_bytes}))

    def stored(self, piece: PieceId, tenant: bytes, piece_bytes: int) -> None:
        """It is on the disk: from now on it costs credit until it is covered. Called from threads.

        Raises LocalError when it is being deleted just now: its owner must not hear that it is here.
        """
        self._on_trio(partial(self._note_stored, piece, tenant, piece_bytes))

    def has_contract(self, tenant: bytes) -> bool:
        """Whether pieces are kept for this owner. Called from threads."""
        return self._on_trio(lambda: bool(kept_for(self._record, tenant)))

    def serves(self, piece: PieceId) -> bool:
        """Whether a piece is given out: not one of an owner who has been silent for too long. Called from threads."""
        if not self._unserved:
            return True
        head = self._trade.store.head(piece)
        return head is None or head.tenant not in self._unserved

    @contextlib.contextmanager
    def deleting(self, tenant: bytes, pieces: Sequence[PieceId]) -> Iterator[list[PieceId]]:
        """Those that may be: an owner who had us forget what a running contract needs could never be claimed from.

        None of them is covered until the block ends. Called from threads.
        """
        free = self._on_trio(partial(self._letting_go.begin, tenant, pieces))
        try:
            yield free
        finally:
            self._on_trio(partial(self._letting_go.end, tenant, free))

    def leave(self) -> Leaving:
        """Called from threads."""
        return self._on_trio(self._leave)

    def report(self) -> EarningReport:
        """Called from threads."""
        try:
            return trio.from_thread.run(self._report, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled) as error:
            raise LocalError("the host is stopping") from error

    def _on_trio(self, call: Callable[[], ResultT]) -> ResultT:
        try:
            return trio.from_thread.run_sync(call, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled) as error:
            raise LocalError("the host is stopping") from error

    async def _report(self) -> EarningReport:
        """With the balance of now, unless the ledger takes too long to say it."""
        with trio.move_on_after(REPORT_SECONDS), contextlib.suppress(LedgerUnavailable, WrongLedger):
            await self._see_balance()
        now = self._trade.clock.last_known()
        return earning_report(self._trade, self._balance_stroops, self._problem, now)

    async def _see_balance(self) -> None:
        account = await self._trade.ledger.account(self._trade.offer.account)
        self._balance_stroops = None if account is None else account.balance_stroops

    def _leave(self) -> Leaving:
        self._record.set_leaving(leaving=True)
        self._wake()
        still = running(self._record)
        return Leaving(len(still), max((one.terms.end for one in still), default=0))

    def _check_record(self) -> None:
        if self._trade.database.problem is not None:
            raise LocalError(self._trade.database.problem)

    def _reserve(self, tenant: bytes, piece_bytes: int) -> Reason | None:
        self._check_record()  # what is stored could not be owed for
        if self._record.leaving:
            return "leaving"
        ours = [one for one in self._record.of_tenant(tenant) if one.state == "open" and one.ending is None]
        if not ours:
            return "no contract"
        taken = self._record.on_credit(tenant, 0).bytes + self._reserved[tenant] + piece_bytes
        if taken > sum(credit_bytes(one.terms) for one in ours):
            return "no credit"
        self._reserved[tenant] += piece_bytes
        return None

    def _note_stored(self, piece: PieceId, tenant: bytes, piece_bytes: int) -> None:
        self._record.stored(piece, tenant, paid_bytes(piece_bytes), self._trade.clock.last_known())
        if self._letting_go.is_going(tenant, piece):
            raise LocalError("a piece was stored while it was being deleted")

    def _wake(self) -> None:
        self._told.set()

    async def _round(self, nursery: trio.Nursery) -> None:
        """What the ledger or the disk do not allow now waits for the next one."""
        problem = ""
        try:
            problem = await self._step_all(nursery)
        except (LayrError, OSError) as error:
            problem = str(error)
        try:
            self._see_who_is_served()
            if self._record.leaving and not running(self._record):
                self.left.set()
        except LayrError as error:
            problem = str(error)
        if problem not in {"", self._problem}:
            _log.warning("Contracts wait: %s", problem)
        self._problem = problem

    async def _step_all(self, nursery: trio.Nursery) -> str:
        """What kept one contract from going on keeps no other from it; its sentence. Claims wait for nobody's."""
        head, now = await self._outages.ask(self._pause_seconds)
        kept = self._record.kept()
        for hosted in kept:
            self._begin_claims(hosted, now, nursery)
        self._looks_left = LOOKS_PER_ROUND
        problem = await _problem_of(self._see_balance())
        for hosted in kept:
            problem = await _problem_of(self._step(hosted, head, now)) or problem
        self._outages.note(now, self._pause_seconds)
        if not self._is_letting_go:
            self._is_letting_go = True
            nursery.start_soon(self._let_go, kept, now)
        return problem or self._staying

    async def _let_go(self, kept: Sequence[Hosted], now: int) -> None:
        """Beside the rounds: what one owner leaves may take hours to delete, and claims are due meanwhile."""
        problem = ""
        for hosted in kept:
            problem = await _problem_of(self._release(hosted, now)) or problem
        self._staying = await _problem_of(self._letting_go.overdue(now)) or problem
        self._is_letting_go = False

    async def _release(self, hosted: Hosted, now: int) -> None:
        ended = self._record.fresh(hosted)
        if ended is not None and earning.is_to_be_released(ended, now):
            await self._letting_go.release(ended)

    def _begin_claims(self, hosted: Hosted, now: int, nursery: trio.Nursery) -> None:
        for one in earning.claimable(hosted.terms, self._owed(hosted), now):
            if not self._claimer.is_running(hosted, one):
                nursery.start_soon(self._claim, hosted, one)

    def _owed(self, hosted: Hosted) -> list[Owed]:
        return [] if earning.was_settled(hosted) else self._record.instalments(hosted.number)

    async def _step(self, hosted: Hosted, head: LedgerHead, now: int) -> None:
        """What time and silence do to one contract."""
        for one in earning.missed(hosted.terms, self._owed(hosted), now):
            if not self._claimer.is_running(hosted, one):
                await self._claimer.see_missed(hosted, one)
        event = await self._event(hosted, head, now)
        if self._record.fresh(hosted) != hosted:
            return  # while the ledger was asked, its owner has said something: the next round sees what follows
        if event is not None:
            self._bring(hosted, event, now)

    def _bring(self, hosted: Hosted, event: HostEvent, now: int) -> None:
        state = host_after(hosted.state, event)
        if hosted.state == "agreed":
            self._record.forget(hosted.number)  # nothing is here because of it, and its escrow is free for other terms
        elif state != hosted.state:
            _log.info("Contract %s: %s, so %s", hosted.terms.contract_id.hex()[:12], event, state)
            is_news = hosted.state == "open" and event == "period over"  # its owner could not renew without a ledger
            since = now if is_news else min(now, max(hosted.since, hosted.terms.end))
            self._record.set_state(hosted.number, state, since)

    async def _event(self, hosted: Hosted, head: LedgerHead, now: int) -> HostEvent | None:
        """Of time, and of the ledger where that is to be asked first."""
        if hosted.ending is not None and hosted.state in {"open", "notice"}:
            return await self._end_of(hosted, hosted.ending, now)
        owed = self._record.instalments(hosted.number)  # as they are now: while others were asked, a salt may have come
        on_credit = self._record.on_credit(hosted.terms.tenant, now, hosted.terms.start)
        first = earning.first_in_use(hosted.terms, self._record.batches(hosted.number), on_credit)
        event = earning.event(hosted, owed, first=first, on_credit=on_credit, ledger=head.sequence, now=now)
        return await self._looked_for(hosted) if event == "too late" else event

    async def _end_of(self, hosted: Hosted, ending: Ending, now: int) -> HostEvent | None:
        """Whether the end that we signed came; when it never will, the contract goes on as before.

        As long as it still may, one question does: all owners of a host that leaves end at the same time.
        """
        ledger, terms, wanted = self._trade.ledger, hosted.terms, ending_of(hosted.terms, ending).hash
        fate = None if now <= ending.latest else await ledger.fate(wanted, terms.escrow)
        found = await ledger.transaction(wanted) if fate is None else fate.transaction
        if found is not None and found.successful:
            return "merged"
        if found is not None or (fate is not None and can_never_come(fate, ending.sequence, ending.latest)):
            self._record.set_ending(hosted.number, None)
            reached("end decided")
        return None

    async def _looked_for(self, hosted: Hosted) -> HostEvent | None:
        """Whether a contract that was not opened in time has an escrow all the same.

        Few looks a round: strangers can have us agree to a thousand, and the ledger's servers would turn us away.
        """
        if self._looks_left == 0:
            return None
        self._looks_left -= 1
        terms = hosted.terms
        fate = await self._trade.ledger.fate(setup(terms).hash, terms.owner)
        return "too late" if can_never_come(fate, terms.owner_sequence, terms.start + SETUP_SECONDS) else None

    async def _claim(self, hosted: Hosted, owed: Owed) -> None:
        if self._claimer.is_running(hosted, owed):
            return
        try:
            await self._claimer.claim(hosted, owed)
        except LayrError as error:
            _log.warning("Instalment %d waits: %s", owed.instalment, error)
        else:
            self._wake()

    def _see_who_is_served(self) -> None:
        kept = self._record.kept()
        self._pause_seconds = earning.round_seconds(kept)
        served = {one.terms.tenant for one in kept if one.state in {"open", "ended"}}
        self._unserved = frozenset(one.terms.tenant for one in kept if one.state == "notice") - served


async def _problem_of(step: Awaitable[None]) -> str:
    """Why it failed, in a sentence; empty when it did not."""
    try:
        await step
    except (LayrError, OSError) as error:
        return str(error)
    return ""
