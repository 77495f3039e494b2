from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from layrfs.crypto.instalments import batch_digest
from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.payables import PieceDigests
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.policy.budgeting import Holding
from layrfs.policy.paymaster import Instalment
from layrfs.storage.bookkeeping import read_holdings
from layrfs.storage.changes import ChangeLog
from layrfs.storage.content import Catalog
from layrfs.storage.contracts import Contracts
from layrfs.storage.database import Database
from layrfs.storage.spending import Spending, SpendingLimits
from tests.contract_terms import TERMS

HOST = TERMS.node
SALTS = [bytes([instalment]) * 32 for instalment in range(TERMS.instalments)]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(str(tmp_path / "metadata.db")) as database:
        yield database


@pytest.fixture
def contracts(database: Database) -> Contracts:
    return Contracts(database)


def piece(number: int) -> PieceId:
    return PieceId(bytes([number]) * 32)


def digests(number: int, contract: int, first: int = 0) -> PieceDigests:
    found = tuple(bytes([number, instalment]) * 16 for instalment in range(first, TERMS.instalments))
    return PieceDigests(piece(number), 100 * number, contract, first, found)


def test_a_contract_is_what_was_agreed_and_how_far_it_is(contracts: Contracts) -> None:
    number = contracts.add(TERMS, "agreed")
    contracts.set_state(number, "open")
    contracts.set_instalment(number, 0, "claimed", 17, b"t" * 32)
    (found,) = contracts.live()
    assert (found.number, found.terms, found.state, found.whole) == (number, TERMS, "open", True)
    assert found.instalments == (Instalment("claimed", 17), *[Instalment()] * 3)
    assert contracts.of_host(HOST) == [found]
    assert contracts.of_host(NodeId(bytes(20))) == []


def test_numbers_of_contracts_that_are_over_stay_used(contracts: Contracts) -> None:
    first = contracts.add(TERMS, "agreed")
    contracts.set_state(first, "void")
    contracts.add(msgspec.structs.replace(TERMS, number=9), "agreed")
    assert [contract.terms.number for contract in contracts.live()] == [9]
    assert [terms.number for terms in contracts.terms_with(HOST)] == [7, 9]


def test_pieces_wait_until_their_host_agrees_to_a_batch_of_them(contracts: Contracts) -> None:
    number = contracts.add(TERMS, "open")
    contracts.keep([digests(2, number), digests(1, number)])
    assert contracts.uncovered(number) == (2, 300)
    batch = contracts.offer(number, contracts.payables(number, 10), 1, 123, SALTS[1:])
    assert contracts.pieces_of(number, 0) == (piece(1), piece(2))
    assert contracts.get(number).batches == (batch,)
    assert (batch.number, batch.first, batch.at, batch.stored_bytes, batch.covered) == (0, 1, 123, 300, False)
    expected = [[one.digests[instalment] for one in (digests(1, 1), digests(2, 1))] for instalment in (1, 2, 3)]
    assert batch.digests == tuple(map(batch_digest, SALTS[1:], expected))
    assert contracts.uncovered(number) == (0, 0), "on their way"
    contracts.withdraw(number, 0)
    assert contracts.uncovered(number) == (2, 300)
    contracts.offer(number, contracts.payables(number, 1), 1, 123, SALTS[1:])
    assert not contracts.get(number).batches[0].covered
    contracts.set_covered(number, 0)
    assert contracts.get(number).batches[0].covered
    assert contracts.uncovered(number) == (1, 200)
    contracts.withdraw(number, 0)
    assert contracts.uncovered(number) == (1, 200), "what a host has agreed to does not wait again"


def test_a_piece_is_covered_by_a_contract_once(contracts: Contracts) -> None:
    number = contracts.add(TERMS, "open")
    contracts.keep([digests(1, number)])
    contracts.keep([digests(1, number)])
    contracts.offer(number, contracts.payables(number, 10), 0, 1, SALTS)
    contracts.set_covered(number, 0)
    contracts.keep([digests(1, number)])
    assert contracts.uncovered(number) == (0, 0)
    assert contracts.knows(number, piece(1))
    assert not contracts.knows(number, piece(2))


