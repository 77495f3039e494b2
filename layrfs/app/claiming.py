"""A host claims what it is owed: it reads its pieces, opens the lock, and has the ledger pay.

Owns the order. Must not know connections, or what owners may ask. Invariants: a claim is made from what is on record
alone, so whoever is killed claims again, and the same transaction; an instalment counts as claimed when it was seen on
the ledger, as missed when its window is over there and it was not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import trio

from layrfs.app.trade import Trade
from layrfs.app.turns import Turns
from layrfs.crashpoints import reached
from layrfs.crypto.instalments import answer, batch_digest, lock_hash
from layrfs.errors import MissingPiece
from layrfs.host.instalments import digests_of_some, read_some
from layrfs.ids import PieceId
from layrfs.model.contracts import Lock
from layrfs.model.hosted import Hosted, Owed
from layrfs.payments.envelopes import Envelope, claim, sequence
from layrfs.policy.contracts import InstalmentEvent, instalment_after
from layrfs.policy.earning import batches_of
from layrfs.policy.submitting import can_never_come

_log = logging.getLogger(__name__)

MISSING, NOT_FITTING = "missing", "lock does not fit"
_AT_ONCE, _LATER = 0, 1
"""Claims are read for first, owners in turns, and of each the one whose window ends first; only then is looked for
whose fault it was."""

TURN_SECONDS = 5.0
"""An instalment may take hours to read: so long one owner keeps others from having theirs read."""

ResultT = TypeVar("ResultT")
_Some = Callable[[Sequence[PieceId], float, Callable[[float], None]], list[ResultT]]


class _TooLate(Exception):
    """Nothing can be claimed with an answer any more."""


class Claimer:
    """One host's; on the trio thread."""

    def __init__(self, trade: Trade) -> None:
        self._trade = trade
        self._record = trade.record
        self._reading = Turns()
        self._answers: dict[tuple[int, int], bytes] = {}
        self._running: set[tuple[int, int]] = set()

    def is_running(self, hosted: Hosted, owed: Owed) -> bool:
        """Whether it is being claimed now."""
        return (hosted.number, owed.instalment) in self._running

    async def claim(self, hosted: Hosted, owed: Owed) -> None:
        """An instalment whose salt is disclosed. Raises what the ledger and the disk do."""
        key = hosted.number, owed.instalment
        self._running.add(key)
        try:
            answered = self._answers.get(key) or await self._answer(hosted, owed)
            if answered is not None:
                self._answers[key] = answered
                await self._submit(hosted, owed, answered)
        finally:
            self._running.discard(key)

    async def see_missed(self, hosted: Hosted, owed: Owed) -> None:
        """An instalment whose window is over: unless the ledger has it, or may be too far behind to have it yet.

        Raises LedgerUnavailable.
        """
        event = await self._fate(hosted, owed) if owed.amount_stroops else "window over"
        if event is not None:
            self._record.set_instalment(hosted.number, owed.instalment, instalment_after(owed.state, event))
            self._answers.pop((hosted.number, owed.instalment), None)

    async def _fate(self, hosted: Hosted, owed: Owed) -> InstalmentEvent | None:
        terms, at = hosted.terms, owed.instalment
        fate = await self._trade.ledger.fate(_envelope(hosted, owed).hash, terms.escrow)
        if fate.transaction is not None:
            return "claimed" if fate.transaction.successful else "window over"
        return "window over" if can_never_come(fate, sequence(terms, at + 1), terms.window(at)[1]) else None

    async def _answer(self, hosted: Hosted, owed: Owed) -> bytes | None:
        """What opens the lock; None when it is too late, or, with a problem on record, when nothing does."""
        numbers = batches_of(self._record.batches(hosted.number), owed.instalment)
        batches = [self._record.pieces(hosted.number, number) for number in numbers]
        problem = MISSING
        try:
            answered = await self._read(hosted, owed, batches)
            if lock_hash(answered) == owed.hash:
                return answered
            look = partial(read_some, self._trade.store)
            for batch in batches:
                await self._in_turns(_LATER, hosted, owed, batch, look)
            problem = NOT_FITTING
        except MissingPiece:
            pass
        except _TooLate:
            return None
        _log.warning("Instalment %d of contract %s: %s", owed.instalment, hosted.terms.contract_id.hex()[:12], problem)
        self._record.set_problem(hosted.number, owed.instalment, problem)
        await self._trade.database.sync()
        return None

    async def _read(self, hosted: Hosted, owed: Owed, batches: list[tuple[PieceId, ...]]) -> bytes:
        salt = owed.salt or b""
        read = partial(digests_of_some, self._trade.store, owed.instalment, salt)
        digests = [batch_digest(salt, await self._in_turns(_AT_ONCE, hosted, owed, batch, read)) for batch in batches]
        return answer(salt, hosted.terms.contract_id, owed.instalment, digests)

    async def _in_turns(
        self, kind: int, hosted: Hosted, owed: Owed, pieces: Sequence[PieceId], some: _Some[ResultT]
    ) -> list[ResultT]:
        """Of all pieces, some in each turn. Raises what ``some`` does, and _TooLate once the window is over."""
        last_second, found = hosted.terms.window(owed.instalment)[1], list[ResultT]()
        while len(found) < len(pieces):
            async with self._reading.turn(hosted.terms.tenant, (kind, last_second)):
                if self._trade.clock.last_known() > last_second:
                    raise _TooLate
                found += await trio.to_thread.run_sync(some, pieces[len(found) :], TURN_SECONDS, _rest)
        return found

    async def _submit(self, hosted: Hosted, owed: Owed, answer: bytes) -> None:
        terms, envelope = hosted.terms, _envelope(hosted, owed)
        signatures = {terms.escrow: owed.signature, terms.host: envelope.sign(self._trade.private)}
        purpose = f"instalment {owed.instalment} of contract {terms.contract_id.hex()[:12]}"
        await self._trade.submitter.submit(envelope.xdr(signatures, [answer]), purpose)
        self._record.set_instalment(hosted.number, owed.instalment, instalment_after(owed.state, "claimed"))
        await self._trade.database.sync()
        reached("claim recorded")
        self._answers.pop((hosted.number, owed.instalment), None)


def _rest(seconds: float) -> None:
    """Between two pieces, in their thread: a host that is stopped does not read to the end, which may be hours away."""
    trio.from_thread.check_cancelled()
    time.sleep(seconds)


def _envelope(hosted: Hosted, owed: Owed) -> Envelope:
    return claim(hosted.terms, owed.instalment, Lock(owed.amount_stroops, owed.hash))
