"""The directory for files that were found without a name.

Owns the rows that make it and the files in it. Must not know where they were found.
"""

from __future__ import annotations

import itertools
import os
import stat
import time

from layrfs.ids import ROOT_INODE, BlockNumber, InodeNumber
from layrfs.model.redundancy import DEFAULT_REDUNDANCY, REDUNDANCY_ATTRIBUTE
from layrfs.model.sharding import DEFAULT_SHARDING
from layrfs.policy.recoding import wanted
from layrfs.policy.rescuing import RescuedFile
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.tree import InodeRow, Tree

NAME = b"lost+found"
ROOT_MODE = stat.S_IFDIR | 0o755
DIRECTORY_MODE = stat.S_IFDIR | 0o700
FILE_MODE = stat.S_IFREG | 0o600
"""Whose files they were is not known either."""


class LostFound:
    """A new directory under the root; its name is ``lost+found``, or that with a number when it is taken."""

    def __init__(self, database: Database) -> None:
        """Makes it, and the root when the volume has none."""
        self._tree = Tree(database)
        self._catalog = Catalog(database)
        now = time.time_ns()
        if self._tree.load(ROOT_INODE) is None:
            self._tree.count_root()
            self._tree.save([_row(ROOT_INODE, ROOT_MODE, 2, now)])
        self.name = next(name for name in _names() if self._tree.find(ROOT_INODE, name) is None)
        self._directory = self._tree.new_number()
        self._tree.save([_row(self._directory, DIRECTORY_MODE, 2, now)])
        self._tree.add(ROOT_INODE, self.name, self._directory)
        database.write("UPDATE inode SET nlink = nlink + 1 WHERE number = ?", (ROOT_INODE,))
        self._tree.save_count()

    def add(self, file: RescuedFile) -> None:
        """A file with the blocks that were found; its contents must be recorded."""
        number = self._tree.new_number()
        self._tree.save([_row(number, FILE_MODE, 1, file.stored * 10**9, file.size, file.block_bytes)])
        self._tree.add(self._directory, file.name.encode(), number)
        rows = ((number, BlockNumber(block), content, length) for block, content, length in file.blocks)
        self._catalog.put_blocks(rows)
        self._keep_redundancy(number)
        self._tree.save_count()

    def _keep_redundancy(self, number: InodeNumber) -> None:
        """A file's wish was lost with its name, but shows in how it is kept: it is not coded anew as the default."""
        shards = [shard for shard in self._catalog.shards_of(number) if self._catalog.has_shard(shard)]
        wishes = {self._catalog.shard(shard).redundancy for shard in shards}
        if wishes - {DEFAULT_REDUNDANCY}:
            self._tree.set_attribute(number, REDUNDANCY_ATTRIBUTE, str(wanted(wishes)).encode())


def _names() -> itertools.chain[bytes]:
    return itertools.chain((NAME,), (b"%s-%d" % (NAME, number) for number in itertools.count(2)))


def _row(
    number: InodeNumber,
    mode: int,
    links: int,
    time_ns: int,
    size: int = 0,
    block_bytes: int = DEFAULT_SHARDING.size_bytes,
) -> InodeRow:
    owner = (os.getuid(), os.getgid())
    return (number, mode, *owner, links, size, block_bytes, 0, time_ns, time_ns, time_ns, None)
