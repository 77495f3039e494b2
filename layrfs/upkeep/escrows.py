"""The owner's account and its escrows, on the ledger: what is there, and what the owner sends.

Owns the ledger's time, and that one transaction of the owner's account is on its way at a time. Must not know hosts, or
when anything is due. Invariant: nothing is sent that was not written down before (``layrfs.payments.submitting``), and
while the fate of an earlier transaction is open, no other is begun.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Literal, NamedTuple

import trio

from layrfs.crypto.wallet_keys import account_of, escrow_private
from layrfs.errors import Rejected, Unavailable, Unfunded
from layrfs.model.contracts import Lock, Terms
from layrfs.model.intents import Intent
from layrfs.model.ledger import LedgerAccount, LedgerHead, LedgerTransaction
from layrfs.model.lumens import shown_lumens
from layrfs.payments import envelopes
from layrfs.payments.endings import is_end
from layrfs.payments.ledger import Ledger
from layrfs.payments.reading import movements_untrusted, submission_untrusted
from layrfs.payments.submitting import Intents, Submitter
from layrfs.payments.verdicts import NO_ACCOUNT
from layrfs.policy.agreeing import SETUP_SECONDS
from layrfs.policy.contracts import OwnerEvent
from layrfs.policy.ending import FEES_STROOPS
from layrfs.policy.paymaster import Contract, unclaimed
from layrfs.policy.pricing import FEE_STROOPS, escrow_needs, starting_stroops
from layrfs.policy.submitting import can_never_come, is_certainly_past
from layrfs.wire.contracts import Settle, SignedLock

SUBMIT_SECONDS = 90.0
"""As long as this a transaction is waited for; after that it is looked for now and then."""

PAYMENT_SECONDS = 60
SETUP_OPERATIONS = 3


class Turn(NamedTuple):
    """The owner's account while nobody else spends from it."""

    head: LedgerHead
    account: LedgerAccount

    @property
    def spendable_stroops(self) -> int:
        """What can be spent, fees included."""
        return self.account.spendable_stroops(self.head.base_reserve_stroops)


class Claimed(NamedTuple):
    """An instalment that the ledger has paid."""

    stroops: int
    hash: bytes


class Held(NamedTuple):
    """What is in an escrow."""

    balance_stroops: int
    base_reserve_stroops: int

    def beyond(self, unclaimed_stroops: Collection[int]) -> int:
        """What of it is for nothing yet, when these instalments may still be claimed."""
        return self.balance_stroops - escrow_needs(unclaimed_stroops, self.base_reserve_stroops)


