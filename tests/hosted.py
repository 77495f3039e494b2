"""A host that is paid, on a development ledger in this process, and an owner who plays by the rules if asked to."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import trio

from layrfs.app.earning import Earning
from layrfs.app.trade import LedgerClock, Trade
from layrfs.crypto import instalments, merkle, wallet_keys
from layrfs.crypto.identity import NodeIdentity
from layrfs.ids import PieceId
from layrfs.model.contracts import Lock, Offer, Terms, paid_bytes
from layrfs.model.hosted import Batch
from layrfs.payments import envelopes
from layrfs.payments.ledger import Ledger
from layrfs.payments.submitting import Submitter
from layrfs.policy.earning import amounts_due
from layrfs.policy.pricing import deposit_for
from layrfs.storage.database import Database
from layrfs.storage.host_contracts import HostContracts
from layrfs.storage.intents import IntentTable
from layrfs.storage.piece_store import PieceStore
from layrfs.wire import contracts
from layrfs.wire.contracts import ContractRequest, ContractResponse, SignedLock
from layrfs.wire.messages import Refused
from tests.fakes.ledger import InProcessLedger
from tests.ledgers import PASSPHRASE

START = 1_800_000_100
WINDOW_SECONDS = 3_600
PRICE = 2 * 10**7 * 1024
"""Dear: 2 XLM for a GiB and 30 days, so that a few pieces cost something."""

OWNER, WALLET, NODE = bytes([7]) * 32, bytes([8]) * 32, NodeIdentity(bytes([1]) * 32)
TENANT = NodeIdentity(bytes([3]) * 32)


class LedgerHere(InProcessLedger):
    """Where these people have accounts; time is what we say, but for the five seconds of each submission."""

    def __init__(self, people: Sequence[bytes]) -> None:
        super().__init__()
        for key in people:
            self.fund(key)
        self.go_to(START)

    def go_to(self, seconds: int) -> None:
        """Close a ledger at this time, or now when it is past."""
        self.bank.close(max(0, seconds - self.now))

    @property
    def now(self) -> int:
        """Of the last ledger."""
        return self.bank.ledger.header.closed_at

    def balance(self, key: bytes) -> int:
        """In stroops; 0 without an account."""
        found = self.bank.ledger.account(key)
        return 0 if found is None else found.balance_stroops


class Hosting:
    """The host's side: what it keeps on its disk, and the part under test."""

    def __init__(self, directory: Path, ledger: Ledger, offer: Offer | None = None) -> None:
        self.ledger = ledger
        self.store = PieceStore(str(directory), space_bytes=1 << 30)
        self.database = Database(str(directory / "contracts.db"), remedy="start the host again")
        self.record = HostContracts(self.database)
        self.account = wallet_keys.account_of(WALLET)
        self.offer = offer or Offer(PRICE, self.account, envelopes.network_id(PASSPHRASE))
        clock = LedgerClock(ledger, fresh_seconds=-1, monotonic=lambda: 0)
        self.trade = Trade(
            node=NODE.node_id,
            offer=self.offer,
            private=WALLET,
            database=self.database,
            record=self.record,
            store=self.store,
            ledger=ledger,
            clock=clock,
            submitter=Submitter(ledger, IntentTable(self.database), WALLET),
        )
        self.earning = Earning(self.trade)

    async def ask(self, request: ContractRequest, body: bytes = b"") -> ContractResponse | Refused:
        """As a thread that serves a connection does."""
        return await trio.to_thread.run_sync(self.earning.answer, request, memoryview(body))

    async def until(self, true: Callable[[], bool]) -> None:
        """Rounds go by (on a clock that jumps) until it is so."""
        for _ in range(100_000):
            if true():
                return
            await trio.sleep(1)
        raise AssertionError("it never became true")


@contextlib.asynccontextmanager
async def hosting(directory: Path, ledger: Ledger, offer: Offer | None = None) -> AsyncIterator[Hosting]:
    """A host that runs; may be started again on its directory."""
    host = Hosting(directory, ledger, offer)
    with host.database:
        async with trio.open_nursery() as nursery:
            await nursery.start(host.earning.run)
            yield host
            nursery.cancel_scope.cancel()


