"""When a host has nothing of the owner's any more: a contract with it may end, and what is there is let go of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from layrfs.app.pay_desk import has_nothing, is_wanted
from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.policy.collecting import RETENTION_SECONDS
from layrfs.storage.changes import ChangeLog
from layrfs.storage.content import Catalog
from layrfs.storage.contracts import Contracts
from layrfs.storage.database import Database
from layrfs.storage.spending import Spending
from layrfs.upkeep.holdings import Holdings
from tests.contract_terms import TERMS
from tests.fakes.hosts import FakeFinder
from tests.unit.pipeline.test_placing import record
from tests.unit.policy.test_following import segment

T = TypeVar("T")
HERE, ELSEWHERE, NOW = NodeId(bytes([1]) * 20), NodeId(bytes([2]) * 20), 1_800_000_000


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(str(tmp_path / "metadata.db")) as database:
        yield database


def empty(database: Database, host: NodeId, *, metadata_at: int = 2) -> bool:
    holdings = Holdings(database.path, Catalog(database), lambda: (segment(1, host=metadata_at),))
    return has_nothing(host, holdings.hosts(), ChangeLog(database), NOW - RETENTION_SECONDS)


def test_files_and_lists_of_files_keep_a_host_from_being_empty(database: Database) -> None:
    assert empty(database, HERE)
    assert not empty(database, HERE, metadata_at=1)
    pieces = (PieceRecord(0, 0, PieceId(bytes(32)), HERE),)
    Catalog(database).add_shard(ShardRecord(ShardId(bytes(32)), Salt(bytes(16)), 1, 1, Redundancy(1, 1), pieces))
    assert not empty(database, HERE)


def test_what_readers_of_older_lists_may_need_does_too(database: Database) -> None:
    insert = "INSERT OR REPLACE INTO local_retired(piece, host, version, since) VALUES(?, ?, 1, ?)"
    for since, is_empty in ((None, False), (NOW - 1, False), (NOW - RETENTION_SECONDS, True)):
        database.write(insert, (PieceId(bytes(32)), HERE, since))
        assert empty(database, HERE) == is_empty
        assert empty(database, ELSEWHERE, metadata_at=1)


async def test_which_pieces_a_contract_alone_covers_is_looked_at_in_a_thread(database: Database) -> None:
    looks: list[Callable[[], object]] = []

    async def elsewhere(look: Callable[[], T]) -> T:
        looks.append(look)
        return look()

    holdings = Holdings(database.path, Catalog(database), lambda: (segment(1, host=1),), elsewhere)
    (piece,) = (piece for shard in holdings.metadata_shards() for piece in shard.pieces if piece.host == HERE)
    contracts = Contracts(database)
    for _ in range(2):
        number = contracts.add(TERMS, "open")
    for contract, is_only_there in ((1, True), (2, False)):
        database.write("INSERT INTO contract_batch VALUES(?, 0, 0, 0, 1, x'', 1)", (contract,))
        database.write("INSERT INTO contract_piece VALUES(?, ?, 0)", (piece.id, contract))
        database.commit()
        assert await holdings.is_only_in(1, [number], [], HERE, NOW) == is_only_there
    assert len(looks) == 2


def test_who_leaves_is_asked_for_no_other_period() -> None:
    one = record(1)
    host, paying = one.node_id, Spending(max_price=7)
    assert is_wanted(host, {host}, paying, FakeFinder([one]))
    assert not is_wanted(host, {host}, paying, FakeFinder([msgspec.structs.replace(one, leaving=True)]))
    assert not is_wanted(host, {host}, Spending(), FakeFinder([one]))
    assert not is_wanted(host, {ELSEWHERE}, paying, FakeFinder([one]))
