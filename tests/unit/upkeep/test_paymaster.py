"""A whole period of contracts with hosts and a ledger in this process, and what happens when either fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from layrfs.crypto.wallet_keys import account_of, salts_key
from layrfs.errors import CorruptFile, Unavailable
from layrfs.ids import NodeId, PieceId
from layrfs.model.intents import Intent
from layrfs.model.ledger import LedgerAccount
from layrfs.model.lumens import parse_lumens
from layrfs.model.payables import PieceDigests, Salts
from layrfs.payments import envelopes
from layrfs.policy.budgeting import monthly
from layrfs.policy.paymaster import LATE_SHARE, Contract, cost_of, unclaimed
from layrfs.policy.pricing import credit_bytes, escrow_needs
from layrfs.storage.bookkeeping import read_records
from layrfs.storage.contracts import Contracts
from layrfs.storage.covered_needs import is_only_in
from layrfs.storage.database import Database
from layrfs.storage.intents import IntentTable
from layrfs.storage.journal import Journal
from layrfs.storage.spending import Spending, SpendingLimits
from layrfs.upkeep.agreeing import Agreements, Period
from layrfs.upkeep.counterparts import Counterparts
from layrfs.upkeep.escrows import Escrows
from layrfs.upkeep.lost_contracts import LostContracts
from layrfs.upkeep.paid_market import COVER_SECONDS, NO_FUNDS_SECONDS, PROMISED_SECONDS, PaidMarket
from layrfs.upkeep.paymaster import LONGEST_PAUSE_SECONDS, Paymaster, Verdict
from layrfs.wire.messages import Reason
from tests.fakes.ledger import InProcessLedger
from tests.fakes.paid_hosts import FakeCounterparts, PaidHost

PRIVATE = b"owner's private key, 32 bytes ok"
PRICE = parse_lumens("20000")
"""So that instalments of a few pieces are many stroops."""

WINDOW = 1000


class Owner:
    """An owner's side on one database; made anew, it is the owner after a crash."""

    def __init__(
        self,
        database: Database,
        ledger: InProcessLedger,
        hosts: Sequence[PaidHost] | Counterparts,
        clock: MockClock,
    ) -> None:
        self.ledger, self.clock = ledger, clock
        self.contracts, self.limits = Contracts(database), SpendingLimits(database)
        self.escrows = Escrows(ledger, IntentTable(database), PRIVATE)
        counterparts = FakeCounterparts(hosts) if isinstance(hosts, Sequence) else hosts
        self.wakes: list[int] = []
        self.agreements = Agreements(
            contracts=self.contracts,
            limits=self.limits,
            database=database,
            escrows=self.escrows,
            hosts=counterparts,
            wallet_private=PRIVATE,
            period=Period(4, WINDOW),
        )
        self.market = PaidMarket(
            contracts=self.contracts,
            limits=self.limits,
            agreements=self.agreements,
            escrows=self.escrows,
            salts_key=salts_key(PRIVATE),
            wake=lambda: self.wakes.append(len(self.contracts.live())),
        )
        self.lost = LostContracts(
            contracts=self.contracts,
            marks=Journal(database),
            ledger=ledger,
            hosts=counterparts,
            wallet_private=PRIVATE,
        )
        self.heard: list[tuple[NodeId, Verdict]] = []
        self.is_wanted = self.is_empty = False
        self.needed: list[PieceId] | None = None
        """What the hosts' pieces are needed for; None: each of them for something."""
        self.looked: list[int] = []
        self.meanwhile: Callable[[], None] = database.commit
        """Done while somebody looks what they are needed for."""

        async def only_in(contract: Contract, others: Sequence[int], digesting: Sequence[int]) -> bool:
            database.commit()
            self.looked.append(contract.number)
            node, needed = contract.terms.node, self.needed
            found = needed is None or is_only_in(database.path, contract.number, others, digesting, node, needed, 0)
            await trio.lowlevel.checkpoint()
            self.meanwhile()
            return found

        self.paymaster = Paymaster(
            contracts=self.contracts,
            database=database,
            market=self.market,
            agreements=self.agreements,
            escrows=self.escrows,
            hosts=counterparts,
            asker=counterparts,
            is_wanted=lambda _host: self.is_wanted,
            is_empty=lambda _host: self.is_empty,
            is_only_in=only_in,
            heard=lambda *verdict: self.heard.append(verdict),
            nudged=self.next_nudge,
        )
        self.nudged: Callable[[], trio.Event] = trio.Event

    def next_nudge(self) -> trio.Event:
        return self.nudged()

    async def store(self, host: PaidHost, number: int, length: int = 1 << 20) -> PieceId:
        """One piece, as an upload would."""
        piece = PieceId(number.to_bytes(32, "big"))
        salts = await self.market.agree(host, piece, length)
        self.market.keep([host.store(piece, bytes([number % 256]) * length, salts)])
        return piece

    async def spend_all_but(self, stroops: int) -> None:
        """The wallet can spend that much afterwards."""
        async with self.escrows.turn() as turn:
            spent = envelopes.payment(
                self.escrows.network,
                self.escrows.account,
                PaidHost(9, self.ledger, PRICE).account,
                stroops=turn.spendable_stroops - 100 - stroops,
                sequence_number=turn.account.sequence + 1,
                last_second=self.ledger.bank.now + 1000,
            )
            await self.ledger.submit(spent.xdr({self.escrows.account: spent.sign(PRIVATE)}))

    async def rounds(self, until: int, step: int = 100) -> None:
        """Go round while the ledger's time passes, to a second after the first contract's start."""
        start = self.contracts.get(1).terms.start
        while self.ledger.bank.now < start + until:
            self.ledger.bank.close(step)
            self.clock.jump(step)
            await self.paymaster.go_round()

    @property
    def states(self) -> list[str]:
        return [each.state for each in self.contracts.get(1).instalments]


