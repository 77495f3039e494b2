from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layrfs.ids import BlockNumber, InodeNumber, NodeId, PieceId, Salt, ShardId
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.storage.content import BlockPlace, Catalog, NewContent, Place
from layrfs.storage.database import Database
from layrfs.storage.journal import Journal

A, B = InodeNumber(10), InodeNumber(11)
NEVER = BlockNumber(1 << 40)


def shard(number: int, pieces: int = 3) -> ShardRecord:
    return ShardRecord(
        id=ShardId(bytes([number]) * 32),
        salt=Salt(bytes(16)),
        plain_bytes=1000,
        sealed_bytes=1100,
        redundancy=Redundancy(1, 3),
        pieces=tuple(
            PieceRecord(position=n, generation=0, id=PieceId(bytes([number, n]) * 16), host=NodeId(bytes([n]) * 20))
            for n in range(pieces)
        ),
    )


def content(number: int, offset: int = 0, length: int = 100) -> NewContent:
    return NewContent(bytes([number]) * 32, offset, length)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(f"{tmp_path}/metadata.db") as database:
        yield database


@pytest.fixture
def catalog(database: Database) -> Catalog:
    return Catalog(database)


def test_shard_comes_back_as_it_was(catalog: Catalog) -> None:
    number = catalog.add_shard(shard(1))
    assert catalog.shard(number) == shard(1)
    with pytest.raises(KeyError):
        catalog.shard(number + 1)


def test_content_numbers_go_on_after_a_restart(catalog: Catalog, database: Database) -> None:
    first = catalog.add_content(catalog.add_shard(shard(1)), [content(1), content(2)])
    again = Catalog(database).add_content(1, [content(3)])
    assert len({*first, *again}) == 3


def test_equal_content_is_one_row(catalog: Catalog) -> None:
    number = catalog.add_shard(shard(1))
    assert len(set(catalog.add_content(number, [content(1), content(1)]))) == 1
    first = catalog.add_content(number, [content(1)])
    other = catalog.add_content(catalog.add_shard(shard(2)), [content(1, offset=500), content(2)])
    assert other[0] == first[0] != other[1]
    assert catalog.find_content([content(1).digest, content(9).digest]) == {content(1).digest: (first[0], 100)}


def test_content_that_cannot_be_fetched_is_not_offered_and_heals_when_stored_again(catalog: Catalog) -> None:
    lost = catalog.add_shard(shard(1))
    (number,) = catalog.add_content(lost, [content(1)])
    catalog.put_blocks([(A, BlockNumber(0), number, 100)])
    catalog.reach.distrust(lost)
    assert catalog.find_content([content(1).digest]) == {}
    found = catalog.add_shard(shard(2))
    assert catalog.add_content(found, [content(1, offset=70)]) == [number]
    assert catalog.place(A, BlockNumber(0)) == Place(number, found, 70, 100)
    assert catalog.find_content([content(1).digest]) == {content(1).digest: (number, 100)}
    catalog.reach.trust(lost)
    assert catalog.reach.distrusted == frozenset()


def test_content_whose_hosts_are_gone_is_stored_again(database: Database) -> None:
    alive = {piece.host for piece in shard(1).pieces[2:]}
    catalog = Catalog(database, alive=lambda: alive)
    old = catalog.add_shard(shard(1))
    (number,) = catalog.add_content(old, [content(1)])
    assert catalog.find_content([content(1).digest]) == {content(1).digest: (number, 100)}, (
        "one copy of three is enough"
    )
    alive.clear()
    assert catalog.find_content([content(1).digest]) == {}
    new = catalog.add_shard(shard(2))
    assert catalog.add_content(new, [content(1, offset=70)]) == [number]
    catalog.put_blocks([(A, BlockNumber(0), number, 100)])
    assert catalog.place(A, BlockNumber(0)) == Place(number, new, 70, 100)


def test_who_has_what_is_asked_once_for_all_blocks_of_a_shard(database: Database) -> None:
    asked = []
    catalog = Catalog(database, alive=lambda: asked.append(1) or {piece.host for piece in shard(1).pieces})
    numbers = catalog.add_content(catalog.add_shard(shard(1)), [content(number) for number in range(50)])
    asked.clear()
    assert catalog.add_content(catalog.add_shard(shard(2)), [content(number) for number in range(50)]) == numbers
    assert len(asked) == 1


def test_cut_block_keeps_the_smaller_length(catalog: Catalog) -> None:
    (number,) = catalog.add_content(catalog.add_shard(shard(1)), [content(1)])
    catalog.put_blocks([(A, BlockNumber(2), number, 100)])
    catalog.cut_block(A, BlockNumber(2), 40)
    catalog.cut_block(A, BlockNumber(2), 70)
    place = catalog.place(A, BlockNumber(2))
    assert place is not None
    assert place.length == 40


def test_removed_blocks_are_gone_and_others_stay(catalog: Catalog) -> None:
    (number,) = catalog.add_content(catalog.add_shard(shard(1)), [content(1)])
    catalog.put_blocks([(A, BlockNumber(block), number, 100) for block in range(5)])
    catalog.put_blocks([(B, BlockNumber(3), number, 100)])
    catalog.remove_blocks(A, BlockNumber(2), BlockNumber(4))
    catalog.remove_block(A, BlockNumber(0))
    assert catalog.block_numbers(A) == [1, 4]
    assert catalog.last_block(A) == 4
    assert catalog.block_numbers(B) == [3]


def test_absent_in_shard_leaves_out_what_is_local_and_pages(catalog: Catalog, database: Database) -> None:
    number = catalog.add_shard(shard(1))
    one, two = catalog.add_content(number, [content(1), content(2, offset=100)])
    other = catalog.add_content(catalog.add_shard(shard(2)), [content(3)])[0]
    zero = BlockNumber(0)
    catalog.put_blocks([(InodeNumber(inode), zero, one, 100) for inode in range(20, 25)])
    catalog.put_blocks([(A, zero, two, 90), (B, zero, other, 100)])
    Journal(database).mark_dirty(InodeNumber(22), zero)
    found, after = list[BlockPlace](), (0, 0, 0)
    while rows := catalog.absent_in_shard(number, after, 2):
        found += rows
        after = (rows[-1].content, rows[-1].inode, rows[-1].block)
    assert [place.inode for place in found] == [20, 21, 23, 24, A]
    assert found[-1] == BlockPlace(A, zero, two, 100, 90)


def test_manifest_lists_shards_by_first_block(catalog: Catalog) -> None:
    first, second = catalog.add_shard(shard(1)), catalog.add_shard(shard(2))
    one, two = catalog.add_content(first, [content(1), content(2, offset=100)])
    (three,) = catalog.add_content(second, [content(3, length=7)])
    catalog.put_blocks([(A, BlockNumber(block), number, 7) for block, number in enumerate([three, one, two, three])])
    shards = catalog.manifest_shards(A)
    assert [each.record for each in shards] == [shard(2), shard(1)]
    assert [(block.number, block.offset, block.length) for block in shards[0].blocks] == [(0, 0, 7), (3, 0, 7)]
    assert list(catalog.shards_of(A)) == [second, first]
    assert catalog.copies(A) == [(0, 3, 3), (1, 3, 3), (2, 3, 3), (3, 3, 3)]
