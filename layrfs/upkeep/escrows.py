"""The owner's account and its escrows, on the ledger: what is there, and what the owner sends.

Owns the ledger's time, and that one transaction of the owner's account is on its way at a time. Must not know hosts, or
when anything is due. Invariant: nothing is sent that was not written down before (``layrfs.payments.submitting``), and
while the fate of an earlier transaction is open, no other is begun.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Literal, NamedTuple

import trio

from layrfs.crypto.wallet_keys import account_of, escrow_private
from layrfs.errors import Rejected, Unavailable, Unfunded
from layrfs.model.contracts import Lock, Terms
from layrfs.model.ledger import LedgerAccount, LedgerHead, LedgerTransaction
from layrfs.model.lumens import shown_lumens
from layrfs.payments import envelopes
from layrfs.payments.ledger import Ledger
from layrfs.payments.submitting import Intents, Submitter
from layrfs.policy.agreeing import SETUP_SECONDS
from layrfs.policy.contracts import OwnerEvent
from layrfs.policy.paymaster import Contract, unclaimed
from layrfs.policy.pricing import FEE_STROOPS, escrow_needs, starting_stroops
from layrfs.policy.submitting import can_never_come

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


class Escrows:
    """One volume's."""

    def __init__(self, ledger: Ledger, intents: Intents, wallet_private: bytes) -> None:
        self._ledger = ledger
        self._intents = intents
        self._private = wallet_private
        self._submitter = Submitter(ledger, intents, wallet_private)
        self._turn = trio.Lock()
        self._closed_at = time.time()
        self._looked_at = trio.current_time()
        self.account = account_of(wallet_private)

    @property
    def network(self) -> bytes:
        """What stands for the ledger in terms."""
        return envelopes.network_id(self._ledger.passphrase)

    def now(self) -> float:
        """Unix seconds by the ledger's clock, as far as it is known."""
        return self._closed_at + (trio.current_time() - self._looked_at)

    async def look(self) -> LedgerHead:
        """The newest ledger, and what time it is. Raises LedgerUnavailable, WrongLedger."""
        head = await self._ledger.head()
        self._closed_at, self._looked_at = float(head.closed_at), trio.current_time()
        return head

    async def settle(self) -> None:
        """Look after what was begun before a crash. Raises LedgerUnavailable."""
        await self._submitter.settle()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """The account is the caller's. Raises Unfunded, Unavailable, LedgerUnavailable."""
        async with self._turn:
            if self._intents.all():
                await self.settle()
            if waiting := self._intents.all():
                raise Unavailable(f"An earlier transaction ({waiting[0].purpose}) may still come.")
            head, account = await self.look(), await self._ledger.account(self.account)
            if account is None:
                raise Unfunded("the wallet's account is not on the ledger yet: pay something into it")
            yield Turn(head, account)

    # ------------------------------------------------------------------ sending

    async def set_up(self, terms: Terms, turn: Turn) -> None:
        """Returns when the escrow is there. Raises Unfunded, Rejected, Unavailable (it may still come)."""
        _check_funds(turn, starting_stroops(terms), SETUP_OPERATIONS)
        envelope = await trio.to_thread.run_sync(envelopes.setup, terms)
        escrow = escrow_private(self._private, terms.node, terms.number)
        signatures = {terms.owner: envelope.sign(self._private), terms.escrow: envelope.sign(escrow)}
        await self._submit(envelope.xdr(signatures), f"contract {terms.number} with host {terms.node.hex()[:12]}")

    async def top_up(self, terms: Terms, stroops: int) -> None:
        """Returns when so much more is in the escrow. Raises as `turn` and `set_up` do."""
        async with self.turn() as turn:
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

    async def _submit(self, xdr: str, purpose: str) -> LedgerTransaction:
        with trio.move_on_after(SUBMIT_SECONDS):
            return await self._submitter.submit(xdr, purpose)
        raise Unavailable(f"The ledger is slow: {purpose} may still come.")

    async def sign_locks(self, terms: Terms, locks: Sequence[tuple[int, Lock]]) -> list[bytes]:
        """The escrow's signatures of these instalments' payments."""
        escrow = escrow_private(self._private, terms.node, terms.number)

        def sign() -> list[bytes]:
            return [envelopes.claim(terms, instalment, lock).sign(escrow) for instalment, lock in locks]

        return await trio.to_thread.run_sync(sign)

    # ------------------------------------------------------------------- looking

    async def free_stroops(self, contract: Contract) -> int:
        """What is in the escrow beyond what its instalments may take. Raises LedgerUnavailable."""
        head, account = await self.look(), await self._ledger.account(contract.terms.escrow)
        if account is None:
            raise Unavailable("An escrow account is not on the ledger any more.")
        return account.balance_stroops - escrow_needs(unclaimed(contract), head.base_reserve_stroops)

    async def look_for_set_up(self, terms: Terms) -> OwnerEvent | None:
        """Whether the escrow came to be; None: it may still. Raises LedgerUnavailable."""
        envelope = envelopes.setup(terms)
        fate = await self._ledger.fate(envelope.hash, terms.owner)
        if fate.transaction is not None:
            return "set up" if fate.transaction.successful else "too late"
        is_past = fate.head.sequence > terms.last_setup_ledger
        never = can_never_come(fate, terms.owner_sequence, terms.start + SETUP_SECONDS)
        return "too late" if is_past or never else None

    async def look_for_claim(
        self, terms: Terms, instalment: int, locks: Sequence[Lock]
    ) -> Claimed | Literal["open", "never"]:
        """What was paid; ``never``: nothing was and nothing can be any more. ``locks``: the newest first."""
        head = await self.look()
        account = await self._ledger.account(terms.escrow)
        if account is None or account.sequence >= envelopes.sequence(terms, instalment + 1):
            for lock in locks:
                hash_ = (await trio.to_thread.run_sync(partial(envelopes.claim, terms, instalment, lock))).hash
                found = await self._ledger.transaction(hash_)
                if found is not None:
                    return Claimed(lock.amount_stroops, hash_) if found.successful else "never"
        return "never" if head.closed_at > terms.window(instalment)[1] else "open"

    async def refund(self, terms: Terms) -> bool:
        """Have the rest come back; whether it has. Raises LedgerUnavailable, Rejected, Unavailable."""
        envelope = envelopes.refund(terms)
        head = await self.look()
        if await self._ledger.account(terms.escrow) is None:
            return True
        if head.closed_at < terms.end or head.sequence <= terms.last_setup_ledger:
            return False
        try:
            await self._submit(envelope.xdr({}), f"refund of contract {terms.number} with host {terms.node.hex()[:12]}")
        except Rejected:
            if await self._ledger.account(terms.escrow) is not None:
                raise
        return True


def _check_funds(turn: Turn, stroops: int, operations: int) -> None:
    needed = stroops + operations * FEE_STROOPS
    if needed > turn.spendable_stroops:
        raise Unfunded(
            f"the wallet can spend {shown_lumens(turn.spendable_stroops)} XLM and {shown_lumens(needed)} are needed"
        )
