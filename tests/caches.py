"""A volume's contents on the fake ``Transfers``, for tests: started, stopped, killed and started again."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from layrfs.ids import BlockNumber, InodeNumber, NodeId
from layrfs.policy.patching import PieceState
from layrfs.storage.changes import ChangeLog
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.garbage import Garbage
from layrfs.storage.lost import Lost
from layrfs.upkeep.lost_shards import LostShards
from layrfs.upkeep.needs import Needs
from layrfs.upkeep.patcher import Patcher
from layrfs.vfs.contents import Contents, FileContent
from tests.fakes.transfers import FakeTransfers

BLOCK = 64 * 1024
FILE = InodeNumber(7)


async def inline(work: Callable[[], None]) -> None:
    """Instead of a thread: virtual clocks do not wait for those."""
    await trio.lowlevel.checkpoint()
    work()


class InlineDatabase(Database):
    """Puts nothing on the disk, so that virtual clocks need not wait for a thread."""

    async def sync(self) -> None:
        await self.wait_before_sync()
        await trio.lowlevel.checkpoint()
        self.commit()


class FakeLog:
    """A publisher that publishes nothing."""

    may_write = True
    next_version = 1


class Killed(Exception):
    """The process ends here; what was not committed is lost."""


class Cache:
    """One run of a volume, with the attributes that ``vfs.inodes`` would keep."""

    def __init__(self, directory: str, transfers: FakeTransfers, **options: Any) -> None:
        os.makedirs(directory, exist_ok=True)
        self.directory = directory
        self.transfers = transfers
        self.database = InlineDatabase(f"{directory}/metadata.db")
        self.catalog = Catalog(
            self.database, unsent_elsewhere=bool(options.get("follows")), alive=transfers.living_hosts
        )
        self.block_bytes: dict[InodeNumber, int] = {}
        transfers.find_content = self.catalog.find_content
        self.log = FakeLog()
        self.states: dict[NodeId, PieceState] = {}
        """Of pieces on hosts that are not good."""
        self.without_room: set[NodeId] = set()
        """Hosts that say so themselves, for they are full or leaving."""
        needs = Needs(
            self.catalog.pieces,
            lambda host: self.states.get(host, "good"),
            transfers.living_hosts,
            Garbage(self.database, self.catalog).may_be_needed,
        )
        self.lost = LostShards(catalog=self.catalog, lost=Lost(self.database), transfers=transfers, path_of=self.path)
        self.patcher = Patcher(
            catalog=self.catalog,
            changes=ChangeLog(self.database),
            transfers=transfers,
            log=self.log,
            needs=needs,
            lost=self.lost,
            room=lambda: {host: 0 if host in self.without_room else 1 << 40 for host in transfers.living_hosts()},
        )
        self.contents = Contents(
            database=self.database,
            catalog=self.catalog,
            cache_directory=f"{directory}/cache",
            transfers=transfers,
            block_bytes_of=lambda inode: self.block_bytes.get(inode, BLOCK),
            **{"in_thread": inline, "boot": "boot", "keep_free_bytes": 0} | options,
        )

    def make(self, inode: InodeNumber = FILE, size: int = 0) -> InodeNumber:
        """An inode's row; its size matters only to recovery."""
        self.database.write("INSERT OR REPLACE INTO inode VALUES(?,33188,0,0,1,?,?,0,0,0,0,NULL)", (inode, size, BLOCK))
        return inode

    def delete(self, inode: InodeNumber) -> None:
        self.database.write("DELETE FROM inode WHERE number = ?", (inode,))
        self.contents.remove(inode)

    async def put(self, inode: InodeNumber, data: bytes, offset: int = 0) -> None:
        """Make, write, close."""
        self.make(inode, offset + len(data))
        file = self.contents.open(inode)
        await write(file, offset, data)
        self.contents.release(file)

    async def get(self, inode: InodeNumber, offset: int, length: int) -> bytes:
        file = self.contents.open(inode)
        try:
            return await read(file, offset, length)
        finally:
            self.contents.release(file)

    def on_hosts(self, inode: InodeNumber, offset: int, length: int) -> bytes:
        """What a machine with nothing but the tables would read, of one block."""
        block, within = divmod(offset, self.contents._shelf.block_bytes(inode))
        place = self.catalog.place(inode, BlockNumber(block))
        if place is None:
            return bytes(length)
        payload = self.transfers._payload(self.catalog.shard(place.shard))
        return payload[place.offset : place.offset + place.length][within : within + length].ljust(length, b"\0")

    def path(self, inode: InodeNumber) -> str:
        return f"{self.directory}/cache/{inode // 4096:x}/{inode:x}"

    def local(self, inode: InodeNumber) -> dict[int, int]:
        return dict(self.database.rows("SELECT block, dirty FROM local WHERE inode = ?", (inode,)))

    def check_sums(self) -> None:
        """The sums in memory are those of the rows."""
        ledger = self.contents._shelf.ledger
        dirty = self.database.value("SELECT count(*) FROM local WHERE dirty = 1")
        clean = self.database.value(
            "SELECT sum((b.length + 4095) / 4096 * 4096) FROM local l"
            " JOIN block b ON b.inode = l.inode AND b.number = l.block WHERE l.dirty = 0"
        )
        assert ledger.dirty_blocks == dirty
        assert ledger.clean_bytes == (clean or 0) == (self.database.value("SELECT sum(bytes) FROM local_use") or 0)
        assert self.database.value("SELECT count(*) FROM local_use WHERE bytes < 0") == 0
        shelf, charges = self.contents._shelf, 0
        for file in ledger.open.values():
            ledger.settle(file)
        for inode, block in self.database.rows("SELECT inode, block FROM local WHERE dirty = 1"):
            charges += shelf.charge(inode, block, shelf.end(inode))
        assert ledger.dirty_bytes == charges

    def check_idle(self) -> None:
        """Nothing is claimed or busy."""
        ledger = self.contents._shelf.ledger
        assert not ledger.sending
        assert not ledger._busy

    def close(self) -> None:
        self.contents.close()
        self.database.close()

    def kill(self) -> None:
        """As ``kill -9``: the open transaction never was, files are as they are."""
        self.database._writing = False
        self.database._flushes.clear()
        self.database._connection.close()
        os.close(self.database._log)
        self.database._log = -1
        for file in list(self.contents._open.values()):
            file.file.close()


@asynccontextmanager
async def running(directory: str, transfers: FakeTransfers | None = None, **options: Any) -> AsyncIterator[Cache]:
    """A cache between a start and a proper stop, or a ``Killed`` raised in the body, which goes no further."""
    cache = Cache(directory, transfers or FakeTransfers(), **options)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(cache.contents.run)
            await nursery.start(cache.patcher.run)
            yield cache
            nursery.cancel_scope.cancel()
    except BaseException as error:
        if not is_killed(error):
            cache.kill()
            raise
        cache.kill()
    else:
        cache.close()


def is_killed(error: BaseException) -> bool:
    return isinstance(error, Killed) or (
        isinstance(error, BaseExceptionGroup) and all(is_killed(each) for each in error.exceptions)
    )


async def write(file: FileContent, offset: int, data: bytes) -> None:
    if not file.write_now(offset, data):
        await file.write(offset, data)


async def read(file: FileContent, offset: int, length: int) -> bytes:
    data = file.read_now(offset, length)
    return await file.read(offset, length) if data is None else data


__all__ = ["BLOCK", "FILE", "Cache", "Killed", "inline", "read", "running", "write"]
