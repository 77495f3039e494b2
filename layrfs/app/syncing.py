"""Return when bytes and metadata are on hosts: `layrfs sync`, and every fsync of a mount with ``-o fsync=network``.

Owns the order (bytes, missing copies, this disk, the metadata's segment and root record) and the patience with hosts.
Must not know commands or the kernel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

from layrfs.errors import LayrError, LocalError, OwnerError, Unavailable
from layrfs.ids import InodeNumber
from layrfs.model.records import NodeRecord
from layrfs.model.redundancy import DEFAULT_REDUNDANCY
from layrfs.model.status import ProgressReport
from layrfs.policy.placement import room
from layrfs.storage.database import Database
from layrfs.vfs.contents import Contents

COMPLETE_SECONDS = 15.0
"""How long a copy that no host takes is waited for."""

SEARCH_SECONDS = 5.0
"""The same while fewer hosts are known than copies are wanted."""

STUCK_SECONDS = 90.0
"""Who syncs is told that hosts do not take anything after so long in which none did."""

RETRY_SECONDS = 0.5
FSYNC_SECONDS = 60.0
"""A program that calls fsync is told after this time that hosts do not have its bytes; this disk has them."""

Report = Callable[[ProgressReport], None]


class Explorer(Protocol):
    """Who knows hosts: ``layrfs.app.membership.Membership``, or a fake."""

    def known_hosts(self) -> Sequence[NodeRecord]: ...

    async def explore(self) -> None: ...


class Flusher(Protocol):
    """Who publishes metadata: ``layrfs.history.publishing.Publisher``, or a fake."""

    @property
    def lacks_copies(self) -> bool: ...

    async def flush(self) -> None: ...


class Mender(Protocol):
    """Who makes pieces anew: ``layrfs.upkeep.patcher.Patcher``, or a fake."""

    @property
    def waiting(self) -> int: ...

    async def finish(self) -> None: ...


class Syncer:
    """Plain hands: keeps nothing."""

    def __init__(
        self,
        *,
        database: Database,
        contents: Contents,
        membership: Explorer,
        publisher: Flusher,
        patcher: Mender,
    ) -> None:
        self._database = database
        self._patcher = patcher
        self._contents = contents
        self._membership = membership
        self._publisher = publisher

    async def sync(self, inodes: Sequence[InodeNumber] | None, report: Report) -> int:
        """Return when files (None: all) are on hosts and the root record is out; the bytes sent.

        Raises ``Unavailable`` when nothing has reached hosts for ``STUCK_SECONDS`` and something has to. Shards that
        find too few hosts stay degraded, which is not an error here.
        """
        sent = 0

        def tell(done_bytes: int, left_bytes: int) -> None:
            nonlocal sent
            sent = done_bytes
            report(ProgressReport(done_bytes, done_bytes + left_bytes, self._contents.stats().problem or ""))

        await self._while_it_moves(lambda: self._contents.flush_to_network(inodes, tell))
        await self._complete(inodes, report)
        await self._contents.sync(None)
        await self._while_it_moves(self._publisher.flush)
        await self._database.sync()
        return sent

    async def _while_it_moves(self, work: Callable[[], Awaitable[None]]) -> None:
        """Raises ``Unavailable`` when it has not ended and nothing has moved towards hosts for too long."""
        patience, failure = trio.CancelScope(deadline=trio.current_time() + STUCK_SECONDS), None

        async def extend() -> None:
            while True:
                await trio.sleep(RETRY_SECONDS)
                patience.deadline = max(patience.deadline, self._contents.stats().last_moved + STUCK_SECONDS)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(extend)
            with patience:
                try:
                    await work()
                except LayrError as error:
                    failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if patience.cancelled_caught:
            why = self._contents.stats().problem or "no host answers."
            raise Unavailable(f"Not everything is on hosts: {why} What is not is on this disk, and goes out by itself.")

    async def fsync(self, inode: InodeNumber | None) -> None:
        """Return when a file (None: only the metadata) is on hosts with all its copies, and so is the metadata.

        Raises ``Unavailable`` when that does not come true in time, ``LocalError`` when it never will; nothing is lost
        then, and uploads go on by themselves.
        """
        inodes = [] if inode is None else [inode]
        with trio.move_on_after(FSYNC_SECONDS) as patience:
            await self._send(inodes)
        if patience.cancelled_caught or self._is_degraded(inodes) or self._publisher.lacks_copies:
            raise Unavailable("What was written is on this disk, but not on enough hosts yet; uploads go on.")

    async def _send(self, inodes: Sequence[InodeNumber]) -> None:
        if inodes:
            await self._contents.flush_to_network(inodes, None)
            await self._complete(inodes, lambda _report: None)
        try:
            await self._publisher.flush()
        except OwnerError as error:
            raise LocalError(str(error)) from error  # who calls fsync did not ask for anything that makes no sense

    async def _complete(self, inodes: Sequence[InodeNumber] | None, report: Report) -> None:
        """Wait for missing copies while there is progress; without enough hosts only a moment: some may be starting."""
        left, since = self._contents.stats().degraded_shards, trio.current_time()
        while self._is_degraded(inodes):
            report(ProgressReport(text=f"{left} shards wait for more pieces"))
            takers = [host for host, free_bytes in room(self._membership.known_hosts()).items() if free_bytes]
            enough = len(takers) >= DEFAULT_REDUNDANCY.total
            with trio.move_on_at(since + (COMPLETE_SECONDS if enough else SEARCH_SECONDS)) as patience:
                await self._membership.explore()
                await self._patcher.finish()
                if not self._patcher.waiting:
                    return  # what is degraded is lost, or nothing needs it: that stays
                if self._contents.stats().degraded_shards >= left:
                    await trio.sleep(RETRY_SECONDS)
            if (now_left := self._contents.stats().degraded_shards) < left:
                left, since = now_left, trio.current_time()
            elif patience.cancelled_caught:
                return

    def _is_degraded(self, inodes: Sequence[InodeNumber] | None) -> bool:
        if inodes is None:
            return self._contents.stats().degraded_shards > 0
        return any(self._contents.is_degraded(inode) for inode in inodes)
