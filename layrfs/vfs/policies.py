"""Redundancy and sharding as a directory's property that new files inherit.

Owns the two settable names under ``user.layrfs.``; they are kept as ordinary attribute rows. Must not know what the
pipeline makes of them, or who codes files anew whose redundancy has changed (``changes`` says that something has).
The invariant: a file has the policy that its directory had when it was made, until its own is set.
"""

from __future__ import annotations

from layrfs.errors import InvalidArgument
from layrfs.ids import InodeNumber
from layrfs.model.redundancy import REDUNDANCY_ATTRIBUTE, Redundancy
from layrfs.model.sharding import Sharding
from layrfs.storage.tree import Tree
from layrfs.vfs.inodes import Inode, Inodes

REDUNDANCY = REDUNDANCY_ATTRIBUTE
SHARDING = b"user.layrfs.sharding"
NAMES = frozenset({REDUNDANCY, SHARDING})


class Policies:
    """What is set on which inode, and what follows for new ones."""

    def __init__(self, tree: Tree, inodes: Inodes) -> None:
        self._tree = tree
        self._inodes = inodes
        self.changes = 0
        """How often a policy was set or unset since the start."""

    def redundancy_of(self, number: InodeNumber) -> Redundancy:
        """How many copies of the file's shards there should be; raises ``NotFound``."""
        return Redundancy.of_attribute(self._value(number, REDUNDANCY))

    def sharding_of(self, number: InodeNumber) -> Sharding:
        """How the file is to be cut into blocks; raises ``NotFound``."""
        return Sharding.of_attribute(self._value(number, SHARDING))

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
        self.changes += 1

    def unset(self, inode: Inode, name: bytes) -> None:
        """From now on the default is in force."""
        self._tree.remove_attribute(inode.number, name)
        self.changes += 1

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
                    child.block_bytes = Sharding.of_attribute(value).block_bytes(0)

    def _divide(self, inode: Inode, sharding: Sharding) -> None:
        if inode.is_directory:
            return
        if inode.size:
            raise InvalidArgument("Only an empty file can be sharded differently.")
        inode.block_bytes = sharding.block_bytes(0)

    def _value(self, number: InodeNumber, name: bytes) -> bytes | None:
        inode = self._inodes.get(number)
        return None if inode.has_attributes is False else self._tree.attribute(number, name)
