"""What was dirty when a flush began is on hosts when it ends, and it ends, whatever programs do meanwhile.

Numbers that only grow are written to cells of a few files, which are also cut, deleted and extended, while uploads take
their time before and after they read. For every flush, hosts must have in each cell the number that was there at the
call, or one that was written there later; never anything else. After the last step a writer goes on without a rest.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field

import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layrfs.ids import InodeNumber
from tests.caches import BLOCK, Cache, running, write
from tests.fakes.transfers import FakeTransfers

CELL = 8
OFFSETS = [0, 4096, BLOCK - CELL, BLOCK, 2 * BLOCK + 100, 5 * BLOCK]
Cells = dict[tuple[InodeNumber, int], int]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "write", "open", "close", "cut", "delete", "extend", "flush", "flush one"]),
        st.integers(0, 2),
        st.sampled_from(OFFSETS),
        st.sampled_from([0.0, 0.01, 0.3, 3.0, 12.0]),
    ),
    min_size=5,
    max_size=30,
)


@dataclass
class World:
    """A cache with somebody at work in it."""

    cache: Cache
    number: int = 0
    files: list[InodeNumber] = field(default_factory=lambda: [InodeNumber(1001), InodeNumber(1002), InodeNumber(5003)])
    sizes: dict[InodeNumber, int] = field(default_factory=dict)
    cells: Cells = field(default_factory=dict)
    written: dict[tuple[InodeNumber, int], set[int]] = field(default_factory=dict)
    flushes: list[Cells] = field(default_factory=list)
    """What each flush that is on must find, or something newer."""

    async def step(self, nursery: trio.Nursery, kind: str, slot: int, offset: int) -> None:
        inode = self.files[slot]
        if kind == "flush":
            nursery.start_soon(self.flush, None)
        elif kind == "flush one":
            nursery.start_soon(self.flush, [inode])
        elif kind == "write":
            await self.write(inode, offset)
        elif inode in self.sizes:
            await getattr(self, kind)(inode, offset)

    def resize(self, inode: InodeNumber, size: int) -> None:
        self.sizes[inode] = size
        self.cache.make(inode, size)

    async def write(self, inode: InodeNumber, offset: int) -> None:
        self.number += 1
        self.resize(inode, max(self.sizes.get(inode, 0), offset + CELL))
        file = self.cache.contents.open(inode)
        await write(file, offset, self.number.to_bytes(CELL, "big"))
        self.cache.contents.release(file)
        self.cells[inode, offset] = self.number
        self.written.setdefault((inode, offset), {0}).add(self.number)

    async def open(self, inode: InodeNumber, _offset: int) -> None:
        self.cache.contents.open(inode)

    async def close(self, inode: InodeNumber, _offset: int) -> None:
        file = self.cache.contents._open.get(inode)
        if file is not None:
            self.cache.contents.release(file)

    async def cut(self, inode: InodeNumber, size: int) -> None:
        if size < self.sizes[inode]:
            file = self.cache.contents.open(inode)
            old_size = self.sizes[inode]
            self.forget(inode, size)
            self.resize(inode, size)
            await file.truncate(old_size, size)
            self.cache.contents.release(file)

    async def extend(self, inode: InodeNumber, size: int) -> None:
        self.resize(inode, max(size, self.sizes[inode]))

    async def delete(self, inode: InodeNumber, offset: int) -> None:
        while inode in self.cache.contents._open:
            await self.close(inode, offset)
        self.forget(inode, 0)
        del self.sizes[inode]
        self.cache.delete(inode)
        self.files[self.files.index(inode)] = InodeNumber(inode + 10)

    def forget(self, inode: InodeNumber, size: int) -> None:
        """Nobody is owed what was cut off."""
        for cells in [self.cells, *self.flushes]:
            for cell in [cell for cell in cells if cell[0] == inode and cell[1] + CELL > size]:
                del cells[cell]
        for cell in self.written:
            if cell[0] == inode and cell[1] >= size:
                self.written[cell] = {0}

    async def flush(self, inodes: list[InodeNumber] | None) -> None:
        owed = {cell: number for cell, number in self.cells.items() if inodes is None or cell[0] in inodes}
        self.flushes.append(owed)
        with trio.fail_after(120):
            await self.cache.contents.flush_to_network(inodes)
        for (inode, offset), number in owed.items():
            found = self.on_hosts(inode, offset)
            assert found >= number, f"{inode} at {offset}: hosts have {found}, at the call it was {number}"
        self.flushes = [cells for cells in self.flushes if cells is not owed]

    def check_hosts(self) -> None:
        """They have nothing that was not written there, or that was cut off."""
        for (inode, offset), numbers in self.written.items():
            if inode in self.sizes:
                assert self.on_hosts(inode, offset) in numbers

    def on_hosts(self, inode: InodeNumber, offset: int) -> int:
        return int.from_bytes(self.cache.on_hosts(inode, offset, CELL), "big")

    async def never_rest(self) -> None:
        while True:
            for inode in self.files:
                await self.write(inode, OFFSETS[self.number % len(OFFSETS)])
            await trio.sleep(0.02)


async def live(directory: str, steps: list[tuple], seconds: tuple[float, float]) -> None:
    transfers = FakeTransfers(delay_seconds=seconds[0], store_seconds=seconds[1])
    sizes = {"count": 0}

    def fix(inode: InodeNumber) -> int:
        """As ``count:N`` would: another size whenever it is asked, for as long as it is asked."""
        sizes["count"] += 1
        cache.block_bytes[inode] = BLOCK * (1 + sizes["count"] % 3)
        return cache.block_bytes[inode]

    async with running(directory, transfers, fix_block_bytes=fix) as cache:
        world = World(cache)
        async with trio.open_nursery() as writing:
            async with trio.open_nursery() as flushing:
                for kind, slot, offset, pause in steps:
                    await world.step(flushing, kind, slot, offset)
                    await trio.sleep(pause)
                    cache.check_sums()
                    world.check_hosts()
                writing.start_soon(world.never_rest)
                flushing.start_soon(world.flush, None)
            writing.cancel_scope.cancel()
        await cache.contents.flush_to_network(None)
        assert cache.contents.stats().dirty_blocks == 0
        for (inode, offset), number in world.cells.items():
            assert world.on_hosts(inode, offset) == number
        world.check_hosts()
        cache.check_sums()
        cache.check_idle()


@given(steps=STEPS, seconds=st.tuples(st.sampled_from([0.0, 0.05, 4.0]), st.sampled_from([0.0, 0.05, 4.0])))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_flush_owes_what_was_there_at_the_call(steps: list[tuple], seconds: tuple[float, float]) -> None:
    with tempfile.TemporaryDirectory(prefix="layrfs-") as directory:
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(live, f"{directory}/volume", steps, seconds, clock=clock)
