"""A host's record of its contracts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from layrfs.errors import LocalError
from layrfs.ids import PieceId
from layrfs.model.hosted import Batch, Uncovered
from layrfs.storage.database import Database
from layrfs.storage.host_contracts import HostContracts
from tests.contract_terms import TERMS

OTHER = msgspec.structs.replace(TERMS, number=8, escrow=bytes([8]) * 32)
NOW = 1_800_000_000
ONE, TWO, THREE = (PieceId(bytes([number]) * 32) for number in (9, 2, 5))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(str(tmp_path / "contracts.db")) as database:
        yield database


@pytest.fixture
def record(database: Database) -> HostContracts:
    return HostContracts(database)


def lock(number: int) -> tuple[int, bytes, bytes]:
    return number, bytes([number]) * 32, bytes([number]) * 64


def test_agreeing_twice_is_agreeing_once(record: HostContracts) -> None:
    first = record.add(TERMS, NOW)
    record.set_state(first.number, "open", NOW + 5)
    again = record.add(TERMS, NOW + 9)
    assert (again.number, again.state, again.since, again.terms) == (first.number, "open", NOW + 5, TERMS)
    assert [owed.amount_stroops for owed in record.instalments(first.number)] == [0] * 4
    assert record.find(OTHER.contract_id) is None
    record.add(OTHER, NOW)
    assert [one.terms for one in record.of_tenant(TERMS.tenant)] == [TERMS, OTHER]


def test_an_escrow_pays_for_one_contract(record: HostContracts) -> None:
    record.add(TERMS, NOW)
    with pytest.raises(LocalError):
        record.add(msgspec.structs.replace(TERMS, number=8), NOW)
    assert [one.terms for one in record.all()] == [TERMS]
    assert record.of_escrow(OTHER.escrow) is None


def test_covers_are_kept_in_order_and_locks_replace_those_from_the_first_on(record: HostContracts) -> None:
    contract = record.add(TERMS, NOW).number
    record.cover(contract, 0, NOW, 100, (ONE, TWO), [lock(number) for number in (1, 2, 3, 4)])
    record.cover(contract, 2, NOW + 1, 50, (THREE,), [lock(number) for number in (7, 8)])
    assert record.batches(contract) == [Batch(0, NOW, 100, 2), Batch(2, NOW + 1, 50, 1)]
    assert (record.pieces(contract, 0), record.pieces(contract, 1)) == ((ONE, TWO), (THREE,))
    assert [owed.amount_stroops for owed in record.instalments(contract)] == [1, 2, 7, 8]
    assert record.instalments(contract)[3].signature == bytes([8]) * 64


def test_a_salt_that_comes_to_nothing_counts_as_none(record: HostContracts) -> None:
    contract = record.add(TERMS, NOW).number
    record.disclose(contract, 1, ONE)
    record.set_problem(contract, 1, "missing")
    owed = record.instalments(contract)[1]
    assert (owed.salt, owed.salts, owed.problem, owed.state) == (ONE, 1, "missing", "waiting")
    record.disclose(contract, 1, TWO)
    record.set_instalment(contract, 1, "claimed")
    owed = record.instalments(contract)[1]
    assert (owed.salt, owed.salts, owed.problem, owed.state) == (TWO, 2, None, "claimed")


def test_what_waits_for_the_next_contract_costs_no_credit_until_it_is_stored_again(record: HostContracts) -> None:
    record.hand_over(TERMS.tenant, [(ONE, 100), (TWO, 100)], NOW, NOW + 50)
    assert record.uncovered(TERMS.tenant, NOW).bytes == 200
    assert record.on_credit(TERMS.tenant, NOW).bytes == 0
    assert record.overdue(NOW + 49) == {}
    record.stored(ONE, TERMS.tenant, 100, NOW + 40)
    assert record.on_credit(TERMS.tenant, NOW + 50) == Uncovered(100, 100 * 10, NOW + 40)
    assert record.overdue(NOW + 50) == {TERMS.tenant: [TWO]}


def test_what_is_stored_costs_credit_until_it_is_covered(record: HostContracts) -> None:
    contract = record.add(TERMS, NOW).number
    for piece, stored in ((ONE, NOW), (TWO, NOW + 10), (ONE, NOW + 20)):
        record.stored(piece, TERMS.tenant, 100, stored)
    assert record.uncovered(TERMS.tenant, NOW + 30) == Uncovered(200, 100 * 30 + 100 * 20, NOW)
    assert record.uncovered(bytes(32), NOW) == Uncovered(0, 0)
    record.cover(contract, 0, NOW, 100, (ONE,), [lock(1)] * 4)
    record.stored(ONE, TERMS.tenant, 100, NOW + 40)
    assert record.uncovered_pieces(TERMS.tenant) == [TWO]
    record.forget_uncovered([TWO])
    assert record.uncovered(TERMS.tenant, NOW) == Uncovered(0, 0)


def test_what_is_on_credit_for_long_can_be_counted(record: HostContracts) -> None:
    for piece in (ONE, TWO):
        record.stored(piece, TERMS.tenant, 1 << 60, NOW)
    assert record.uncovered(TERMS.tenant, NOW + 4) == Uncovered(1 << 61, 1 << 63, NOW)


def test_a_released_contract_keeps_only_what_another_keeps(record: HostContracts) -> None:
    first, second = record.add(TERMS, NOW).number, record.add(OTHER, NOW).number
    record.cover(first, 0, NOW, 100, (ONE, TWO), [lock(1)] * 4)
    record.cover(second, 0, NOW, 100, (TWO, THREE), [lock(1)] * 4)
    assert set(record.named_by(first)) == {ONE, TWO}
    assert [record.is_kept(piece, besides=first) for piece in (ONE, TWO)] == [False, True]
    record.release(first)
    assert record.named_by(first) == []
    assert [record.is_kept(piece, besides=0) for piece in (ONE, TWO, THREE)] == [False, True, True]
    record.set_state(second, "ended", NOW)
    assert record.is_kept(TWO, besides=0)
    assert not record.is_owed(TWO)
    assert [one.number for one in record.kept()] == [second]
    assert [one.number for one in record.all()] == [first, second]
    record.release(second)
    record.stored(TWO, TERMS.tenant, 100, NOW)
    assert [record.is_kept(piece, besides=0) for piece in (TWO, THREE)] == [True, False], "it has come again"


async def test_it_is_there_after_the_host_was_killed(database: Database, record: HostContracts) -> None:
    contract = record.add(TERMS, NOW).number
    record.cover(contract, 0, NOW, 100, (ONE,), [lock(1)] * 4)
    record.disclose(contract, 0, TWO)
    record.set_leaving(leaving=True)
    await database.sync()
    with Database(database.path) as other:
        again = HostContracts(other)
        found = again.find(TERMS.contract_id)
        assert found is not None
        assert again.instalments(found.number)[0].salt == TWO
        assert again.leaving
