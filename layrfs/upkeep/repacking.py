"""What is still needed of nearly empty shards, or wanted in another redundancy, moves into new shards.

Owns that order: fetch, store anew, then one row after the other says where the bytes are now. Until a row says so the
old shard counts, so a crash anywhere leaves at most a shard that nothing needs. Must not know the cache.
Invariant: no bytes leave a shard for one that is less safe, unless that one has all the pieces that are wanted.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from typing import NamedTuple

import trio

from layrfs.crashpoints import reached
from layrfs.errors import LayrError, LocalError
from layrfs.ids import NodeId
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import ShardRecord
from layrfs.pipeline.transfers import SourcePart, Stored, TargetPart, Transfers, Uploaded
from layrfs.policy.packing import pack
from layrfs.policy.recoding import is_as_safe
from layrfs.storage.content import Catalog, NewContent
from layrfs.storage.garbage import Garbage, LiveContent

SLICE = 128
"""Rows changed between two looks at what else there is to do."""

_log = logging.getLogger(__name__)

Moving = tuple[int, LiveContent]
"""A shard's number, and a content that has to leave it."""


class Move(NamedTuple):
    """Contents that leave a shard for new ones of this redundancy."""

    shard: int
    contents: tuple[LiveContent, ...]
    redundancy: Redundancy


class Repacker:
    """One volume's; one run at a time."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        garbage: Garbage,
        transfers: Transfers,
        directory: str,
        living_hosts: Callable[[], Collection[NodeId]],
        is_gone: Callable[[NodeId], bool],
    ) -> None:
        """``directory`` is emptied now, and by each run: who was killed has left something there.

        ``living_hosts``: who may take pieces now. ``is_gone``: whether what a host has is not counted on any more.
        """
        self._catalog = catalog
        self._garbage = garbage
        self._transfers = transfers
        self._directory = directory
        self._living_hosts = living_hosts
        self._is_gone = is_gone
        self._clear()

    async def repack(self, shards: Sequence[int]) -> int:
        """Move all that is needed of these shards; how many bytes have moved."""
        wanted = ((number, self._catalog.shard(number).redundancy) for number in shards)
        return await self.move(
            [
                Move(number, tuple(self._garbage.live_contents(number)), redundancy)
                for number, redundancy in wanted
                if self.may_move(number, redundancy)
            ]
        )

    def may_move(self, number: int, redundancy: Redundancy) -> bool:
        """Whether there are hosts enough for bytes of a shard to be as safe in another: before they are fetched."""
        return is_as_safe(min(len(self._living_hosts()), redundancy.total), redundancy, self._spare(number))

    async def move(self, moves: Sequence[Move]) -> int:
        """How many bytes have moved. What cannot be fetched or stored now stays where it is. Raises ``LocalError``."""
        moved = 0
        self._make_directory()
        try:
            for _spelling, group in groupby(sorted(moves, key=_spelled), key=_spelled):
                moved += await self._move_alike(list(group))
        finally:
            self._clear()
        return moved

    async def _move_alike(self, moves: list[Move]) -> int:
        moving: list[Moving] = []
        for move in moves:
            if move.contents and await self._fetched(move.shard):
                moving += [(move.shard, content) for content in move.contents]
        moved = 0
        for first, end in pack([content.length for _shard, content in moving], everything=True).shards:
            try:
                moved += await self._move(moving[first:end], moves[0].redundancy)
            except LayrError as error:
                _log.info("some shards are not packed anew as %s: %s", moves[0].redundancy, error)
                break
        return moved

    async def _fetched(self, number: int) -> bool:
        if not self._catalog.has_shard(number):
            return False
        record = self._catalog.shard(number)
        target = TargetPart(self._path(number), 0, 0, record.plain_bytes)
        try:
            await self._transfers.download(record, [target], urgent=False)
        except LayrError as error:
            _log.info("shard %d is not packed anew: %s", number, error)
            return False
        return True

    async def _move(self, moving: list[Moving], redundancy: Redundancy) -> int:
        sources = [
            SourcePart(
                content.inode, content.block, self._path(shard), content.offset, content.length, content.block_bytes
            )
            for shard, content in moving
        ]
        uploaded = await self._transfers.upload(sources, redundancy, deduplicate=False)
        return 0 if uploaded.shard is None else await self._record(moving, uploaded, uploaded.shard)

    async def _record(self, moving: list[Moving], uploaded: Uploaded, record: ShardRecord) -> int:
        spare = max(map(self._spare, {old for old, _content in moving}))
        if not is_as_safe(len(record.pieces), record.redundancy, spare):
            _log.info("%d contents stay where they are: only %d hosts took them", len(moving), len(record.pieces))
            self._transfers.discard(record.pieces)
            return 0
        shard, moved = self._catalog.add_shard(record), 0
        for place, ((old, content), outcome) in enumerate(zip(moving, uploaded.outcomes, strict=True)):
            if place and place % SLICE == 0:
                await trio.lowlevel.checkpoint()
            if isinstance(outcome, Stored):
                part = outcome.part
                new = NewContent(part.digest, part.offset, part.length)
                moved += content.length * self._catalog.repack_content(content.number, old, shard, new)
        reached("contents moved")
        return moved

    def _spare(self, number: int) -> int:
        """So many of a shard's pieces can be lost. Those on hosts that are gone are lost: no hosts could match them."""
        if not self._catalog.has_shard(number):
            return 0
        record = self._catalog.shard(number)
        return sum(not self._is_gone(piece.host) for piece in record.pieces) - record.redundancy.needed

    def _path(self, shard: int) -> str:
        return os.path.join(self._directory, str(shard))

    def _make_directory(self) -> None:
        self._clear()
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
        except OSError as error:
            raise LocalError(f"{self._directory} cannot be made: {error.strerror}.") from error

    def _clear(self) -> None:
        """What was fetched is what the volume says in clear: it does not stay."""
        shutil.rmtree(self._directory, ignore_errors=True)


def _spelled(move: Move) -> str:
    return str(move.redundancy)
