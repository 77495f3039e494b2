"""What owners ask of a host that is paid, and what becomes of it: open, cover, disclose, settle, standing.

Owns the order of look, decide and write down. Must not know connections, what terms are agreed to, or how an
instalment is claimed.
Invariants: nothing of an owner's is believed that the ledger, the disk or a signature can say; what was answered with
yes is on the disk; between the last look at the record and the change of it nobody else runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import trio

from layrfs.app.in_hand import InHand
from layrfs.app.proposing import Proposals, is_set_up
from layrfs.app.trade import Trade
from layrfs.crashpoints import reached
from layrfs.errors import MissingPiece
from layrfs.host.instalments import held_bytes
from layrfs.ids import PieceId
from layrfs.model.contracts import Lock, Terms
from layrfs.model.hosted import Batch, Ending, Hosted, Owed
from layrfs.model.ledger import LedgerAccount
from layrfs.payments import envelopes
from layrfs.payments.escrow import escrow_faults
from layrfs.policy import earning
from layrfs.policy.contracts import host_after
from layrfs.policy.ending import covers_of, end_fault
from layrfs.policy.pricing import credit_bytes, escrow_needs, starting_stroops
from layrfs.wire import contracts
from layrfs.wire.contracts import ContractRequest, ContractResponse
from layrfs.wire.messages import Reason, Refused

_log = logging.getLogger(__name__)


class Agreements:
    """One host's; on the trio thread."""

    def __init__(
        self, trade: Trade, told: Callable[[], None], coming_bytes: Callable[[bytes], int], in_hand: InHand
    ) -> None:
        """``told`` is called whenever there is a salt to claim with, or what a notice may end by; ``coming_bytes``:
        of pieces of a tenant that are on their way."""
        self._trade = trade
        self._record = trade.record
        self._told = told
        self._proposals = Proposals(trade)
        self._coming_bytes = coming_bytes
        self._in_hand = in_hand

    def quote(self) -> contracts.Quoted:
        """What terms have to be."""
        offer = self._trade.offer
        return contracts.Quoted(
            offer.price,
            offer.account,
            offer.network,
            offer.fewest_instalments,
            offer.most_instalments,
            offer.shortest_window_seconds,
            offer.longest_window_seconds,
            offer.most_collateral_stroops,
        )

    async def respond(self, request: ContractRequest, body: bytes) -> ContractResponse | Refused:
        """Raises BadMessage, LocalError, LedgerUnavailable, WrongLedger."""
        match request:
            case contracts.Propose():
                return await self._proposals.answer(request)
            case contracts.Opened():
                return await self._opened(request)
            case contracts.Cover():
                return await self._cover(request, contracts.covered_untrusted(body))
            case contracts.Disclose():
                return await self._disclose(request)
            case contracts.Settle():
                return await self._settle(request)
            case contracts.Standing():
                return self._standing(request)

    async def _opened(self, request: contracts.Opened) -> ContractResponse | Refused:
        hosted = self._mine(request.contract, request.tenant)
        if hosted is None or hosted.state == "ended":
            return Refused("no contract")
        if hosted.state == "agreed":
            reason = await self._open(hosted.terms)
            if reason is not None:
                return Refused(reason)
            await self._trade.database.sync()
            reached("contract open")
        return contracts.Ready(credit_bytes(hosted.terms))

    async def _open(self, terms: Terms) -> Reason | None:
        """Looked up anew: what is only agreed to may have given way while the ledger was asked, its number with it."""
        account = await self._trade.ledger.account(terms.escrow)
        reason = await self._opening_refusal(terms, account)
        now = await self._trade.clock.now()
        hosted = self._record.find(terms.contract_id)
        if reason is not None or hosted is None:
            return reason or "no contract"
        if hosted.state == "agreed":
            self._record.set_state(hosted.number, host_after(hosted.state, "set up"), now)
        return None

    async def _opening_refusal(self, terms: Terms, account: LedgerAccount | None) -> Reason | None:
        """An escrow that was never claimed from holds all that was agreed; one that was, what it takes to go on."""
        passed = await self._passed(terms, account, 0)
        needed = escrow_needs([]) if passed else starting_stroops(terms) + terms.collateral_stroops
        return _escrow_reason(terms, account, needed, passed)

    async def _passed(self, terms: Terms, account: LedgerAccount | None, known: int) -> int:
        """Up to which instalment the escrow may have been claimed from. ``known``: what our record says.

        When it says less than the account's number, it was lost once: nobody can have raised that number without us,
        if the set-up is the one that we agreed to.
        """
        if account is None or account.sequence < envelopes.sequence(terms, known + 1):
            return known
        return terms.instalments if await is_set_up(self._trade.ledger, terms) else known

    async def _cover(self, request: contracts.Cover, pieces: tuple[PieceId, ...]) -> ContractResponse | Refused:
        with self._in_hand.covering(request.tenant, pieces) as are_here:
            return await self._cover_those(request, pieces) if are_here else Refused("missing")

    async def _cover_those(self, request: contracts.Cover, pieces: tuple[PieceId, ...]) -> ContractResponse | Refused:
        hosted = self._running(request.contract, request.tenant)
        if hosted is None:
            return Refused("no contract")
        new = Batch(request.first, request.at, request.bytes, len(pieces))
        if self._is_last(hosted.number, request, new, pieces):
            return contracts.Covered()
        try:
            count = partial(held_bytes, self._trade.store, request.tenant, pieces)
            found_bytes = await trio.to_thread.run_sync(count)
        except MissingPiece:
            return Refused("missing")
        signed = await trio.to_thread.run_sync(_are_signed, hosted.terms, request.first, request.locks)
        if not signed or found_bytes != request.bytes:
            return Refused("bad lock")
        account = await self._trade.ledger.account(hosted.terms.escrow)
        passed = await self._passed(hosted.terms, account, self._last_claimed(hosted.number, request.first))
        now = await self._trade.clock.now()
        paid_until = self._paid_until(hosted, pieces, now) if new.at > now else 0
        reason = self._cover_refusal(request, new, account, passed, now, paid_until)
        if reason is not None:
            return Refused(reason)
        locks = [(lock.amount_stroops, lock.hash, lock.signature) for lock in request.locks]
        self._record.cover(hosted.number, request.first, request.at, request.bytes, pieces, locks)
        await self._trade.database.sync()
        reached("cover recorded")
        self._told()
        return contracts.Covered()

    def _cover_refusal(
        self,
        request: contracts.Cover,
        new: Batch,
        account: LedgerAccount | None,
        passed: int,
        now: int,
        paid_until: int,
    ) -> Reason | None:
        """Looked up anew, because others may have changed something while we were waiting."""
        hosted = self._running(request.contract, request.tenant)
        if hosted is None:
            return "no contract"
        if hosted.ending is not None:
            return "ending"
        terms, batches = hosted.terms, self._record.batches(hosted.number)
        owed = self._record.instalments(hosted.number)
        if request.batch != len(batches):
            return "bad terms"
        amounts = [lock.amount_stroops for lock in request.locks]
        fault = earning.cover_fault(hosted, batches, owed, new, amounts, now, paid_until)
        if fault is not None:
            return fault
        known = [one.amount_stroops for one in owed[: new.first]]
        still = earning.unclaimed(terms, owed, now)
        needed = [
            amount
            for instalment, amount in enumerate([*known, *amounts])
            if amount and instalment in still and not _is_past(terms, account, instalment)
        ]
        return _escrow_reason(terms, account, escrow_needs(needed), passed)

    def _others(self, hosted: Hosted) -> list[Hosted]:
        """Contracts with the same owner that are open, and are not about to end."""
        found = self._record.of_tenant(hosted.terms.tenant)
        return [one for one in found if one.number != hosted.number and one.state == "open" and one.ending is None]

    def _paid_until(self, hosted: Hosted, pieces: Sequence[PieceId], now: int) -> int:
        """How long another contract has paid for all of these; 0: none has."""
        found = [0]
        for other in self._others(hosted):
            paid = earning.paid_now(other.terms, self._record.instalments(other.number), now)
            if paid is not None and self._record.names_all(other.number, pieces, paid):
                found.append(other.terms.window(paid)[1] + 1)
        return max(found)

    def _last_claimed(self, number: int, first: int) -> int:
        """Instalments before the cover's first may be being claimed now."""
        return max(earning.last_claimed(self._record.instalments(number)), first)

    def _is_last(self, number: int, request: contracts.Cover, new: Batch, pieces: Sequence[PieceId]) -> bool:
        """Whether just this was covered already, and the owner did not hear the answer."""
        batches = self._record.batches(number)
        if request.batch != len(batches) - 1 or batches[-1] != new:
            return False
        known = [(one.amount_stroops, one.hash) for one in self._record.instalments(number)[new.first :]]
        same_locks = known == [(lock.amount_stroops, lock.hash) for lock in request.locks]
        return same_locks and self._record.pieces(number, request.batch) == tuple(pieces)

    async def _disclose(self, request: contracts.Disclose) -> ContractResponse | Refused:
        hosted = self._running(request.contract, request.tenant)
        if hosted is None or request.instalment >= hosted.terms.instalments:
            return Refused("no contract")
        known = _known(self._record.instalments(hosted.number)[request.instalment], request.salt)
        return await self._disclose_new(request, hosted.terms) if known is None else known

    async def _disclose_new(self, request: contracts.Disclose, terms: Terms) -> ContractResponse | Refused:
        """All is looked up anew, once it is known when it is."""
        now = await self._now_in(terms, request.instalment)
        hosted = self._running(request.contract, request.tenant)
        if hosted is None:
            return Refused("no contract")
        owed = self._record.instalments(hosted.number)[request.instalment]
        known = _known(owed, request.salt)
        if known is not None:
            return known
        if hosted.ending is not None:
            return Refused("ending")
        if not owed.amount_stroops:
            return Refused("bad lock")
        if not earning.is_window_open(hosted.terms, owed.instalment, now):
            return Refused("wrong window")
        if owed.state == "disclosed" or owed.salts >= earning.MOST_SALTS:
            return Refused("lock does not fit")
        self._record.disclose(hosted.number, owed.instalment, request.salt)
        await self._trade.database.sync()
        reached("salt recorded")
        self._told()
        return contracts.Disclosed("disclosed")

    async def _now_in(self, terms: Terms, instalment: int) -> int:
        """The time; what was heard a moment ago is no reason to call a window closed."""
        if not earning.is_window_open(terms, instalment, await self._trade.clock.now()):
            await self._trade.clock.ask()
        return await self._trade.clock.now()

    async def _settle(self, request: contracts.Settle) -> ContractResponse | Refused:
        """From when it is on record until it is known whether it came, nothing is taken that it would not pay for."""
        hosted = self._running(request.contract, request.tenant)
        if hosted is None:
            return Refused("no contract")
        asked = Ending(request.host_stroops, request.sequence, request.max_time)
        if hosted.ending != asked:
            account = await self._trade.ledger.account(hosted.terms.escrow)
            reason = self._end_refusal(request, asked, account, await self._trade.clock.now())
            if reason is not None:
                return Refused(reason)
            self._record.set_ending(hosted.number, asked)
        await self._trade.database.sync()
        reached("end recorded")
        self._told()
        return contracts.Settled(ending_of(hosted.terms, asked).sign(self._trade.private))

    def _end_refusal(
        self, request: contracts.Settle, asked: Ending, account: LedgerAccount | None, now: int
    ) -> Reason | None:
        """Looked up anew, as for a cover."""
        hosted = self._running(request.contract, request.tenant)
        if hosted is None:
            return "no contract"
        owed = self._record.instalments(hosted.number)
        reason = _escrow_reason(hosted.terms, account, 0, earning.last_claimed(owed))
        if reason is not None or account is None:
            return reason
        covers, on_credit_bytes = covers_of(self._record.batches(hosted.number)), self._on_credit_bytes(hosted)
        return end_fault(hosted, covers, owed, asked, account=account, on_credit_bytes=on_credit_bytes, now=now)

    def _on_credit_bytes(self, hosted: Hosted) -> int:
        """Of what nobody would pay for when this contract ends: all, but for what came during a later one. That may
        end in its turn, and so on: what was here before counts each time."""
        tenant = hosted.terms.tenant
        others = [one.terms.start for one in self._others(hosted) if one.terms.start > hosted.terms.start]
        if others:
            return self._record.stored_before(tenant, max(others))
        return self._record.on_credit(tenant, 0).bytes + self._coming_bytes(tenant)

    def _standing(self, request: contracts.Standing) -> ContractResponse | Refused:
        found = [one for one in self._record.of_tenant(request.tenant) if one.terms.number == request.number]
        if not found:
            return Refused("no contract")
        hosted = found[-1]
        uncovered = self._record.uncovered(request.tenant, self._trade.clock.last_known())
        return contracts.Stands(
            hosted.terms.to_bytes(),
            hosted.state,
            tuple(
                contracts.StandingBatch(one.first, one.at, one.bytes, one.pieces)
                for one in self._record.batches(hosted.number)
            ),
            tuple(
                contracts.StandingInstalment(one.amount_stroops, one.hash, one.state)
                for one in self._record.instalments(hosted.number)
            ),
            uncovered.bytes,
            self._record.leaving,
        )

    def _mine(self, contract_id: bytes, tenant: bytes) -> Hosted | None:
        hosted = self._record.find(contract_id)
        return hosted if hosted is not None and hosted.terms.tenant == tenant else None

    def _running(self, contract_id: bytes, tenant: bytes) -> Hosted | None:
        """Who was given notice may still pay, for what is kept on credit too."""
        hosted = self._mine(contract_id, tenant)
        return hosted if hosted is not None and hosted.state in {"open", "notice"} else None


