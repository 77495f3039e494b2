"""Extended attributes: the stored ones, and those under ``user.layrfs.`` that are answers rather than rows.

Owns which names exist and who sees them. Must not know where the answers come from: ``virtual`` is a table of
callables. Names under ``user.layrfs.`` are never listed, so that a copy of a tree with all its attributes equals the
tree; ask for them by name. Access control lists are not kept: better none than some that nobody enforces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from layrfs.errors import InvalidArgument, NameTooLong, NoAttribute, NotPermitted, NotSupported
from layrfs.ids import InodeNumber
from layrfs.storage.tree import Tree
from layrfs.vfs.inodes import Inode, Inodes
from layrfs.vfs.policies import NAMES as POLICY_NAMES
from layrfs.vfs.policies import Policies

VirtualAttributes = Mapping[bytes, Callable[[InodeNumber], bytes]]
"""Name to a function from inode to value; it may raise ``FileError``s."""

STORED = (b"user.", b"security.", b"trusted.")
OURS = b"user.layrfs."
PRIVILEGED = b"trusted."
MAX_NAME_BYTES = 255
MAX_VALUE_BYTES = 65536


class ExtendedAttributes:
    """Attributes of all inodes, by name."""

    def __init__(self, tree: Tree, inodes: Inodes, policies: Policies, virtual: VirtualAttributes) -> None:
        self._tree = tree
        self._inodes = inodes
        self._policies = policies
        self._virtual = virtual

    def get(self, number: InodeNumber, name: bytes) -> bytes:
        """An attribute's value. Raises ``NoAttribute``, ``NotSupported``."""
        if name.startswith(OURS):
            return self._answer(number, name)
        _check_name(name)
        inode = self._inodes.get(number)
        value = self._tree.attribute(number, name) if self._has_attributes(inode) else None
        if value is None:
            raise NoAttribute("There is no such attribute.")
        return value

    def set(self, number: InodeNumber, name: bytes, value: bytes) -> None:
        """Create or replace an attribute. Raises ``NotSupported``, ``NotPermitted``, ``UsageError`` and others."""
        _check_name(name)
        if len(value) > MAX_VALUE_BYTES:
            raise InvalidArgument(f"An attribute's value has at most {MAX_VALUE_BYTES} bytes.")
        inode = self._inodes.get(number)
        if name in POLICY_NAMES:
            self._policies.set(inode, name, value)
        elif name.startswith(OURS):
            raise NotPermitted("This attribute is an answer, it cannot be set.")
        else:
            self._tree.set_attribute(number, name, value)
        inode.has_attributes = True
        self._touch(inode)

    def remove(self, number: InodeNumber, name: bytes) -> None:
        """Drop an attribute; an inherited policy gives way to the default. Raises ``NoAttribute``."""
        if name.startswith(OURS) and name not in POLICY_NAMES:
            raise NotPermitted("This attribute is an answer, it cannot be removed.")
        _check_name(name)
        inode = self._inodes.get(number)
        if not self._has_attributes(inode) or self._tree.attribute(number, name) is None:
            raise NoAttribute("There is no such attribute.")
        if name in POLICY_NAMES:
            self._policies.unset(inode, name)
        else:
            self._tree.remove_attribute(number, name)
        inode.has_attributes = None
        self._touch(inode)

    def names(self, number: InodeNumber, *, privileged: bool) -> list[bytes]:
        """The names of stored attributes; those under ``trusted.`` only for the privileged."""
        inode = self._inodes.get(number)
        if not self._has_attributes(inode):
            return []
        names = [name for name in self._tree.attributes(number) if not name.startswith(OURS)]
        return names if privileged else [name for name in names if not name.startswith(PRIVILEGED)]

    def _answer(self, number: InodeNumber, name: bytes) -> bytes:
        if name in POLICY_NAMES:
            return self._policies.get(number, name)
        answer = self._virtual.get(name)
        if answer is None:
            raise NoAttribute("There is no such attribute.")
        return answer(number)

    def _has_attributes(self, inode: Inode) -> bool:
        if inode.has_attributes is None:
            inode.has_attributes = bool(self._tree.attributes(inode.number))
        return inode.has_attributes

    def _touch(self, inode: Inode) -> None:
        inode.ctime_ns = self._inodes.now_ns()
        self._inodes.changed(inode)


def _check_name(name: bytes) -> None:
    if not name.startswith(STORED):
        raise NotSupported("Attributes of this kind are not kept.")
    if len(name) > MAX_NAME_BYTES:
        raise NameTooLong(f"An attribute's name has at most {MAX_NAME_BYTES} bytes.")
    if name in STORED:
        raise InvalidArgument("An attribute needs a name behind its namespace.")