def test_what_one_contract_pays_for_waits_for_its_end_in_the_next(contracts: Contracts) -> None:
    first, second = contracts.add(TERMS, "open"), contracts.add(msgspec.structs.replace(TERMS, number=8), "open")
    contracts.keep([digests(1, first)])
    contracts.offer(first, contracts.payables(first, 10), 0, 1, SALTS)
    contracts.keep([digests(1, second), digests(2, second)])
    assert contracts.uncovered(second) == (2, 300)
    assert contracts.uncovered(second, [first]) == (1, 200)
    assert contracts.payables(second, 10, [first]) == [digests(2, second)]
    assert contracts.payables(second, 10) == [digests(1, second), digests(2, second)]


def test_what_hosts_are_paid_for_is_counted_apart_from_the_connection_that_writes(
    database: Database, contracts: Contracts
) -> None:
    first, second = contracts.add(TERMS, "open"), contracts.add(msgspec.structs.replace(TERMS, number=8), "open")
    contracts.add(msgspec.structs.replace(TERMS, number=9), "ended")
    contracts.keep([digests(1, first)])
    contracts.offer(first, contracts.payables(first, 10), 0, 1, SALTS)
    contracts.keep([digests(1, second), digests(2, second)])
    database.commit()
    found = read_holdings(database.path, contracts.live(), TERMS.start)
    assert found == [Holding(HOST, TERMS.price, 100, first), Holding(HOST, TERMS.price, 200, second)], "no piece twice"
    assert read_holdings(database.path, contracts.live(), TERMS.end) == []


def test_a_piece_that_goes_from_the_records_needs_no_cover(database: Database, contracts: Contracts) -> None:
    number, catalog = contracts.add(TERMS, "open"), Catalog(database)
    pieces = tuple(PieceRecord(at, 0, piece(at + 1), NodeId(bytes([at]) * 20)) for at in range(2))
    shard = ShardRecord(ShardId(b"s" * 32), Salt(b"s" * 16), 10, 20, Redundancy(1, 2), pieces)
    catalog.add_shard(shard)
    contracts.keep([digests(1, number), digests(2, number)])
    assert catalog.pieces.drop(shard.id, piece(2)) is not None
    assert [one.piece for one in contracts.payables(number, 10)] == [piece(1)]
    contracts.forget_payable(number, [piece(1)])
    assert contracts.uncovered(number) == (0, 0)


def test_what_is_covered_is_dropped_when_the_contract_is_over(database: Database, contracts: Contracts) -> None:
    number, changes = contracts.add(TERMS, "open"), ChangeLog(database)
    contracts.keep([digests(1, number)])
    contracts.offer(number, contracts.payables(number, 10), 0, 1, SALTS)
    other = NodeId(bytes(20))
    changes.retire([(piece(1), HOST), (piece(2), HOST), (piece(3), other)], 3)
    changes.published(3, 1000)
    assert changes.retired(HOST, 2000, 10) == [piece(2)]
    assert changes.retired_hosts(2000) == sorted([HOST, other])
    changes.forget_retired(other, [piece(3)])
    changes.forget_retired(HOST, [piece(2)])
    assert changes.retired_hosts(2000) == [], "nothing to ask it for"
    changes.forget_long_retired(2000)
    contracts.set_state(number, "ended")
    assert changes.retired_hosts(2000) == []
    contracts.set_state(number, "merged")
    assert changes.retired_hosts(2000) == [HOST]
    assert changes.retired(HOST, 2000, 10) == [piece(1)]


def test_limits_are_off_until_they_are_set_and_come_back(database: Database) -> None:
    limits = SpendingLimits(database)
    assert limits.get() == Spending(None, None)
    limits.set(Spending(20, 30))
    assert SpendingLimits(database).get() == limits.get() == Spending(20, 30)
    limits.set(Spending(0, None))
    assert SpendingLimits(database).get() == Spending(0, None)
