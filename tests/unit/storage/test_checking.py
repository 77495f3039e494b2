"""Rows that do not fit together: each kind is found, put right, and costs nobody a byte that could be read before."""

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layrfs.crypto.identity import NodeIdentity
from layrfs.model.records import NodeRecord
from layrfs.storage.changes import REPAIRED
from layrfs.storage.checking import RowChecks
from layrfs.storage.database import Database
from layrfs.storage.journal import Journal
from layrfs.storage.nameless import Owner

OWNER = Owner(7, 8, 9_000)
BLOCK = 4 << 20
RECORD = NodeRecord.sign(
    NodeIdentity.generate(), host="192.0.2.7", udp_port=4, tcp_port=4, free_bytes=1, price=0, expires=2**31
).to_bytes()
DIRECTORIES = {2: 1, 3: 2, 4: 1}
FILES = {10: (1, 1), 11: (2, 2), 12: (3, 1), 13: (4, 2), 14: (4, 0)}
"""Inode: the directory it is in, and how many blocks it has."""


def fill(database: Database) -> None:
    """A small volume in which everything fits: directories, files, a link, blocks clean, dirty and absent."""
    inode = "INSERT INTO inode VALUES(?,?,0,0,?,?,4194304,0,1,1,1,?)"
    entry = "INSERT INTO entry VALUES(?,?,?,?)"
    database.write(inode, (1, 0o40755, 4, 0, None))
    for number, parent in DIRECTORIES.items():
        database.write(inode, (number, 0o40755, 3 if number == 2 else 2, 0, None))
        database.write(entry, (number, parent, b"d%d" % number, number))
    database.write("INSERT INTO host VALUES(1, ?, ?)", (b"h" * 20, RECORD))
    database.write("INSERT INTO host VALUES(2, ?, NULL)", (b"i" * 20,))
    content = 0
    for number, (parent, blocks) in FILES.items():
        database.write(inode, (number, 0o100644, 1, blocks * BLOCK, None))
        database.write(entry, (number, parent, b"f%d" % number, number))
        for block in range(blocks):
            content += 1
            shard = "INSERT INTO shard VALUES(?,?,?,100,150,1,2,0)"
            database.write(shard, (content, b"%032d" % content, b"s" * 16))
            for position in (0, 1):
                piece = (content, position, b"%016d" % content + b"%016d" % position, position + 1)
                database.write("INSERT INTO piece VALUES(?,?,0,?,?)", piece)
            database.write("INSERT INTO content VALUES(?,?,?,0,100)", (content, b"%032d" % -content, content))
            database.write("INSERT INTO block VALUES(?,?,?,100)", (number, block, content))
    database.write(inode, (20, 0o120777, 1, 3, b"abc"))
    database.write(entry, (20, 1, b"link", 20))
    database.write(entry, (21, 4, b"second name", 11))
    database.write("UPDATE inode SET nlink = 2 WHERE number = 11")
    database.write("INSERT INTO local VALUES(10, 0, 0), (11, 0, 0), (13, 1, 1)")
    database.write("INSERT INTO local_use(inode, bytes, used) VALUES(10, 4096, 1), (11, 4096, 1)")
    database.write("INSERT INTO attribute VALUES(10, x'61', x'62')")
    database.write("INSERT INTO volume VALUES('next_inode', 1000), ('inodes', ?)", (1 + 3 + len(FILES) + 1,))
    database.commit()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(str(tmp_path / "metadata.db")) as database:
        fill(database)
        yield database


def found(database: Database) -> list[str]:
    return [finding.check for finding in RowChecks(database, OWNER).find()]


def repaired(database: Database) -> list[str]:
    return list(RowChecks(database, OWNER).repair())


class Readable(NamedTuple):
    """What reading a block gives: its bytes in the cache, or a content on hosts."""

    inode: int
    block: int
    content: int
    length: int