class Escrows:
    """One volume's."""

    def __init__(self, ledger: Ledger, intents: Intents, wallet_private: bytes) -> None:
        self._ledger = ledger
        self._private = wallet_private
        self._submitter = Submitter(ledger, intents, wallet_private)
        self._turn = trio.Lock()
        self._closed_at = time.time()
        self._looked_at = trio.current_time()
        self._has_looked = False
        self.account = account_of(wallet_private)

    @property
    def network(self) -> bytes:
        """What stands for the ledger in terms."""
        return envelopes.network_id(self._ledger.passphrase)

    def is_here(self, terms: Terms) -> bool:
        """Whether a contract is on this ledger: of others, what is not found here proves nothing."""
        return terms.network == self.network

    @property
    def knows_time(self) -> bool:
        """Whether the ledger has said it in this run. Our clock alone may be years off."""
        return self._has_looked

    def now(self) -> float:
        """Unix seconds by the ledger's clock, as far as it is known."""
        return self._closed_at + (trio.current_time() - self._looked_at)

    async def look(self) -> LedgerHead:
        """The newest ledger, and what time it is. Raises LedgerUnavailable, WrongLedger."""
        head = await self._ledger.head()
        self._closed_at, self._looked_at = float(head.closed_at), trio.current_time()
        self._has_looked = True
        return head

    async def settle(self) -> None:
        """Look after what was begun before a crash. Raises LedgerUnavailable."""
        await self._submitter.settle()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """The account is the caller's. Raises Unfunded, Unavailable, LedgerUnavailable."""
        async with self._turn:
            if self._own_open():
                await self.settle()
            if waiting := self._own_open():
                raise Unavailable(f"An earlier transaction ({waiting[0].purpose}) may still come.")
            head, account = await self.look(), await self._ledger.account(self.account)
            if account is None:
                raise Unfunded("the wallet's account is not on the ledger yet: pay something into it")
            yield Turn(head, account)

    def _own_open(self) -> list[Intent]:
        """What the owner's account sent on this ledger, and may still come: a refund keeps nothing from being sent."""
        return self._open_of(self.account)

    def _open_of(self, account: bytes) -> list[Intent]:
        passphrase = self._ledger.passphrase
        return [each for each in self._submitter.open() if submission_untrusted(each.xdr, passphrase).source == account]

    # ------------------------------------------------------------------ sending

    async def set_up(self, terms: Terms, turn: Turn) -> None:
        """Returns when the escrow is there. Raises Unfunded, Rejected, Unavailable (it may still come)."""
        _check_funds(turn, starting_stroops(terms), SETUP_OPERATIONS)
        envelope = await trio.to_thread.run_sync(envelopes.setup, terms)
        escrow = self._escrow(terms)
        signatures = {terms.owner: envelope.sign(self._private), terms.escrow: envelope.sign(escrow)}
        await self._submit(envelope.xdr(signatures), f"contract {terms.number} with host {terms.node.hex()[:12]}")

    async def top_up(self, terms: Terms, stroops: int, *, least: int) -> None:
        """Returns when so much more is in the escrow, or ``least`` where the wallet has not that much.

        Raises as `turn` and `set_up` do.
        """
        async with self.turn() as turn:
            if stroops + FEE_STROOPS > turn.spendable_stroops:
                stroops = least
            _check_funds(turn, stroops, 1)
            envelope = envelopes.payment(
                terms.network,
                terms.owner,
                terms.escrow,
                stroops=stroops,
                sequence_number=turn.account.sequence + 1,
                last_second=turn.head.closed_at + PAYMENT_SECONDS,
            )
            xdr = envelope.xdr({terms.owner: envelope.sign(self._private)})
            await self._submit(xdr, f"more for contract {terms.number} with host {terms.node.hex()[:12]}")

    async def end(self, terms: Terms, asked: Settle, host_signature: bytes) -> None:
        """Returns when the escrow is gone, as both agreed. Raises Rejected, Unavailable (it may still come)."""
        envelope = envelopes.settle(
            terms, host_stroops=asked.host_stroops, sequence_number=asked.sequence, last_second=asked.max_time
        )
        if not envelopes.signed_by(envelope, terms.host, host_signature):
            raise Unavailable("The host has signed something else than the end that it was asked for.")
        signatures = {terms.escrow: envelope.sign(self._escrow(terms)), terms.host: host_signature}
        await self._submit(
            envelope.xdr(signatures), f"end of contract {terms.number} with host {terms.node.hex()[:12]}"
        )

    async def _submit(self, xdr: str, purpose: str) -> LedgerTransaction:
        with trio.move_on_after(SUBMIT_SECONDS):
            return await self._submitter.submit(xdr, purpose)
        raise Unavailable(f"The ledger is slow: {purpose} may still come.")

    async def sign_locks(self, terms: Terms, locks: Sequence[tuple[int, Lock]]) -> tuple[SignedLock, ...]:
        """With the escrow's signatures of these instalments' payments."""
        escrow = self._escrow(terms)

        def sign() -> tuple[SignedLock, ...]:
            signed = ((lock, envelopes.claim(terms, instalment, lock).sign(escrow)) for instalment, lock in locks)
            return tuple(SignedLock(lock.amount_stroops, lock.hash, signature) for lock, signature in signed)

        return await trio.to_thread.run_sync(sign)

    def _escrow(self, terms: Terms) -> bytes:
        return escrow_private(self._private, terms.node, terms.number, terms.owner_sequence)

    # ------------------------------------------------------------------- looking

    async def held(self, terms: Terms) -> Held:
        """What is in the escrow. Raises LedgerUnavailable."""
        head, account = await self.look(), await self._ledger.account(terms.escrow)
        if account is None:
            raise Unavailable("An escrow account is not on the ledger any more.")
        return Held(account.balance_stroops, head.base_reserve_stroops)

    def may_settle(self, terms: Terms) -> bool:
        """Whether something that was sent for the escrow itself may still come."""
        return bool(self._open_of(terms.escrow))

    async def number_for_end(self, contract: Contract) -> int | None:
        """The number that an end by consent would have. Raises LedgerUnavailable.

        None when it cannot come yet, or when the escrow, should it fail, could not pay all that it has promised.
        """
        head, account = await self.look(), await self._ledger.account(contract.terms.escrow)
        if account is None or head.sequence <= contract.terms.last_setup_ledger:
            return None
        promised = [amount for amount in unclaimed(contract) if amount]
        needed = escrow_needs(promised, head.base_reserve_stroops) + FEES_STROOPS
        return account.sequence + 1 if account.balance_stroops >= needed else None

    async def is_settled(self, terms: Terms) -> bool:
        """Whether an end by consent is on the ledger. Raises LedgerUnavailable, BadMessage."""
        if await self._ledger.account(terms.escrow) is not None:
            return False
        sent = await self._sent(terms.escrow)
        last = sent[max(sent)] if sent else None
        if last is None or not last.successful:
            return False
        passphrase = self._ledger.passphrase
        moved = movements_untrusted(last.envelope, last.result_xdr, passphrase)
        return is_end(terms, submission_untrusted(last.envelope, passphrase), moved)

    async def look_for_set_up(self, terms: Terms) -> OwnerEvent | None:
        """Whether the escrow came to be; None: it may still. Raises LedgerUnavailable."""
        fate = await self._ledger.fate(envelopes.setup(terms).hash, terms.owner)
        if fate.transaction is not None:
            return "set up" if fate.transaction.successful else "too late"
        return "too late" if can_never_come(fate, terms.owner_sequence, terms.start + SETUP_SECONDS) else None

    async def look_for_claim(self, terms: Terms, instalment: int) -> Claimed | Literal["open", "never"]:
        """What was paid; ``never``: nothing was and nothing can be any more. Raises LedgerUnavailable, BadMessage.

        Nobody can use the payment's sequence number without the owner's signature, and only payments of the
        instalment have it. A history that lacks the account's newest number is behind, and proves nothing.
        """
        sequence = envelopes.sequence(terms, instalment + 1)
        fate = await self._ledger.fate(envelopes.refund(terms).hash, terms.escrow)
        if fate.source is None or fate.source.sequence >= sequence:
            sent = await self._sent(terms.escrow)
            if (found := sent.get(sequence)) is not None:
                return self._claimed(found) if found.successful else "never"
            refunded = envelopes.sequence(terms, terms.instalments + 1)
            newest = refunded if fate.source is None else fate.source.sequence
            if newest not in sent:
                return "open"
        return "never" if is_certainly_past(fate, terms.window(instalment)[1]) else "open"

    async def _sent(self, account: bytes) -> dict[int, LedgerTransaction]:
        """An account's own transactions, by their numbers, as far as the server that was asked has them."""
        found: dict[int, LedgerTransaction] = {}
        cursor = ""
        while True:
            page = await self._ledger.history(account, cursor)
            for transaction in page.transactions:
                sent = submission_untrusted(transaction.envelope, self._ledger.passphrase)
                if sent.source == account:
                    found[sent.sequence] = transaction
            if page.cursor == cursor or not page.transactions:
                return found
            cursor = page.cursor

    def _claimed(self, found: LedgerTransaction) -> Claimed:
        moved = movements_untrusted(found.envelope, found.result_xdr, self._ledger.passphrase)
        return Claimed(sum(each.stroops for each in moved), found.hash)

    async def refund(self, terms: Terms) -> bool:
        """Have the rest come back; whether it has. Raises LedgerUnavailable, Rejected, Unavailable."""
        envelope = envelopes.refund(terms)
        fate = await self._ledger.fate(envelope.hash, terms.escrow)
        if fate.transaction is not None and fate.transaction.successful:
            return True
        if fate.head.closed_at < terms.end or fate.head.sequence <= terms.last_setup_ledger:
            return False
        try:
            await self._submit(envelope.xdr({}), f"refund of contract {terms.number} with host {terms.node.hex()[:12]}")
        except Rejected as error:
            if error.codes[:1] != (NO_ACCOUNT,):
                raise
        return True


def _check_funds(turn: Turn, stroops: int, operations: int) -> None:
    needed = stroops + operations * FEE_STROOPS
    if needed > turn.spendable_stroops:
        raise Unfunded(
            f"the wallet can spend {shown_lumens(turn.spendable_stroops)} XLM and {shown_lumens(needed)} are needed"
        )
