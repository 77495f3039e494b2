"""The end of a file moves forward: the blocks beyond it end, and come back should the disk not have it so.

Owns the transitions of ``layrfs.vfs.blocks`` that a cut makes. Must not wait, nor touch a cache file: the caller cuts
it after. Invariant: what uploads on their way have read beyond the cut is recorded for no block.
"""

from __future__ import annotations

from typing import NamedTuple

from layrfs.ids import BlockNumber, InodeNumber
from layrfs.vfs.blocks import ABSENT, CLEAN, DIRTY, HOLE, SENDING, BlockMap, Mark, on_disk
from layrfs.vfs.shelf import Shelf


class BeforeCut(NamedTuple):
    """An open file, should the disk not cut it."""

    states: dict[int, int]
    end: int
    rows: list[tuple[InodeNumber, BlockNumber, int, int]]
    valid: list[tuple[Mark, int]]
    """How much of what uploads on their way read was bytes of their blocks."""


def cut(shelf: Shelf, file: BlockMap, size: int) -> BeforeCut:
    """The file has no bytes from ``size`` on. No block there may be busy."""
    first, kept = divmod(size, file.block_bytes)
    inode, ledger, journal = file.inode, shelf.ledger, shelf.journal
    before = _before(shelf, file, first)
    gone = [block for block in file.states if block > first or (block == first and kept == 0)]
    if first in file.states and kept:
        _cut_block(shelf, file, first, kept)
    if gone:
        start, end = BlockNumber(min(gone)), BlockNumber(max(gone) + 1)
        freed = sum(on_disk(length) for block, length in journal.clean_blocks(inode) if block >= start)
        journal.forget_range(inode, start, end)
        shelf.catalog.remove_blocks(inode, start, end)
        shelf.less_clean(inode, freed)
        for block in gone:
            if file.states[block] >= DIRTY:
                ledger.dirty_blocks -= 1
                ledger.cut(inode, block, 0)
            file.set_state(block, HOLE)
    if gone or kept:
        ledger.writing = True
        journal.commit()
    file.end = min(file.end, size)
    ledger.settle(file)
    return before


def uncut(shelf: Shelf, file: BlockMap, before: BeforeCut, size: int) -> None:
    """The cache file was not cut to ``size`` after all: what was here is dirty, the rest on hosts as before."""
    inode, first, ledger = file.inode, size // file.block_bytes, shelf.ledger
    if file.states.get(first) == CLEAN:
        shelf.less_clean(inode, on_disk(shelf.journal.clean_length(inode, BlockNumber(first))))
    shelf.catalog.put_blocks(before.rows)
    here = [block for block, state in before.states.items() if block >= first and state >= CLEAN]
    new = [BlockNumber(block) for block in here if file.states.get(block, HOLE) < DIRTY]
    shelf.journal.mark_all_dirty((inode, block) for block in new)
    for block in [block for block in before.states if block >= first]:
        file.set_state(block, DIRTY if before.states[block] >= CLEAN else ABSENT)
    file.written.update(dict.fromkeys(here, ledger.now))
    for mark, valid_bytes in before.valid:
        mark.valid_bytes = valid_bytes
    ledger.dirty_blocks += len(new)
    file.end, ledger.writing = before.end, True
    shelf.journal.commit()
    ledger.settle(file)


def _before(shelf: Shelf, file: BlockMap, first: int) -> BeforeCut:
    keys = (
        (file.inode, BlockNumber(block)) for block, state in file.states.items() if block >= first and state >= DIRTY
    )
    marks = [mark for key in keys if (mark := shelf.ledger.sending.get(key)) is not None]
    rows = shelf.catalog.rows_from(file.inode, BlockNumber(first))
    return BeforeCut(dict(file.states), file.end, rows, [(mark, mark.valid_bytes) for mark in marks])


def _cut_block(shelf: Shelf, file: BlockMap, block: int, kept: int) -> None:
    number, state = BlockNumber(block), file.states[block]
    shelf.ledger.cut(file.inode, block, kept)
    if state == SENDING:
        file.states[block] = DIRTY
    elif state == CLEAN:
        before = shelf.journal.clean_length(file.inode, number)
        shelf.less_clean(file.inode, on_disk(before) - on_disk(min(before, kept)))
    shelf.catalog.cut_block(file.inode, number, kept)
