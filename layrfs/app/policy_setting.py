"""What the drive answers to ``layrfs set``: policies of a path and of everything below it.

Owns the walk. Must not know what a policy means: the file system checks and keeps them as it does extended attributes,
and who codes files anew sees it there. Invariant: a directory comes before what is in it, so that what is made there
meanwhile inherits the new policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import trio

from layrfs.app.membership import Membership
from layrfs.control import commands
from layrfs.control.commands import Progress
from layrfs.errors import NotFound
from layrfs.ids import InodeNumber
from layrfs.model.redundancy import Redundancy
from layrfs.model.sharding import Sharding
from layrfs.model.status import PoliciesSet, ProgressReport
from layrfs.storage.database import Database
from layrfs.vfs.filesystem import Filesystem
from layrfs.vfs.inodes import Inode
from layrfs.vfs.policies import REDUNDANCY, SHARDING

YIELD_EVERY = 64

Below = Callable[[InodeNumber], Iterator[InodeNumber]]
"""Everything below a directory; directories before what is in them."""


class PolicySetting:
    """The handler."""

    def __init__(self, database: Database, filesystem: Filesystem, membership: Membership, below: Below) -> None:
        self._database = database
        self._filesystem = filesystem
        self._membership = membership
        self._below = below

    def table(self) -> list[commands.Bound]:
        """For the control socket's table."""
        return [commands.SET_POLICIES.bind(self.set)]

    async def set(self, request: commands.SetPolicies, progress: Progress) -> PoliciesSet:
        """Returns when it is on the disk: what goes on for hours is not to be forgotten.

        Raises ``UsageError`` before anything is changed, ``NotFound``, ``ReadOnly``, ``InvalidArgument``.
        """
        redundancy = Redundancy.parse(request.redundancy) if request.redundancy else None
        sharding = Sharding.parse(request.sharding) if request.sharding else None
        top = self._filesystem.resolve(request.path)
        if sharding is not None and not top.is_directory:
            self._filesystem.setxattr(top.number, SHARDING, str(sharding).encode())
        changed = kept = 0
        for count, number in enumerate(self._all(top)):
            if count % YIELD_EVERY == YIELD_EVERY - 1:
                progress(ProgressReport(text=f"{count + 1} files and directories"))
                await trio.lowlevel.checkpoint()
            try:
                is_cut = self._set_one(self._filesystem.getattr(number), redundancy, sharding)
            except NotFound:
                continue
            changed, kept = changed + 1, kept + is_cut
        await self._database.sync()
        return PoliciesSet(changed, kept, len(self._membership.known_hosts()))

    def _all(self, top: Inode) -> Iterator[InodeNumber]:
        yield top.number
        if top.is_directory:
            yield from self._below(top.number)

    def _set_one(self, inode: Inode, redundancy: Redundancy | None, sharding: Sharding | None) -> bool:
        """Whether it is cut into blocks already, and stays so."""
        if not (inode.is_file or inode.is_directory):
            return False
        if redundancy is not None and self._filesystem.redundancy_of(inode.number) != redundancy:
            self._filesystem.setxattr(inode.number, REDUNDANCY, str(redundancy).encode())
        if sharding is None or self._filesystem.sharding_of(inode.number) == sharding:
            return False
        if inode.is_file and inode.size:
            return True
        self._filesystem.setxattr(inode.number, SHARDING, str(sharding).encode())
        return False