class OwnerHere:
    """The owner's side of one contract, with all its secrets."""

    def __init__(self, ledger: LedgerHere, *, number: int = 0, stored_bytes: int = 1 << 22, **changes: object) -> None:
        self.ledger = ledger
        header = ledger.bank.ledger.header
        owner = ledger.bank.ledger.account(wallet_keys.account_of(OWNER))
        assert owner is not None
        self.escrow_private = wallet_keys.escrow_private(OWNER, NODE.node_id, number, owner.sequence + 1)
        agreed = Terms(
            owner=owner.key,
            host=wallet_keys.account_of(WALLET),
            escrow=wallet_keys.account_of(self.escrow_private),
            node=NODE.node_id,
            tenant=TENANT.public_key,
            number=number,
            start=header.closed_at,
            window_seconds=WINDOW_SECONDS,
            instalments=4,
            price=PRICE,
            deposit_stroops=deposit_for(PRICE, stored_bytes, 4, WINDOW_SECONDS),
            last_setup_ledger=header.sequence + 12,
            collateral_stroops=0,
            memo=bytes(32),
            owner_sequence=owner.sequence + 1,
            network=envelopes.network_id(PASSPHRASE),
        )
        self.terms = msgspec.structs.replace(agreed, **changes)
        self.batches: list[tuple[Batch, list[PieceId], list[bytes]]] = []

    @property
    def id(self) -> bytes:
        """Of the contract."""
        return self.terms.contract_id

    def salt(self, instalment: int) -> bytes:
        """Disclosed when it falls due."""
        salts = wallet_keys.salts_key(OWNER)
        return wallet_keys.instalment_salt(salts, self.terms.escrow, instalment)

    def propose(self) -> contracts.Propose:
        return contracts.Propose(TENANT.public_key, self.terms.to_bytes(), bytes(64))

    async def set_up(self, host_signature: bytes = b"") -> None:
        """Put the escrow on the ledger."""
        envelope = envelopes.setup(self.terms)
        signatures = {self.terms.owner: envelope.sign(OWNER), self.terms.escrow: envelope.sign(self.escrow_private)}
        if host_signature:
            signatures[self.terms.host] = host_signature
        await self.ledger.submit(envelope.xdr(signatures))

    def opened(self) -> contracts.Opened:
        return contracts.Opened(TENANT.public_key, self.id, bytes(64))

    def add(self, data: Sequence[bytes], *, first: int = 0, at: int | None = None) -> contracts.Cover:
        """Cover these pieces as well."""
        pieces = [merkle.piece_id(one) for one in data]
        batch = Batch(
            first, self.ledger.now if at is None else at, sum(paid_bytes(len(one)) for one in data), len(data)
        )
        self.batches.append((batch, pieces, list(data)))
        return self.cover(len(self.batches) - 1)

    def cover(self, number: int) -> contracts.Cover:
        """What is said of the batch of this number, as long as there are no later ones."""
        known = self.batches[: number + 1]
        batch = known[-1][0]
        amounts = amounts_due(self.terms, [one for one, _, _ in known])
        locks = [self.lock(instalment, amounts[instalment], known) for instalment in range(batch.first, len(amounts))]
        return contracts.Cover(
            TENANT.public_key, self.id, number, batch.first, batch.at, batch.bytes, tuple(locks), bytes(64)
        )

    def body(self, number: int = -1) -> bytes:
        """Of a cover."""
        return contracts.cover_body(tuple(self.batches[number][1]))

    def lock(
        self, instalment: int, stroops: int, known: Sequence[tuple[Batch, list[PieceId], list[bytes]]]
    ) -> SignedLock:
        """The lock of all pieces that the instalment is about."""
        salt = self.salt(instalment)
        digests = [
            instalments.batch_digest(
                salt,
                [instalments.piece_digest(salt, instalment, *each) for each in zip(pieces, data, strict=True)],
            )
            for batch, pieces, data in known
            if batch.first <= instalment
        ]
        answer = instalments.answer(salt, self.id, instalment, digests)
        return self.signed_lock(instalment, Lock(stroops, instalments.lock_hash(answer)))

    def signed_lock(self, instalment: int, lock: Lock) -> SignedLock:
        """Any lock."""
        signature = envelopes.claim(self.terms, instalment, lock).sign(self.escrow_private)
        return SignedLock(lock.amount_stroops, lock.hash, signature)

    def disclose(self, instalment: int, salt: bytes | None = None) -> contracts.Disclose:
        return contracts.Disclose(TENANT.public_key, self.id, instalment, salt or self.salt(instalment), bytes(64))

    def pass_set_up(self) -> None:
        """Close ledgers until a set-up can be in none."""
        while self.ledger.bank.ledger.header.sequence <= self.terms.last_setup_ledger:
            self.ledger.go_to(self.ledger.now)

    async def refund(self) -> None:
        """What is left comes back."""
        self.pass_set_up()
        await self.ledger.submit(envelopes.refund(self.terms).xdr({}))


def data_of(seed: int, sizes: Sequence[int] = (300_000, 70_000)) -> list[bytes]:
    """Pieces."""
    return [random.Random(f"{seed} {at}").randbytes(size) for at, size in enumerate(sizes)]


async def stored(host: Hosting, data: Sequence[bytes]) -> list[str]:
    """Store pieces as a connection does; why not, for each that is not taken."""

    def store(one: bytes) -> str | None:
        with host.earning.room(TENANT.public_key, len(one)) as reason:
            if reason is not None:
                return reason
            host.store.put(merkle.piece_id(one), one, TENANT.public_key)
            host.earning.stored(merkle.piece_id(one), TENANT.public_key, len(one))
        return None

    reasons = [await trio.to_thread.run_sync(partial(store, one)) for one in data]
    return [reason for reason in reasons if reason is not None]


def deleted(host: Hosting, data: Sequence[bytes], then: Callable[[], object] = lambda: None) -> list[bytes]:
    """Delete pieces as a connection does, for a thread; those that were. ``then``: what happens when they are."""
    with host.earning.deleting(TENANT.public_key, [merkle.piece_id(one) for one in data]) as free:
        found = [piece for piece in free if host.store.delete(piece, TENANT.public_key)]
        then()
    return [one for one in data if merkle.piece_id(one) in found]


async def opened(host: Hosting, owner: OwnerHere) -> None:
    """Agreed, set up, opened."""
    assert isinstance(await host.ask(owner.propose()), contracts.Agreed)
    await owner.set_up()
    assert isinstance(await host.ask(owner.opened()), contracts.Ready)
