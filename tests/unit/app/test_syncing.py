"""fsync through to hosts: what it waits for, and what it says when hosts do not come."""

import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trio

from layrfs.app.syncing import COMPLETE_SECONDS, FSYNC_SECONDS, SEARCH_SECONDS, STUCK_SECONDS, Syncer
from layrfs.errors import LocalError, Unavailable
from layrfs.history.publishing import Superseded
from layrfs.ids import InodeNumber
from layrfs.model.records import NodeRecord
from tests.caches import FILE, Cache, running, write
from tests.fakes.hosts import TlsHost
from tests.fakes.transfers import FakeTransfers


class Hosts:
    """A network with so many hosts, in which no more turn up."""

    def __init__(self, count: int = 0, *, leaving: bool = False) -> None:
        self._records = [TlsHost().record(leaving=leaving) for _ in range(count)]

    def known_hosts(self) -> Sequence[NodeRecord]:
        return self._records

    async def explore(self) -> None:
        await trio.lowlevel.checkpoint()


class Publications:
    """Counts; ``failure`` is raised, ``patience`` is how long one takes."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.1
        self.failure: Exception | None = None
        self.lacks_copies = False

    async def flush(self) -> None:
        await trio.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure
        self.count += 1


@pytest.fixture
async def cache(tmp_path: Path, autojump_clock: object) -> AsyncIterator[Cache]:
    async with running(str(tmp_path / "volume"), FakeTransfers(), closed_seconds=1e9) as cache:
        yield cache


def syncer(cache: Cache, publications: Publications, hosts: Hosts | None = None) -> Syncer:
    membership = hosts or Hosts()
    return Syncer(
        database=cache.database,
        contents=cache.contents,
        membership=membership,
        publisher=publications,
        patcher=cache.patcher,
    )


async def test_bytes_are_on_hosts_before_the_record_is_out(cache: Cache, autojump_clock: object) -> None:
    await cache.put(FILE, b"x" * 100_000)
    publications = Publications()
    publications.failure = Unavailable("checked below")
    with pytest.raises(Unavailable):
        await syncer(cache, publications).fsync(FILE)
    assert cache.contents.state(FILE) == "safe", "the bytes went first"
    publications.failure = None
    await syncer(cache, publications).fsync(FILE)
    assert publications.count == 1


async def test_metadata_on_too_few_hosts_is_not_on_the_network(cache: Cache, autojump_clock: object) -> None:
    publications = Publications()
    publications.lacks_copies = True
    with pytest.raises(Unavailable):
        await syncer(cache, publications).fsync(None)
    publications.lacks_copies = False
    await syncer(cache, publications).fsync(None)


async def test_metadata_alone_waits_for_the_record_alone(cache: Cache, autojump_clock: object) -> None:
    await cache.put(FILE, b"x" * 100_000)
    publications = Publications()
    await syncer(cache, publications).fsync(None)
    assert publications.count == 1
    assert cache.contents.state(FILE) == "cached"


async def test_without_hosts_it_fails_after_a_while_and_uploads_go_on(cache: Cache, autojump_clock: object) -> None:
    await cache.put(FILE, b"x" * 100_000)
    cache.transfers.hosts = 0
    started = trio.current_time()
    with pytest.raises(Unavailable):
        await syncer(cache, Publications()).fsync(FILE)
    assert trio.current_time() - started == pytest.approx(FSYNC_SECONDS, abs=1)
    assert cache.contents.state(FILE) in {"cached", "uploading"}
    cache.transfers.hosts = 5
    await syncer(cache, Publications()).fsync(FILE)
    assert cache.contents.state(FILE) == "safe"


async def test_too_few_copies_are_not_enough_though_the_file_is_written_again(
    cache: Cache, autojump_clock: object
) -> None:
    cache.transfers.hosts, cache.transfers.store_seconds = 1, 5
    await cache.put(FILE, b"x" * 5000)
    file = cache.contents.open(FILE)
    async with trio.open_nursery() as nursery:

        async def write_meanwhile() -> None:
            await trio.sleep(2)
            await write(file, 0, b"Y")

        nursery.start_soon(write_meanwhile)
        with pytest.raises(Unavailable):
            await syncer(cache, Publications(), Hosts(1)).fsync(FILE)
    assert cache.contents.state(FILE) in {"cached", "uploading"}
    cache.contents.release(file)


async def test_too_few_copies_are_not_enough(cache: Cache, autojump_clock: object) -> None:
    await cache.put(FILE, b"x" * 100_000)
    cache.transfers.hosts = 2
    started = trio.current_time()
    with pytest.raises(Unavailable):
        await syncer(cache, Publications()).fsync(FILE)
    assert trio.current_time() - started < SEARCH_SECONDS + 5, "hosts that are not there are not waited for for long"
    assert cache.contents.state(FILE) == "degraded"


async def test_hosts_that_leave_are_not_waited_for_as_if_they_took_pieces(cache: Cache, autojump_clock: object) -> None:
    cache.transfers.hosts = 2
    await cache.put(FILE, b"x" * 100_000)
    started = trio.current_time()
    await syncer(cache, Publications(), Hosts(5, leaving=True)).sync(None, lambda _report: None)
    assert trio.current_time() - started < SEARCH_SECONDS + 5


async def test_what_is_lost_is_not_waited_for(cache: Cache, autojump_clock: object) -> None:
    await cache.put(FILE, os.urandom(5000))
    await cache.contents.flush_to_network(None)
    (shard,) = (row[0] for row in cache.database.rows("SELECT number FROM shard"))
    record = cache.catalog.shard(shard)
    await cache.contents.drop_clean()
    for piece in record.pieces:
        cache.transfers.drop([piece.id])
        cache.patcher.piece_lost(record.id, piece.id)
    started = trio.current_time()
    await syncer(cache, Publications(), Hosts(5)).sync(None, lambda _report: None)
    assert cache.contents.stats().degraded_shards == 1
    assert trio.current_time() - started < COMPLETE_SECONDS / 3


async def test_copies_that_no_silent_host_gives_are_waited_for_for_a_moment(
    cache: Cache, autojump_clock: object
) -> None:
    cache.transfers.hosts = 1
    for number in range(20):
        await cache.put(InodeNumber(100 + number), os.urandom(5000))
        await cache.contents.flush_to_network(None)
    cache.transfers.delay_seconds = 60
    cache.transfers.lost = set(cache.transfers.payloads)
    started = trio.current_time()
    await syncer(cache, Publications(), Hosts(5)).sync(None, lambda _report: None)
    assert trio.current_time() - started < COMPLETE_SECONDS + 5
    assert cache.contents.stats().degraded_shards == 20


async def test_sync_says_so_when_hosts_take_nothing_any_more(cache: Cache, autojump_clock: object) -> None:
    await cache.put(FILE, b"x" * 100_000)
    cache.transfers.hosts = 0
    started = trio.current_time()
    with pytest.raises(Unavailable, match="Too few hosts take pieces"):
        await syncer(cache, Publications()).sync(None, lambda _report: None)
    assert trio.current_time() - started == pytest.approx(STUCK_SECONDS, abs=1)
    cache.transfers.hosts = 5
    await syncer(cache, Publications()).sync(None, lambda _report: None)
    assert cache.contents.state(FILE) == "safe"
    publications = Publications()
    publications.seconds = 1e9
    with pytest.raises(Unavailable):
        await syncer(cache, publications).sync(None, lambda _report: None)


async def test_sync_waits_as_long_as_something_moves(cache: Cache, autojump_clock: object) -> None:
    await cache.put(FILE, b"x" * 100_000)
    cache.transfers.delay_seconds = 4 * STUCK_SECONDS

    async def move() -> None:
        while True:
            cache.transfers.last_moved = trio.current_time()
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(move)
        await syncer(cache, Publications()).sync(None, lambda _report: None)
        nursery.cancel_scope.cancel()
    assert cache.contents.state(FILE) == "safe"


async def test_a_silent_publication_is_not_waited_for_without_end(cache: Cache, autojump_clock: object) -> None:
    publications = Publications()
    publications.seconds = 1e9
    with pytest.raises(Unavailable):
        await syncer(cache, publications).fsync(None)


async def test_who_writes_no_more_fails_as_a_disk_does(cache: Cache, autojump_clock: object) -> None:
    publications = Publications()
    publications.failure = Superseded("another machine writes")
    with pytest.raises(LocalError, match="another machine"):
        await syncer(cache, publications).fsync(None)