@pytest.fixture
def ledger() -> InProcessLedger:
    ledger = InProcessLedger()
    ledger.fund(account_of(PRIVATE))
    return ledger


@pytest.fixture
def host(ledger: InProcessLedger) -> PaidHost:
    host = PaidHost(9, ledger, PRICE)
    ledger.fund(host.account)
    return host


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(str(tmp_path / "metadata.db")) as database:
        yield database


@pytest.fixture
async def owner(database: Database, ledger: InProcessLedger, host: PaidHost, mock_clock: MockClock) -> Owner:
    owner = Owner(database, ledger, [host], mock_clock)
    owner.limits.set(Spending(PRICE, None))
    return owner


def balance(ledger: InProcessLedger, account: bytes) -> int:
    return ledger.bank.account(account).balance_stroops


async def test_a_host_is_paid_for_the_upload_and_for_each_audit_and_the_rest_comes_back(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger
) -> None:
    before = balance(ledger, owner.escrows.account), balance(ledger, host.account)
    for number in range(3):
        await owner.store(host, number)
    await owner.rounds(500)
    assert owner.states == ["claimed", "waiting", "waiting", "waiting"]
    await owner.rounds(4 * WINDOW + 500)
    contract = owner.contracts.get(1)
    assert owner.states == ["claimed"] * 4
    assert contract.state == "merged"
    paid = [each.paid_stroops for each in contract.instalments]
    assert len(host.claims) == 4
    assert set(owner.heard) == {(host.node, "passed")}
    after = balance(ledger, owner.escrows.account), balance(ledger, host.account)
    assert after[1] - before[1] == sum(paid) > 0
    fees = 3 * 100 + 4 * 100 + 100
    assert before[0] - after[0] == sum(paid) + fees
    assert owner.paymaster.problem is None


async def test_who_wants_a_contract_while_one_is_set_up_waits_for_that_one(owner: Owner, host: PaidHost) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(owner.store, host, 1)
        while not owner.contracts.of_host(host.node):
            await trio.lowlevel.checkpoint()
        assert owner.contracts.get(1).state == "submitted"
        nursery.start_soon(owner.agreements.make, host.node)
        nursery.start_soon(owner.store, host, 2)
    assert [each.number for each in owner.contracts.of_host(host.node)] == [1]


async def test_a_host_that_is_gone_is_paid_no_more_and_its_instalments_come_back(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger
) -> None:
    before = balance(ledger, owner.escrows.account)
    await owner.store(host, 1)
    await owner.rounds(1500)
    host.is_away = True
    await owner.rounds(4 * WINDOW + 500)
    contract = owner.contracts.get(1)
    assert owner.states == ["claimed", "claimed", "missed", "missed"]
    assert contract.state == "merged"
    paid = sum(each.paid_stroops for each in contract.instalments)
    assert before - balance(ledger, owner.escrows.account) == paid + 3 * 100 + 2 * 100 + 100


async def test_a_host_that_lost_a_piece_is_not_paid_and_that_counts_against_it(
    mock_clock: MockClock, owner: Owner, host: PaidHost
) -> None:
    await owner.store(host, 1)
    await owner.rounds(1500)
    host.data.clear()
    await owner.rounds(4 * WINDOW + 500)
    assert owner.states == ["claimed", "claimed", "missed", "missed"]
    assert owner.heard.count((host.node, "missing")) == 2


async def test_a_tiny_piece_is_promised_and_paid_for_as_what_a_disk_gives_it(
    mock_clock: MockClock, owner: Owner, host: PaidHost
) -> None:
    await owner.market.agree(host, PieceId(bytes(32)), 1)
    contract = owner.contracts.get(1)
    assert owner.market._promised_bytes(contract.number) == 4096
    await owner.store(host, 1, 3)
    await owner.rounds(500)
    assert [batch.stored_bytes for batch in owner.contracts.get(1).batches] == [4096]


@pytest.mark.parametrize("reason", ["busy", "failed"])
async def test_a_salt_that_a_host_cannot_take_now_is_told_again(
    mock_clock: MockClock, owner: Owner, host: PaidHost, reason: Reason
) -> None:
    await owner.store(host, 1)
    host.refuses_salts = reason
    await owner.rounds(600)
    assert owner.states[0] == "disclosed"
    host.refuses_salts = None
    await owner.rounds(900)
    assert owner.states[0] == "claimed"


async def test_what_is_stored_later_is_paid_from_then_on(mock_clock: MockClock, owner: Owner, host: PaidHost) -> None:
    await owner.store(host, 1)
    await owner.rounds(500)
    await owner.store(host, 2, 8 << 20)
    await owner.rounds(4 * WINDOW + 500)
    paid = [each.paid_stroops for each in owner.contracts.get(1).instalments]
    assert paid[1] > paid[2] == paid[3] > 5 * paid[0]


async def test_what_covers_themselves_bring_is_not_covered_again_and_again(
    mock_clock: MockClock, owner: Owner, host: PaidHost
) -> None:
    await owner.store(host, 0, 100 << 20)
    published = 0
    for until in range(20, 4 * WINDOW - 100, 20):
        await owner.rounds(until, step=20)
        if len(owner.contracts.get(1).batches) > published:
            published += 1
            await owner.store(host, published, 1 << 12)
    assert published <= 4 * LATE_SHARE
    await owner.rounds(4 * WINDOW + 500)
    assert owner.states == ["claimed"] * 4


