"""Whatever happens, a file reads as the bytes last written to it: the cache against a plain ``bytearray``.

Random writes, truncates, deletions, evictions, uploads that fail, wait or race with writes, remounts, and kills that
lose the open transaction but no byte of a cache file. After a kill every byte is one the file had there since the last
commit, and what is read then stays: after going to hosts, leaving the cache and coming back it is the same.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field

import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layrfs.errors import NoSpace, Unavailable
from layrfs.ids import InodeNumber
from layrfs.vfs.contents import FileContent
from tests.caches import BLOCK, Cache, Killed, read, running, write
from tests.fakes.transfers import FakeTransfers

INODES = st.integers(1, 2)
OFFSETS = st.one_of(st.integers(0, 5 * BLOCK), st.sampled_from([0, BLOCK - 1, BLOCK, 2 * BLOCK, 4096]))
LENGTHS = st.one_of(st.integers(1, 200), st.integers(1, 3 * BLOCK), st.sampled_from([1, BLOCK, 2 * BLOCK]))
FILLS = st.integers(0, 3)

WEIGHTS = {
    "write": 10,
    "read": 4,
    "cycle": 4,
    "truncate": 2,
    "hold open": 2,
    "let go": 1,
    "delete": 1,
    "wait": 2,
    "flush": 1,
    "evict": 1,
    "network": 1,
    "stall": 2,
    "commit": 2,
    "remount": 1,
    "kill": 1,
}
ARGUMENTS = {
    "write": (INODES, OFFSETS, LENGTHS, FILLS),
    "read": (INODES, OFFSETS, LENGTHS),
    "truncate": (INODES, OFFSETS),
    "hold open": (INODES,),
    "let go": (INODES,),
    "delete": (INODES,),
    "wait": (st.sampled_from([1, 4, 15]),),
    "network": (st.booleans(),),
}
STEPS = st.sampled_from([kind for kind, weight in WEIGHTS.items() for _ in range(weight)]).flatmap(
    lambda kind: st.tuples(st.just(kind), *ARGUMENTS.get(kind, ()))
)
LIMITS = st.sampled_from([8 * BLOCK, 1 << 30])


@dataclass
class Model:
    """One file: its bytes, and every state it had since the last commit."""

    data: bytearray = field(default_factory=bytearray)
    exists: bool = False
    since_commit: list[bytes | None] = field(default_factory=lambda: [None])

    def remember(self) -> None:
        self.since_commit.append(bytes(self.data) if self.exists else None)


class World:
    """A cache, the models of its files, and the steps that change both."""

    def __init__(self, directory: str, limit: int) -> None:
        self.directory = directory
        self.limit = limit
        self.transfers = FakeTransfers()
        self.models: dict[int, Model] = {}
        self.numbers = {1: 1001, 2: 5002}
        self.handles: dict[int, FileContent] = {}
        self.writes = 0

    def model(self, slot: int) -> Model:
        return self.models.setdefault(self.numbers[slot], Model())

    def inode(self, slot: int) -> InodeNumber:
        return InodeNumber(self.numbers[slot])

    async def live(self, steps: list[tuple]) -> list[tuple] | None:
        """One mount: steps until it ends; those that are left, None when it was the last mount."""
        async with running(self.directory, self.transfers, cache_bytes=self.limit) as cache:
            self.handles = {}
            await self.resync(cache)
            for index, step in enumerate(steps):
                if step[0] in {"remount", "kill"}:
                    self.transfers.release()
                    if step[0] == "kill":
                        raise Left(steps[index + 1 :])
                    self.drop_handles(cache)
                    for model in self.models.values():
                        model.remember()
                        model.since_commit = model.since_commit[-1:]
                    return steps[index + 1 :]
                await self.act(cache, step)
                cache.check_sums()
            await self.settle(cache)
            self.drop_handles(cache)
        return None

    async def act(self, cache: Cache, step: tuple) -> None:
        """One step; when it waits for stalled transfers, those go on."""
        done = trio.Event()

        async def do() -> None:
            await getattr(self, step[0].replace(" ", "_"))(cache, *step[1:])
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(do)
            with trio.move_on_after(1):
                await done.wait()
            if not done.is_set() and step[0] != "wait":
                self.transfers.release()

    def opened(self, cache: Cache, slot: int) -> FileContent:
        return self.handles.get(self.inode(slot)) or cache.contents.open(self.inode(slot))

    def closed(self, cache: Cache, file: FileContent) -> None:
        if file.inode not in self.handles:
            cache.contents.release(file)

    def set_size(self, cache: Cache, slot: int) -> None:
        cache.make(self.inode(slot), len(self.model(slot).data))

    async def write(self, cache: Cache, slot: int, offset: int, length: int, fill: int) -> None:
        model = self.model(slot)
        self.writes += 1
        pattern = [bytes(1), self.writes.to_bytes(4, "big"), b"same", b"other"][fill]
        data = (pattern * (length // len(pattern) + 1))[:length]
        if not model.exists:
            model.exists = True
            self.set_size(cache, slot)
        file = self.opened(cache, slot)
        try:
            await write(file, offset, data)
        except (NoSpace, Unavailable):
            assert self.transfers.failure is not None
            return
        finally:
            self.closed(cache, file)
        model.data.extend(bytes(max(0, offset + length - len(model.data))))
        model.data[offset : offset + length] = data
        self.set_size(cache, slot)
        model.remember()

    async def read(self, cache: Cache, slot: int, offset: int, length: int) -> None:
        model = self.model(slot)
        length = min(length, len(model.data) - offset)
        if length <= 0:
            return
        file = self.opened(cache, slot)
        try:
            assert await read(file, offset, length) == model.data[offset : offset + length]
        except Unavailable:
            assert self.transfers.failure is not None
        finally:
            self.closed(cache, file)

    async def truncate(self, cache: Cache, slot: int, size: int) -> None:
        model = self.model(slot)
        if not model.exists:
            return
        file = self.opened(cache, slot)
        old_size = len(model.data)
        cut = bytearray(model.data[:size])
        model.data = cut + bytes(max(0, size - len(cut)))
        model.remember()
        self.set_size(cache, slot)
        await file.truncate(old_size, size)
        self.closed(cache, file)

    async def hold_open(self, cache: Cache, slot: int) -> None:
        if self.model(slot).exists and self.inode(slot) not in self.handles:
            self.handles[self.inode(slot)] = cache.contents.open(self.inode(slot))

    async def let_go(self, cache: Cache, slot: int) -> None:
        file = self.handles.pop(self.inode(slot), None)
        if file is not None:
            cache.contents.release(file)

    def drop_handles(self, cache: Cache) -> None:
        for file in self.handles.values():
            cache.contents.release(file)
        self.handles.clear()

    async def delete(self, cache: Cache, slot: int) -> None:
        model = self.model(slot)
        if model.exists:
            await self.let_go(cache, slot)
            model.exists, model.data = False, bytearray()
            model.remember()
            cache.delete(self.inode(slot))
            self.numbers[slot] += 10

    async def wait(self, _cache: Cache, seconds: int) -> None:
        await trio.sleep(seconds)

    async def flush(self, cache: Cache) -> None:
        if self.transfers.failure is None:
            await cache.contents.flush_to_network(None)
            assert cache.contents.stats().dirty_blocks == 0

    async def cycle(self, cache: Cache) -> None:
        """Everything to hosts and out of the cache."""
        await self.network(cache, up=True)
        await self.flush(cache)
        await self.evict(cache)

    async def evict(self, cache: Cache) -> None:
        await cache.contents.drop_clean()
        assert cache.contents.stats().clean_bytes == 0

    async def network(self, cache: Cache, up: bool) -> None:
        self.transfers.failure = None if up else Unavailable("The network is down.")
        if up:
            cache.contents.hosts_appeared()

    async def stall(self, _cache: Cache) -> None:
        self.transfers.release()
        self.transfers.hold()

    async def commit(self, cache: Cache) -> None:
        cache.database.commit()
        for model in self.models.values():
            model.remember()
            model.since_commit = model.since_commit[-1:]

    async def resync(self, cache: Cache) -> None:
        """After a start: files are as they were, or as they were at some time since the last commit."""
        failure, self.transfers.failure = self.transfers.failure, None
        for number, model in self.models.items():
            size = cache.database.value("SELECT size FROM inode WHERE number = ?", (number,))
            if size is None:
                assert None in model.since_commit
                model.exists, model.data = False, bytearray()
            else:
                data = bytearray(await cache.get(InodeNumber(number), 0, size))
                possible = [state for state in model.since_commit if state is not None]
                assert any(len(state) == size for state in possible)
                check_bytes(data, possible)
                model.exists, model.data = True, data
            model.since_commit = []
            model.remember()
        cache.check_sums()
        self.transfers.failure = failure

    async def settle(self, cache: Cache) -> None:
        """In the end all is on hosts, and comes back from them."""
        self.transfers.release()
        await self.network(cache, up=True)
        await cache.contents.flush_to_network(None)
        await self.evict(cache)
        cache.check_sums()
        cache.check_idle()
        for number, model in self.models.items():
            if model.exists:
                assert await cache.get(InodeNumber(number), 0, len(model.data)) == model.data
        cache.check_sums()


class Left(Killed):
    """Killed, with the steps that come after."""

    def __init__(self, steps: list[tuple]) -> None:
        super().__init__()
        self.steps = steps


def check_bytes(data: bytearray, possible: list[bytes]) -> None:
    """Every byte is one that some state had at its place (zero beyond a state's end)."""
    if any(data == state for state in possible):
        return
    padded = [state.ljust(len(data), b"\0") for state in possible]
    for place, values in enumerate(zip(data, *padded, strict=False)):
        assert values[0] in values[1:], f"byte {place} is {values[0]}, none of {set(values[1:])}"


def steps_left(error: BaseException) -> list[tuple]:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Left)
    return error.steps


async def live_on(directory: str, limit: int, steps: list[tuple]) -> None:
    world = World(directory, limit)
    left: list[tuple] | None = steps
    while left is not None:
        steps, left = left, None
        try:
            left = await world.live(steps)
        except* Left as group:
            left = steps_left(group)


STORED = [("write", 1, 0, 3 * BLOCK - 100, 1), ("write", 2, 0, 5000, 1), ("cycle",)]
"""Half of the runs begin with files that are on hosts only: that is where most can go wrong."""


@given(limit=LIMITS, stored=st.booleans(), steps=st.lists(STEPS, min_size=10, max_size=40))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_file_reads_as_it_was_written(limit: int, stored: bool, steps: list[tuple]) -> None:
    steps = [*(STORED if stored else []), *steps, ("kill",), ("remount",)]
    with tempfile.TemporaryDirectory(prefix="layrfs-") as directory:
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(live_on, f"{directory}/volume", limit, steps, clock=clock)
