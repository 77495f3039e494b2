"""Cache files against rows, byte by byte, when the journal may not be believed.

Owns the comparison for ``layrfs fsck``, and what is done about it. Must not know hosts beyond fetching what it compares
with. The volume is not in use. Invariants: nothing of a cache file is changed here but zeroed what hosts are proven to
have (``clear``, after a commit); where it is not certain which bytes are the newer ones, both are kept: the file stays
as it is on hosts, and what is here becomes a file in ``/lost+found``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from layrfs.crypto.digests import BlockDigester
from layrfs.errors import LayrError
from layrfs.ids import BlockNumber, InodeNumber
from layrfs.pipeline.transfers import Downloads, TargetPart
from layrfs.policy.reconciling import Verdict, first_look, second_look
from layrfs.storage.cache_files import CacheFiles
from layrfs.storage.content import Catalog, Place
from layrfs.storage.database import Database
from layrfs.storage.journal import BlockKey, Journal, Use
from layrfs.storage.nameless import Nameless
from layrfs.storage.tree import Tree
from layrfs.vfs.blocks import extent, on_disk

_FILE = "SELECT size, block_bytes FROM inode WHERE number = ? AND mode & 0xF000 = 0x8000"
_STORED = (
    "SELECT c.digest, c.length, b.length FROM block b JOIN content c ON c.number = b.content"
    " WHERE b.inode = ? AND b.number = ?"
)


class Judged(NamedTuple):
    """A block with bytes in the cache that no row of the journal speaks for."""

    inode: InodeNumber
    block: BlockNumber
    verdict: Verdict


class Hollow(NamedTuple):
    """A block that the journal speaks for and that has no bytes in the cache."""

    inode: InodeNumber
    block: BlockNumber
    is_dirty: bool


class Outcome:
    """What was done: numbers of blocks, and the sets that somebody has to act on."""

    def __init__(self) -> None:
        self.clean = self.newer = self.hollow = 0
        self.remnants: list[Judged] = []
        self.aside: list[InodeNumber] = []


class Reconciler:
    """One volume's; the database is open and nobody else uses it."""

    def __init__(
        self,
        database: Database,
        files: CacheFiles,
        digester: BlockDigester,
        transfers: Downloads | None,
        *,
        scratch: str,
        said_dirty: AbstractSet[BlockKey] = frozenset(),
        sizes: Mapping[InodeNumber, int] | None = None,
        is_latest_writer: bool = True,
    ) -> None:
        """``said_dirty`` and ``sizes``: what could be read of a damaged database. ``scratch`` is a file to fetch into.

        Unless this machine ``is_latest_writer``, bytes that differ from what hosts have are older just as well.
        """
        self._database = database
        self._journal, self._catalog = Journal(database), Catalog(database)
        self._files, self._digester, self._transfers, self._scratch = files, digester, transfers, scratch
        self._said_dirty, self._sizes = said_dirty, sizes or {}
        self._is_latest_writer = is_latest_writer
        self._distrusted: set[BlockKey] = set()

    # ------------------------------------------------------------------ finding

    def strays(self) -> Iterator[InodeNumber]:
        """Cache files with data of inodes that do not exist."""
        for inode in self.cached():
            if self._row("SELECT 1 FROM inode WHERE number = ?", inode) is None and self._has_data(inode):
                yield inode

    def cached(self) -> list[InodeNumber]:
        """Every inode with a cache file, and those that should have one."""
        present = {inode for group in self._files.groups() for inode in self._files.inodes(group)}
        expected = (row[0] for row in self._database.rows("SELECT DISTINCT inode FROM local"))
        return sorted(present.union(expected))

    def is_too_long(self, inode: InodeNumber) -> bool:
        """Whether a cache file has data beyond the end of the file."""
        row = self._row(_FILE, inode)
        return row is not None and self._last_byte(inode, row[0]) > row[0]

    def judge(self, inode: InodeNumber) -> list[Judged]:
        """The blocks of a cache file that have data and no row in the journal."""
        row = self._row(_FILE, inode)
        if row is None:
            return []
        block_bytes: int = row[1]
        known = {block for block, _dirty in self._journal.blocks(inode)}
        known |= {block for other, block in self._distrusted if other == inode}
        return [
            Judged(inode, block, verdict)
            for block in self._blocks_with_data(inode, block_bytes)
            if block not in known and (verdict := self._first_look(inode, block, block_bytes)) is not None
        ]

    def hollow(self, inode: InodeNumber) -> list[Hollow]:
        """Blocks of the journal without bytes; of a dirty one that lies within the cache file, zeros are its bytes."""
        row, end = self._row(_FILE, inode), self._files.size(inode)
        if row is None:
            return []
        with_data = set(self._blocks_with_data(inode, row[1]))
        found = []
        for block, dirty in self._journal.blocks(inode):
            beyond = extent(end, block, row[1]) == 0
            if beyond if dirty else block not in with_data and self._journal.clean_length(inode, block):
                found.append(Hollow(inode, block, bool(dirty)))
        return found

    def changed(self, inode: InodeNumber) -> list[BlockNumber]:
        """Clean blocks that are not what was stored of them. Reads all of them."""
        row = self._row(_FILE, inode)
        return [
            block
            for block, dirty in self._journal.blocks(inode)
            if row is not None and not dirty and self._is_equal(inode, block, row[1]) is False
        ]

    # ---------------------------------------------------------------- repairing

    def adopt(self, inode: InodeNumber, lost_found: Nameless) -> None:
        """Have a row for a cache file that has none; its blocks are judged like any file's afterwards."""
        lost_found.revive(inode, self._files.size(inode))

    def keep_all(self, inode: InodeNumber) -> None:
        """The file is as long as its cache file."""
        self._grow(inode, self._last_byte(inode, 0))

    def fill_hollow(self, hollow: Hollow) -> None:
        """What hosts have counts again; of what they never had, nothing is left."""
        inode, block, is_dirty = hollow
        if not is_dirty:
            freed = on_disk(self._journal.clean_length(inode, block))
            self._journal.add_use([Use(inode, -freed, 0)])
        self._journal.forget([(inode, block)])
        if self._row("SELECT 1 FROM block WHERE inode = ?1 AND number = ?2", inode, block) is None:
            self._catalog.put_blocks([(inode, block, 0, 0)])

    def distrust(self, inode: InodeNumber, outcome: Outcome) -> None:
        """Clean blocks that changed: a rotten disk or a lost mark, who knows. Hosts' bytes count, these are kept."""
        changed = self.changed(inode)
        for block in changed:
            self._journal.add_use([Use(inode, -on_disk(self._journal.clean_length(inode, block)), 0)])
        self._journal.forget((inode, block) for block in changed)
        outcome.remnants += [Judged(inode, block, "unclear") for block in changed]
        outcome.aside += [inode] if changed else []
        self._distrusted.update((inode, block) for block in changed)

    async def reconcile(self, inode: InodeNumber, outcome: Outcome) -> None:
        """Have rows for the bytes of one cache file, in the open transaction."""
        judged = [await self._settled(one) for one in self.judge(inode)]
        clean = [one for one in judged if one.verdict == "clean"]
        newer = [one for one in judged if one.verdict == "newer"]
        outcome.remnants += [one for one in judged if one.verdict == "remnant"]
        if any(one.verdict == "unclear" for one in judged):
            outcome.aside += [] if inode in outcome.aside else [inode]
            outcome.remnants += [one for one in judged if one.verdict == "unclear"]
        self._journal.mark_clean((inode, one.block) for one in clean)
        for one in clean:
            self._journal.add_use([Use(inode, on_disk(self._journal.clean_length(inode, one.block)), 0)])
        if newer:
            self._journal.mark_all_dirty((inode, one.block) for one in newer)
            block_bytes = self._block_bytes(inode)
            end = max(min((one.block + 1) * block_bytes, self._last_byte(inode, 0)) for one in newer)
            self._grow(inode, max(end, self._sizes.get(inode, 0)))
        outcome.clean, outcome.newer = outcome.clean + len(clean), outcome.newer + len(newer)

    def set_aside(self, inode: InodeNumber, lost_found: Nameless) -> InodeNumber:
        """A copy of a cache file's bytes, as a new file without a name yet; all of it goes to hosts."""
        tree = Tree(self._database)
        copy = tree.new_number()
        source, target = self._files.file(inode), self._files.file(copy)
        try:
            for start, end in list(source.data_ranges()):
                for at in range(start, end, _STEP_BYTES):
                    target.write(source.read(at, min(_STEP_BYTES, end - at)), at)
            target.close()
            self._files.sync(copy)
        finally:
            source.close()
        lost_found.revive(copy, self._files.size(inode))
        blocks = self._blocks_with_data(copy, self._block_bytes(copy))
        self._journal.mark_all_dirty([(copy, block) for block in blocks])
        return copy

    def clear(self, remnants: list[Judged]) -> None:
        """Zero what hosts have instead. Only after the rows were committed, and copies made of what was unclear."""
        for one in remnants:
            block_bytes = self._block_bytes(one.inode)
            self._files.punch(one.inode, [(one.block * block_bytes, block_bytes)])

    # ------------------------------------------------------------------- inside

    def _first_look(self, inode: InodeNumber, block: BlockNumber, block_bytes: int) -> Verdict | None:
        is_unsent = self._row("SELECT 1 FROM unsent WHERE inode = ?1 AND block = ?2", inode, block) is not None
        verdict = first_look(
            has_data=bool(self._bytes(inode, block, block_bytes)),
            is_stored=self._catalog.place(inode, block) is not None,
            is_equal=self._is_equal(inode, block, block_bytes) is True,
            said_dirty=self._is_latest_writer and (is_unsent or (inode, block) in self._said_dirty),
        )
        return verdict if self._is_latest_writer or verdict != "newer" else "unclear"

    def _is_equal(self, inode: InodeNumber, block: BlockNumber, block_bytes: int) -> bool | None:
        """Whether a block here is what was stored; None when that cannot be told: nothing was, or it was cut since."""
        stored = self._database.row(_STORED, (inode, block))
        if stored is None or stored[1] != stored[2]:
            return None
        here = self._bytes(inode, block, block_bytes)
        digest: bytes = stored[0]
        return len(here) == stored[1] and self._digester.digest(here) == digest

    async def _settled(self, judged: Judged) -> Judged:
        place = self._catalog.place(judged.inode, judged.block)
        if judged.verdict != "unclear" or self._transfers is None or place is None:
            return judged
        try:
            on_hosts = await self._fetch(self._transfers, place)
        except (LayrError, KeyError):
            return judged
        here = self._bytes(judged.inode, judged.block, self._block_bytes(judged.inode))
        verdict = second_look(here, on_hosts.rstrip(b"\0"))
        return judged._replace(verdict="unclear" if verdict == "newer" and not self._is_latest_writer else verdict)

    async def _fetch(self, transfers: Downloads, place: Place) -> bytes:
        target = TargetPart(self._scratch, 0, place.offset, place.length)
        try:
            await transfers.download(self._catalog.shard(place.shard), [target], urgent=False)
            return _contents(self._scratch)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._scratch)

    def _bytes(self, inode: InodeNumber, block: BlockNumber, block_bytes: int) -> bytes:
        file = self._files.file(inode)
        try:
            return file.read(block * block_bytes, block_bytes).rstrip(b"\0")
        finally:
            file.close()

    def _blocks_with_data(self, inode: InodeNumber, block_bytes: int) -> list[BlockNumber]:
        found: dict[int, None] = {}
        for start, end in self._ranges(inode):
            found.update(dict.fromkeys(range(start // block_bytes, (end - 1) // block_bytes + 1)))
        return [BlockNumber(block) for block in found]

    def _ranges(self, inode: InodeNumber) -> list[tuple[int, int]]:
        file = self._files.file(inode)
        try:
            return list(file.data_ranges())
        finally:
            file.close()

    def _has_data(self, inode: InodeNumber) -> bool:
        return self._last_byte(inode, 0) > 0

    def _last_byte(self, inode: InodeNumber, after: int) -> int:
        """Where the last byte that is not zero ends, as far as it is beyond ``after``; else 0."""
        file = self._files.file(inode)
        try:
            for start, end in reversed([one for one in file.data_ranges() if one[1] > after]):
                for at in range(end, max(start, after), -_STEP_BYTES):
                    first = max(start, after, at - _STEP_BYTES)
                    data = file.read(first, at - first).rstrip(b"\0")
                    if data:
                        return first + len(data)
        finally:
            file.close()
        return 0

    def _grow(self, inode: InodeNumber, size: int) -> None:
        self._database.write("UPDATE inode SET size = ?2 WHERE number = ?1 AND size < ?2", (inode, size))

    def _block_bytes(self, inode: InodeNumber) -> int:
        block_bytes: int = self._database.value("SELECT block_bytes FROM inode WHERE number = ?", (inode,))
        return block_bytes

    def _row(self, query: str, *key: int) -> tuple[int, ...] | None:
        return self._database.row(query, key)


def _contents(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


_STEP_BYTES = 1 << 20