def ending_of(terms: Terms, ending: Ending) -> envelopes.Envelope:
    """The transaction of an end by consent."""
    return envelopes.settle(
        terms, host_stroops=ending.stroops, sequence_number=ending.sequence, last_second=ending.latest
    )


def _known(owed: Owed, salt: bytes) -> ContractResponse | Refused | None:
    """The answer to a salt that needs nothing more to be done about; None: it is new."""
    if owed.state == "claimed":
        return contracts.Disclosed("claimed")
    if owed.state == "missed":
        return Refused("wrong window")
    if owed.salt != salt:
        return None
    if owed.problem is not None:
        return Refused("missing" if owed.problem == "missing" else "lock does not fit")
    return contracts.Disclosed("disclosed")


def _are_signed(terms: Terms, first: int, locks: Sequence[contracts.SignedLock]) -> bool:
    """Whether the escrow's key has signed just the payments that these locks make. For a thread: it takes a while."""
    if any(not lock.amount_stroops for lock in locks):
        return False
    rebuilt = [
        envelopes.claim(terms, instalment, Lock(lock.amount_stroops, lock.hash))
        for instalment, lock in enumerate(locks, first)
        if instalment < terms.instalments
    ]
    return len(rebuilt) == len(locks) and all(
        envelopes.signed_by(envelope, terms.escrow, lock.signature)
        for envelope, lock in zip(rebuilt, locks, strict=True)
    )


def _is_past(terms: Terms, account: LedgerAccount | None, instalment: int) -> bool:
    return account is not None and account.sequence >= envelopes.sequence(terms, instalment + 1)


def _escrow_reason(terms: Terms, account: LedgerAccount | None, needed_stroops: int, passed: int) -> Reason | None:
    """Why nobody should rely on the escrow; None: it is exactly what was agreed."""
    faults = escrow_faults(terms, account, needed_stroops, passed=passed)
    if not faults:
        return None
    _log.warning("An escrow is not what was agreed: %s", "; ".join(faults))
    if account is None:
        return "not on the ledger"
    return "bad escrow" if escrow_faults(terms, account, 0, passed=passed) else "no funds"
