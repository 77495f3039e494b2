"""What an owner hands over arrives at a delegate, stays the same until something changes, and shows what was made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from layrfs.errors import BadMessage, LocalError, NoSpace
from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.notes import CONTENT, Purpose
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.storage.changes import ChangeLog
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.delegates import Delegates, all_digests, bucket_body
from layrfs.storage.entrusted import Entrusted, Made, made_here
from layrfs.wire.delegation import EntrustedPurpose, EntrustedShard, bucket_of, shards_body

CHANGES = Purpose("changes", 4, 0, 1)
START = bytes(32)


def piece(number: int, position: int, generation: int = 0) -> PieceRecord:
    return PieceRecord(position, generation, PieceId(bytes([number]) * 32), NodeId(bytes([number % 50]) * 20))


def shard(number: int, *pieces: PieceRecord) -> ShardRecord:
    return ShardRecord(ShardId(bytes([number]) * 32), Salt(bytes([number]) * 16), 5, 100, Redundancy(1, 3), pieces)


class Pair:
    """An owner's database, a delegate's, and the way from one to the other."""

    def __init__(self, directory: Path) -> None:
        for name in ("owner", "delegate"):
            (directory / name).mkdir()
        self.owner = Database(str(directory / "owner" / "db"))
        self.delegate = Database(str(directory / "delegate" / "db"))
        self.metadata: list[tuple[ShardRecord, Purpose]] = []
        self.entrusted = Entrusted(self.delegate)

    def wanted(self) -> list[int]:
        self.owner.commit()
        return self.entrusted.wanted(all_digests(self.owner.path, self.metadata))

    def hand_over(self) -> int:
        wanted = self.wanted()
        for bucket in wanted:
            self.entrusted.replace(bucket, bucket_body(self.owner.path, self.metadata, bucket))
        assert self.wanted() == []
        return len(wanted)

    def made(self, after: bytes = START, limit: int = 100) -> tuple[list[Made], bool]:
        self.delegate.commit()
        return made_here(self.delegate.path, after, limit)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    both = Pair(tmp_path)
    yield both
    both.owner.close()
    both.delegate.close()


def test_all_arrives_once_and_then_only_what_changed(pair: Pair) -> None:
    catalog = Catalog(pair.owner)
    records = [shard(number, piece(number, 0), piece(number - 1, 2, 1)) for number in (1, 2, 255)]
    numbers = [catalog.add_shard(record) for record in records]
    pair.metadata.append((shard(7, piece(9, 0)), CHANGES))
    assert pair.hand_over() == 4
    theirs = Catalog(pair.delegate)
    for record in (*records, pair.metadata[0][0]):
        assert theirs.find_shard(record.id) == msgspec.structs.replace(record, plain_bytes=0)
    assert pair.entrusted.purpose(records[0].id) == CONTENT
    assert pair.entrusted.purpose(pair.metadata[0][0].id) == CHANGES
    assert pair.entrusted.shard_count() == 4
    assert theirs.pieces.next_generation(1) == 2
    catalog.pieces.put(numbers[1], [piece(77, 1, 5)])
    assert pair.wanted() == [bucket_of(records[1].id)]
    assert pair.hand_over() == 1
    assert pair.entrusted.shard_count() == 4


def test_what_the_owner_has_no_more_is_forgotten(pair: Pair) -> None:
    catalog = Catalog(pair.owner)
    number = catalog.add_shard(shard(255, piece(1, 0)))
    pair.hand_over()
    pair.owner.write("DELETE FROM piece WHERE shard = ?", (number,))
    pair.owner.write("DELETE FROM shard WHERE number = ?", (number,))
    assert pair.hand_over() == 1
    assert pair.entrusted.shard_count() == 0
    assert Catalog(pair.delegate).shard_count() == 0
    with pytest.raises(KeyError):
        pair.entrusted.purpose(ShardId(bytes([255]) * 32))


def test_what_was_made_is_known_until_the_owner_says_otherwise(pair: Pair) -> None:
    catalog = Catalog(pair.owner)
    record = shard(1, piece(1, 0), piece(2, 1))
    number = catalog.add_shard(record)
    pair.hand_over()
    theirs = Catalog(pair.delegate).pieces
    new = piece(3, 1, 1)
    theirs.put(1, [new])
    made = Made(record.id, 1, 1, new.id, new.host, record.pieces[1].id)
    assert pair.made() == ([made], False)
    again = piece(4, 1, 2)
    theirs.put(1, [again, piece(5, 2, 2)])
    assert pair.made()[0] == [
        Made(record.id, 1, 2, again.id, again.host, record.pieces[1].id),
        Made(record.id, 2, 2, piece(5, 2).id, piece(5, 2).host, b""),
    ]
    catalog.pieces.put(number, [again])
    assert pair.hand_over() == 1
    assert pair.made() == ([], False)


def test_what_was_made_and_the_owner_did_not_take_is_dropped_from_its_host_by_who_made_it(pair: Pair) -> None:
    number = Catalog(pair.owner).add_shard(shard(1, piece(1, 0), piece(2, 1)))
    pair.hand_over()
    theirs = Catalog(pair.delegate).pieces
    taken, left = piece(3, 1, 1), piece(4, 2, 1)
    ChangeLog(pair.delegate).retire(theirs.put(1, [taken, left]), version=1)
    pair.delegate.commit()
    assert ChangeLog(pair.delegate).retired_count() == 0
    Catalog(pair.owner).pieces.put(number, [taken])
    pair.hand_over()
    pair.delegate.commit()
    assert ChangeLog(pair.delegate).retired(left.host, 1 << 40, 10) == [left.id]
    assert ChangeLog(pair.delegate).retired_count() == 1


def test_what_the_owner_has_on_record_is_not_dropped_though_it_was_not_needed_before(pair: Pair) -> None:
    catalog = Catalog(pair.owner)
    number = catalog.add_shard(shard(1, piece(1, 0), piece(2, 1)))
    pair.hand_over()
    made, orders = piece(3, 1, 1), ChangeLog(pair.delegate)
    Catalog(pair.delegate).pieces.put(1, [made])
    pair.owner.write("UPDATE shard SET generation = 1 WHERE number = ?", (number,))
    pair.hand_over()
    assert orders.retired(made.host, 1 << 40, 10) == [made.id]
    catalog.pieces.put(number, [made])
    pair.hand_over()
    assert orders.retired_count() == 0


def test_what_was_made_comes_in_pages_of_whole_shards(pair: Pair) -> None:
    catalog = Catalog(pair.owner)
    for number in range(1, 6):
        catalog.add_shard(shard(number, piece(10 * number, 0)))
    pair.hand_over()
    theirs = Catalog(pair.delegate).pieces
    for number in range(1, 6):
        theirs.put(number, [piece(10 * number + 1, 1, 1), piece(10 * number + 2, 2, 1)])
    seen: list[Made] = []
    after, more = START, True
    while more:
        page, more = pair.made(after, limit=5)
        assert 0 < len(page) <= 5
        seen += page
        after = page[-1].shard
    assert len(seen) == len(set(seen)) == 10


def test_what_was_made_cannot_be_told_when_it_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"no database at all" * 400)
    with pytest.raises(LocalError):
        made_here(str(tmp_path / "db"), START, 5)


def test_a_delegates_database_keeps_no_log_for_versions_that_nobody_publishes(pair: Pair) -> None:
    Catalog(pair.owner).add_shard(shard(1, piece(1, 0)))
    pair.hand_over()
    for generation in range(1, 4):
        Catalog(pair.delegate).pieces.put(1, [piece(generation + 1, 1, generation)])
        pair.delegate.commit()
    assert pair.delegate.value("SELECT count(*) FROM local_change") <= 1


def test_more_than_a_delegate_takes_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with Database(str(tmp_path / "db")) as database:
        purpose = EntrustedPurpose(0, 0, 0, 0, bytes(6), bytes(6))
        one = EntrustedShard(ShardId(bytes(32)), Salt(bytes(16)), 100, 1, 3, 0, (), purpose)
        other = msgspec.structs.replace(one, id=ShardId(b"\x10" + bytes(31)))
        entrusted = Entrusted(database, most_bytes=len(shards_body((one,))) + 10)
        entrusted.replace(0, shards_body((one,)))
        entrusted.replace(0, shards_body((one,)))
        with pytest.raises(NoSpace):
            entrusted.replace(0x100, shards_body((other,)))
        with pytest.raises(BadMessage):
            entrusted.replace(0, shards_body((msgspec.structs.replace(one, needed=40, total=50),)))
        assert Catalog(database).find_shard(one.id) is not None
        assert entrusted.shard_count() == 1


def test_who_looks_after_the_volume_is_remembered(pair: Pair) -> None:
    delegates, node = Delegates(pair.owner), NodeId(bytes(20))
    delegates.put(node, 60)
    delegates.failed(node, "it is not there")
    delegates.lied(node)
    assert delegates.find(node) == (node, 60, None, 1, "it is not there")
    delegates.put(node, 90)
    delegates.heard(node, 1000)
    assert delegates.all() == [(node, 90, 1000, 0, None)]
    delegates.remove(node)
    assert delegates.find(node) is None
