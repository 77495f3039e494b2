"""Hosts that are paid, in this process: the real decisions, a dictionary for a disk, and claims on a ledger at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from layrfs.crypto import instalments
from layrfs.crypto.digests import Buffer
from layrfs.crypto.wallet_keys import account_of
from layrfs.errors import MissingPiece, Unreachable
from layrfs.ids import NodeId, PieceId
from layrfs.model.contracts import Lock, Offer, Terms, paid_bytes, terms_untrusted
from layrfs.model.hosted import Batch, Hosted, Owed
from layrfs.model.payables import PieceDigests, Salts, digests_of
from layrfs.network.connections import HostRefused
from layrfs.payments import envelopes
from layrfs.payments.escrow import escrow_faults
from layrfs.policy import earning
from layrfs.policy.agreeing import terms_faults
from layrfs.policy.pricing import escrow_needs
from layrfs.wire.contracts import (
    Agreed,
    ContractRequest,
    Cover,
    Covered,
    Disclose,
    Disclosed,
    Opened,
    Propose,
    Quoted,
    Ready,
    Standing,
    StandingBatch,
    StandingInstalment,
    Stands,
    covered_untrusted,
)
from layrfs.wire.messages import Reason
from tests.fakes.ledger import InProcessLedger

T = TypeVar("T")


class Deal:
    """What a host has on record of one contract."""

    def __init__(self, terms: Terms) -> None:
        self.terms, self.hosted = terms, Hosted(0, terms, "open", terms.start)
        self.is_open = False
        self.batches: list[Batch] = []
        self.pieces: list[tuple[PieceId, ...]] = []
        self.owed = [Owed(at, 0) for at in range(terms.instalments)]


class PaidHost:
    """``is_away``: nobody answers; ``loses_answers``: all is done, and the answer lost;
    ``is_said_to_be``: a cover is done, and it says that instead; ``refuses_covers``;
    ``sees_no_funds``: in the escrow, for another cover."""

    def __init__(self, number: int, ledger: InProcessLedger, price: int) -> None:
        self.node = self.node_id = NodeId(bytes([number]) * 20)
        self.private = bytes([number]) * 32
        self.account = account_of(self.private)
        self.price = price
        self.ledger = ledger
        self.deals: dict[bytes, Deal] = {}
        self.data: dict[PieceId, bytes] = {}
        self.claims: list[bytes] = []
        self.is_away = False
        self.loses_answers = False
        self.is_said_to_be: Reason | None = None
        self.refuses_covers = False
        self.sees_no_funds = False
        self.refuses_salts: Reason | None = None
        self.asked: list[str] = []

    def store(self, piece: PieceId, data: bytes, salts: Salts) -> PieceDigests:
        """What a worker does at an upload."""
        self.data[piece] = data
        return digests_of(salts, piece, data)

    async def answer(self, request: ContractRequest, body: Buffer) -> object:
        self.asked.append(type(request).__name__)
        match request:
            case Propose():
                return await self._propose(request)
            case Opened():
                return await self._opened(self._deal(request.contract))
            case Cover():
                return await self._cover(self._deal(request.contract), request, covered_untrusted(bytes(body)))
            case Disclose():
                return await self._disclose(self._deal(request.contract), request)
            case Standing():
                deal = next(deal for deal in self.deals.values() if deal.terms.number == request.number)
                batches = tuple(StandingBatch(one.first, one.at, one.bytes, one.pieces) for one in deal.batches)
                owed = tuple(StandingInstalment(one.amount_stroops, one.hash, one.state) for one in deal.owed)
                return Stands(deal.terms.to_bytes(), "open", batches, owed, 0, leaving=False)
            case _:
                raise AssertionError(request)

    def _deal(self, contract: bytes) -> Deal:
        if contract not in self.deals:
            raise HostRefused("no contract")
        return self.deals[contract]

    async def _propose(self, request: Propose) -> Agreed:
        terms = terms_untrusted(request.terms)
        offer = Offer(self.price, self.account, terms.network, shortest_window_seconds=1)
        assert terms_faults(terms, offer, self.node, request.tenant, await self.ledger.head()) == ()
        self.deals.setdefault(terms.contract_id, Deal(terms))
        return Agreed(b"")

    async def _opened(self, deal: Deal) -> Ready:
        if deal.is_open:
            return Ready(1 << 40)
        account = await self.ledger.account(deal.terms.escrow)
        now = (await self.ledger.head()).closed_at
        needed = escrow_needs([deal.owed[at].amount_stroops for at in earning.unclaimed(deal.terms, deal.owed, now)])
        if escrow_faults(deal.terms, account, needed, passed=earning.last_claimed(deal.owed)):
            raise HostRefused("bad escrow")
        deal.is_open = True
        return Ready(1 << 40)

    async def _cover(self, deal: Deal, request: Cover, pieces: tuple[PieceId, ...]) -> Covered:
        assert deal.is_open
        if self.refuses_covers:
            raise HostRefused("leaving")
        if self.sees_no_funds:
            raise HostRefused("no funds")
        if request.batch == len(deal.batches) - 1 and deal.pieces[-1] == pieces:
            return Covered()
        assert request.batch == len(deal.batches)
        if not all(piece in self.data for piece in pieces):
            raise MissingPiece("the host has not all of the pieces")
        batch = Batch(request.first, request.at, request.bytes, len(pieces))
        assert request.bytes == sum(paid_bytes(len(self.data[piece])) for piece in pieces)
        amounts = [one.amount_stroops for one in request.locks]
        now = (await self.ledger.head()).closed_at
        until = self._paid_until(pieces, now)
        assert earning.cover_fault(deal.hosted, deal.batches, deal.owed, batch, amounts, now, until) is None
        owed = list(deal.owed)
        for at, one in enumerate(request.locks, request.first):
            claim = envelopes.claim(deal.terms, at, Lock(one.amount_stroops, one.hash))
            assert envelopes.signed_by(claim, deal.terms.escrow, one.signature)
            owed[at] = Owed(at, one.amount_stroops, one.hash, one.signature)
        account = await self.ledger.account(deal.terms.escrow)
        assert account is not None
        unclaimed = [owed[at].amount_stroops for at in earning.unclaimed(deal.terms, owed, now)]
        if account.balance_stroops < escrow_needs(unclaimed):
            raise HostRefused("no funds")
        deal.batches, deal.owed = [*deal.batches, batch], owed
        deal.pieces.append(pieces)
        return Covered()

    def _paid_until(self, pieces: Sequence[PieceId], now: int) -> int:
        found = [0]
        for deal in self.deals.values():
            if (paid := earning.paid_now(deal.terms, deal.owed, now)) is not None:
                numbers = earning.batches_of(deal.batches, paid)
                known = {piece for number in numbers for piece in deal.pieces[number]}
                found.append(deal.terms.window(paid)[1] + 1 if known.issuperset(pieces) else 0)
        return max(found)

    async def _disclose(self, deal: Deal, request: Disclose) -> Disclosed:
        if self.refuses_salts is not None:
            raise HostRefused(self.refuses_salts)
        at, now = request.instalment, (await self.ledger.head()).closed_at
        if not earning.is_window_open(deal.terms, at, now):
            raise HostRefused("wrong window")
        if deal.owed[at].state == "claimed":
            return Disclosed("claimed")
        xdr = self._claim(deal, at, request.salt)
        await self.ledger.submit(xdr)
        self.claims.append(self.ledger.hash_of(xdr))
        deal.owed[at] = Owed(at, deal.owed[at].amount_stroops, deal.owed[at].hash, state="claimed")
        return Disclosed("disclosed")

    def _claim(self, deal: Deal, at: int, salt: bytes) -> str:
        parts = [self._batch(deal.pieces[one], at, salt) for one in earning.batches_of(deal.batches, at)]
        answer = instalments.answer(salt, deal.terms.contract_id, at, parts)
        owed = deal.owed[at]
        if instalments.lock_hash(answer) != owed.hash:
            raise HostRefused("lock does not fit")
        claim = envelopes.claim(deal.terms, at, Lock(owed.amount_stroops, owed.hash))
        return claim.xdr({deal.terms.escrow: owed.signature, self.account: claim.sign(self.private)}, [answer])

    def _batch(self, pieces: Sequence[PieceId], at: int, salt: bytes) -> bytes:
        if not all(piece in self.data for piece in pieces):
            raise MissingPiece("the host has not all of the pieces")
        digests = [instalments.piece_digest(salt, at, piece, self.data[piece]) for piece in pieces]
        return instalments.batch_digest(salt, digests)


class FakeCounterparts:
    """Reaches these hosts."""

    def __init__(self, hosts: Sequence[PaidHost]) -> None:
        self._hosts = {host.node: host for host in hosts}

    def tenant(self, host: NodeId) -> bytes:
        return host[:1] * 31 + b"t"

    async def quote(self, host: NodeId) -> Quoted:
        paid = self._reach(host)
        network = envelopes.network_id(paid.ledger.passphrase)
        return Quoted(paid.price, paid.account, network, 2, 64, 1, 10**7, 0)

    async def ask(self, host: NodeId, request: ContractRequest, kind: type[T], body: Buffer = b"") -> T:
        paid = self._reach(host)
        answer = await paid.answer(request, body)
        if paid.loses_answers:
            raise Unreachable("the answer was lost")
        if paid.is_said_to_be is not None and isinstance(request, Cover):
            raise HostRefused(paid.is_said_to_be)
        assert isinstance(answer, kind)
        return answer

    async def renew(self, host: NodeId, pieces: Sequence[PieceId]) -> list[bool]:
        return [piece in self._reach(host).data for piece in pieces]

    def _reach(self, host: NodeId) -> PaidHost:
        if self._hosts[host].is_away:
            raise Unreachable("nobody answers")
        return self._hosts[host]