def readable(database: Database) -> set[Readable]:
    """Every block of every file that can be read, by its inode number, whatever its name is."""
    chain = (
        "SELECT b.inode, b.number, b.content, b.length FROM block b JOIN content c ON c.number = b.content"
        " AND b.number >= 0 AND c.offset >= 0 AND c.length > 0 AND c.offset + c.length <= 4194304"
        " AND b.length BETWEEN 0 AND c.length"
        " JOIN shard s ON s.number = c.shard AND length(s.id) = 32 AND length(s.salt) = 16"
        " WHERE (SELECT count(*) FROM piece p JOIN host h ON h.number = p.host AND length(h.node_id) = 20"
        "        WHERE p.shard = s.number AND length(p.id) = 32) > 0"
        " AND NOT EXISTS (SELECT 1 FROM local l WHERE l.inode = b.inode AND l.block = b.number)"
    )
    here = "SELECT inode, block, -1, 0 FROM local WHERE inode > 0 AND block >= 0"
    return {Readable(*row) for query in (chain, here) for row in database.rows(query)}


def check_tree(database: Database) -> None:
    """Every inode is below the root, and link counts are right: said once more, in another way."""
    children: dict[int, list[int]] = {}
    for parent, inode in database.rows("SELECT parent, inode FROM entry"):
        children.setdefault(parent, []).append(inode)
    modes = dict(database.rows("SELECT number, mode FROM inode"))
    seen, waiting = {1}, [1]
    while waiting:
        for child in children.get(waiting.pop(), []):
            if child not in seen:
                seen.add(child)
                waiting.append(child)
    assert seen == set(modes)
    for number, links in database.rows("SELECT number, nlink FROM inode"):
        if modes[number] & 0o170000 == 0o40000:
            assert links == 2 + sum(modes[child] & 0o170000 == 0o40000 for child in children.get(number, []))
        else:
            assert links == sum(names.count(number) for names in children.values())


def test_a_sound_volume_is_clean(database: Database) -> None:
    assert found(database) == []
    assert repaired(database) == []
    assert Journal(database).mark(REPAIRED) is None


def test_an_empty_database_is_clean(tmp_path: Path) -> None:
    with Database(str(tmp_path / "metadata.db")) as database:
        assert found(database) == []


BROKEN = {
    "names of nothing": "INSERT INTO entry VALUES(99, 2, x'61', 999)",
    "names in nothing": "UPDATE entry SET parent = 888 WHERE inode = 12",
    "names of the root": "INSERT INTO entry VALUES(99, 2, x'61', 1)",
    "names of directories": "INSERT INTO entry VALUES(99, 4, x'61', 2)",
    "names": "UPDATE entry SET name = x'612F' WHERE inode = 12",
    "order of names": "UPDATE entry SET cookie = -5 WHERE inode = 12",
    "lost names": "DELETE FROM entry WHERE inode = 13",
    "link counts": "UPDATE inode SET nlink = 9 WHERE number = 10",
    "missing files": "DELETE FROM inode WHERE number = 13",
    "root": "DELETE FROM inode WHERE number = 1",
    "directories": "UPDATE inode SET mode = 33188 WHERE number = 2",
    "files": "UPDATE inode SET mode = 16877 WHERE number = 13",
    "kinds": "UPDATE inode SET mode = 99999999 WHERE number = 14",
    "links": "UPDATE inode SET target = NULL, size = 0 WHERE number = 20",
    "lengths of links": "UPDATE inode SET size = 9 WHERE number = 20",
    "block sizes": "UPDATE inode SET block_bytes = 5 WHERE number = 14",
    "lengths": "UPDATE inode SET size = 50 WHERE number = 12",
    "inode numbers": "UPDATE inode SET number = -4 WHERE number = 14",
    "hosts": "UPDATE host SET node_id = x'61' WHERE number = 2",
    "host records": "UPDATE host SET record = x'61' WHERE number = 1",
    "redundancy": "UPDATE shard SET total = 0 WHERE number = 2",
    "shards": "UPDATE shard SET salt = x'61' WHERE number = 2",
    "lengths of shards": "UPDATE shard SET plain_bytes = 10 WHERE number = 2",
    "sealed lengths": "UPDATE shard SET sealed_bytes = 0 WHERE number = 2",
    "pieces": "UPDATE piece SET id = x'61' WHERE shard = 2 AND position = 0",
    "pieces' hosts": "UPDATE piece SET host = 77 WHERE shard = 2 AND position = 0",
    "pieces' shards": "INSERT INTO piece VALUES(500, 0, 0, randomblob(32), 1)",
    "digests": "UPDATE content SET digest = x'61' WHERE number = 2",
    "contents": "UPDATE content SET shard = 444 WHERE number = 2",
    "blocks": "DELETE FROM content WHERE number = 2",
    "block numbers": "INSERT INTO block VALUES(10, -1, 1, 100)",
    "lengths of blocks": "UPDATE block SET length = 5000 WHERE inode = 12",
    "lost blocks": "UPDATE block SET content = 0 WHERE inode = 12",
    "journal": "INSERT INTO local VALUES(10, -3, 1)",
    "journal's marks": "UPDATE local SET dirty = 7 WHERE inode = 10",
    "cached blocks": "DELETE FROM block WHERE inode = 10",
    "last copies": "DELETE FROM piece WHERE shard = 1",
    "attributes": "INSERT INTO attribute VALUES(555, x'61', x'62')",
    "unsent blocks": "DELETE FROM unsent",
    "cache sums": "UPDATE local_use SET bytes = 1 WHERE inode = 10",
    "cache sums of nothing": "INSERT INTO local_use(inode, bytes, used) VALUES(555, 0, 0)",
    "next inode": "UPDATE volume SET value = 12 WHERE name = 'next_inode'",
    "number of files": "UPDATE volume SET value = 2 WHERE name = 'inodes'",
    "changes": "UPDATE local_change SET changes = x'54030100'",
    "versions": "INSERT INTO version VALUES(1, 2, 3, 4, NULL, x'C1')",
}


