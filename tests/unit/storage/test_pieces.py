from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from layrfs.errors import CorruptFile
from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.storage.changes import ChangeLog
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.pieces import _ON_HOST, Pieces
from layrfs.storage.replay import database_difference
from layrfs.storage.totals import count_totals


def host(number: int) -> NodeId:
    return NodeId(bytes([number]) * 20)


def piece(shard: int, position: int, generation: int = 0, on: int | None = None) -> PieceRecord:
    name = bytes([shard, position, generation, 0]) * 8
    return PieceRecord(position, generation, PieceId(name), host(position if on is None else on))


def record(number: int, pieces: int = 3) -> ShardRecord:
    identity = ShardId(bytes([number]) * 32)
    made = tuple(piece(number, position) for position in range(pieces))
    return ShardRecord(identity, Salt(bytes(16)), 1000, 1100, Redundancy(1, 3), made)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(f"{tmp_path}/metadata.db") as database:
        yield database


@pytest.fixture
def catalog(database: Database) -> Catalog:
    return Catalog(database)


@pytest.fixture
def pieces(catalog: Catalog) -> Pieces:
    return catalog.pieces


def test_degraded_shards_are_known_at_once_and_found_in_steps_after_a_start(
    catalog: Catalog, database: Database
) -> None:
    numbers = [catalog.add_shard(record(n, pieces=1 if n % 2 else 3)) for n in range(5)]
    assert catalog.pieces.degraded == {numbers[1], numbers[3]}
    after_start = Catalog(database).pieces
    assert after_start.find_degraded(0, 3) == numbers[2]
    assert after_start.degraded == {numbers[1]}
    assert after_start.find_degraded(numbers[2], 3) == numbers[4]
    assert after_start.find_degraded(numbers[4], 3) is None
    assert after_start.degraded == {numbers[1], numbers[3]}
    after_start.put(numbers[1], record(1).pieces[1:])
    assert after_start.degraded == {numbers[3]}
    assert catalog.shard(numbers[1]) == record(1)


def test_what_a_host_was_found_not_to_have_does_not_count_also_after_a_restart(
    catalog: Catalog, database: Database
) -> None:
    number = catalog.add_shard(record(1))
    first, second, third = record(1).pieces
    catalog.pieces.refute(number, first.id)
    assert catalog.shard(number) == record(1)
    assert catalog.pieces.degraded == {number}
    again = Catalog(database, alive=lambda: {host(0), host(1), host(2)})
    assert again.pieces.find_degraded(0, 10) == number
    assert again.pieces.degraded == {number}
    assert again.pieces.refuted(PieceId(b""), 10) == [(first.id, record(1).id, host(0))]
    assert again.pieces.refuted(first.id, 10) == []
    assert [held.refuted for held in again.pieces.held([number])] == [{0}]
    assert again.reach.held([number]) == {number}
    for piece_ in (second, third):
        again.pieces.refute(number, piece_.id)
    assert again.reach.held([number]) == set(), "or the same bytes would count as stored"
    assert again.pieces.believe(number, first.id)
    assert not again.pieces.believe(number, first.id)
    assert again.reach.held([number]) == {number}
    again.pieces.put(number, [piece(1, 1, generation=1), piece(1, 2, generation=1, on=7)])
    assert again.pieces.degraded == set()
    assert database.value("SELECT count(*) FROM local_refuted") == 0


