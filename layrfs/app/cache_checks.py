"""A volume's cache files against its rows, for a check: what is found, and in which order it is put right.

Owns sentences and order; the comparison itself is ``layrfs.vfs.reconciling``. Must not know the command line.
After a crash the next mount looks through the cache in any case, and knows better what it sees. Then nothing is called
wrong here, but a repair keeps the files that it would clear away: those whose names were not committed yet.
"""

from __future__ import annotations

import trio

from layrfs.model.findings import Finding
from layrfs.storage.database import Database
from layrfs.storage.nameless import Nameless
from layrfs.vfs.reconciling import Outcome, Reconciler


class CacheChecks:
    """One volume's."""

    def __init__(self, database: Database, reconciler: Reconciler, lost_found: Nameless, *, unclean: bool) -> None:
        self._database = database
        self._reconciler = reconciler
        self._lost_found = lost_found
        self._unclean = unclean

    async def find(self, *, deep: bool) -> list[Finding]:
        """What is wrong; ``deep`` compares every clean block with its digest."""
        counts = dict.fromkeys(_TEXTS, 0)
        counts["stray files"] = len(list(self._reconciler.strays()))
        for inode in [] if self._unclean else self._reconciler.cached():
            counts["long files"] += self._reconciler.is_too_long(inode)
            counts["empty blocks"] += len(self._reconciler.hollow(inode))
            counts["unknown blocks"] += len(self._reconciler.judge(inode))
            counts["changed blocks"] += len(self._reconciler.changed(inode)) if deep else 0
            await trio.lowlevel.checkpoint()
        return [
            Finding(name, "note" if self._unclean else "problem", f"{count} {_TEXTS[name]}", count, repairable=True)
            for name, count in counts.items()
            if count
        ]

    def adopt_strays(self) -> list[str]:
        """Before rows are put right: a name may lead to such a file. Names for the others come with the rows."""
        strays = list(self._reconciler.strays())
        for inode in strays:
            self._reconciler.adopt(inode, self._lost_found)
        self._database.commit()
        return [f"{len(strays)} files of which only the contents were left are files again"] if strays else []

    async def repair(self, *, deep: bool) -> list[str]:
        """After rows were put right."""
        reconciler, outcome = self._reconciler, Outcome()
        for inode in [] if self._unclean else reconciler.cached():
            if reconciler.is_too_long(inode):
                reconciler.keep_all(inode)
            for hollow in reconciler.hollow(inode):
                reconciler.fill_hollow(hollow)
                outcome.hollow += 1
            if deep:
                reconciler.distrust(inode, outcome)
            await reconciler.reconcile(inode, outcome)
            await trio.lowlevel.checkpoint()
        for inode in outcome.aside:
            reconciler.set_aside(inode, self._lost_found)
        await self._database.sync()
        reconciler.clear(outcome.remnants)
        return sentences(outcome)


_TEXTS = {
    "stray files": "files in the cache that no name and no row belongs to",
    "long files": "files in the cache that are longer than their rows say",
    "empty blocks": "blocks that should be in the cache and are not",
    "unknown blocks": "blocks in the cache that no row speaks for",
    "changed blocks": "clean blocks in the cache that are not what was stored",
}


def sentences(outcome: Outcome) -> list[str]:
    """What became of the bytes in the cache."""
    said = {
        "{} blocks in the cache are the same as on hosts": outcome.clean,
        "{} blocks in the cache are newer than what hosts have, and will be sent": outcome.newer,
        "{} blocks were not in the cache as they should; what hosts have counts": outcome.hollow,
        "{} files differ here and on hosts: copies of what is here are in /lost+found": len(outcome.aside),
    }
    return [text.format(count) for text, count in said.items() if count]
