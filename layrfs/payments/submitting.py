"""Transactions that get into the ledger once, whatever happens on the way.

Owns the order: the intent is durable, then it is sent; it is found again by its hash, sent again, its fee raised while
it is stuck, and given up only when the ledger proves that it can never come. Must not know what transactions are for.
The invariant: as long as an intent is kept its transaction may come; forgotten means in, or impossible.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Protocol

import msgspec
import trio

from layrfs.crashpoints import reached
from layrfs.errors import LayrError, LedgerUnavailable, Rejected, WrongLedger
from layrfs.logs import log_failure
from layrfs.model.intents import Intent, Settled
from layrfs.model.ledger import Fate, LedgerTransaction
from layrfs.payments.fees import with_higher_fee
from layrfs.payments.ledger import Ledger
from layrfs.payments.reading import Submission, submission_untrusted
from layrfs.payments.verdicts import FEE_TOO_LOW, WRONG_NUMBER, may_pass, sentence
from layrfs.policy import submitting as policy

logger = logging.getLogger(__name__)

SETTLE_SECONDS = 60.0


class Intents(Protocol):
    """Where intents are kept."""

    def all(self) -> Sequence[Intent]:
        """Those whose fate is not known, oldest first."""

    async def keep(self, intent: Intent) -> None:
        """Durable when this returns; replaces one of the same hash."""

    async def forget(self, hash_: bytes) -> None:
        """Its fate is known."""


class Submitter:
    """Hands transactions in. `payer`: private key of the account that pays when a fee is raised; None: nobody does."""

    def __init__(self, ledger: Ledger, intents: Intents, payer: bytes | None = None) -> None:
        self._ledger = ledger
        self._intents = intents
        self._payer = payer
        self._used_since: dict[bytes, int] = {}
        """Since when, by the ledger, a transaction that is not in is known to have a number that is used."""

    async def submit(self, xdr: str, purpose: str) -> LedgerTransaction:
        """Return when the transaction is in; twice is as good as once. Waits for a ledger that is away, for days.

        Raises Rejected when it has failed or can never come, and when the ledger does not take it as it is: then it
        is not sent again. Whoever cancels this leaves it to `settle`.
        """
        submission = submission_untrusted(xdr, self._ledger.passphrase)
        intent = Intent(submission.hash, xdr, int(time.time()), submission.latest, purpose)
        await self._intents.keep(intent)
        reached("intent kept")
        return await self._attempts(intent, submission).see_through()

    def open(self) -> list[Intent]:
        """Those whose fate is not known. What was signed for another ledger waits until that is chosen again."""
        passphrase = self._ledger.passphrase
        return [each for each in self._intents.all() if submission_untrusted(each.xdr, passphrase).hash == each.hash]

    async def settle(self) -> list[Settled]:
        """Look once after all that was left behind, and send again what may still come. Raises LedgerUnavailable."""
        return [settled for intent in self.open() if (settled := await self._settle(intent)) is not None]

    async def run(self) -> None:
        """`settle` about every minute, until cancelled. A ledger that is away is normal."""
        while True:
            try:
                for settled in await self.settle():
                    logger.info("%s: %s", settled.intent.purpose, "done" if settled.transaction else "it never came")
            except (LedgerUnavailable, WrongLedger) as error:
                logger.debug("payments wait: %s", error)
            except LayrError as error:
                log_failure(logger, "payments wait", error)
            await trio.sleep(SETTLE_SECONDS)

    async def _settle(self, intent: Intent) -> Settled | None:
        submission = submission_untrusted(intent.xdr, self._ledger.passphrase)
        attempts = self._attempts(intent, submission)
        settled = await attempts.look()
        if settled is None and not intent.is_abandoned:
            await attempts.send()
            settled = await attempts.look()
        return settled

    def _attempts(self, intent: Intent, submission: Submission) -> _Attempts:
        return _Attempts(self._ledger, self._intents, self._payer, intent, submission, self._used_since)


class _Attempts:
    """What is tried for one intent, and how it went so far."""

    def __init__(
        self,
        ledger: Ledger,
        intents: Intents,
        payer: bytes | None,
        intent: Intent,
        submission: Submission,
        used_since: dict[bytes, int],
    ) -> None:
        self._ledger = ledger
        self._intents = intents
        self._payer = payer
        self._intent = intent
        self._submission = submission
        self._used_since = used_since
        self._bid = submission.fee_stroops // max(1, submission.operations)
        self._xdr = intent.xdr
        self._first_seen_ledger: int | None = None
        self._refusal: Rejected | None = None

    async def see_through(self) -> LedgerTransaction:
        """See `Submitter.submit`."""
        attempt = 0
        while True:
            await self.send()
            settled = await self._look_if_possible()
            if settled is not None:
                return self._outcome(settled)
            if self._refusal is not None and not self._is_passing(self._refusal):
                await self._intents.keep(msgspec.structs.replace(self._intent, is_abandoned=True))
                raise self._refusal
            await trio.sleep(policy.pause_seconds(attempt))
            attempt += 1

    async def send(self) -> None:
        """Once. How it went is seen by `look`."""
        self._refusal = None
        try:
            await self._ledger.submit(self._xdr)
        except Rejected as error:
            self._refusal = error
            if error.codes[:1] == (FEE_TOO_LOW,):
                self._raise_fee()
            elif self._xdr != self._intent.xdr:
                self._xdr = self._intent.xdr  # whoever should pay the higher fee cannot
        except LedgerUnavailable as error:
            logger.debug("%s: %s", self._intent.purpose, error)
        reached("transaction sent")

    async def look(self) -> Settled | None:
        """Its fate, when that is known. Raises LedgerUnavailable."""
        fate = await self._ledger.fate(self._submission.hash, self._submission.source)
        if fate.transaction is None and not self._can_never_come(fate):
            self._note_head(fate.head.sequence)
            return None
        self._used_since.pop(self._intent.hash, None)
        await self._intents.forget(self._intent.hash)
        reached("intent forgotten")
        return Settled(self._intent, fate.transaction)

    async def _look_if_possible(self) -> Settled | None:
        try:
            return await self.look()
        except LedgerUnavailable as error:
            logger.debug("%s: %s", self._intent.purpose, error)
            return None

    def _can_never_come(self, fate: Fate) -> bool:
        hash_, used_since = self._submission.hash, None
        if policy.is_number_used(fate, self._submission.sequence):
            used_since = self._used_since.setdefault(hash_, fate.head.closed_at)
        return policy.can_never_come(fate, self._submission.sequence, self._submission.latest, used_since)

    def _outcome(self, settled: Settled) -> LedgerTransaction:
        done = settled.transaction
        if done is None:
            raise self._refusal or Rejected("the transaction came too late for the ledger and was not carried out")
        if not done.successful:
            raise Rejected(f"the transaction has failed: {sentence(done.codes)}", done.codes)
        return done

    def _is_passing(self, refusal: Rejected) -> bool:
        return may_pass(refusal.codes) or refusal.codes[:1] == (WRONG_NUMBER,) or self._xdr != self._intent.xdr

    def _note_head(self, sequence: int) -> None:
        """A ledger that goes on without a transaction it was sent: it is stuck."""
        if self._first_seen_ledger is None:
            self._first_seen_ledger = sequence
        elif self._refusal is None and policy.is_stuck(self._first_seen_ledger, sequence):
            self._first_seen_ledger = sequence
            self._raise_fee()

    def _raise_fee(self) -> None:
        bid = policy.next_bid(self._bid)
        if bid is None or self._payer is None:
            return
        self._bid = bid
        self._xdr = with_higher_fee(self._intent.xdr, self._payer, bid, self._ledger.passphrase)
        logger.info("%s: the fee is raised to %d stroops for an operation", self._intent.purpose, bid)