def test_what_is_known_against_a_piece_goes_when_another_machine_has_replaced_it(
    catalog: Catalog, database: Database, tmp_path: Path
) -> None:
    number = catalog.add_shard(record(1))
    first, second, third = record(1).pieces
    database.commit()
    ours, theirs = f"{tmp_path}/metadata.db", f"{tmp_path}/theirs.db"
    with Database(theirs) as other:
        other.apply(database_difference(theirs, ours))
        Catalog(other).pieces.put(number, [piece(1, 0, generation=1, on=7)])
        other.commit()
        for lost in (first, second):
            catalog.pieces.refute(number, lost.id)
        database.write("INSERT INTO local_answer VALUES(?, 0, ?)", (first.id[:8], bytes(16)))
        database.apply(database_difference(ours, theirs))
    assert catalog.shard(number).pieces == (piece(1, 0, generation=1, on=7), second, third)
    assert list(database.rows("SELECT piece FROM local_refuted")) == [(second.id,)]
    assert database.value("SELECT count(*) FROM local_answer") == 0


def test_a_shard_that_is_gone_is_not_degraded(catalog: Catalog, database: Database, pieces: Pieces) -> None:
    number = catalog.add_shard(record(1, pieces=1))
    database.write("DELETE FROM shard")
    pieces.recount(number)
    assert pieces.degraded == set()
    with pytest.raises(KeyError):
        pieces.next_generation(number)


def test_a_redundancy_that_cannot_be_is_a_damaged_database(
    catalog: Catalog, database: Database, pieces: Pieces
) -> None:
    good, bad = catalog.add_shard(record(1)), catalog.add_shard(record(2))
    for needed, total in ((0, 3), (3, 3), (4, 200), (5, 4)):
        database.write("UPDATE shard SET needed = ?, total = ? WHERE number = ?", (needed, total, bad))
        with pytest.raises(CorruptFile, match="fsck"):
            catalog.shard(bad)
        assert [held.shard for held in pieces.held([good, bad])] == [good]


def test_hosts_are_counted_and_their_records_kept(database: Database, catalog: Catalog, pieces: Pieces) -> None:
    numbers = [catalog.add_shard(record(1)), catalog.add_shard(record(2, pieces=1))]
    database.write("INSERT INTO dead VALUES(?, 1)", (numbers[1],))
    database.commit()
    assert count_totals(database.path) == (2, 2000, 1000, {host(0): 2, host(1): 1, host(2): 1}, 0)
    assert pieces.holders() == [host(0), host(1), host(2)]
    pieces.put_host_record(host(0), b"record")
    pieces.put_host_record(host(9), b"another")
    assert pieces.host_records() == {host(0): b"record", host(9): b"another"}
    assert host(9) not in pieces.holders()


def test_piece_is_dropped_only_while_enough_are_left(catalog: Catalog, pieces: Pieces) -> None:
    number = catalog.add_shard(record(1, pieces=2))
    first, second = record(1).pieces[:2]
    assert pieces.drop(record(1).id, PieceId(b"?" * 32)) is None
    assert pieces.drop(record(1).id, first.id) == number
    assert pieces.drop(record(1).id, second.id) is None
    assert catalog.shard(number).pieces == (second,)
    assert pieces.degraded == {number}


def test_a_piece_made_anew_takes_the_place_of_the_old_one_which_is_handed_back(
    catalog: Catalog, pieces: Pieces
) -> None:
    number = catalog.add_shard(record(1))
    assert pieces.next_generation(number) == 1
    assert pieces.put(number, [piece(1, 1, generation=1, on=7)]) == [(piece(1, 1).id, host(1))]
    assert [(one.position, one.generation, one.host) for one in pieces.of(number)] == [
        (0, 0, host(0)),
        (1, 1, host(7)),
        (2, 0, host(2)),
    ]
    assert pieces.next_generation(number) == 2


def test_a_generation_is_never_used_again_though_its_piece_is_gone(catalog: Catalog, pieces: Pieces) -> None:
    number = catalog.add_shard(record(1))
    made = piece(1, 1, generation=1, on=7)
    pieces.put(number, [made])
    pieces.drop(record(1).id, made.id)
    assert pieces.next_generation(number) == 2


