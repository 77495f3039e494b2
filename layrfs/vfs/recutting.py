"""A file that was never cut into blocks for hosts gets blocks of another size.

Owns the one transition of ``layrfs.vfs.blocks`` that renumbers blocks. Must not know who decides on sizes, nor wait.
Invariant: only dirty blocks change their numbers; what hosts have of a file stays where it is.
"""

from __future__ import annotations

from layrfs.crashpoints import reached
from layrfs.ids import BlockNumber, InodeNumber
from layrfs.model.sharding import MIN_BLOCK_BYTES
from layrfs.vfs.blocks import CLEAN, DIRTY, extent, on_disk
from layrfs.vfs.shelf import Shelf


def may_recut(shelf: Shelf, inode: InodeNumber) -> bool:
    """Whether nothing of a file was cut into blocks for hosts yet, but for a first block as small as any."""
    last = shelf.catalog.last_block(inode)
    if last is not None and (last > 0 or not _has_small_first_block(shelf, inode)):
        return False
    keys = [(inode, block) for block, _dirty in shelf.journal.blocks(inode)]
    return not shelf.ledger.has_busy(inode) and not any(key in shelf.ledger.sending for key in keys)


def _has_small_first_block(shelf: Shelf, inode: InodeNumber) -> bool:
    place = shelf.catalog.place(inode, BlockNumber(0))
    local = shelf.journal.blocks(inode)
    return place is not None and place.length <= MIN_BLOCK_BYTES and bool(local) and local[0][0] == 0


def recut(shelf: Shelf, inode: InodeNumber, old_bytes: int, new_bytes: int) -> None:
    """Cut a file into blocks of another size, where ``may_recut``: its dirty blocks are numbered anew."""
    ledger, journal = shelf.ledger, shelf.journal
    file, end = ledger.open.get(inode), shelf.end(inode)
    local = journal.blocks(inode)
    dirty = {
        block
        for old, is_dirty in local
        if is_dirty
        for block in range(old * old_bytes // new_bytes, -(-min((old + 1) * old_bytes, end) // new_bytes))
    }
    clean_first = any(not is_dirty for _block, is_dirty in local)
    before = sum(on_disk(extent(end, old, old_bytes)) for old, is_dirty in local if is_dirty)
    if clean_first and 0 in dirty:
        shelf.less_clean(inode, on_disk(journal.clean_length(inode, BlockNumber(0))))
    journal.forget((inode, old) for old, is_dirty in local if is_dirty)
    journal.mark_all_dirty((inode, BlockNumber(block)) for block in sorted(dirty))
    reached("blocks resized")
    ledger.dirty_blocks += len(dirty) - sum(is_dirty for _block, is_dirty in local)
    if file is None:
        ledger.dirty_bytes += sum(on_disk(extent(end, new, new_bytes)) for new in dirty) - before
        return
    written = max(file.written.values(), default=0.0)
    first = {0: CLEAN} if clean_first and 0 not in dirty else {}
    file.block_bytes, file.written = new_bytes, dict.fromkeys(sorted(dirty), written)
    file.states = first | dict.fromkeys(dirty, DIRTY)
    ledger.settle(file)