def test_every_check_has_its_damage(database: Database) -> None:
    names = {check.name for check in RowChecks(database, OWNER)._checks()}
    assert names == BROKEN.keys() | {"block sizes of files"}


@pytest.mark.parametrize("check", BROKEN)
def test_one_thing_wrong_is_found_and_put_right(database: Database, check: str) -> None:
    database.write(BROKEN[check])
    before = readable(database)
    assert check in found(database)
    said = repaired(database)
    assert any(sentence.startswith("repaired: ") for sentence in said)
    assert set(found(database)) <= {"lost blocks"}
    assert {(one.inode, one.block) for one in before} <= {(one.inode, one.block) for one in readable(database)}
    check_tree(database)
    assert Journal(database).mark(REPAIRED) == 1


def test_a_block_whose_place_is_gone_is_lost_and_never_zeros(database: Database) -> None:
    database.write("DELETE FROM content")
    repaired(database)
    assert set(database.rows("SELECT DISTINCT content, length FROM block")) == {(0, 0)}
    assert dict(database.rows("SELECT inode, dirty FROM local")) == {10: 1, 11: 1, 13: 1}, "the cache is sent again"
    (lost,) = RowChecks(database, OWNER).find()
    assert (lost.severity, lost.repairable, lost.count) == ("lost", False, 3)


def test_what_only_the_cache_has_is_not_taken_for_stored(database: Database) -> None:
    digest = database.value("SELECT digest FROM content WHERE number = 1")
    database.write("DELETE FROM piece WHERE shard = 1")
    repaired(database)
    assert database.value("SELECT dirty FROM local WHERE inode = 10") == 1
    assert database.value("SELECT count(*) FROM content WHERE digest = ?", (digest,)) == 0


def test_a_circle_of_directories_is_opened_and_all_of_it_kept(database: Database) -> None:
    database.write("UPDATE entry SET parent = 3 WHERE inode = 2")
    assert "lost names" in found(database)
    repaired(database)
    check_tree(database)
    assert found(database) == []
    names = {name for (name,) in database.rows("SELECT name FROM entry WHERE parent > 999")}
    assert names == {b"#2"}