def test_what_two_patchers_made_at_once_is_recorded_once_and_the_rest_is_handed_back(
    catalog: Catalog, pieces: Pieces
) -> None:
    number = catalog.add_shard(record(1))
    ours, theirs = piece(1, 1, 1, on=7), piece(1, 1, 1, on=8)
    pieces.put(number, [ours])
    assert pieces.put(number, [ours]) == [], "said twice"
    assert pieces.put(number, [theirs]) == [(theirs.id, host(8))], "no newer than what is there"
    assert pieces.put(number, [piece(1, 1, 0, on=9)]) == [(piece(1, 1, 0).id, host(9))], "an old one comes back"
    elsewhere = piece(1, 2, 2, on=7)
    assert pieces.put(number, [elsewhere]) == [(elsewhere.id, host(7))], "that host has a piece of the shard"
    assert [one.host for one in pieces.of(number)] == [host(0), host(7), host(2)]
    assert pieces.next_generation(number) == 3, "what is handed back is dropped by its host: never that name again"


def test_who_should_have_what(catalog: Catalog, pieces: Pieces) -> None:
    numbers = [catalog.add_shard(record(n, pieces=1 + n % 2)) for n in range(6)]
    assert pieces.on_host(host(1), 0, 2) == [numbers[1], numbers[3]]
    assert pieces.on_host(host(1), numbers[3], 2) == [numbers[5]]
    assert pieces.on_host(host(5), 0, 2) == []
    one, two = pieces.held([numbers[0], numbers[1], 99])
    assert (one.shard, one.redundancy, one.pieces) == (numbers[0], Redundancy(1, 3), {0: (piece(0, 0).id, host(0))})
    assert two.pieces == {0: (piece(1, 0).id, host(0)), 1: (piece(1, 1).id, host(1))}


def test_shards_of_a_host_are_read_from_an_index(database: Database) -> None:
    plan = database.row(f"EXPLAIN QUERY PLAN {_ON_HOST}", (host(1), 5, 9))
    assert plan is not None
    assert "COVERING INDEX piece_host (host=? AND shard>?)" in plan[3]


histories = st.lists(
    st.tuples(st.sampled_from(["make", "drop"]), st.integers(0, 2), st.integers(0, 4), st.integers(0, 4)), max_size=20
)


@given(histories)
def test_whatever_is_made_and_dropped_no_host_has_two_pieces_and_no_name_comes_back(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, int, int, int]]
) -> None:
    with Database(str(tmp_path_factory.mktemp("pieces") / "metadata.db")) as database:
        catalog = Catalog(database)
        number, pieces = catalog.add_shard(record(1)), catalog.pieces
        gone: set[PieceId] = set()
        for what, position, older, on in history:
            before = {one.id for one in pieces.of(number)}
            if what == "make":
                generation = max(0, pieces.next_generation(number) - older)
                made = piece(1, position, generation, on)
                retired = pieces.put(number, [made])
                if older == 0:
                    assert made.id not in gone, "an order to drop the old one could mean the new one"
                assert {one for one, _host in retired} <= before | {made.id}
            else:
                pieces.drop(record(1).id, piece(1, position, older).id)
            now = list(pieces.of(number))
            assert len({one.host for one in now}) == len(now) >= 1
            gone |= before - {one.id for one in now}
            assert (number in pieces.degraded) == (len(now) < 3)


def test_one_piece_is_to_be_dropped_by_two_hosts_until_each_has_and_not_where_it_is_needed_again(
    database: Database, catalog: Catalog, pieces: Pieces
) -> None:
    number, orders = catalog.add_shard(record(1)), ChangeLog(database)
    made = piece(1, 1, 1, on=7)
    orders.retire([(made.id, host(at)) for at in (7, 8, 9)], 1)
    pieces.put(number, [made])
    assert [orders.is_retired(made.id, host(at)) for at in (7, 8, 9)] == [False, True, True]
    orders.forget_retired(host(8), [made.id])
    assert [orders.is_retired(made.id, host(at)) for at in (7, 8, 9)] == [False, False, True]
