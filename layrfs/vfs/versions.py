"""Another version of the volume comes under the files that are open and cached here.

Owns what that does to the cache: bytes that belong to rows that change are thrown away, and not read from the moment on
in which the rows are others. Must not know where versions come from. Nothing here is dirty, see ``policy.following``.
Invariant: no read answers old bytes of a block as new ones, or zeros for either.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from layrfs.ids import BlockNumber, InodeNumber
from layrfs.storage.replay import Touched
from layrfs.vfs.blocks import on_disk
from layrfs.vfs.eviction import Clearing, Evictor
from layrfs.vfs.fetching import Fetcher
from layrfs.vfs.shelf import Shelf

IsRemoved = Callable[[InodeNumber], bool]
"""Whether a file has no row any more, but somebody reads on in what was there."""


class Versions:
    """``let_go``, change the rows and commit, ``reload``, all in plain code; then ``clear``, whatever happened."""

    def __init__(
        self, shelf: Shelf, evictor: Evictor, fetcher: Fetcher, block_bytes_of: Callable[[InodeNumber], int]
    ) -> None:
        self._shelf = shelf
        self._block_bytes_of = block_bytes_of
        self._evictor = evictor
        self._fetcher = fetcher

    def let_go(self, touched: Touched, is_removed: IsRemoved) -> Clearing:
        """Forget what is cached of touched blocks, before their rows change: afterwards nobody knows their lengths."""
        self._fetcher.spoil(touched.blocks, touched.contents, touched.shards)
        emptied: dict[InodeNumber, list[BlockNumber]] = {}
        for inode, numbers in self._touched_blocks(touched).items():
            cached = self._shelf.journal.cached(inode, sorted(numbers))
            if not cached:
                continue
            if is_removed(inode):
                self._forget_rows(inode, cached)
            else:
                self._shelf.forget_clean(inode, cached)
                emptied[inode] = [block for block, _length in cached]
        return self._evictor.begin_clearing(emptied, whole_files=False)

    def reload(self, touched: Touched, is_removed: IsRemoved, back: Iterable[InodeNumber]) -> None:
        """The rows are those of the other version; in that, files are ``back`` which had been removed."""
        shelf = self._shelf
        for inode in back:
            shelf.files.cut(inode, 0)
        changed = {inode for inode, _block in touched.blocks} | touched.recut
        for inode in shelf.ledger.open.keys() & changed:
            if is_removed(inode):
                continue
            file = shelf.ledger.open[inode]
            if inode in touched.recut:
                file.block_bytes = self._block_bytes_of(inode)
            shelf.load(file)
        for shard in touched.shards:
            shelf.catalog.pieces.recount(shard)

    async def clear(self, clearing: Clearing) -> None:
        """The bytes go, and who waits for the new ones may fetch them."""
        await self._evictor.clear(clearing)
        for inode in clearing.emptied:
            self._shelf.remove_if_empty(inode)

    def _touched_blocks(self, touched: Touched) -> dict[InodeNumber, set[BlockNumber]]:
        journal, found = self._shelf.journal, defaultdict[InodeNumber, set[BlockNumber]](set)
        for inode, block in touched.blocks:
            found[inode].add(block)
        for content in touched.contents:
            for inode, block in journal.cached_as(content):
                found[inode].add(block)
        for inode in touched.recut:
            found[inode].update(block for block, _dirty in journal.blocks(inode))
        return found

    def _forget_rows(self, inode: InodeNumber, cached: list[tuple[BlockNumber, int]]) -> None:
        """Of a file that is read on: its bytes stay until it is closed, and nobody counts them any more."""
        self._shelf.journal.forget((inode, block) for block, _length in cached)
        self._shelf.less_clean(inode, sum(on_disk(length) for _block, length in cached))
