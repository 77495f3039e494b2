"""Whether a contract covers something that is needed and that no other one covers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.payables import PieceDigests
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.storage.content import Catalog
from layrfs.storage.contracts import Contracts
from layrfs.storage.covered_needs import is_only_in
from layrfs.storage.database import Database
from tests.contract_terms import TERMS

HERE, ELSEWHERE, NOW = NodeId(bytes([1]) * 20), NodeId(bytes([2]) * 20), 1_800_000_000
FILE, LIST, DROPPED, NOBODYS = (PieceId(bytes([number]) * 32) for number in range(4))


def cover(contracts: Contracts, number: int, pieces: Sequence[PieceId], *, agreed: bool = True) -> None:
    payables = [PieceDigests(piece, 1, number, 0, (bytes(32),) * TERMS.instalments) for piece in sorted(pieces)]
    batch = contracts.offer(number, payables, 0, NOW, [bytes(32)] * TERMS.instalments)
    if agreed:
        contracts.set_covered(number, batch.number)


def test_each_piece_of_files_of_lists_and_of_older_lists_has_to_be_in_another_contract(tmp_path: Path) -> None:
    with Database(str(tmp_path / "metadata.db")) as database:
        contracts = Contracts(database)
        pieces = (PieceRecord(0, 0, FILE, HERE), PieceRecord(1, 0, NOBODYS, ELSEWHERE))
        Catalog(database).add_shard(ShardRecord(ShardId(bytes(32)), Salt(bytes(16)), 1, 1, Redundancy(1, 2), pieces))
        database.write("INSERT INTO local_retired VALUES(?, ?, 1, NULL)", (DROPPED, HERE))
        first, second = contracts.add(TERMS, "open"), contracts.add(TERMS, "open")

        def only_in_first(*digesting: int) -> bool:
            database.commit()
            return is_only_in(database.path, first, [second], digesting, HERE, [LIST], NOW)

        assert not only_in_first()
        cover(contracts, first, [FILE, LIST, DROPPED, NOBODYS])
        assert only_in_first()
        cover(contracts, second, [FILE, LIST])
        assert only_in_first(), "readers of older lists may need it still"
        for since, is_needed in ((NOW + 1, True), (NOW, False)):
            database.write("UPDATE local_retired SET since = ?", (since,))
            assert only_in_first() == is_needed
        contracts.withdraw(second, 0)
        for covered in ([FILE], [LIST]):
            cover(contracts, second, covered)
            assert only_in_first()
            contracts.withdraw(second, 0)
        cover(contracts, second, [LIST])
        assert only_in_first(second), "the other is not even digested"
        contracts.keep([PieceDigests(FILE, 1, second, 0, (bytes(32),) * TERMS.instalments)])
        assert not only_in_first(second)
        assert only_in_first(), "it waits"
        contracts.withdraw(second, 0)
        cover(contracts, second, [FILE, LIST], agreed=False)
        assert only_in_first(), "the host has not agreed"
        contracts.set_covered(second, 0)
        assert not only_in_first()
        assert is_only_in(database.path, first, [], [], HERE, [], NOW)
