"""Cache files against rows, in a volume that was closed in order: each difference is found and costs no byte."""

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from layrfs.app.cache_checks import CacheChecks
from layrfs.crypto.digests import BlockDigester
from layrfs.ids import InodeNumber
from layrfs.storage.cache_files import CacheFiles
from layrfs.storage.checking import RowChecks
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.nameless import Nameless, Owner
from layrfs.vfs.reconciling import Reconciler
from tests.caches import BLOCK, InlineDatabase, running
from tests.fakes.transfers import FakeTransfers

OWNER = Owner(1, 2, 3)
ONE, TWO = InodeNumber(10), InodeNumber(11)
DIGESTER = BlockDigester(bytes(32))


class Place(NamedTuple):
    """A volume of two files, three blocks on hosts and in the cache, one dirty."""

    directory: str
    transfers: FakeTransfers

    def path(self, inode: int) -> str:
        return f"{self.directory}/cache/0/{inode:x}"

    def break_rows(self, *statements: str) -> None:
        with Database(f"{self.directory}/metadata.db") as database:
            for statement in statements:
                database.write(statement)

    async def checked(self, *, repair: bool = False, deep: bool = False, unclean: bool = False) -> list[str]:
        """What is found; with ``repair``, what is found then."""
        with InlineDatabase(f"{self.directory}/metadata.db") as database:
            self.transfers.find_content = Catalog(database).find_content
            files = CacheFiles(f"{self.directory}/cache")
            scratch = f"{self.directory}/scratch"
            reconciler = Reconciler(database, files, DIGESTER, self.transfers, scratch=scratch)
            checks = CacheChecks(database, reconciler, Nameless(database, OWNER), unclean=unclean)
            if repair:
                rows = RowChecks(database, OWNER)
                checks.adopt_strays()
                list(rows.repair())
                await checks.repair(deep=deep)
                list(rows.repair())
                assert list(rows.find()) == []
            return [finding.check for finding in await checks.find(deep=deep)]

    async def read(self, inode: int, block: int, length: int) -> bytes:
        async with running(self.directory, self.transfers) as cache:
            return await cache.get(InodeNumber(inode), block * BLOCK, length)

    def local(self) -> dict[tuple[int, int], int]:
        with Database(f"{self.directory}/metadata.db") as database:
            return {(inode, block): dirty for inode, block, dirty in database.rows("SELECT * FROM local")}


@pytest.fixture
async def place(tmp_path: Path) -> Place:
    directory, transfers = str(tmp_path / "volume"), FakeTransfers()
    async with running(directory, transfers) as cache:
        database = cache.database
        database.write("INSERT INTO volume VALUES('next_inode', 100)")
        database.write("INSERT INTO inode VALUES(1,16877,0,0,2,0,65536,0,0,0,0,NULL)")
        database.write("INSERT INTO entry VALUES(1,1,x'61',10),(2,1,x'62',11)")
        await cache.put(ONE, b"1" * (2 * BLOCK + 5))
        await cache.contents.flush_to_network(None)
        await cache.put(TWO, b"2" * 500)
        for content, data in zip(
            database.rows("SELECT number FROM content ORDER BY length DESC, number"),
            (b"1" * BLOCK, b"1" * 5),
            strict=True,
        ):
            digest = DIGESTER.digest(data)
            database.write("UPDATE content SET digest = ? WHERE number = ?", (digest, content[0]))
    return Place(directory, transfers)


async def test_a_sound_cache_is_clean(place: Place) -> None:
    assert await place.checked(deep=True) == []
    assert await place.checked(repair=True, deep=True) == []
    assert place.local() == {(10, 0): 0, (10, 1): 0, (10, 2): 0, (11, 0): 1}


async def test_a_file_without_a_row_is_a_file_again(place: Place) -> None:
    os.rename(place.path(11), place.path(77))
    place.break_rows("DELETE FROM local WHERE inode = 11", "UPDATE inode SET size = 0 WHERE number = 11")
    assert await place.checked() == ["stray files"]
    assert await place.checked(repair=True) == []
    assert await place.read(77, 0, 500) == b"2" * 500


