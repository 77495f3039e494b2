"""Books of random histories: whatever happened to a wallet and its contracts, every stroop is explained; and whatever
is changed in the records or in what the ledger says, is found."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from stellar_sdk import Asset, Keypair, TransactionBuilder, TransactionEnvelope

from layrfs.crypto.instalments import answer
from layrfs.crypto.wallet_keys import SetupMemo, account_of, escrow_private, instalment_salt, salts_key
from layrfs.ids import NodeId
from layrfs.model.contracts import Lock, Terms
from layrfs.model.ledger import LedgerTransaction
from layrfs.model.lumens import shown_lumens
from layrfs.payments import envelopes
from layrfs.payments.books import Account, Ledgers, Owner, reconcile
from layrfs.payments.envelopes import Envelope
from layrfs.payments.reading import address_of
from layrfs.payments.rediscovering import found_terms
from layrfs.payments.statements import read_all
from layrfs.payments.wallet import line_of
from layrfs.policy.bookkeeping import Receipts, Recorded, Records
from layrfs.policy.contracts import OwnerState
from layrfs.policy.ending import last_second
from layrfs.policy.paymaster import Batch, Contract, Instalment, host_due, lock, unclaimed
from layrfs.policy.pricing import escrow_needs
from tests.contract_terms import TERMS
from tests.fakes.ledger import InProcessLedger
from tests.ledgers import PASSPHRASE, Bank, bump, sign

OWNER = hashlib.sha256(b"owner").digest()
WINDOW, INSTALMENTS, PRICE = 300, 3, 5 * 10**11
KEY = account_of(OWNER)


class Deal:
    """One contract, with what the owner has on record of it."""

    def __init__(self, terms: Terms, host: Keypair) -> None:
        self.terms, self.host = terms, host
        self.state: OwnerState = "open"
        self.batches: list[Batch] = []
        self.instalments: list[Instalment] = [Instalment()] * terms.instalments
        self.payments: list[bytes | None] = [None] * terms.instalments
        self.is_gone = False

    def contract(self) -> Contract:
        return Contract(0, self.terms, self.state, tuple(self.batches), tuple(self.instalments))

    def record(self) -> Recorded:
        receipts = (
            ()
            if self.state in {"merged", "void"}
            else tuple(Receipts(each.number, 2, 2, each.stored_bytes) for each in self.batches)
        )
        return Recorded(self.contract(), tuple(self.payments), receipts)


class World:
    """A wallet, two hosts and somebody else, on a ledger in this process; `dice` says what happens."""

    def __init__(self, dice: random.Random) -> None:
        self.bank, self.dice = Bank(), dice
        self.hosts = [self.bank.person(number, 100) for number in (2, 3)]
        self.other = self.bank.person(4, 100)
        self.owner = Keypair.from_raw_ed25519_seed(OWNER)
        self.deals: list[Deal] = []
        self.to_hosts = self.sent = self.came = 0
        self._gift_to(KEY, begins=True)

    # ------------------------------------------------------------ what happens

    def live(self) -> list[Deal]:
        return [each for each in self.deals if each.state == "open" and not each.is_gone]

    def step(self) -> None:
        self.dice.choice(
            [self.gift, self.send, self.send_too_much, self.agree, self.agree, self.cover, self.cover, self.claim,
             self.claim, self.claim, self.top_up, self.gift_to_escrow, self.wait, self.refund, self.end]
        )()  # fmt: skip

    def gift(self) -> None:
        self._gift_to(KEY)

    def _gift_to(self, key: bytes, *, begins: bool = False) -> None:
        stroops = self.dice.randrange(1, 10**7) + 300 * 10**7 * begins
        builder, amount = self.bank.build(self.bank.root), shown_lumens(stroops)
        made = builder.append_create_account_op(address_of(key), amount) if begins else pay(builder, key, amount)
        assert self.bank.run(sign(made, self.bank.root)).is_success
        self.came += stroops

    def send(self) -> None:
        stroops = self.dice.randrange(1, 10**6)
        made = pay(self.bank.build(self.owner), self.other.raw_public_key(), shown_lumens(stroops))
        assert self.bank.run(sign(made, self.owner)).is_success
        self.sent += stroops

    def send_too_much(self) -> None:
        made = pay(self.bank.build(self.owner), self.other.raw_public_key(), "1000000")
        assert not self.bank.run(sign(made, self.owner)).is_success

    def agree(self) -> None:
        host, number = self.dice.choice(self.hosts), len(self.deals)
        node = NodeId(hashlib.sha256(host.raw_public_key()).digest()[:20])
        header, sequence = self.bank.ledger.header, self.bank.account(KEY).sequence + 1
        if self.bank.account(KEY).balance_stroops < 20 * 10**7:
            return
        escrow = account_of(escrow_private(OWNER, node, number, sequence))
        memo = SetupMemo(node, number, header.closed_at, WINDOW, INSTALMENTS).hidden(OWNER, escrow)
        terms = msgspec.structs.replace(
            TERMS, owner=KEY, host=host.raw_public_key(), escrow=escrow,
            node=node, number=number, start=header.closed_at, window_seconds=WINDOW, instalments=INSTALMENTS,
            price=PRICE, deposit_stroops=self.dice.randrange(3, 10**6), last_setup_ledger=header.sequence + 12,
            collateral_stroops=self.dice.choice([0, 0, 7 * 10**5]), memo=memo, owner_sequence=sequence,
            network=envelopes.network_id(PASSPHRASE),
        )  # fmt: skip
        deal = Deal(terms, host)
        self.deals.append(deal)
        if self.dice.random() < 0.1:
            deal.state = "void"
            return
        host_too = [host.raw_secret_key()] if terms.collateral_stroops else []
        self._submit(envelopes.setup(terms), OWNER, self._escrow(deal), *host_too)
        self.came += terms.collateral_stroops
        deal.state = self.dice.choice(["open", "open", "open", "submitted"])

    def cover(self) -> None:
        for deal in self._some():
            now, terms = self.bank.ledger.header.closed_at, deal.terms
            begun = [at for at, one in enumerate(deal.instalments) if one.state != "waiting"]
            first = max([terms.instalment_at(now) or 0, *(at + 1 for at in begun)])
            if now >= terms.end or first >= INSTALMENTS:
                continue
            digests = (self.dice.randbytes(32),) * INSTALMENTS
            deal.batches.append(
                Batch(len(deal.batches), first, now, self.dice.randrange(1, 2**34), digests, covered=True)
            )
            lacking = escrow_needs(unclaimed(deal.contract())) - self.bank.account(terms.escrow).balance_stroops
            if lacking > 0:
                self._top_up(deal, lacking)

    def claim(self) -> None:
        """What is due, by the newest cover or the one before; what the drive saw of it is on record."""
        for deal in self._some():
            now = self.bank.ledger.header.closed_at
            at = deal.terms.instalment_at(now)
            if at is None or at != deal.terms.instalment_at(now + 15) or deal.instalments[at].state != "waiting":
                continue
            if covers := self._covers(deal, at)[-2:]:
                batches = self.dice.choice(covers)
                due, answered = self._lock(deal, at, batches)
                envelope = envelopes.claim(deal.terms, at, due)
                self._submit(envelope, self._escrow(deal), deal.host.raw_secret_key(), preimage=answered)
                self.to_hosts += due.amount_stroops
                is_noted = self.dice.random() < 0.7
                deal.instalments[at] = (
                    Instalment("claimed", due.amount_stroops) if is_noted else Instalment("disclosed")
                )
                deal.payments[at] = envelope.hash if is_noted else None

    def top_up(self) -> None:
        for deal in self._some():
            self._top_up(deal, self.dice.randrange(1, 10**6))

    def gift_to_escrow(self) -> None:
        for deal in self._some():
            self._gift_to(deal.terms.escrow)

    def wait(self) -> None:
        self.bank.close(self.dice.randrange(1, WINDOW))

    def refund(self) -> None:
        for deal in self._some():
            while self.bank.ledger.header.closed_at < deal.terms.end or (
                self.bank.ledger.header.sequence <= deal.terms.last_setup_ledger
            ):
                self.bank.close(30)
            self._submit(envelopes.refund(deal.terms))
            deal.is_gone = True
            deal.state = self.dice.choice(["merged", "ended", "open"])
            for at, one in enumerate(deal.instalments):
                if one.state == "waiting" or (one.state == "disclosed" and self._is_unpaid(deal, at)):
                    deal.instalments[at] = Instalment("missed")

    def end(self) -> None:
        """By consent, when nothing is being claimed."""
        for deal in self._some():
            while self.bank.ledger.header.sequence <= deal.terms.last_setup_ledger:
                self.bank.close(1)
            now, terms = self.bank.ledger.header.closed_at, deal.terms
            at, latest = terms.instalment_at(now), last_second(terms, now)
            if at is None or latest is None or any(one.state == "disclosed" for one in deal.instalments):
                continue
            past = [Instalment("missed") if one.state == "waiting" else one for one in deal.instalments[:at]]
            deal.instalments[:at] = past
            due = host_due(deal.contract(), latest)
            number = self.bank.account(terms.escrow).sequence + 1
            envelope = envelopes.settle(terms, host_stroops=due, sequence_number=number, last_second=latest)
            self._submit(envelope, self._escrow(deal), deal.host.raw_secret_key())
            self.to_hosts += due
            deal.is_gone = True
            deal.state = self.dice.choice(["settling", "ended", "merged"])

    # ---------------------------------------------------------------- by whom

    def _some(self) -> list[Deal]:
        """One that is open, if there is one."""
        live = self.live()
        return [self.dice.choice(live)] if live else []

    def _covers(self, deal: Deal, at: int) -> list[list[Batch]]:
        covers = [deal.batches[:count] for count in range(1, len(deal.batches) + 1)]
        return [each for each in covers if each[-1].first <= at]

    def _is_unpaid(self, deal: Deal, at: int) -> bool:
        locks = [self._lock(deal, at, each)[0] for each in self._covers(deal, at)]
        hashes = [envelopes.claim(deal.terms, at, each).hash for each in locks]
        return all(self.bank.ledger.books.entry(each) is None for each in hashes)

    def _escrow(self, deal: Deal) -> bytes:
        return escrow_private(OWNER, deal.terms.node, deal.terms.number, deal.terms.owner_sequence)

    def _lock(self, deal: Deal, at: int, batches: list[Batch]) -> tuple[Lock, bytes]:
        """And what opens it."""
        salt = salt_of(deal.terms, at)
        parts = [batch.digests[at - batch.first] for batch in batches if batch.first <= at]
        return lock(deal.terms, batches, at, salt), answer(salt, deal.terms.contract_id, at, parts)

    def _submit(
        self, envelope: Envelope, *privates: bytes, preimage: bytes | None = None, succeeds: bool = True
    ) -> None:
        """Now and then the owner pays more for it to get in."""
        signatures = {account_of(each): envelope.sign(each) for each in privates}
        xdr = envelope.xdr(signatures, [preimage] if preimage else [])
        if self.dice.random() < 0.2:
            xdr = bump(TransactionEnvelope.from_xdr(xdr, PASSPHRASE), self.owner).to_xdr()
        outcome = self.bank.run(xdr)
        assert outcome.is_success == succeeds, outcome

    def _top_up(self, deal: Deal, stroops: int) -> None:
        while self.bank.account(KEY).balance_stroops < stroops + 2 * 10**7:
            self._gift_to(KEY)
        envelope = envelopes.payment(
            deal.terms.network,
            KEY,
            deal.terms.escrow,
            stroops=stroops,
            sequence_number=self.bank.account(KEY).sequence + 1,
            last_second=self.bank.now + 100,
        )
        self._submit(envelope, OWNER)


def pay(builder: TransactionBuilder, key: bytes, amount: str) -> TransactionBuilder:
    return builder.append_payment_op(address_of(key), Asset.native(), amount)


replace = msgspec.structs.replace
Change = tuple[str, Ledgers, Records]


def salt_of(terms: Terms, instalment: int) -> bytes:
    return instalment_salt(salts_key(OWNER), terms.escrow, instalment)


THE_OWNER = Owner(salt_of, partial(found_terms, passphrase=PASSPHRASE, wallet_private=OWNER))


def played(seed: int, steps: int) -> World:
    world = World(random.Random(seed))
    for _ in range(steps):
        world.step()
    return world


def read(world: World) -> tuple[Ledgers, Records]:
    """As a command does."""
    records = Records(tuple(each.record() for each in world.deals))
    return trio.run(read_all, InProcessLedger(world.bank), KEY, THE_OWNER, lambda: records)


def check(property_: Callable[..., None], *drawn: st.SearchStrategy[Any], big: bool) -> None:
    settings(max_examples=500 if big else 12, deadline=None)(given(*drawn)(property_))()


def test_every_stroop_is_explained_whatever_happened(big: bool) -> None:
    def holds(seed: int) -> None:
        world = played(seed, 30)
        ledgers, records = read(world)
        found = reconcile(ledgers, records.contracts, THE_OWNER)
        assert found.differences == ()
        sums = found.sums
        assert (sums.came, sums.to_hosts, sums.sent) == (world.came, world.to_hosts, world.sent)
        assert sums.came == sums.to_hosts + sums.sent + sums.fees + sums.wallet + sums.escrows
        assert sums.wallet == world.bank.account(KEY).balance_stroops
        assert {line.what for line in found.lines}.isdisjoint({"unknown"})

    check(holds, st.integers(0, 2**32), big=big)


def changes(ledgers: Ledgers, records: Records) -> list[Change]:
    """Everything that can be wrong in one place only."""
    found: list[Change] = []
    for account in (ledgers.wallet, *ledgers.escrows.values()):
        more = replace(account, balance_stroops=account.balance_stroops + 1)
        found.append((f"a stroop more in {account.key.hex()[:6]}", with_account(ledgers, more), records))
        for at, transaction in enumerate(account.transactions):
            if not is_moving(account, transaction):
                continue
            less = replace(account, transactions=account.transactions[:at] + account.transactions[at + 1 :])
            found.append((f"{transaction.hash.hex()[:6]} hidden", with_account(ledgers, less, transaction), records))
    for at, recorded in enumerate(records.contracts):
        for name, other in wrong_records(recorded, ledgers):
            contracts = records.contracts[:at] + other + records.contracts[at + 1 :]
            found.append((f"contract {at}: {name}", ledgers, replace(records, contracts=contracts)))
    return found


def wrong_records(recorded: Recorded, ledgers: Ledgers) -> Iterator[tuple[str, tuple[Recorded, ...]]]:
    contract = recorded.contract
    is_there = ledgers.escrows[contract.terms.escrow].exists
    for at, one in enumerate(contract.instalments):
        if one.state == "claimed":
            for wrong in (Instalment("missed"), Instalment("claimed", one.paid_stroops + 1)):
                yield f"instalment {at} {wrong}", (with_instalment(recorded, at, wrong),)
        if one.state in {"waiting", "missed"}:
            yield f"instalment {at} claimed", (with_instalment(recorded, at, Instalment("claimed", 7), bytes(32)),)
    if contract.state == "void":
        yield "it is open", (replace(recorded, contract=replace(contract, state="open")),)
    elif is_there:
        yield "it is forgotten", ()
        yield "it is void", (replace(recorded, contract=replace(contract, state="void")),)
        yield "it is merged", (replace(recorded, contract=replace(contract, state="merged")),)
    claimed = [at for at, one in enumerate(contract.instalments) if one.state == "claimed"]
    if claimed and contract.batches:
        first = contract.batches[0]
        for other in (
            replace(first, stored_bytes=first.stored_bytes + 2**40),
            replace(first, digests=(bytes(32),) * 3),
        ):
            batches = (other, *contract.batches[1:])
            yield "a cover is another", (replace(recorded, contract=replace(contract, batches=batches)),)


def with_instalment(recorded: Recorded, at: int, one: Instalment, payment: bytes | None = None) -> Recorded:
    instalments = (*recorded.contract.instalments[:at], one, *recorded.contract.instalments[at + 1 :])
    kept = payment or (recorded.payments[at] if one.state == "claimed" else None)
    payments = (*recorded.payments[:at], kept, *recorded.payments[at + 1 :])
    return Recorded(replace(recorded.contract, instalments=instalments), payments, recorded.receipts)


def with_account(ledgers: Ledgers, account: Account, hidden: LedgerTransaction | None = None) -> Ledgers:
    """With this account as it is, and a transaction gone from the others too."""
    everything = {each.key: each for each in (ledgers.wallet, *ledgers.escrows.values())} | {account.key: account}
    if hidden is not None:
        everything = {
            key: replace(each, transactions=tuple(one for one in each.transactions if one.hash != hidden.hash))
            for key, each in everything.items()
        }
    wallet = everything.pop(ledgers.wallet.key)
    return replace(ledgers, wallet=wallet, escrows=everything)


def is_moving(account: Account, transaction: LedgerTransaction) -> bool:
    line = line_of(transaction, account.key, PASSPHRASE)
    return bool(line.stroops - line.fee_stroops)


def test_whatever_is_wrong_in_one_place_is_found(big: bool) -> None:
    def holds(seed: int, which: int) -> None:
        possible = changes(*read(played(seed, 20)))
        name, ledgers, records = possible[which % len(possible)]
        assert reconcile(ledgers, records.contracts, THE_OWNER).differences, name

    check(holds, st.integers(0, 2**32), st.integers(0, 2**16), big=big)
