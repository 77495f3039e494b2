"""Another version comes under files that are cached, open and being read: one version or the other, never a mix."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from layrfs.errors import LayrError, LocalError
from layrfs.ids import InodeNumber
from layrfs.storage.changes import ChangeLog
from layrfs.storage.replay import touched
from tests.caches import BLOCK, FILE, Cache, read, running, write
from tests.fakes.transfers import FakeTransfers

Volume = dict[InodeNumber, bytes]


class Pair:
    """A writer, and who follows it."""

    def __init__(self, writer: Cache, follower: Cache) -> None:
        self.writer, self.follower = writer, follower
        self.files: Volume = {}
        self.seen: Volume = {}
        """The writer's files now, and as of the version that the follower has."""
        self.unsent: set[tuple[int, int]] = set()

    async def put(self, inode: InodeNumber, data: bytes) -> None:
        await self.cut(inode, 0)
        self.writer.make(inode, len(data))
        await self._write(inode, 0, data)
        self.files[inode] = data

    async def change(self, inode: InodeNumber, offset: int, data: bytes) -> None:
        old = self.files[inode].ljust(offset, b"\0")
        new = self.files[inode] = old[:offset] + data + old[offset + len(data) :]
        self.writer.make(inode, len(new))
        await self._write(inode, offset, data)

    async def _write(self, inode: InodeNumber, offset: int, data: bytes) -> None:
        file = self.writer.contents.open(inode)
        await write(file, offset, data)
        self.writer.contents.release(file)

    async def cut(self, inode: InodeNumber, size: int) -> None:
        old = self.files.get(inode, b"")
        if inode not in self.files or size >= len(old):
            return
        file = self.writer.contents.open(inode)
        await file.truncate(len(old), size)
        self.writer.contents.release(file)
        self.writer.make(inode, size)
        self.files[inode] = old[:size]

    def delete(self, inode: InodeNumber) -> None:
        self.writer.delete(inode)
        del self.files[inode]

    async def send(self) -> None:
        await self.writer.contents.flush_to_network(None)

    async def follow(self) -> None:
        """The follower has what the writer has."""
        self.writer.database.commit()
        log = ChangeLog(self.writer.database)
        if not log.has_pending():
            return
        last, changes = log.pending()
        log.forget(last)
        about, versions = touched(changes), self.follower.contents.versions
        clearing = versions.let_go(about, lambda _inode: False)
        self.follower.database.apply(changes)
        self.follower.database.commit()
        self.follower.catalog.refresh()
        versions.reload(about, lambda _inode: False, [])
        self.seen = dict(self.files)
        self.unsent = set(self.writer.database.rows("SELECT inode, block FROM unsent"))
        await versions.clear(clearing)

    async def check(self, inode: InodeNumber) -> None:
        """Every block reads as it was written, or says that it cannot."""
        data = self.seen[inode]
        file = self.follower.contents.open(inode)
        try:
            for block in range(-(-len(data) // BLOCK)):
                expected = data[block * BLOCK : (block + 1) * BLOCK]
                if (inode, block) in self.unsent:
                    with pytest.raises(LocalError):
                        await read(file, block * BLOCK, len(expected))
                else:
                    assert await read(file, block * BLOCK, len(expected)) == expected
        finally:
            self.follower.contents.release(file)


@asynccontextmanager
async def pair(directory: str, **options: object) -> AsyncIterator[Pair]:
    hosts = FakeTransfers()
    async with running(f"{directory}/writer", hosts, closed_seconds=1e9) as writer:
        theirs = FakeTransfers(payloads=hosts.payloads, pieces=hosts.pieces)
        async with running(f"{directory}/follower", theirs, follows=True, **options) as follower:
            yield Pair(writer, follower)
            assert theirs.uploads == []
            assert not ChangeLog(follower.database).has_pending()


@pytest.fixture
def directory(tmp_path: object) -> str:
    return str(tmp_path)


async def slowly(work: Callable[[], None]) -> None:
    """A disk that takes its time."""
    await trio.sleep(1)
    work()


def some(dice: random.Random, most: int = 3 * BLOCK) -> bytes:
    return dice.randbytes(64) * (dice.randrange(1, most) // 64 + 1)


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_changes_is_read_as_it_is(directory: str, seed: int, autojump_clock: object) -> None:
    dice = random.Random(seed)
    inodes = [InodeNumber(number) for number in range(2, 7)]
    newest = 6
    async with pair(directory) as both:
        held = []
        for _ in range(60):
            inode = dice.choice(inodes)
            match dice.randrange(8):
                case 0 | 1:
                    await both.put(inode, some(dice))
                case 2 if inode in both.files:
                    await both.change(inode, dice.randrange(4 * BLOCK), some(dice, BLOCK))
                case 3 if inode in both.files:
                    await both.cut(inode, dice.randrange(2 * BLOCK))
                case 4 if inode in both.files and inode not in {file.inode for file in held}:
                    both.delete(inode)
                    newest += 1  # a number is never used again
                    inodes[inodes.index(inode)] = InodeNumber(newest)
                case 5:
                    await both.send()
                case 6 if both.seen.get(inode):
                    held.append(both.follower.contents.open(inode))
                case _ if held:
                    both.follower.contents.release(held.pop())
                case _:
                    pass
            if dice.random() < 0.5:
                await both.follow()
            for checked in dice.sample(inodes, 2):
                if checked in both.seen:
                    await both.check(checked)
            both.follower.check_sums()
            both.follower.check_idle()
        for file in held:
            both.follower.contents.release(file)


@pytest.mark.parametrize("seed", range(20))
async def test_who_reads_meanwhile_gets_one_version(directory: str, seed: int, autojump_clock: object) -> None:
    dice = random.Random(seed)
    async with pair(directory, in_thread=slowly) as both:
        await both.put(FILE, b"old" * BLOCK)
        await both.send()
        await both.follow()
        file = both.follower.contents.open(FILE)
        if dice.random() < 0.5:
            await read(file, 0, dice.choice([BLOCK, 3 * BLOCK]))
        both.follower.transfers.hold()
        answers: list[bytes] = []

        async def reader() -> None:
            try:
                answers.append(await read(file, 0, 3 * BLOCK))
            except LayrError:
                answers.append(b"")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            await trio.testing.wait_all_tasks_blocked()
            match dice.randrange(3):
                case 0:
                    await both.change(FILE, 0, b"new" * BLOCK)
                case 1:
                    await both.cut(FILE, 0)
                    await both.change(FILE, 3 * BLOCK - 1, b"n")
                case _:
                    await both.cut(FILE, 100)
            sent = dice.random() < 0.7
            if sent:
                await both.send()
            nursery.start_soon(both.follow)
            nursery.start_soon(reader)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(reader)
            await trio.testing.wait_all_tasks_blocked()
            both.follower.transfers.release()
        new = both.seen[FILE].ljust(3 * BLOCK, b"\0")
        assert set(answers) <= {b"old" * BLOCK, new, b""}
        assert sent <= (b"" not in answers)
        assert answers[-1] in {new, b""}
        both.follower.contents.release(file)
        both.follower.check_sums()
        both.follower.check_idle()


async def test_what_is_a_hole_now_reads_as_zeros_while_the_disk_is_slow(directory: str, autojump_clock: object) -> None:
    async with pair(directory, in_thread=slowly) as both:
        await both.put(FILE, b"old" * BLOCK)
        await both.send()
        await both.follow()
        file = both.follower.contents.open(FILE)
        await read(file, 0, 3 * BLOCK)
        await both.cut(FILE, 0)
        await both.change(FILE, 3 * BLOCK - 1, b"n")
        await both.send()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(both.follow)
            await trio.testing.wait_all_tasks_blocked()
            assert await read(file, 0, BLOCK) == bytes(BLOCK)
        await both.check(FILE)
        both.follower.contents.release(file)


async def test_read_ahead_does_not_fail_for_what_is_unsent(directory: str, autojump_clock: object) -> None:
    async with pair(directory) as both:
        await both.put(FILE, b"x" * 2 * BLOCK)
        await both.send()
        await both.follow()
        await both.change(FILE, BLOCK, b"y" * BLOCK)
        await both.follow()
        file = both.follower.contents.open(FILE)
        for offset in range(0, BLOCK, BLOCK // 4):
            assert await read(file, offset, BLOCK // 4) == b"x" * (BLOCK // 4)
        with pytest.raises(LocalError):
            await read(file, BLOCK, 1)
        assert both.follower.contents.state(FILE) == "uploading"
        assert both.follower.contents.runs(FILE, 2)[1].local == "absent"
        both.follower.contents.release(file)
        await both.send()
        await both.follow()
        await both.check(FILE)


@pytest.mark.parametrize("follows", [True, False])
@pytest.mark.parametrize("boot", ["boot", "after a power cut"])
async def test_what_was_left_by_a_killed_follower_is_never_taken_for_new(
    directory: str, boot: str, follows: bool, autojump_clock: object
) -> None:
    """Its rows are gone, its bytes are not: the next one must not send them, nor show them behind a shorter block."""
    hosts = FakeTransfers()
    async with running(f"{directory}/writer", hosts) as writer:
        await writer.put(FILE, b"x" * 2 * BLOCK)
        await writer.contents.flush_to_network(None)
        writer.database.commit()
        changes = ChangeLog(writer.database).pending()[1]
    theirs = FakeTransfers(payloads=hosts.payloads, pieces=hosts.pieces)
    async with running(f"{directory}/follower", theirs, follows=True) as follower:
        follower.database.apply(changes)
        await follower.get(FILE, 0, 2 * BLOCK)
        os.utime(follower.path(FILE), (1000, 1000))
        follower.database.write("DELETE FROM local")
        follower.database.write("UPDATE block SET length = 10 WHERE number = 0")
        follower.database.write("DELETE FROM block WHERE number = 1")
        follower.database.commit()
        shutil.copytree(f"{directory}/follower", f"{directory}/killed")
    async with running(f"{directory}/killed", theirs, follows=follows, boot=boot) as again:
        assert again.local(FILE) == {}
        assert again.contents.stats().dirty_blocks == 0
        assert await again.get(FILE, 0, 2 * BLOCK) == b"x" * 10 + bytes(2 * BLOCK - 10)
