"""An owner and a host that are both real, on one ledger in this process: they agree about every byte and stroop."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw
import pytest
import trio
from trio.testing import MockClock

from layrfs.crypto import merkle
from layrfs.crypto.digests import Buffer
from layrfs.crypto.wallet_keys import account_of
from layrfs.errors import MissingPiece, TimedOut
from layrfs.ids import NodeId, PieceId
from layrfs.model.contracts import Offer, Terms
from layrfs.model.payables import digests_of
from layrfs.model.records import NodeRecord
from layrfs.model.shards import PieceRecord
from layrfs.network.connections import HostRefused
from layrfs.payments import envelopes
from layrfs.policy.paymaster import batch_increments
from layrfs.policy.pricing import BASE_RESERVE_STROOPS, due_stroops, locked_stroops
from layrfs.storage.database import Database
from layrfs.storage.intents import IntentTable
from layrfs.storage.spending import Spending
from layrfs.wire.contracts import ContractRequest, Cover, Opened, Propose, Quoted, Settle
from layrfs.wire.messages import Refused
from tests.contract_ledger import as_read
from tests.fakes.ledger import InProcessLedger
from tests.hosted import NODE, TENANT, WALLET, Hosting, data_of, hosting, stored
from tests.unit.upkeep.test_paymaster import PRICE, PRIVATE, WINDOW, Owner, balance
from tests.unit.upkeep.test_paymaster_crashes import Crash, die_at

T = TypeVar("T")
RECORD = NodeRecord.sign(
    NODE, host="127.0.0.1", udp_port=1, tcp_port=1, free_bytes=1 << 30, expires=2**31, price=PRICE
)  # fmt: skip


class RealCounterpart:
    """Says to the one host what an owner says, without connections."""

    def __init__(self) -> None:
        self.host: Hosting
        self.loses_covers = False
        self.loses_one: type[Propose | Opened | Cover] | None = None
        self.signs_ends = True

    def tenant(self, _host: NodeId) -> bytes:
        return TENANT.public_key

    async def quote(self, _host: NodeId) -> Quoted:
        return self.host.earning.quote()

    async def ask(self, _host: NodeId, request: ContractRequest, kind: type[T], body: Buffer = b"") -> T:
        if not self.signs_ends and isinstance(request, Settle):
            raise HostRefused("ending")
        answer = await self.host.ask(request, bytes(body))
        is_lost = self.loses_one is not None and isinstance(request, self.loses_one)
        if is_lost:
            self.loses_one = None
        if is_lost or (self.loses_covers and isinstance(request, Cover)):
            raise TimedOut("the answer was lost")
        if isinstance(answer, Refused):
            raise MissingPiece("") if answer.reason == "missing" else HostRefused(answer.reason)
        assert isinstance(answer, kind)
        return answer

    async def renew(self, _host: NodeId, pieces: Sequence[PieceId]) -> list[bool]:
        return [self.host.store.renew(piece, TENANT.public_key) for piece in pieces]


@pytest.fixture
def ledger() -> InProcessLedger:
    ledger = InProcessLedger()
    for private in (PRIVATE, WALLET):
        ledger.fund(account_of(private))
    return ledger


@pytest.fixture
def offer(ledger: InProcessLedger) -> Offer:
    return Offer(PRICE, account_of(WALLET), envelopes.network_id(ledger.passphrase), shortest_window_seconds=5)


@pytest.fixture
def counterpart() -> RealCounterpart:
    return RealCounterpart()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(str(tmp_path / "metadata.db")) as database:
        yield database


@pytest.fixture
async def owner(
    database: Database, ledger: InProcessLedger, counterpart: RealCounterpart, mock_clock: MockClock
) -> Owner:
    owner = Owner(database, ledger, counterpart, mock_clock)
    owner.limits.set(Spending(PRICE, None))
    return owner


async def store(owner: Owner, host: Hosting, data: Sequence[bytes]) -> None:
    """As an upload does."""
    for one in data:
        piece = merkle.piece_id(one)
        salts = await owner.market.agree(RECORD, piece, len(one))
        assert await stored(host, [one]) == []
        owner.market.keep([digests_of(salts, piece, one)])


async def rounds(owner: Owner, host: Hosting, until: int, step: int = 100) -> None:
    """Time goes by, and nobody is too slow for it."""
    start = owner.contracts.get(1).terms.start
    while owner.ledger.bank.now < start + until:
        owner.ledger.bank.close(step)
        owner.clock.jump(step)
        await owner.paymaster.go_round()
        for _ in range(1000):
            states = [one for hosted in host.record.kept() for one in host.record.instalments(hosted.number)]
            if not any(one.state == "disclosed" and one.problem is None for one in states):
                break
            await trio.to_thread.run_sync(time.sleep, 0.002)


async def test_both_agree_to_the_stroop_through_all_of_a_period(
    mock_clock: MockClock, owner: Owner, counterpart: RealCounterpart, offer: Offer, tmp_path: Path
) -> None:
    ledger = owner.ledger
    before = balance(ledger, owner.escrows.account), balance(ledger, account_of(WALLET))
    (tmp_path / "host").mkdir()
    async with hosting(tmp_path / "host", ledger, offer) as counterpart.host:
        await store(owner, counterpart.host, data_of(1))
        await rounds(owner, counterpart.host, 500)
        assert owner.states == ["claimed", "waiting", "waiting", "waiting"]
        await store(owner, counterpart.host, data_of(2))
        await rounds(owner, counterpart.host, 4 * WINDOW + 500)
        report = await trio.to_thread.run_sync(counterpart.host.earning.report)
    paid = [one.paid_stroops for one in owner.contracts.get(1).instalments]
    assert owner.states == ["claimed"] * 4
    assert (owner.contracts.get(1).state, owner.paymaster.problem) == ("merged", None)
    assert paid[0] < paid[2] == paid[3] < paid[1]
    assert report.earned_stroops == sum(paid) == balance(ledger, account_of(WALLET)) - before[1]
    assert before[0] - balance(ledger, owner.escrows.account) == sum(paid) + 300 + 400 + 100


async def test_what_nobody_needs_any_more_ends_by_consent_and_both_agree_to_the_stroop(
    mock_clock: MockClock, owner: Owner, counterpart: RealCounterpart, offer: Offer, tmp_path: Path
) -> None:
    ledger = owner.ledger
    before = balance(ledger, owner.escrows.account), balance(ledger, account_of(WALLET))
    (tmp_path / "host").mkdir()
    async with hosting(tmp_path / "host", ledger, offer) as counterpart.host:
        await store(owner, counterpart.host, data_of(1))
        await rounds(owner, counterpart.host, WINDOW - 100)
        assert owner.states == ["claimed", "waiting", "waiting", "waiting"]
        owner.is_empty = True
        await rounds(owner, counterpart.host, WINDOW + 200)
        contract = owner.contracts.get(1)
        assert (contract.state, owner.paymaster.problem) == ("merged", None)
        (hosted,) = counterpart.host.record.all()
        assert hosted.ending is not None
        paid = sum(one.paid_stroops for one in contract.instalments) + hosted.ending.stroops
        fees = 300 + 100 * owner.states.count("claimed") + (200 if hosted.ending.stroops else 100)
        while counterpart.host.record.all()[0].state != "ended":
            await trio.to_thread.run_sync(time.sleep, 0.002)
            counterpart.host.earning._wake()
    assert balance(ledger, account_of(WALLET)) - before[1] == paid
    assert before[0] - balance(ledger, owner.escrows.account) == paid + fees


async def digest_anew(owner: Owner, data: Sequence[bytes]) -> None:
    """Those that the newest contract lacks."""
    for at, one in enumerate(data):
        piece = merkle.piece_id(one)
        salts = owner.market.lacking(PieceRecord(at, 0, piece, NODE.node_id))
        if salts is not None:
            owner.market.keep([digests_of(salts, piece, one)])


async def renewed(owner: Owner, host: Hosting) -> Terms:
    """In the last window, which is paid for; the terms of the contract that follows."""
    await store(owner, host, data_of(1))
    await rounds(owner, host, WINDOW + 500)
    await store(owner, host, data_of(2))
    owner.is_wanted, owner.needed = True, [merkle.piece_id(one) for one in [*data_of(1), *data_of(2)]]
    await rounds(owner, host, 3 * WINDOW + 500)
    assert owner.states == ["claimed"] * 4
    assert [each.state for each in owner.contracts.live()] == ["open", "open"]
    return owner.contracts.get(2).terms


@pytest.mark.parametrize("consents", [True, False])
async def test_a_contract_that_is_renewed_ends_by_consent_when_the_next_one_covers_all_and_nothing_is_paid_twice(
    mock_clock: MockClock, owner: Owner, counterpart: RealCounterpart, offer: Offer, tmp_path: Path, consents: bool
) -> None:
    ledger = owner.ledger
    before = balance(ledger, owner.escrows.account), balance(ledger, account_of(WALLET))
    (tmp_path / "host").mkdir()
    async with hosting(tmp_path / "host", ledger, offer) as counterpart.host:
        host, counterpart.signs_ends = counterpart.host, consents
        again = await renewed(owner, host)
        end = owner.contracts.get(1).terms.end
        await digest_anew(owner, data_of(2))
        await store(owner, host, data_of(3))
        holdings = sum(each.stored_bytes for each in owner.agreements.holdings())
        await rounds(owner, host, 3 * WINDOW + 600, step=50)
        assert [batch.at > ledger.bank.now for batch in owner.contracts.get(2).batches] == [False, True]
        assert sum(each.stored_bytes for each in owner.agreements.holdings()) == holdings, "no piece counts twice"
        assert host.record.all()[0].ending is None, "no other contract covers the first pieces yet"
        await digest_anew(owner, data_of(1))
        await rounds(owner, host, 3 * WINDOW + 800)
        assert (owner.contracts.get(1).state == "merged") == consents
        assert ledger.bank.now < end
        assert sum(each.stored_bytes for each in owner.agreements.holdings()) == holdings
        owner.is_wanted = False
        await rounds(owner, host, again.end + 500 - owner.contracts.get(1).terms.start)
    assert [owner.contracts.get(number).state for number in (1, 2)] == ["merged", "merged"]
    assert owner.states == ["claimed"] * 4
    assert [one.state for one in owner.contracts.get(2).instalments] == ["claimed"] * 4
    paid = [sum(one.paid_stroops for one in owner.contracts.get(number).instalments) for number in (1, 2)]
    assert balance(ledger, account_of(WALLET)) - before[1] == sum(paid)
    assert before[0] - balance(ledger, owner.escrows.account) == sum(paid) + 2 * (300 + 400 + 100)
    first, second = (sum(map(len, data_of(number))) for number in (1, 2))
    later = [batch for batch in owner.contracts.get(2).batches if batch.at == end]
    assert sum(batch.stored_bytes for batch in later) == first + second
    fresh = sum(sum(batch_increments(again, batch)) for batch in owner.contracts.get(2).batches if batch.at < end)
    assert 0 <= paid[1] - fresh - due_stroops(PRICE, first + second, again.end - end) <= 8, "rounded up"


async def test_two_escrows_with_a_host_are_there_for_minutes_of_each_period(
    mock_clock: MockClock, owner: Owner, counterpart: RealCounterpart, offer: Offer, tmp_path: Path
) -> None:
    """What is reserved is at most 2 XLM for each host, but while one contract is handed on to the next."""
    (tmp_path / "host").mkdir()
    locked: list[int] = []
    async with hosting(tmp_path / "host", owner.ledger, offer) as counterpart.host:
        await store(owner, counterpart.host, data_of(1))
        owner.is_wanted, owner.needed = True, [merkle.piece_id(one) for one in data_of(1)]
        while owner.ledger.bank.now < owner.contracts.get(1).terms.start + 12 * WINDOW:
            await rounds(owner, counterpart.host, owner.ledger.bank.now - owner.contracts.get(1).terms.start + 25, 25)
            await digest_anew(owner, data_of(1))
            found = [owner.ledger.bank.ledger.account(each.terms.escrow) for each in owner.contracts.live()]
            locked.append(
                sum(each.reserve_stroops(BASE_RESERVE_STROOPS) for each in map(as_read, found) if each is not None)
            )
    two = sum(stroops > locked_stroops() for stroops in locked)
    assert max(locked) == 2 * locked_stroops()
    assert owner.contracts.newest()[0].number == 4, "each half a window before the end of the one before"
    assert 3 <= two <= 3 * 5, "of twenty that half a window has"
    for number in (1, 2, 3):
        contract = owner.contracts.get(number)
        assert contract.state == "merged"
        assert [one.state for one in contract.instalments] == ["claimed"] * 4


async def test_contracts_that_are_full_early_are_handed_on_one_after_the_other(
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    owner: Owner,
    counterpart: RealCounterpart,
    offer: Offer,
    tmp_path: Path,
) -> None:
    """A host agrees to the next one, although what the one before the last covered has been kept for a short time."""
    monkeypatch.setattr("layrfs.policy.paymaster.BATCHES_LIMIT", 2)
    before, stored_so_far = balance(owner.ledger, account_of(WALLET)), list[bytes]()
    (tmp_path / "host").mkdir()
    async with hosting(tmp_path / "host", owner.ledger, offer) as counterpart.host:
        owner.is_wanted, owner.needed = True, []
        for number in range(1, 6):
            await store(owner, counterpart.host, data_of(number))
            stored_so_far += data_of(number)
            owner.needed = [merkle.piece_id(one) for one in stored_so_far]
            for _ in range(4):
                start = owner.contracts.get(1).terms.start
                await rounds(owner, counterpart.host, owner.ledger.bank.now - start + 100)
                await digest_anew(owner, stored_so_far)
        assert owner.ledger.bank.now < owner.contracts.get(1).terms.end
        assert [owner.contracts.get(number).state for number in (1, 2)] == ["merged", "merged"]
        assert [each.state for each in owner.contracts.live()][-1] == "open"
        assert owner.agreements.problem is None
        assert not any(hosted.released for hosted in counterpart.host.record.all())
        report = await trio.to_thread.run_sync(counterpart.host.earning.report)
    assert report.earned_stroops == balance(owner.ledger, account_of(WALLET)) - before > 0


async def test_a_contract_that_is_full_early_is_handed_on_as_a_whole_so_that_no_window_is_paid_twice(
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    owner: Owner,
    counterpart: RealCounterpart,
    offer: Offer,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("layrfs.policy.paymaster.BATCHES_LIMIT", 2)
    (tmp_path / "host").mkdir()
    async with hosting(tmp_path / "host", owner.ledger, offer) as counterpart.host:
        host = counterpart.host
        await store(owner, host, data_of(1))
        await rounds(owner, host, 300)
        await store(owner, host, data_of(2))
        await rounds(owner, host, 800)
        owner.is_wanted, owner.needed = True, [merkle.piece_id(one) for one in [*data_of(1), *data_of(2)]]
        await rounds(owner, host, WINDOW + 300)
        assert owner.states == ["claimed", "claimed", "waiting", "waiting"]
        await digest_anew(owner, data_of(1))
        await rounds(owner, host, 2 * WINDOW + 300)
        assert owner.states == ["claimed", "claimed", "claimed", "waiting"]
        assert owner.contracts.get(2).batches == (), "the first one pays for all of it"
        await digest_anew(owner, data_of(2))
        await rounds(owner, host, 2 * WINDOW + 700)
        assert (owner.contracts.get(1).state, owner.states[3]) == ("merged", "waiting")
        (batch,) = owner.contracts.get(2).batches
        assert batch.at == owner.contracts.get(1).terms.window(2)[1] + 1


async def test_an_owner_who_dies_while_a_renewed_contract_ends_goes_on_with_the_next_one(
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    ledger: InProcessLedger,
    counterpart: RealCounterpart,
    offer: Offer,
    tmp_path: Path,
) -> None:
    for name in ("host", "first"):
        (tmp_path / name).mkdir()
    async with hosting(tmp_path / "host", ledger, offer) as counterpart.host:
        with Database(str(tmp_path / "first" / "metadata.db")) as database:
            owner = Owner(database, ledger, counterpart, mock_clock)
            owner.limits.set(Spending(PRICE, None))
            await renewed(owner, counterpart.host)
            await digest_anew(owner, [*data_of(1), *data_of(2)])
            await database.sync()
            copied = partial(shutil.copytree, tmp_path / "first", tmp_path / "second")
            died = die_at(monkeypatch, "end signed", 1, copied)
            try:
                await rounds(owner, counterpart.host, 3 * WINDOW + 800)
            except* Crash:
                pass
        assert died == ["end signed"]
        with Database(str(tmp_path / "second" / "metadata.db")) as database:
            owner = Owner(database, ledger, counterpart, mock_clock)
            again = owner.contracts.get(2).terms
            await rounds(owner, counterpart.host, again.end + 500 - owner.contracts.get(1).terms.start)
            assert [owner.contracts.get(number).state for number in (1, 2)] == ["merged", "merged"]
            assert [one.state for one in owner.contracts.get(2).instalments] == ["claimed"] * 4
            assert IntentTable(database).all() == []


async def test_what_another_machine_has_stored_meanwhile_keeps_a_contract_from_ending(
    mock_clock: MockClock, owner: Owner, counterpart: RealCounterpart, offer: Offer, tmp_path: Path
) -> None:
    (tmp_path / "host").mkdir()
    async with hosting(tmp_path / "host", owner.ledger, offer) as counterpart.host:
        await store(owner, counterpart.host, data_of(1))
        await rounds(owner, counterpart.host, WINDOW + 300)
        assert owner.states == ["claimed", "claimed", "waiting", "waiting"]
        record = counterpart.host.record
        record.cover(1, 2, owner.contracts.get(1).terms.end, 1, [PieceId(bytes(32))], [])
        owner.is_empty = True
        await rounds(owner, counterpart.host, WINDOW + 600)
        assert record.all()[0].ending is None
    assert owner.contracts.get(1).state == "settling"


END_POINTS = ["end wished", "end signed", "intent kept", "transaction sent", "intent forgotten", "end seen"]


@pytest.mark.parametrize("point", END_POINTS)
async def test_an_owner_who_dies_while_a_contract_ends_pays_once(
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    ledger: InProcessLedger,
    counterpart: RealCounterpart,
    offer: Offer,
    tmp_path: Path,
    point: str,
) -> None:
    before = balance(ledger, account_of(PRIVATE)), balance(ledger, account_of(WALLET))
    for name in ("host", "first"):
        (tmp_path / name).mkdir()
    async with hosting(tmp_path / "host", ledger, offer) as counterpart.host:
        with Database(str(tmp_path / "first" / "metadata.db")) as database:
            owner = Owner(database, ledger, counterpart, mock_clock)
            owner.limits.set(Spending(PRICE, None))
            await store(owner, counterpart.host, data_of(1))
            await rounds(owner, counterpart.host, WINDOW - 100)
            await database.sync()
            owner.is_empty = True
            copied = partial(shutil.copytree, tmp_path / "first", tmp_path / "second")
            died = die_at(monkeypatch, point, 1, copied)
            try:
                await rounds(owner, counterpart.host, WINDOW + 300)
            except* Crash:
                pass
        assert died == [point]
        with Database(str(tmp_path / "second" / "metadata.db")) as database:
            owner = Owner(database, ledger, counterpart, mock_clock)
            owner.is_empty = True
            await rounds(owner, counterpart.host, 5 * WINDOW)
            contract = owner.contracts.get(1)
            assert contract.state == "merged"
            assert IntentTable(database).all() == []
        (hosted,) = counterpart.host.record.all()
    claims = sum(one.paid_stroops for one in contract.instalments)
    got = balance(ledger, account_of(WALLET)) - before[1]
    assert got == claims + (hosted.ending.stroops if hosted.ending else 0)
    fees = before[0] - balance(ledger, account_of(PRIVATE)) - got
    assert 300 + 100 * owner.states.count("claimed") + 100 <= fees <= 300 + 400 + 200 + 200


@pytest.mark.parametrize("loses_one", [None, Propose, Opened, Cover])
async def test_a_host_that_lost_its_record_is_told_all_of_it_again(
    mock_clock: MockClock,
    owner: Owner,
    counterpart: RealCounterpart,
    offer: Offer,
    tmp_path: Path,
    loses_one: type[Propose | Opened | Cover] | None,
) -> None:
    directory = tmp_path / "host"
    directory.mkdir()
    async with hosting(directory, owner.ledger, offer) as counterpart.host:
        await store(owner, counterpart.host, data_of(1))
        await rounds(owner, counterpart.host, 500)
        await store(owner, counterpart.host, data_of(2))
        await rounds(owner, counterpart.host, WINDOW + 500)
        assert owner.states == ["claimed", "claimed", "waiting", "waiting"]
    for name in directory.glob("contracts.db*"):
        name.unlink()
    counterpart.loses_one = loses_one
    async with hosting(directory, owner.ledger, offer) as counterpart.host:
        await rounds(owner, counterpart.host, 4 * WINDOW + 500)
        (hosted,) = counterpart.host.record.all()
        assert [one.state for one in counterpart.host.record.instalments(hosted.number)] == ["claimed"] * 4
    assert owner.states == ["claimed"] * 4
    assert owner.contracts.get(1).state == "merged"


@pytest.mark.parametrize("loses_answer", [False, True])
async def test_an_owner_that_lacks_a_cover_of_another_machine_goes_on_with_another_contract(
    mock_clock: MockClock,
    owner: Owner,
    database: Database,
    counterpart: RealCounterpart,
    offer: Offer,
    tmp_path: Path,
    loses_answer: bool,
) -> None:
    (tmp_path / "host").mkdir()
    async with hosting(tmp_path / "host", owner.ledger, offer) as counterpart.host:
        await store(owner, counterpart.host, data_of(1))
        await rounds(owner, counterpart.host, 500)
        database.commit()
        apsw.Connection(database.path).execute("VACUUM INTO ?", (str(tmp_path / "earlier.db"),))
        await store(owner, counterpart.host, data_of(2))
        await rounds(owner, counterpart.host, 800)
        assert len(owner.contracts.get(1).batches) == 2
        with Database(str(tmp_path / "earlier.db")) as earlier:
            again = Owner(earlier, owner.ledger, counterpart, mock_clock)
            again.is_wanted = True
            await store(again, counterpart.host, data_of(3))
            mock_clock.jump(WINDOW)
            counterpart.loses_covers = loses_answer
            await again.paymaster.go_round()
            counterpart.loses_covers = False
            await rounds(again, counterpart.host, WINDOW + 200)
            first, second = again.contracts.live()
            assert (first.whole, len(first.batches), second.state) == (False, 1, "open")
            await store(again, counterpart.host, data_of(4))
            again.is_wanted = False
            await rounds(again, counterpart.host, 6 * WINDOW)
            assert [again.contracts.get(number).state for number in (1, 2)] == ["merged", "merged"]
            assert again.states == ["claimed"] * 4, "with what the other machine covered"
            assert [one.state for one in again.contracts.get(2).instalments][1:] == ["claimed"] * 3


async def test_a_payment_for_more_than_is_on_record_says_that_covers_are_lacking(
    mock_clock: MockClock, owner: Owner, database: Database, counterpart: RealCounterpart, offer: Offer, tmp_path: Path
) -> None:
    (tmp_path / "host").mkdir()
    async with hosting(tmp_path / "host", owner.ledger, offer) as counterpart.host:
        await store(owner, counterpart.host, data_of(1))
        await rounds(owner, counterpart.host, 500)
        database.commit()
        apsw.Connection(database.path).execute("VACUUM INTO ?", (str(tmp_path / "earlier.db"),))
        await store(owner, counterpart.host, data_of(2))
        await rounds(owner, counterpart.host, 800)
        assert owner.contracts.get(1).whole
        with Database(str(tmp_path / "earlier.db")) as earlier:
            again = Owner(earlier, owner.ledger, counterpart, mock_clock)
            await rounds(again, counterpart.host, WINDOW + 500)
            assert again.states[:2] == ["claimed", "claimed"]
            assert not again.contracts.get(1).whole
        await rounds(owner, counterpart.host, WINDOW + 600)
        assert owner.contracts.get(1).whole