def test_names_that_are_taken_in_lost_and_found(database: Database) -> None:
    database.write("INSERT INTO inode VALUES(30,33188,0,0,1,0,4194304,0,1,1,1,NULL)")
    database.write("INSERT INTO entry VALUES(900, 1, ?, 30)", (b"lost+found",))
    database.write("UPDATE volume SET value = value + 1 WHERE name = 'inodes'")
    for inode in (12, 13):
        database.write("DELETE FROM entry WHERE inode = ?", (inode,))
        repaired(database)
    database.write("UPDATE entry SET inode = 13 WHERE inode = 12")
    repaired(database)
    check_tree(database)
    assert database.value("SELECT count(*) FROM entry WHERE parent = 1 AND name = ?", (b"lost+found-2",)) == 1
    assert database.value("SELECT count(*) FROM entry WHERE name = ?", (b"#12",)) >= 1


def test_after_a_crash_files_deleted_while_open_stay_deleted(database: Database) -> None:
    Journal(database).set_mark("running", "boot")
    database.write("DELETE FROM entry WHERE inode = 12")
    database.write("UPDATE inode SET nlink = 0 WHERE number = 12")
    database.write("DELETE FROM inode WHERE number = 14")
    database.write("DELETE FROM entry WHERE inode = 14")
    database.write("INSERT INTO block VALUES(14, 3, 1, 100)")
    database.write("UPDATE volume SET value = value - 1 WHERE name = 'inodes'")
    assert found(database) == []


COLUMNS = [
    ("entry", "inode", ["10", "2", "777"]),
    ("entry", "parent", ["2", "3", "4", "10", "777"]),
    ("inode", "nlink", ["0", "5", "-2"]),
    ("inode", "mode", ["0", "16877", "33188"]),
    ("inode", "size", ["-1", "0"]),
    ("block", "content", ["0", "600", "-1"]),
    ("block", "length", ["-1", "9999"]),
    ("content", "shard", ["700"]),
    ("content", "offset", ["-1", "99999999"]),
    ("content", "digest", ["randomblob(4)"]),
    ("shard", "id", ["randomblob(3)"]),
    ("shard", "total", ["0", "99999999"]),
    ("piece", "host", ["50"]),
    ("piece", "id", ["x'01'"]),
    ("host", "node_id", ["randomblob(2)"]),
    ("local", "dirty", ["0", "1", "9"]),
    ("local_use", "bytes", ["-5"]),
]
TABLES = ["entry", "inode", "block", "content", "shard", "piece", "host", "local", "local_use", "unsent", "volume"]
WOUNDS = st.one_of(
    st.tuples(st.sampled_from(TABLES), st.just(""), st.just("")),
    st.sampled_from(COLUMNS).flatmap(lambda one: st.tuples(st.just(one[0]), st.just(one[1]), st.sampled_from(one[2]))),
)
KEYS = {
    "entry": "cookie", "block": "inode, number", "piece": "shard, position", "local": "inode, block",
    "local_use": "inode", "unsent": "inode, block", "volume": "name",
}  # fmt: skip


def wound(database: Database, table: str, column: str, value: str, dice: random.Random) -> None:
    """Damage one row: change a column, or, without one, take it away."""
    key = KEYS.get(table, "number")
    rows = list(database.rows(f"SELECT {key} FROM {table} ORDER BY {key}"))  # noqa: S608 - names from above
    if not rows:
        return
    where = " AND ".join(f"{name} = ?" for name in key.split(", "))
    change = f"UPDATE {table} SET {column} = {value}" if column else f"DELETE FROM {table}"  # noqa: S608 - the same
    database.write(f"{change} WHERE {where}", dice.choice(rows))


@settings(max_examples=60, deadline=None)
@given(st.lists(WOUNDS, min_size=1, max_size=6), st.integers(0, 10_000))
def test_whatever_is_damaged_repair_ends_clean_and_loses_nothing(wounds: list[tuple[str, str, str]], seed: int) -> None:
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory, Database(f"{directory}/metadata.db") as database:
        fill(database)
        for table, column, value in wounds:
            wound(database, table, column, value, dice)
        database.commit()
        before = readable(database)
        repaired(database)
        assert set(found(database)) <= {"lost blocks"}
        check_tree(database)
        after = {(one.inode, one.block): one for one in readable(database)}
        for one in before:
            now = after[one.inode, one.block]
            assert now.content in {-1, one.content}
            assert now.content == -1 or now.length >= one.length
