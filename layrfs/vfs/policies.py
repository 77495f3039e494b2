"""Redundancy and sharding as a directory's property that new files inherit.

Owns the two settable names under ``user.layrfs.``; they are kept as ordinary attribute rows. Must not know what the
pipeline makes of them. The invariant: a file's policy is decided when it is made; changing a directory later changes
nothing that is in it.
"""

from __future__ import annotations

from layrfs.errors import InvalidArgument
from layrfs.ids import InodeNumber
from layrfs.model.redundancy import DEFAULT_REDUNDANCY, Redundancy
from layrfs.model.sharding import DEFAULT_SHARDING, Sharding
from layrfs.storage.tree import Tree
from layrfs.vfs.inodes import Inode, Inodes

REDUNDANCY = b"user.layrfs.redundancy"
SHARDING = b"user.layrfs.sharding"
NAMES = frozenset({REDUNDANCY, SHARDING})


class Policies:
    """What is set on which inode, and what follows for new ones."""

    def __init__(self, tree: Tree, inodes: Inodes) -> None:
        self._tree = tree
        self._inodes = inodes

    def redundancy_of(self, number: InodeNumber) -> Redundancy:
        """How many copies of the file's shards there should be; raises ``NotFound``."""
        text = self._text(number, REDUNDANCY)
        return DEFAULT_REDUNDANCY if text is None else Redundancy.parse(text)

    def sharding_of(self, number: InodeNumber) -> Sharding:
        """How the file is to be cut into blocks; raises ``NotFound``."""
        text = self._text(number, SHARDING)
        return DEFAULT_SHARDING if text is None else Sharding.parse(text)

    def fix_block_bytes(self, number: InodeNumber) -> int:
        """Decide a file's block size for good, now that its size is known, and answer it; raises ``NotFound``."""
        block_bytes = self.sharding_of(number).block_bytes(self._inodes.size_of(number))
        self._inodes.set_block_bytes(number, block_bytes)
        return block_bytes

    def get(self, number: InodeNumber, name: bytes) -> bytes:
        """The policy in force, in the words that ``set`` understands."""
        policy = self.redundancy_of(number) if name == REDUNDANCY else self.sharding_of(number)
        return str(policy).encode()

    def set(self, inode: Inode, name: bytes, value: bytes) -> None:
        """Decide for a directory's future files, or for one file. Raises ``UsageError``, ``InvalidArgument``."""
        text = value.decode("ascii", "replace")
        if name == REDUNDANCY:
            self._tree.set_attribute(inode.number, name, str(Redundancy.parse(text)).encode())
        else:
            sharding = Sharding.parse(text)
            self._divide(inode, sharding)
            self._tree.set_attribute(inode.number, name, str(sharding).encode())

    def inherit(self, parent: Inode, child: Inode) -> None:
        """Pass a directory's policies on to something new in it."""
        if parent.has_attributes is False:
            return
        for name in NAMES:
            value = self._tree.attribute(parent.number, name)
            if value is not None:
                child.has_attributes = True
                self._tree.set_attribute(child.number, name, value)
                if name == SHARDING and child.is_file:
                    child.block_bytes = Sharding.parse(value.decode()).block_bytes(0)

    def _divide(self, inode: Inode, sharding: Sharding) -> None:
        if inode.is_directory:
            return
        if inode.size:
            raise InvalidArgument("Only an empty file can be sharded differently.")
        inode.block_bytes = sharding.block_bytes(0)

    def _text(self, number: InodeNumber, name: bytes) -> str | None:
        inode = self._inodes.get(number)
        value = None if inode.has_attributes is False else self._tree.attribute(number, name)
        return None if value is None else value.decode()
