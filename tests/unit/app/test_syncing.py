"""fsync through to hosts: what it waits for, and what it says when hosts do not come."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trio

from layrfs.app.syncing import FSYNC_SECONDS, SEARCH_SECONDS, Syncer
from layrfs.errors import LocalError, Unavailable
from layrfs.history.publishing import Superseded
from layrfs.model.records import NodeRecord
from tests.caches import FILE, Cache, running
from tests.fakes.transfers import FakeTransfers


class Nobody:
    """A network in which no more hosts turn up."""

    def known_hosts(self) -> Sequence[NodeRecord]:
        return []

    async def explore(self) -> None:
        await trio.lowlevel.checkpoint()


class Publications:
    """Counts; ``failure`` is raised, ``patience`` is how long one takes."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.1
        self.failure: Exception | None = None

    async def flush(self) -> None:
        await trio.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure
        self.count += 1


@pytest.fixture
async def cache(tmp_path: Path, autojump_clock: object) -> AsyncIterator[Cache]:
    async with running(str(tmp_path / "volume"), FakeTransfers(), closed_seconds=1e9) as cache:
        yield cache


def syncer(cache: Cache, publications: Publications) -> Syncer:
    return Syncer(database=cache.database, contents=cache.contents, membership=Nobody(), publisher=publications)


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


async def test_too_few_copies_are_not_enough(cache: Cache, autojump_clock: object) -> None:
    await cache.put(FILE, b"x" * 100_000)
    cache.transfers.hosts = 2
    started = trio.current_time()
    with pytest.raises(Unavailable):
        await syncer(cache, Publications()).fsync(FILE)
    assert trio.current_time() - started < SEARCH_SECONDS + 5, "hosts that are not there are not waited for for long"
    assert cache.contents.state(FILE) == "degraded"


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
