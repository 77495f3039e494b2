"""Files that grow while they are sent: where they end in a snapshot that was made by hand meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from layrfs.storage.changes import end_where_sent
from tests.caches import BLOCK, FILE, Cache, running, write
from tests.fakes.transfers import FakeTransfers

Write = tuple[int, bytes]
CASES: dict[str, tuple[bytes, int, Write, int]] = {
    "appended": (b"a" * 1000, 1000, (1000, b"b" * 1000), 1000),
    "appended to the next block": (b"a" * 1000, 1000, (BLOCK + 5, b"b"), BLOCK),
    "appended to a full block": (b"a" * BLOCK, BLOCK, (BLOCK, b"b" * 10), BLOCK),
    "overwritten": (b"a" * 1000, 1000, (0, b"b" * 1000), 1000),
    "overwritten before zeros": (b"a" * 1000, 5000, (10, b"b"), 5000),
    "overwritten in a sparse file": (b"a" * 1000, 9 * BLOCK, (10, b"b"), 9 * BLOCK),
    "a hole filled": (b"a" * 1000, 9 * BLOCK, (5 * BLOCK, b"b"), 9 * BLOCK),
}
"""The file's bytes and size, what is written meanwhile, and where the file ends in the snapshot."""


def end(cache: Cache) -> int:
    cache.database.commit()
    end_where_sent(cache.database)
    size: int = cache.database.value("SELECT size FROM inode WHERE number = ?", (FILE,))
    return size


@pytest.mark.parametrize("when", ["during the upload", "after it"])
@pytest.mark.parametrize("case", CASES)
async def test_a_file_ends_where_it_ended_when_hosts_had_all_of_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, case: str, when: str
) -> None:
    data, size, (offset, more), expected = CASES[case]
    async with running(f"{tmp_path}/volume", FakeTransfers(store_seconds=5), closed_seconds=1e9) as cache:
        await cache.put(FILE, data)
        cache.make(FILE, size)
        cache.database.commit()
        file = cache.contents.open(FILE)

        async def write_meanwhile() -> None:
            await trio.sleep(2)
            await write(file, offset, more)
            cache.make(FILE, max(size, offset + len(more)))

        async with trio.open_nursery() as nursery:
            if when == "during the upload":
                nursery.start_soon(write_meanwhile)
            await cache.contents.flush_to_network(None)
        if when == "after it":
            await write_meanwhile()
        assert end(cache) == expected
        cache.contents.release(file)


async def test_a_file_that_is_on_no_host_is_not_an_empty_one(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(f"{tmp_path}/volume", FakeTransfers(hosts=0)) as cache:
        cache.make(FILE)
        file = cache.contents.open(FILE)
        await write(file, 0, b"new")
        cache.make(FILE, 3)
        assert end(cache) == 3
        cache.contents.release(file)
