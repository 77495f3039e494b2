"""What the drive answers to ``layrfs patch``.

Owns the order: hosts say what they have, then what is gone is made anew. Decides nothing: the patcher does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from layrfs.app.upkeep import Upkeep
from layrfs.control import commands
from layrfs.control.commands import Progress
from layrfs.errors import ReadOnly
from layrfs.ids import InodeNumber
from layrfs.model.patches import LostPart, PatchedPiece, PatchedShard, PatchReport
from layrfs.model.status import ProgressReport
from layrfs.storage.content import Catalog
from layrfs.upkeep.patcher import Mended

ASK_SECONDS = 60.0
"""Hosts that have not said by then what they have are not waited for."""

MOST_LISTED = 5_000

InodesBelow = Callable[[bytes], Awaitable[Sequence[InodeNumber] | None]]
"""Of a path, None for the whole volume. Raises ``NotFound``."""


class Patching:
    """The handler."""

    def __init__(
        self,
        upkeep: Upkeep,
        catalog: Catalog,
        inodes_below: InodesBelow,
        silent_hosts: Callable[[], Awaitable[int]],
        *,
        read_only: bool,
    ) -> None:
        """``silent_hosts``: how many have pieces of the volume and are not seen now."""
        self._upkeep = upkeep
        self._catalog = catalog
        self._inodes_below = inodes_below
        self._silent_hosts = silent_hosts
        self._read_only = read_only

    async def patch(self, request: commands.Patch, progress: Progress) -> PatchReport:
        """Raises ``ReadOnly``, ``NotFound``."""
        if self._read_only:
            raise ReadOnly("The volume is mounted read-only; patch where it is written.")
        shards = await self._shards(await self._inodes_below(request.path))
        progress(ProgressReport(text="asking hosts what they have"))
        with trio.move_on_after(ASK_SECONDS):
            await self._upkeep.ask_all()
        needs = await self._upkeep.patcher.plan(shards)
        done = [Mended(need.shard, need.urgency, need.positions) for need in needs] if request.dry_run else []

        def tell(mended: Mended) -> None:
            done.append(mended)
            progress(ProgressReport(text=f"{len(done)} of {len(needs)} shards"))

        if not request.dry_run:
            await self._upkeep.patcher.patch(needs, tell)
        return await self._report(done, dry_run=request.dry_run)

    async def _shards(self, inodes: Sequence[InodeNumber] | None) -> list[int] | None:
        if inodes is None:
            return None
        shards: dict[int, None] = {}
        for inode in inodes:
            shards |= dict.fromkeys(self._catalog.shards_of(inode))
            await trio.lowlevel.checkpoint()
        return list(shards)

    async def _report(self, done: Sequence[Mended], *, dry_run: bool) -> PatchReport:
        lost = [mended.shard for mended in done if mended.urgency == "lost" and not mended.made]
        return PatchReport(
            dry_run=dry_run,
            shards=len(done),
            mended=0 if dry_run else sum(_is_well(mended) for mended in done),
            lost=len(lost),
            listed=await self._listed(done),
            lost_parts=await self._lost_parts(lost),
            silent_hosts=await self._silent_hosts(),
        )

    async def _listed(self, done: Sequence[Mended]) -> tuple[PatchedShard, ...]:
        listed = []
        for mended in done[:MOST_LISTED]:
            listed.append(self._shown(mended))
            await trio.lowlevel.checkpoint()
        return tuple(listed)

    async def _lost_parts(self, lost: Sequence[int]) -> tuple[LostPart, ...]:
        parts: list[LostPart] = []
        for shard in lost:
            if len(parts) >= MOST_LISTED:
                break
            parts += [LostPart(*part) for part in self._upkeep.lost.ranges(shard)]
            await trio.lowlevel.checkpoint()
        return tuple(parts[:MOST_LISTED])

    def _shown(self, mended: Mended) -> PatchedShard:
        name = self._catalog.shard(mended.shard).id.hex() if self._catalog.has_shard(mended.shard) else ""
        pieces = tuple(PatchedPiece(piece.position, piece.generation, piece.host.hex()) for piece in mended.made)
        return PatchedShard(name, mended.urgency, mended.wanted, pieces, mended.problem)


def _is_well(mended: Mended) -> bool:
    """By this command, or by the drive itself a moment before."""
    return mended.urgency == "none" or (bool(mended.wanted) and len(mended.made) == len(mended.wanted))
