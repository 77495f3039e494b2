"""A file system whose tables another machine writes: from one version to the next, under everybody who is using it.

Owns the order of that. Must not know where versions come from, nor the kernel. Invariant: everybody sees one version or
the other; no name, attribute or byte in memory outlives its row, but for files that are open and were deleted.
"""

from __future__ import annotations

from collections.abc import Callable

from layrfs.ids import InodeNumber
from layrfs.storage.content import Catalog
from layrfs.storage.replay import Touched
from layrfs.storage.tree import Tree
from layrfs.vfs.contents import Contents
from layrfs.vfs.inodes import Inodes
from layrfs.vfs.lifetimes import Lifetimes


class View:
    """Everything that remembers rows."""

    def __init__(self, lifetimes: Lifetimes, contents: Contents, inodes: Inodes, tree: Tree, catalog: Catalog) -> None:
        self._lifetimes = lifetimes
        self._contents = contents
        self._inodes = inodes
        self._tree = tree
        self._catalog = catalog

    async def go_over(self, touched: Touched, apply: Callable[[], None]) -> list[InodeNumber]:
        """Have ``apply`` change the rows that are ``touched`` and commit; the open files whose bytes are others now.

        What ``apply`` raises is raised, and the version is the one before.
        """
        versions, is_removed = self._contents.versions, self._inodes.is_removed
        kept = [number for number in touched.removed if self._lifetimes.is_open(number)]
        for number in kept:
            self._inodes.keep_removed(number)
        clearing = versions.let_go(touched, is_removed)
        try:
            self._apply(apply, kept)
            self._catalog.refresh()
            self._tree.refresh()
            back = self._inodes.refresh(touched.inodes | touched.removed)
            versions.reload(touched, is_removed, back)
            self._contents.pins.look_again()
            for number in kept:
                self._inodes.get(number).nlink = 0
                self._lifetimes.lose_name(number)
        finally:
            await versions.clear(clearing)
        return [number for number in touched.inodes if self._lifetimes.is_open(number)]

    def _apply(self, apply: Callable[[], None], kept: list[InodeNumber]) -> None:
        try:
            apply()
        except BaseException:
            for number in kept:
                self._inodes.drop_removed(number)
            raise
