"""Every step a block takes from one state to another, with its rows, its sums and its cache file kept in step.

Owns the transitions of the table in ``layrfs.vfs.blocks``; everybody who moves bytes (writers, fetching, eviction,
uploads) ends in one plain method here. Must not wait, and must not know hosts.
Invariant: after each method the open transaction, the sums and the maps of open files say the same; a cache file is
destroyed or a clean block changed only after a ``commit`` of rows that do not call it clean.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from layrfs.crashpoints import reached
from layrfs.errors import NotFound
from layrfs.ids import BlockNumber, InodeNumber
from layrfs.model.sharding import MIN_BLOCK_BYTES
from layrfs.pipeline.transfers import Duplicate, PartOutcome, SourcePart, Stored, Zero
from layrfs.storage.cache_files import CacheFiles
from layrfs.storage.content import BlockPlace, Catalog, NewContent
from layrfs.storage.journal import BlockKey, Journal, Use
from layrfs.vfs.blocks import ABSENT, CLEAN, DIRTY, HOLE, SENDING, BlockMap, Ledger, Mark, extent, on_disk

logger = logging.getLogger(__name__)


class Part(NamedTuple):
    """A dirty block claimed for an upload."""

    source: SourcePart
    mark: Mark
    before: int
    """How much of the block is in the file, whatever of it is in the cache file."""

    @property
    def in_file(self) -> int:
        """How much of that still is."""
        return self.before if self.mark.valid_bytes == self.source.length else self.mark.valid_bytes

    @property
    def key(self) -> BlockKey:
        return InodeNumber(self.source.inode), BlockNumber(self.source.block)


class Shelf:
    """The part of the volume that is on this machine."""

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        catalog: Catalog,
        files: CacheFiles,
        block_bytes_of: Callable[[InodeNumber], int],
    ) -> None:
        self.ledger = ledger
        self.journal = journal
        self.catalog = catalog
        self.files = files
        self._block_bytes_of = block_bytes_of

    def block_bytes(self, inode: InodeNumber) -> int:
        """Block size of a file, open or not."""
        file = self.ledger.open.get(inode)
        return self._block_bytes_of(inode) if file is None else file.block_bytes

    def end(self, inode: InodeNumber) -> int:
        """Where a file's cache file ends, open or not."""
        file = self.ledger.open.get(inode)
        return self.files.size(inode) if file is None else file.end

    def charge(self, inode: InodeNumber, block: int, end: int) -> int:
        """What ``dirty_bytes`` counts for a dirty block of a file that is not open."""
        if block == 0 and end <= MIN_BLOCK_BYTES:
            return on_disk(end)
        return on_disk(extent(end, block, self.block_bytes(inode)))

    # -------------------------------------------------------------- open files

    def load(self, file: BlockMap) -> None:
        """Fill a map from the database."""
        states: dict[int, int] = dict.fromkeys(self.catalog.block_numbers(file.inode), ABSENT)
        local = self.journal.blocks(file.inode)
        file.absent = len(states.keys() - dict(local).keys()) if states else 0
        states.update((block, CLEAN) for block, _dirty in local)
        for block in self.ledger.busy_blocks(file.inode) - states.keys():
            states[block] = ABSENT  # a hole, when the bytes are gone that are in its place
            file.absent += 1
        closed = self.ledger.reopened(file.inode)
        for block, dirty in local:
            if dirty:
                mark = self.ledger.sending.get((file.inode, block))
                states[block] = DIRTY if mark is None or mark.changed else SENDING
                file.written[block] = closed
        file.states = states
        file.end = self.files.size(file.inode)
        file.charged = file.dirty_bytes()
        file.opened = self.ledger.now

    def unload(self, file: BlockMap) -> None:
        """The file is closed: from now on the database alone knows its blocks."""
        ledger = self.ledger
        if file.written:
            ledger.settle(file)
            ledger.closed(file.inode)
            for block in file.written:
                if file.states[block] == SENDING:
                    mark = ledger.sending[file.inode, BlockNumber(block)]
                    mark.charged = on_disk(extent(file.end, block, file.block_bytes))
        if file.used:
            ledger.used[file.inode] = int(ledger.now)
        file.file.close()

    # ----------------------------------------------------------------- writing

    def start_changing(self, file: BlockMap, blocks: Sequence[int]) -> None:
        """CLEAN -> DIRTY, committed, before a byte of them changes."""
        inode, ledger = file.inode, self.ledger
        freed = sum(on_disk(self.journal.clean_length(inode, BlockNumber(block))) for block in blocks)
        self.journal.mark_all_dirty((inode, BlockNumber(block)) for block in blocks)
        self.journal.add_use([Use(inode, -freed, int(ledger.now))])
        ledger.clean_bytes -= freed
        ledger.dirty_blocks += len(blocks)
        for block in blocks:
            file.set_state(block, DIRTY)
            file.written[block] = ledger.now
        ledger.writing = True
        reached("dirty mark made")
        self.journal.commit()
        reached("dirty mark committed")
        ledger.settle(file)

    def wrote_new(self, file: BlockMap, block: int) -> None:
        """HOLE or (wholly overwritten) ABSENT -> DIRTY, after its bytes are in the cache file."""
        self.journal.mark_dirty(file.inode, BlockNumber(block))
        self.ledger.dirty_blocks += 1
        self.ledger.writing = True
        file.set_state(block, DIRTY)

    def wrote_sending(self, file: BlockMap, block: int) -> None:
        """SENDING -> DIRTY: what the upload reads does not count any more."""
        self.ledger.wrote(file.inode, block)
        file.states[block] = DIRTY

    def less_clean(self, inode: InodeNumber, freed: int) -> None:
        """A file has so many bytes less in clean blocks."""
        if freed:
            self.journal.add_use([Use(inode, -freed, 0)])
            self.ledger.clean_bytes -= freed

    # ---------------------------------------------------------------- fetching

    def filled(self, places: Sequence[BlockPlace]) -> list[BlockPlace]:
        """ABSENT -> CLEAN of blocks whose bytes were just put into their cache files; not busy any more.

        Those that mean nothing any more (the file was deleted meanwhile) are left out and their bytes cleared.
        """
        ledger, now = self.ledger, int(self.ledger.now)
        good = []
        for place in places:
            held = self.catalog.place(place.inode, place.block)
            self.leave(place.inode, place.block)
            if held is not None and held.content == place.content:
                self.files.made_name(place.inode)
                good.append(place)
            else:
                self.clear(place.inode, place.block)
        self.journal.mark_clean((place.inode, place.block) for place in good)
        self.journal.add_use(Use(place.inode, on_disk(place.length), now) for place in good)
        for place in good:
            ledger.clean_bytes += on_disk(place.length)
            ledger.room -= on_disk(place.length)
            file = ledger.open.get(place.inode)
            if file is not None:
                file.set_state(place.block, CLEAN)
                file.used[place.block] = ledger.now
                file.end = max(file.end, place.block * file.block_bytes + place.length)
                file.not_flushed()
        ledger.writing = True
        return good

    def leave(self, inode: InodeNumber, block: int) -> None:
        """Nobody fills or empties the block any more. If it has no row by now, it is a hole."""
        self.ledger.leave(inode, block)
        file = self.ledger.open.get(inode)
        if file is not None and file.states.get(block) == ABSENT and not self.catalog.has_block(inode, block):
            file.set_state(block, HOLE)

    def clear(self, inode: InodeNumber, block: int) -> None:
        """Make a block's place in the cache file zeros; a file that holds nothing goes away altogether."""
        if self.remove_if_empty(inode):
            return
        try:
            block_bytes = self.block_bytes(inode)
        except NotFound:
            return  # it was deleted, and goes with the last of its blocks
        self.files.punch(inode, [(block * block_bytes, block_bytes)])

    def remove_if_empty(self, inode: InodeNumber) -> bool:
        """Delete a cache file nobody uses and nothing is in; whether that was so."""
        if not self.is_unused(inode):
            return False
        self.files.remove(inode)
        return True

    def is_unused(self, inode: InodeNumber) -> bool:
        """Whether nothing of a file is in the cache and nobody is at it."""
        return not (inode in self.ledger.open or self.ledger.has_busy(inode) or self.journal.has_blocks(inode))

    # --------------------------------------------------------------- uploading

    def claim(self, key: BlockKey) -> Part | None:
        """DIRTY -> SENDING: one block for an upload, or None when there is nothing to send."""
        inode, block = key
        file = self.ledger.open.get(inode)
        if key in self.ledger.sending or (file is not None and file.states.get(block) != DIRTY):
            return None
        end = self.end(inode)
        small = block == 0 and end <= MIN_BLOCK_BYTES
        block_bytes = MIN_BLOCK_BYTES if small else self.block_bytes(inode)
        length = extent(end, block, block_bytes)
        if length == 0:
            self.lost(key)
            return None
        mark = self.ledger.claim(key, length, on_disk(length))
        if file is not None:
            file.states[block] = SENDING
        path = self.files.path(inode)
        before = max(length, extent(self.journal.size_of(inode), block, self.block_bytes(inode)))
        return Part(SourcePart(inode, block, path, block * block_bytes, length, block_bytes), mark, before)

    def lost(self, key: BlockKey) -> None:
        """DIRTY -> ABSENT or HOLE: the cache file does not have the block's bytes; what hosts have is used."""
        inode, block = key
        logger.error("block %d of file %d was written but its bytes are gone; what hosts have is used", block, inode)
        self.journal.forget([key])
        self.ledger.dirty_blocks -= 1
        file = self.ledger.open.get(inode)
        if file is not None:
            file.set_state(block, HOLE if self.catalog.place(inode, block) is None else ABSENT)
            self.ledger.settle(file)
        if self.ledger.dirty_blocks == 0:
            self.ledger.dirty_bytes = 0

    def unclaim(self, part: Part) -> None:
        """SENDING -> DIRTY: the upload did not happen."""
        self.ledger.sending.pop(part.key, None)
        file = self.ledger.open.get(part.key[0])
        if file is not None and file.states.get(part.key[1]) == SENDING:
            file.states[part.key[1]] = DIRTY

    def sent(self, parts: Sequence[Part], outcomes: Sequence[PartOutcome], shard: int) -> None:
        """SENDING -> CLEAN (or HOLE) of what hosts have; what was written meanwhile stays DIRTY, with a newer row.

        Parts that have to go again stay claimed.
        """
        known = self.catalog.known_content(numbers := self._contents(outcomes, shard))
        rows, uses, clean, older = [], [], [], []
        for part, outcome, number in zip(parts, outcomes, numbers, strict=True):
            if _has_to_go_again(part.mark, outcome, is_known=number in known):
                continue
            del self.ledger.sending[part.key]
            if part.mark.void:
                continue
            if isinstance(outcome, Zero):
                self._became_hole(part)
                continue
            length = outcome.part.length if isinstance(outcome, Stored) else outcome.length
            rows.append((*part.key, number, min(length, part.mark.valid_bytes)))
            if part.mark.written:
                older.append((*part.key, part.in_file))
            else:
                uses.append(Use(part.key[0], on_disk(length), int(self.ledger.now)))
                clean.append(part)
        self.catalog.put_blocks(rows)
        self.journal.mark_clean(part.key for part in clean)
        self.journal.sent_while_written(older)
        self.journal.add_use(uses)
        self.ledger.clean_bytes += sum(use.clean_bytes for use in uses)
        for part in clean:
            self._not_dirty(part, CLEAN)
        self.ledger.writing = True

    def _contents(self, outcomes: Sequence[PartOutcome], shard: int) -> list[int]:
        """The content number of every outcome, 0 for zeros; new content is recorded, whoever it is for."""
        stored = [outcome.part for outcome in outcomes if isinstance(outcome, Stored)]
        new = iter(self.catalog.add_content(shard, [NewContent(one.digest, one.offset, one.length) for one in stored]))
        return [
            next(new) if isinstance(outcome, Stored) else outcome.content if isinstance(outcome, Duplicate) else 0
            for outcome in outcomes
        ]

    def _became_hole(self, part: Part) -> None:
        """The cache file stays, zeros in zeros: should this transaction be lost, the block is still what it was."""
        inode, block = part.key
        self.catalog.remove_block(inode, block)
        self.journal.forget([part.key])
        self._not_dirty(part, HOLE)
        self.files.punch(inode, [(part.source.offset, part.source.length)])

    def _not_dirty(self, part: Part, state: int) -> None:
        inode, block = part.key
        ledger, file = self.ledger, self.ledger.open.get(inode)
        ledger.dirty_blocks -= 1
        if file is None:
            ledger.dirty_bytes -= part.mark.charged
        else:
            file.set_state(block, state)
            file.not_flushed()
            ledger.settle(file)
        if ledger.dirty_blocks == 0:
            ledger.dirty_bytes = 0

    # ---------------------------------------------------------------- eviction

    def forget_clean(self, inode: InodeNumber, blocks: Sequence[tuple[BlockNumber, int]]) -> int:
        """CLEAN -> ABSENT of blocks with their lengths; the bytes it frees. Commit, then clear their places."""
        file = self.ledger.open.get(inode)
        freed = sum(on_disk(length) for _block, length in blocks)
        self.journal.forget((inode, block) for block, _length in blocks)
        if file is not None:
            for block, _length in blocks:
                file.set_state(block, ABSENT)
        self.less_clean(inode, freed)
        self.ledger.writing = True
        return freed

    # ----------------------------------------------------------------- removal

    def remove(self, inode: InodeNumber, block_bytes: int, limit: int) -> bool:
        """Forget a deleted file's rows, at most ``limit`` blocks of them; True when none are left.

        The file must not be open. Its cache file may go after the next commit.
        """
        last = max(self.journal.last_block(inode) or 0, self.catalog.last_block(inode) or 0)
        first = BlockNumber(max(0, last + 1 - limit))
        dirty = self.journal.dirty_of(inode, BlockNumber(first - 1), limit)
        end = self.files.size(inode) if dirty else 0
        for key in dirty:
            self.ledger.cut(*key, 0)
            self.ledger.dirty_bytes -= on_disk(extent(end, key[1], block_bytes))
        self.ledger.dirty_blocks -= len(dirty)
        self.journal.forget_range(inode, first, BlockNumber(last + 1))
        self.catalog.remove_blocks(inode, first, BlockNumber(last + 1))
        if first > 0:
            return False
        self.ledger.clean_bytes -= self.journal.clean_bytes_of(inode)
        self.journal.forget_use([inode])
        self.ledger.reopened(inode)
        self.ledger.used.pop(inode, None)
        return True


def _has_to_go_again(mark: Mark, outcome: PartOutcome, *, is_known: bool) -> bool:
    """Whether nothing can be recorded of an upload that has ended, though the block is still there."""
    if mark.void:
        return False
    if isinstance(outcome, Zero):
        return mark.written  # without a row it would count as lost with this machine, rather than as zeros
    return not is_known  # its equal was given up meanwhile
