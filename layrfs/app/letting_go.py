"""A host that is paid lets go of pieces: at their owner's word, or when a contract is over and no other came for them.

Owns the order of deciding, deleting and writing down. Must not know when a contract is over. On the trio thread.
Invariants: what is on record is deleted first and forgotten then, so whoever is killed in between goes on with it; what
is being covered stays; who opens a contract while pieces go keeps those that are left.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import trio

from layrfs.app.in_hand import InHand
from layrfs.app.trade import Trade
from layrfs.errors import LayrError
from layrfs.ids import PieceId
from layrfs.model.contracts import paid_bytes
from layrfs.model.hosted import Hosted
from layrfs.policy import earning
from layrfs.storage.host_contracts import HostContracts

GONE_SECONDS = 3600.0
DELETED_AT_ONCE = 64

_log = logging.getLogger(__name__)


class LettingGo:
    """One host's."""

    def __init__(self, trade: Trade, in_hand: InHand) -> None:
        self._trade = trade
        self._record = trade.record
        self._in_hand = in_hand

    async def run(self) -> None:
        """What is on credit and not here any more, damaged or expired, is no longer owed for."""
        while True:
            try:
                pieces = self._record.uncovered_pieces()
                gone = await trio.to_thread.run_sync(_not_held, self._trade, pieces)
                self._forget_those_gone(gone)
            except LayrError as error:
                _log.warning("What is gone is owed for until the next look: %s", error)
            await trio.sleep(GONE_SECONDS)

    def begin(self, tenant: bytes, pieces: Sequence[PieceId]) -> list[PieceId]:
        """Those that may be deleted until ``end``: no running contract needs them, and none is being covered."""
        return self._in_hand.begin_deleting(tenant, [piece for piece in pieces if not self._record.is_owed(piece)])

    def end(self, tenant: bytes, free: Sequence[PieceId]) -> None:
        """They are gone, or stay after all."""
        self._in_hand.end_deleting(tenant, free)
        self._forget_those_gone(free)

    def is_going(self, tenant: bytes, piece: PieceId) -> bool:
        """Whether it is gone, or may be in a moment."""
        return self._in_hand.is_deleted(tenant, piece) or not self._trade.store.has(piece)

    async def release(self, hosted: Hosted) -> None:
        """The room is others' now; what an owner with a later contract has not covered in it yet waits for that.

        When something is being covered just now, the rest goes, and the next time it is looked at again.
        """
        tenant, number = hosted.terms.tenant, hosted.number
        is_all = True
        for few in _parts(self._record.named_by(number)):
            mine = [piece for piece in few if not self._record.is_kept(piece, besides=number)]
            if self._others(hosted):
                await self._hand_over(hosted, mine)
            else:
                is_all = await self._delete(tenant, mine) and is_all
        for few in _parts(self._record.uncovered_pieces(tenant)):
            if not self._others(hosted):
                is_all = await self._delete(tenant, few) and is_all
        if is_all:
            self._record.release(number)
            _log.info("Contract %s is over, and what was here because of it alone", hosted.terms.contract_id.hex()[:12])

    async def overdue(self, now: int) -> None:
        """What nobody has covered anew in time; the contract that it waited for goes on without it."""
        for tenant, pieces in self._record.overdue(now).items():
            for few in _parts(pieces):
                await self._delete(tenant, [piece for piece in few if self._record.is_overdue(piece, now)])

    def _others(self, hosted: Hosted) -> list[Hosted]:
        return [one for one in kept_for(self._record, hosted.terms.tenant) if one.number != hosted.number]

    async def _delete(self, tenant: bytes, pieces: Sequence[PieceId]) -> bool:
        """Whether that could be done to all of them. Raises LocalError, OSError."""
        free = self.begin(tenant, pieces)
        try:
            await trio.to_thread.run_sync(_delete_all, self._trade, tenant, free)
        finally:
            self.end(tenant, free)
        return len(free) == len(pieces)

    async def _hand_over(self, hosted: Hosted, pieces: Sequence[PieceId]) -> None:
        held = await trio.to_thread.run_sync(_held, self._trade, pieces)
        now, number = self._trade.clock.last_known(), hosted.number
        left = [
            (piece, size) for piece, size in held if not self._record.is_kept(piece, besides=number)
        ]  # as it is now
        self._record.hand_over(hosted.terms.tenant, left, now, earning.handed_until(hosted.terms, now))

    def _forget_those_gone(self, pieces: Sequence[PieceId]) -> None:
        """Looked at again here, where ``stored`` is heard: one that has come back meanwhile would be free of charge."""
        gone = [piece for piece in pieces if not self._trade.store.has(piece)]
        if gone:  # a disk that is full must not be needed to find that there is nothing to do
            self._record.forget_uncovered(gone)
            self._record.forget_ended(gone)


def kept_for(record: HostContracts, tenant: bytes) -> list[Hosted]:
    """Contracts because of which pieces are here; what was only agreed to costs nothing, and keeps nothing."""
    return [one for one in record.of_tenant(tenant) if not one.released and one.state != "agreed"]


def _parts(pieces: Sequence[PieceId]) -> Iterator[Sequence[PieceId]]:
    """Few at once: between them others have their turn, and say what changes the rest."""
    return (pieces[at : at + DELETED_AT_ONCE] for at in range(0, len(pieces), DELETED_AT_ONCE))


def _not_held(trade: Trade, pieces: Sequence[PieceId]) -> list[PieceId]:
    found = []
    for piece in pieces:
        trio.from_thread.check_cancelled()
        if trade.store.head(piece) is None:
            found.append(piece)
    return found


def _held(trade: Trade, pieces: Sequence[PieceId]) -> list[tuple[PieceId, int]]:
    found = [(piece, trade.store.head(piece)) for piece in pieces]
    return [(piece, paid_bytes(head.length)) for piece, head in found if head is not None]


def _delete_all(trade: Trade, tenant: bytes, pieces: Sequence[PieceId]) -> None:
    for piece in pieces:
        trade.store.delete(piece, tenant)