async def test_a_stray_with_a_name_keeps_it(place: Place) -> None:
    place.break_rows("DELETE FROM local WHERE inode = 11", "DELETE FROM inode WHERE number = 11")
    assert await place.checked(repair=True) == []
    with Database(f"{place.directory}/metadata.db") as database:
        assert database.value("SELECT name FROM entry WHERE inode = 11") == b"b"
    assert await place.read(11, 0, 500) == b"2" * 500


async def test_a_lost_dirty_mark_costs_nothing(place: Place) -> None:
    place.break_rows("DELETE FROM local", "DELETE FROM local_use")
    with open(place.path(10), "r+b") as file:
        file.seek(BLOCK)
        file.write(b"newer")
    assert await place.checked() == ["unknown blocks"]
    assert await place.checked(repair=True) == []
    assert place.local() == {(10, 0): 0, (10, 1): 1, (10, 2): 0, (11, 0): 1}
    assert await place.read(10, 1, 5) == b"newer"


async def test_a_block_that_should_be_here_and_is_not_comes_from_hosts(place: Place) -> None:
    os.truncate(place.path(10), BLOCK)
    assert await place.checked() == ["empty blocks"]
    assert await place.checked(repair=True) == []
    assert await place.read(10, 1, BLOCK) == b"1" * BLOCK


async def test_a_dirty_block_without_bytes_is_lost_and_not_zeros(place: Place) -> None:
    os.unlink(place.path(11))
    assert await place.checked() == ["empty blocks"]
    with InlineDatabase(f"{place.directory}/metadata.db") as database:
        reconciler = Reconciler(database, CacheFiles(f"{place.directory}/cache"), DIGESTER, None, scratch="")
        checks = CacheChecks(database, reconciler, Nameless(database, OWNER), unclean=False)
        await checks.repair(deep=False)
        assert list(database.rows("SELECT content, length FROM block WHERE inode = 11")) == [(0, 0)]


async def test_a_file_is_as_long_as_what_was_written_to_it(place: Place) -> None:
    place.break_rows("UPDATE inode SET size = 20 WHERE number = 11")
    assert await place.checked() == ["long files"]
    assert await place.checked(repair=True) == []
    with Database(f"{place.directory}/metadata.db") as database:
        assert database.value("SELECT size FROM inode WHERE number = 11") == 500


async def test_a_clean_block_that_rotted_is_kept_beside_what_hosts_have(place: Place) -> None:
    with open(place.path(10), "r+b") as file:
        file.seek(100)
        file.write(b"rot")
    assert await place.checked() == []
    assert await place.checked(deep=True) == ["changed blocks"]
    assert await place.checked(repair=True, deep=True) == []
    assert await place.read(10, 0, BLOCK) == b"1" * BLOCK
    with Database(f"{place.directory}/metadata.db") as database:
        (copy,) = [row[0] for row in database.rows("SELECT inode FROM entry WHERE parent > 99")]
    assert (await place.read(copy, 0, 105))[98:105] == b"11rot11"


async def test_after_a_crash_only_what_would_be_cleared_away_is_looked_at(place: Place) -> None:
    os.rename(place.path(11), place.path(77))
    os.truncate(place.path(10), BLOCK)
    assert await place.checked(unclean=True) == ["stray files"]


async def test_a_large_file_is_set_aside_in_small_steps(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    data, steps, real = os.urandom(5 << 19), [], os.pread
    Path(place.path(11)).write_bytes(data)
    with InlineDatabase(f"{place.directory}/metadata.db") as database:
        files = CacheFiles(f"{place.directory}/cache")
        reconciler = Reconciler(database, files, DIGESTER, None, scratch="")
        monkeypatch.setattr(
            os, "pread", lambda fd, length, offset: steps.append(length) or real(fd, min(length, 1 << 20), offset)
        )
        copy = reconciler.set_aside(TWO, Nameless(database, OWNER))
    assert Path(files.path(copy)).read_bytes() == data
    assert max(steps) <= 1 << 20