async def test_a_host_that_takes_no_more_is_still_paid_for_what_it_has(
    mock_clock: MockClock, owner: Owner, host: PaidHost
) -> None:
    await owner.store(host, 1)
    await owner.rounds(300)
    host.refuses_covers = True
    await owner.store(host, 2)
    await owner.rounds(4 * WINDOW + 500)
    assert owner.states == ["claimed"] * 4
    assert owner.contracts.get(1).state == "merged"


async def test_with_an_empty_wallet_a_host_is_still_paid_for_what_it_has(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger
) -> None:
    await owner.store(host, 1)
    await owner.rounds(300)
    await owner.spend_all_but(0)
    piece, salts = PieceId(b"p" * 32), Salts(1, 1, owner.market.salts(owner.contracts.get(1), 1))
    much = msgspec.structs.replace(host.store(piece, b"", salts), piece_bytes=1 << 40)
    owner.market.keep([much])
    await owner.rounds(700)
    assert "the wallet can spend 0 XLM" in (owner.paymaster.problem or "")
    await owner.rounds(4 * WINDOW + 500)
    assert owner.states == ["claimed"] * 4
    assert owner.contracts.get(1).state == "merged"


async def test_answers_that_are_lost_are_asked_for_again_and_nothing_is_paid_twice(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger
) -> None:
    await owner.store(host, 1)
    host.loses_answers = True
    await owner.rounds(700)
    host.loses_answers = False
    await owner.rounds(4 * WINDOW + 500)
    assert owner.states == ["claimed"] * 4
    assert len(host.claims) == len(set(host.claims)) == 4


@pytest.mark.parametrize("reason", ["busy", "failed"])
async def test_a_cover_that_the_host_has_all_the_same_is_not_taken_back(
    mock_clock: MockClock, owner: Owner, host: PaidHost, reason: Reason
) -> None:
    await owner.store(host, 1)
    host.is_said_to_be = reason
    await owner.rounds(300)
    host.is_said_to_be = None
    await owner.store(host, 2)
    await owner.rounds(4 * WINDOW + 500)
    assert owner.states == ["claimed"] * 4
    assert owner.contracts.get(1).whole
    assert len(owner.contracts.newest()) == 1


@pytest.mark.parametrize("seconds", [0, 100, 300, 1100, 3900, 4100])
async def test_an_owner_who_begins_anew_at_any_time_goes_on(
    owner: Owner, host: PaidHost, ledger: InProcessLedger, database: Database, mock_clock: MockClock, seconds: int
) -> None:
    await owner.store(host, 1)
    await owner.rounds(seconds)
    again = Owner(database, ledger, [host], mock_clock)
    await again.rounds(4 * WINDOW + 500)
    assert again.states == ["claimed"] * 4
    assert again.contracts.get(1).state == "merged"
    assert len(host.claims) == 4


async def test_a_contract_is_renewed_while_its_pieces_are_needed(
    mock_clock: MockClock, owner: Owner, host: PaidHost
) -> None:
    piece = await owner.store(host, 1)
    owner.is_wanted = True
    await owner.rounds(3 * WINDOW + 700)
    second = owner.contracts.get(2)
    assert second.state == "open"
    assert second.terms.number == 1
    assert owner.market.usable(host.node) == second
    assert not owner.contracts.knows(2, piece), "it has to be digested anew"
    owner.is_wanted = False
    await owner.rounds(9 * WINDOW)
    assert [owner.contracts.get(number).state for number in (1, 2)] == ["merged", "merged"]


async def test_a_contract_of_which_covers_are_lost_is_paid_on_when_there_is_another(
    mock_clock: MockClock, owner: Owner, host: PaidHost
) -> None:
    owner.needed = [await owner.store(host, 1)]
    await owner.rounds(WINDOW + 500)
    owner.contracts.withdraw(1, 0)
    owner.contracts.set_not_whole(1)
    owner.is_wanted = True
    await owner.rounds(WINDOW + 600)
    assert owner.contracts.get(2).state == "open"
    owner.is_wanted = False
    await owner.rounds(4 * WINDOW + 500)
    assert owner.states == ["claimed"] * 4
    assert owner.contracts.get(1).state == "merged"


async def test_what_comes_while_it_is_looked_whether_a_contract_is_handed_on_keeps_it(
    mock_clock: MockClock, owner: Owner, host: PaidHost
) -> None:
    await owner.store(host, 1)
    await owner.rounds(3 * WINDOW + 500)
    await owner.agreements.make(host.node)
    owner.needed = []
    salts = Salts(1, 3, owner.market.salts(owner.contracts.get(1), 3))
    late = host.store(PieceId(b"l" * 32), b"late", salts)
    owner.meanwhile = lambda: owner.contracts.keep([late])
    await owner.rounds(3 * WINDOW + 700)
    assert owner.looked
    assert owner.contracts.get(1).state == "open"


async def test_nothing_is_looked_at_for_a_contract_that_cannot_be_handed_on(
    mock_clock: MockClock, owner: Owner, host: PaidHost
) -> None:
    await owner.store(host, 1)
    await owner.rounds(3 * WINDOW + 500)
    await owner.agreements.make(host.node)
    await owner.rounds(3 * WINDOW + 600)
    assert set(owner.looked) == {1}
    owner.looked.clear()
    owner.agreements.event(1, "host broke")
    await owner.rounds(4 * WINDOW + 500)
    assert owner.looked == []


async def test_a_budget_that_is_used_up_keeps_no_contract_from_being_renewed(
    mock_clock: MockClock, owner: Owner, host: PaidHost
) -> None:
    await owner.store(host, 1)
    owner.limits.set(Spending(PRICE, monthly(owner.agreements.holdings())))
    mock_clock.jump(2)
    with pytest.raises(Unavailable, match="budget"):
        await owner.store(host, 2)
    owner.is_wanted = True
    await owner.rounds(3 * WINDOW + 700)
    assert owner.contracts.get(2).state == "open"


async def test_without_money_there_is_no_contract_and_it_is_said_what_is_missing(
    database: Database, host: PaidHost, mock_clock: MockClock
) -> None:
    ledger = InProcessLedger()
    ledger.fund(host.account)
    owner = Owner(database, ledger, [host], mock_clock)
    owner.limits.set(Spending(PRICE, None))
    with pytest.raises(Unavailable, match="pay something into it"):
        await owner.store(host, 1)
    with pytest.raises(Unavailable, match="pay something into it"):
        await owner.store(host, 1)
    assert owner.agreements.problem is not None
    assert owner.contracts.live() == []
    assert host.asked == []


async def test_nobody_is_paid_more_than_the_limit_or_the_budget(
    owner: Owner, host: PaidHost, mock_clock: MockClock
) -> None:
    owner.limits.set(Spending(PRICE - 1, None))
    with pytest.raises(Unavailable, match=r"the limit is 19999\.9999999"):
        await owner.store(host, 1)
    mock_clock.jump(10)
    owner.limits.set(Spending(PRICE, 100))
    with pytest.raises(Unavailable, match="the budget leaves nothing"):
        await owner.store(host, 1)
    mock_clock.jump(10)
    owner.limits.set(Spending(PRICE, PRICE // 8192))
    for number in range(120):
        await owner.store(host, number)
    mock_clock.jump(2)
    with pytest.raises(Unavailable, match="budget"):
        await owner.store(host, 200, 9 << 20)


async def test_two_pieces_at_once_make_one_contract(mock_clock: MockClock, owner: Owner, host: PaidHost) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(owner.store, host, number)
    assert len(owner.contracts.live()) == 1
    assert owner.wakes[0] == 1, "or the paymaster would sleep on"
    assert host.asked.count("Propose") == 1


async def test_a_ledger_that_is_away_keeps_nobody_from_reading_and_is_caught_up_with(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger
) -> None:
    await owner.store(host, 1)
    await owner.rounds(1500)
    ledger.is_away = True
    await owner.paymaster.go_round()
    assert owner.paymaster.problem is not None
    ledger.is_away = False
    await owner.rounds(4 * WINDOW + 500)
    assert owner.states == ["claimed"] * 4


async def test_with_the_phrase_and_the_ledger_alone_hosts_are_paid_on_and_the_escrow_comes_back(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger, tmp_path: Path
) -> None:
    before = balance(ledger, owner.escrows.account)
    await owner.store(host, 1)
    await owner.rounds(1500)
    with Database(str(tmp_path / "another.db")) as database:
        again = Owner(database, ledger, [host], mock_clock)
        assert await again.lost.find(again.escrows.account) == 1
        assert await again.lost.find(again.escrows.account) == 0
        host.is_away = True
        assert await again.lost.complete(again.escrows.now()) == 1
        await again.rounds(1700)
        assert again.contracts.get(1).state == "open", "nothing was said of a contract whose id is not known"
        host.is_away = False
        assert await again.lost.complete(again.escrows.now()) == 0
        (contract,) = again.contracts.live()
        assert contract.terms == owner.contracts.get(1).terms
        again.limits.set(Spending(PRICE, None))
        assert again.market.usable(host.node) is None, "what it covers is not known"
        await again.rounds(4 * WINDOW + 500)
        assert again.states == ["claimed"] * 4
        assert again.contracts.get(1).state == "merged"
        paid = sum(each.paid_stroops for each in again.contracts.get(1).instalments)
    assert before - balance(ledger, owner.escrows.account) == paid + 3 * 100 + 4 * 100 + 100


async def test_a_lost_contract_comes_back_when_its_host_is_gone_as_well(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger, tmp_path: Path
) -> None:
    before = balance(ledger, owner.escrows.account)
    await owner.store(host, 1)
    host.is_away = True
    with Database(str(tmp_path / "another.db")) as database:
        again = Owner(database, ledger, [host], mock_clock)
        assert await again.lost.find(again.escrows.account) == 1
        await again.rounds(4 * WINDOW + 500)
        assert again.contracts.get(1).state == "merged"
    assert before - balance(ledger, owner.escrows.account) == 3 * 100 + 100


@pytest.mark.parametrize("finds_first", [True, False])
async def test_an_owner_who_has_lost_all_records_uses_no_salt_again(
    mock_clock: MockClock,
    owner: Owner,
    host: PaidHost,
    ledger: InProcessLedger,
    tmp_path: Path,
    finds_first: bool,
) -> None:
    await owner.store(host, 1)
    await owner.rounds(4 * WINDOW + 500)
    assert owner.contracts.get(1).state == "merged"
    known = owner.market.salts(owner.contracts.get(1), 0)
    mock_clock.jump(1)
    await owner.store(host, 2)
    with Database(str(tmp_path / "another.db")) as database:
        again = Owner(database, ledger, [host], mock_clock)
        again.limits.set(Spending(PRICE, None))
        if finds_first:
            assert await again.lost.find(again.escrows.account) == 2
        await again.store(host, 3)
        if not finds_first:
            assert await again.lost.find(again.escrows.account) == 2, "also when it was begun anew meanwhile"
        contracts = again.contracts.live()
        assert len({each.terms.escrow for each in contracts}) == 3
        assert not {salt for each in contracts[-1:] for salt in again.market.salts(each, 0)} & set(known)
        if finds_first:
            assert [each.terms.number for each in contracts] == [0, 1, 2]
        await again.rounds(9 * WINDOW)
        assert {again.contracts.get(number).state for number in (1, 2, 3)} == {"merged"}


async def test_a_host_that_is_not_paid_on_is_not_counted_on(
    mock_clock: MockClock, owner: Owner, host: PaidHost
) -> None:
    def unpaid(*, priced: bool = True) -> bool:
        mock_clock.jump(10)
        return host.node in owner.market.unpaid(lambda _host: priced)

    assert not unpaid()
    await owner.store(host, 1)
    owner.is_wanted = True
    host.price = PRICE + 1
    await owner.rounds(3 * WINDOW + 700)
    assert not unpaid(), "there is time to renew"
    await owner.rounds(3 * WINDOW + 900)
    assert unpaid()
    assert not unpaid(priced=False), "it keeps pieces for nothing now"
    await owner.rounds(6 * WINDOW)
    assert owner.contracts.get(1).state == "merged"
    assert unpaid()
    host.price = PRICE
    await owner.store(host, 2)
    assert not unpaid()


async def test_a_piece_that_is_paid_for_from_later_on_is_digested_from_later_on(
    mock_clock: MockClock, owner: Owner, host: PaidHost
) -> None:
    """As when the ledger's time, and with it the instalment that is open, went back a little."""
    await owner.market.agree(host, PieceId(bytes(32)), 1 << 20)
    (contract,) = owner.contracts.live()
    later = Salts(contract.number, 1, owner.market.salts(contract, 1))
    owner.market.keep([host.store(PieceId(bytes(32)), bytes(1 << 20), later)])
    await owner.rounds(4 * WINDOW + 500)
    assert owner.states == ["missed", "claimed", "claimed", "claimed"]


async def test_pieces_that_the_host_has_lost_are_offered_no_more_and_those_that_it_has_are(
    mock_clock: MockClock, owner: Owner, host: PaidHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layrfs.upkeep.paymaster.PIECES_PER_COVER", 1)
    paid_by_the_first = await owner.store(host, 1)
    await owner.rounds(300)
    await owner.agreements.make(host.node)
    salts = Salts(2, 0, owner.market.salts(owner.contracts.get(2), 0))
    owner.market.keep([host.store(paid_by_the_first, host.data[paid_by_the_first], salts)])
    lost = await owner.store(host, 2)
    del host.data[lost]
    await owner.rounds(700)
    assert owner.contracts.knows(2, paid_by_the_first)
    assert not owner.contracts.knows(2, lost)


async def test_a_refund_that_may_still_come_keeps_nothing_else_from_being_paid(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger, database: Database
) -> None:
    await owner.store(host, 1)
    terms = owner.contracts.get(1).terms
    envelope = envelopes.refund(terms)
    intents = IntentTable(database)
    await intents.keep(Intent(envelope.hash, envelope.xdr({}), 0, 0, "a refund"))
    async with owner.escrows.turn() as turn:
        assert turn.spendable_stroops > 0
    payment = envelopes.payment(
        terms.network, terms.owner, terms.host, stroops=1, sequence_number=turn.account.sequence + 1, last_second=2**31
    )
    ledger.loses_submissions = True
    await intents.keep(Intent(payment.hash, payment.xdr({terms.owner: payment.sign(PRIVATE)}), 0, 2**31, "a payment"))
    with pytest.raises(Unavailable, match="a payment"):
        async with owner.escrows.turn():
            pass


async def test_an_account_that_a_server_does_not_know_is_no_refund(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger
) -> None:
    before = balance(ledger, owner.escrows.account)
    await owner.store(host, 1)
    await owner.rounds(1500)
    host.is_away = True
    await owner.rounds(4 * WINDOW - 200)
    ledger.forgets_accounts = True
    await owner.rounds(4 * WINDOW + 500)
    assert owner.contracts.get(1).state == "merged"
    paid = sum(each.paid_stroops for each in owner.contracts.get(1).instalments)
    assert before - balance(ledger, owner.escrows.account) == paid + 3 * 100 + 2 * 100 + 100


async def test_what_a_server_does_not_know_yet_is_not_given_up(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger
) -> None:
    await owner.store(host, 1)
    terms = owner.contracts.get(1).terms
    ledger.lag_seconds, ledger.hides_transactions = 120, True
    while ledger.bank.ledger.header.sequence <= terms.last_setup_ledger:
        ledger.bank.close(1)
    assert await owner.escrows.look_for_set_up(terms) is None
    ledger.bank.close(200)
    assert await owner.escrows.look_for_set_up(terms) == "too late"
    ledger.bank.close(terms.window(0)[1] + 60 - ledger.bank.now)
    assert await owner.escrows.look_for_claim(terms, 0) == "open"
    ledger.bank.close(120)
    assert await owner.escrows.look_for_claim(terms, 0) == "never"
    ledger.forgets_accounts = True
    assert await owner.escrows.look_for_claim(terms, 0) == "open", "its history would have the refund"


async def test_an_escrow_is_topped_up_when_more_is_stored_than_it_was_made_for(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger
) -> None:
    before = balance(ledger, owner.escrows.account)
    owner.limits.set(Spending(PRICE, PRICE >> 13))  # of 128 MiB
    await owner.store(host, 1, 60 << 20)
    owner.limits.set(Spending(PRICE, None))
    for number in range(2, 6):
        await owner.rounds(100 * number, step=50)
        await owner.store(host, number, 60 << 20)
    await owner.rounds(4 * WINDOW + 500)
    contract = owner.contracts.get(1)
    paid = [each.paid_stroops for each in contract.instalments]
    assert len(owner.contracts.newest()) == contract.number == 1
    assert owner.states == ["claimed"] * 4
    assert sum(paid) > contract.terms.deposit_stroops
    fees = before - balance(ledger, owner.escrows.account) - sum(paid)
    assert fees == (3 + 4 + 1 + 2) * 100, "set-up, claims, refund, and two top-ups: 300 MiB instead of 128"


async def test_what_lacks_is_added_where_the_wallet_has_no_whole_deposit(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger
) -> None:
    owner.limits.set(Spending(PRICE, PRICE >> 13))  # of 128 MiB
    await owner.store(host, 1, 110 << 20)
    owner.limits.set(Spending(PRICE, None))
    await owner.rounds(300)
    terms = owner.contracts.get(1).terms
    await owner.spend_all_but(terms.deposit_stroops // 2)
    await owner.store(host, 2, 30 << 20)
    await owner.rounds(600)
    assert owner.contracts.uncovered(1) == (0, 0)


async def test_with_too_little_for_all_that_waits_what_the_escrow_pays_for_is_covered(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger
) -> None:
    owner.limits.set(Spending(PRICE, PRICE >> 13))  # of 128 MiB
    await owner.store(host, 1, 110 << 20)
    owner.limits.set(Spending(PRICE, None))
    await owner.rounds(100)
    await owner.spend_all_but(0)
    ledger.is_away = True
    for number in range(2, 8):
        await owner.store(host, number, 5 << 20)
    ledger.is_away = False
    await owner.rounds(600)
    pieces, _bytes = owner.contracts.uncovered(1)
    assert 0 < pieces < 6
    assert "the wallet can spend 0 XLM" in (owner.paymaster.problem or "")


async def test_what_is_free_in_an_escrow_is_reckoned_with_the_covers_of_meanwhile(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger
) -> None:
    owner.limits.set(Spending(PRICE, PRICE >> 13))  # of 128 MiB
    await owner.store(host, 1, 60 << 20)
    before = owner.contracts.get(1)
    owner.limits.set(Spending(PRICE, None))
    await owner.rounds(300)
    more = [PieceDigests(PieceId(bytes(32)), 100 << 20, 1, 0, ())]
    await owner.market.have_funds_for(before, more, owner.escrows.now())
    now = owner.contracts.get(1)
    assert now.batches
    free = balance(ledger, now.terms.escrow) - escrow_needs(unclaimed(now))
    assert free >= (cost_of(now, 100 << 20, owner.escrows.now()) or math.inf)


async def test_when_a_host_sees_no_funds_the_ledger_is_asked_again(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await owner.store(host, 1)
    host.sees_no_funds = True
    await owner.rounds(300)
    asked, account = [], ledger.account

    async def noted(key: bytes) -> LedgerAccount | None:
        asked.append(key)
        return await account(key)

    monkeypatch.setattr(ledger, "account", noted)
    host.sees_no_funds = False
    await owner.rounds(400)
    contract = owner.contracts.get(1)
    assert contract.batches
    assert asked.count(contract.terms.escrow) == 2, "by its owner, and by the host for the cover"


async def test_an_empty_wallet_is_not_asked_for_at_every_piece_and_nothing_goes_on_credit_for_that(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await owner.store(host, 1)
    asked, account = [], ledger.account

    async def noted(key: bytes) -> LedgerAccount | None:
        asked.append(key)
        found = await account(key)
        return found and msgspec.structs.replace(found, balance_stroops=0)

    async def is_refused(number: int, piece_bytes: int = 1 << 20) -> None:
        with pytest.raises(Unavailable, match="cannot be paid now"):
            await owner.market.agree(host, PieceId(number.to_bytes(32, "big")), piece_bytes)

    monkeypatch.setattr(ledger, "account", noted)
    contract = owner.contracts.get(1)
    owner.market.note_no_funds(contract)
    owner.wakes.clear()
    async with trio.open_nursery() as nursery:
        for number in range(2, 52):
            nursery.start_soon(is_refused, number)
    most = credit_bytes(contract.terms) - (2 << 20)
    for number in range(52, 102):
        await is_refused(number, most)
    assert asked == [contract.terms.escrow, owner.escrows.account]
    assert owner.wakes == []
    ledger.is_away = True
    for _ in range(3):
        await is_refused(103)
        mock_clock.jump(NO_FUNDS_SECONDS)
    ledger.is_away = False
    monkeypatch.undo()
    mock_clock.jump(NO_FUNDS_SECONDS)
    await owner.market.agree(host, PieceId(b"x" * 32), most)


async def test_however_often_there_is_something_to_do_rounds_are_a_second_apart(
    owner: Owner, autojump_clock: MockClock
) -> None:
    rounds: list[float] = []
    with trio.move_on_after(9.5) as scope:

        def nudged() -> trio.Event:
            rounds.append(trio.current_time())
            if len(rounds) > 100:
                scope.cancel()
            event = trio.Event()
            event.set()
            return event

        owner.nudged = nudged
        await owner.paymaster.run()
    assert len(rounds) == 10


async def test_while_nothing_can_be_covered_not_every_piece_waits_for_that(
    mock_clock: MockClock, owner: Owner, host: PaidHost
) -> None:
    await owner.store(host, 1)
    most = credit_bytes(owner.contracts.get(1).terms) - (2 << 20)
    await owner.market.agree(host, PieceId(b"m" * 32), most)
    mock_clock.autojump_threshold = 0.0
    began = trio.current_time()
    for number in range(5):
        with pytest.raises(Unavailable, match="before those it has are covered"):
            await owner.market.agree(host, PieceId(bytes([number]) * 32), 4 << 20)
    assert trio.current_time() - began == COVER_SECONDS
    await trio.sleep(PROMISED_SECONDS)
    began = trio.current_time()
    await owner.market.agree(host, PieceId(b"x" * 32), 4 << 20)
    assert trio.current_time() == began


async def test_what_another_contract_pays_for_takes_no_credit_while_it_waits(
    mock_clock: MockClock, owner: Owner, host: PaidHost
) -> None:
    piece = await owner.store(host, 1)
    await owner.rounds(WINDOW + 500)
    await owner.agreements.make(host.node)
    contract = owner.contracts.get(2)
    anew = host.store(piece, bytes([1]) * (1 << 20), Salts(2, 0, owner.market.salts(contract, 0)))
    owner.market.keep([msgspec.structs.replace(anew, piece_bytes=credit_bytes(contract.terms))])
    mock_clock.autojump_threshold = 0.0
    began = trio.current_time()
    await owner.market.agree(host, PieceId(b"x" * 32), 4 << 20)
    assert trio.current_time() == began


async def test_pieces_that_a_host_does_not_have_take_none_of_its_credit(
    mock_clock: MockClock, owner: Owner, host: PaidHost
) -> None:
    await owner.store(host, 1)
    await owner.rounds(300)
    most = credit_bytes(owner.contracts.get(1).terms) - (2 << 20)
    piece = PieceId(b"m" * 32)
    lost = host.store(piece, b"", await owner.market.agree(host, piece, most))
    del host.data[piece]
    owner.market.keep([msgspec.structs.replace(lost, piece_bytes=most)])
    mock_clock.autojump_threshold = 0.0
    with pytest.raises(Unavailable, match="before those it has are covered"):
        await owner.market.agree(host, PieceId(b"x" * 32), 4 << 20)
    mock_clock.autojump_threshold = math.inf
    await owner.rounds(500)
    mock_clock.autojump_threshold = 0.0
    await owner.market.agree(host, PieceId(b"x" * 32), 4 << 20)


async def test_while_the_ledger_is_away_hosts_take_pieces_on_credit(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger, database: Database
) -> None:
    await owner.store(host, 1)
    await owner.rounds(300)
    ledger.is_away = True
    await owner.store(host, 2)
    again = Owner(database, ledger, [host], mock_clock)
    again.limits.set(Spending(PRICE, None))
    await again.store(host, 3)
    ledger.is_away = False
    await again.rounds(700)
    assert again.contracts.uncovered(1) == (0, 0)


async def test_what_could_not_be_paid_is_not_on_its_way(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger, database: Database
) -> None:
    await owner.store(host, 1)
    again = Owner(database, ledger, [host], mock_clock)
    again.limits.set(Spending(PRICE, None))
    ledger.is_another = True
    most = credit_bytes(again.contracts.get(1).terms) - (2 << 20)
    for number in (2, 3):
        with pytest.raises(Unavailable, match="cannot be paid now"):
            await again.market.agree(host, PieceId(bytes([number]) * 32), most)


async def test_before_the_ledger_has_said_the_time_nothing_is_said_or_ended(
    mock_clock: MockClock,
    owner: Owner,
    host: PaidHost,
    ledger: InProcessLedger,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await owner.store(host, 1)
    await owner.rounds(500)
    ledger.is_away = True
    wrong = owner.contracts.get(1).terms.window(2)[0] + 0.8 * WINDOW
    monkeypatch.setattr("time.time", lambda: wrong)
    again = Owner(database, ledger, [host], mock_clock)
    host.asked.clear()
    await again.paymaster.go_round()
    assert host.asked == []
    assert again.paymaster.problem is not None


async def test_before_the_ledger_has_said_the_time_no_host_is_given_up_and_no_instalment_passed_over(
    mock_clock: MockClock,
    owner: Owner,
    host: PaidHost,
    ledger: InProcessLedger,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await owner.store(host, 1)
    await owner.rounds(500)
    terms = owner.contracts.get(1).terms
    ledger.is_away = True
    monkeypatch.setattr("time.time", lambda: float(terms.window(2)[0]))
    again = Owner(database, ledger, [host], mock_clock)
    again.limits.set(Spending(PRICE, None))
    assert (await again.market.agree(host, PieceId(bytes(32)), 1)).first == 1
    monkeypatch.setattr("time.time", lambda: float(terms.end + WINDOW))
    again = Owner(database, ledger, [host], mock_clock)
    assert again.market.unpaid(lambda _host: True) == frozenset()


async def test_a_host_that_is_slow_to_agree_is_not_waited_for(
    autojump_clock: MockClock, owner: Owner, host: PaidHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_self: PaidHost, _request: object) -> None:
        await trio.sleep(60)

    monkeypatch.setattr(PaidHost, "_propose", never)
    with pytest.raises(Unavailable, match="too long to agree"), trio.fail_after(15):
        await owner.store(host, 1)
    assert owner.contracts.live() == []


async def test_what_a_broken_contract_covered_is_covered_by_the_next_one_at_once(
    mock_clock: MockClock, owner: Owner, host: PaidHost
) -> None:
    piece = await owner.store(host, 1)
    await owner.rounds(WINDOW + 500)
    owner.agreements.event(1, "host broke")
    await owner.agreements.make(host.node)
    salts = await owner.market.agree(host, piece, 1 << 20)
    owner.market.keep([host.store(piece, bytes([1]) * (1 << 20), salts)])
    await owner.rounds(WINDOW + 2500)
    assert owner.contracts.pieces_of(2, 0) == (piece,)


async def test_what_a_contract_has_to_go_on_paying_for_has_until_the_other_ends_and_then_until_it_is_let_go(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger
) -> None:
    await owner.store(host, 1)
    assert owner.market.seconds_left(host.node) == math.inf
    await owner.rounds(3 * WINDOW + 600)
    await owner.agreements.make(host.node)
    first = owner.contracts.get(1).terms
    assert owner.market.seconds_left(host.node) == pytest.approx(first.end - ledger.bank.now, abs=10)
    await owner.rounds(4 * WINDOW + 500)
    assert owner.contracts.get(1).state == "merged"
    assert owner.contracts.get(2).state == "open"
    kept = first.end + 2 * WINDOW - ledger.bank.now
    assert owner.market.seconds_left(host.node) == pytest.approx(kept, abs=10), (
        "its host keeps what it paid for so long"
    )


@pytest.mark.parametrize("limit", [PRICE, None])
async def test_a_price_that_rises_or_a_limit_that_falls_ends_no_contract_that_was_agreed(
    mock_clock: MockClock, owner: Owner, host: PaidHost, limit: int | None
) -> None:
    assert owner.market.pays_on(host)
    await owner.store(host, 1)
    host.price += 1
    owner.limits.set(Spending(limit, None))
    assert owner.market.pays_on(host)
    await owner.rounds(4 * WINDOW + 1)
    assert not owner.market.pays_on(host)


async def test_a_host_that_does_not_like_the_escrow_is_left_alone_for_a_while(
    mock_clock: MockClock, owner: Owner, host: PaidHost, database: Database, ledger: InProcessLedger
) -> None:
    await owner.store(host, 1)
    again = Owner(database, ledger, [host], mock_clock)
    host.is_away = True
    for _ in range(3):
        with pytest.raises(Unavailable, match="nobody answers"):
            await again.store(host, 2)
    host.is_away = False
    asked = len(host.asked)
    with pytest.raises(Unavailable, match="nobody answers"):
        await again.store(host, 2)
    assert len(host.asked) == asked
    mock_clock.jump(10)
    await again.store(host, 2)
    assert again.agreements.problem is None


class AnotherLedger(InProcessLedger):
    """It is somebody else's, and has nothing of ours."""

    @property
    def passphrase(self) -> str:
        return super().passphrase + ", another"


async def test_of_a_contract_on_another_ledger_nothing_is_concluded(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger, database: Database
) -> None:
    await owner.store(host, 1)
    await owner.rounds(500)
    before = owner.contracts.get(1)
    elsewhere = Owner(database, AnotherLedger(), [host], mock_clock)
    assert elsewhere.market.usable(host.node) is None
    await elsewhere.rounds(5 * WINDOW, step=500)
    assert elsewhere.contracts.get(1) == before
    assert "another ledger" in (elsewhere.paymaster.problem or "")
    again = Owner(database, ledger, [host], mock_clock)
    await again.rounds(5 * WINDOW, step=500)
    assert again.contracts.get(1).state == "merged"
    assert again.states == ["claimed"] * 4


async def test_servers_that_are_behind_change_nothing_on_record(
    mock_clock: MockClock, owner: Owner, host: PaidHost, ledger: InProcessLedger
) -> None:
    ledger.lag_seconds = 120
    await owner.store(host, 1)
    await owner.rounds(3 * WINDOW + 10)
    host.is_away = True
    await owner.rounds(4 * WINDOW + 500)
    assert owner.states == ["claimed", "claimed", "claimed", "missed"]
    assert owner.contracts.get(1).state == "merged"


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE contract SET terms = x'00' WHERE number = 2",
        "UPDATE contract SET state = 'anything' WHERE number = 2",
        "UPDATE contract_instalment SET state = 'anything' WHERE contract = 2",
    ],
)
async def test_a_contract_whose_record_is_damaged_keeps_no_other_host_from_being_paid_and_is_said(
    mock_clock: MockClock, ledger: InProcessLedger, host: PaidHost, database: Database, damage: str
) -> None:
    other = PaidHost(8, ledger, PRICE)
    ledger.fund(other.account)
    owner = Owner(database, ledger, [host, other], mock_clock)
    owner.limits.set(Spending(PRICE, None))
    await owner.store(host, 1)
    await owner.store(other, 2)
    database.write(damage)
    database.commit()
    again = Owner(database, ledger, [host, other], mock_clock)
    await again.rounds(500)
    assert again.states[0] == "claimed"
    assert again.contracts.newest() == again.contracts.live() == [again.contracts.get(1)]
    assert again.market.usable(other.node) is None
    assert "damaged" in (again.contracts.problem or "")
    with pytest.raises(CorruptFile):
        read_records(database.path)


@pytest.mark.parametrize("table", ["contract", "contract_piece"])
async def test_a_database_that_cannot_be_read_ends_nothing_and_is_said(
    mock_clock: MockClock, owner: Owner, host: PaidHost, database: Database, table: str
) -> None:
    await owner.store(host, 1)
    database.write(f"ALTER TABLE {table} RENAME TO elsewhere")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(owner.paymaster.run)
        while "database" not in (owner.paymaster.problem or ""):
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        database.write(f"ALTER TABLE elsewhere RENAME TO {table}")
        owner.ledger.bank.close(WINDOW // 2)
        mock_clock.jump(LONGEST_PAUSE_SECONDS)
        while not owner.contracts.get(1).batches:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
