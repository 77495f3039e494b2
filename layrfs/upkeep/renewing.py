"""Every piece that anything needs is renewed with its host, long before its lease runs out.

Who has lost one piece is asked for all of its others at once: a disk seldom loses one. Must not know how long hosts
are patient (``policy.leases`` does). A host counts as
renewed when it has answered for all of its pieces in one go; what is stored there later has a younger lease anyway.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

import trio

from layrfs.errors import LayrError, RemoteError
from layrfs.ids import NodeId, PieceId, ShardId
from layrfs.model.history import Segment
from layrfs.policy.leases import renewal_due
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.renewals import Renewals
from layrfs.upkeep.asking import TOGETHER, Asker

SUSPECT_SECONDS = 60.0
"""A host that has lost one piece is asked for all of its pieces, at most so often."""

SEVERAL = 2
"""When so many hosts turn out within an hour to have lost something, all are asked, once in that hour."""

TICK_SECONDS = 3600.0
"""How often it is looked which hosts are due; one that does not answer is asked again after as long."""

SLICE = 1000
"""Rows looked at between two looks at what else there is to do: about two milliseconds."""

FIRST_SECONDS = 120.0
PAUSE_SECONDS = 0.5
"""Between two requests: there are months."""

T = TypeVar("T")
OnMissing = Callable[[ShardId, PieceId, NodeId], None]

_log = logging.getLogger(__name__)


class Renewer:
    """One volume's; ``run`` once."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        segments: Callable[[], Iterable[Segment]],
        asker: Asker,
        on_missing: OnMissing,
        on_held: Callable[[ShardId, PieceId], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        """``segments``: of the newest version and of all retained ones. ``on_missing``: a host has lost a piece;
        ``on_held``: it says that it has one that it was found not to have."""
        self._renewals = Renewals(database)
        self._catalog = catalog
        self._segments = segments
        self._asker = asker
        self._on_missing = on_missing
        self._on_held = on_held
        self._now = now
        self._suspects: set[NodeId] = set()
        self._returned: set[NodeId] = set()
        self._damaged: set[ShardId] = set()
        self._asked_at: dict[NodeId, float] = {}
        self._asked_all_at = -math.inf
        self._suspected = trio.Event()

    def suspect(self, host: NodeId, shard: ShardId | None = None) -> None:
        """A host has lost a piece, of this shard: which others, and are those of the shard still there? Asked soon."""
        self._suspects.add(host)
        if shard is not None:
            self._damaged.add(shard)
        self._suspected.set()

    def hosts_appeared(self, hosts: Iterable[NodeId]) -> None:
        """Do they have now what they were found not to have? A disk may be there again."""
        self._returned.update(hosts)
        self._suspected.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask_suspects)
            await trio.sleep(FIRST_SECONDS)
            while True:
                try:
                    await self.renew_due()
                    await self._ask_about_refuted()
                except LayrError as error:
                    _log.warning("pieces wait to be renewed: %s", error)
                await trio.sleep(TICK_SECONDS)

    async def ask_all(self) -> None:
        """Have every host say which of its pieces it has; those that do not answer are left out."""
        hosts = self._holding()
        async with trio.open_nursery() as nursery:
            for host in hosts:
                nursery.start_soon(self._ask, host)
        await self._ask_about_refuted()

    async def _ask_about_refuted(self) -> None:
        """All that hosts were found not to have: nobody may have seen them go and come back."""
        async with trio.open_nursery() as nursery:
            for host, pieces in (await self._refuted()).items():
                nursery.start_soon(self._ask_again, host, pieces, set())

    async def _refuted(self) -> dict[NodeId, list[tuple[PieceId, ShardId]]]:
        """By host; there may be as many as there are pieces."""
        found: dict[NodeId, list[tuple[PieceId, ShardId]]] = {}
        after = PieceId(b"")
        while rows := self._catalog.pieces.refuted(after, SLICE):
            for after, shard, host in rows:
                found.setdefault(host, []).append((after, shard))
            await trio.lowlevel.checkpoint()
        return found

    async def _ask_suspects(self) -> None:
        while True:
            with trio.move_on_after(SUSPECT_SECONDS if self._suspects or self._returned else math.inf):
                await self._suspected.wait()
            self._suspected = trio.Event()
            try:
                await self._ask_about_damage()
            except LayrError as error:
                _log.warning("what else hosts have lost is not known: %s", error)

    async def _ask_about_damage(self) -> None:
        refuted = await self._refuted() if self._returned else {}
        damaged, self._damaged = self._damaged, set()
        returned, self._returned = self._returned, set()
        questions = self._pieces_of(damaged)
        async with trio.open_nursery() as nursery:
            for host, pieces in questions.items():
                nursery.start_soon(self._ask_for, host, pieces)
            for host in returned & refuted.keys():
                nursery.start_soon(self._ask_again, host, refuted[host], self._returned)
        self._suspects |= self._everybody()
        now = trio.current_time()
        due = [host for host in self._suspects if now >= self._asked_at.get(host, -math.inf) + SUSPECT_SECONDS]
        self._asked_at |= dict.fromkeys(due, now)
        self._suspects.difference_update(due)
        for host in due:
            await self._ask(host)

    def _everybody(self) -> set[NodeId]:
        """All hosts, when several have been asked lately because they had lost something."""
        now = trio.current_time()
        self._asked_at = {host: at for host, at in self._asked_at.items() if now < at + TICK_SECONDS}
        if len(self._asked_at.keys() | self._suspects) < SEVERAL or now < self._asked_all_at + TICK_SECONDS:
            return set()
        self._asked_all_at = now
        return self._holding()

    def _pieces_of(self, shards: Collection[ShardId]) -> dict[NodeId, list[tuple[PieceId, ShardId]]]:
        """By host, of files and of metadata."""
        records = [self._catalog.find_shard(shard) for shard in shards]
        records += [shard for segment in self._segments() for shard in segment.shards if shard.id in shards]
        found: dict[NodeId, list[tuple[PieceId, ShardId]]] = {}
        for record in filter(None, records):
            for piece in record.pieces:
                found.setdefault(piece.host, []).append((piece.id, record.id))
        return found

    async def _ask_for(self, host: NodeId, pieces: Sequence[tuple[PieceId, ShardId]]) -> None:
        with contextlib.suppress(LayrError):
            for batch in _batches(pieces):
                held = await self._asker.renew(host, [piece for piece, _shard in batch])
                for (piece, shard), is_held in zip(batch, held, strict=True):
                    if not is_held:
                        self._on_missing(shard, piece, host)
                        self._suspects.add(host)

    async def _ask_again(self, host: NodeId, pieces: Sequence[tuple[PieceId, ShardId]], silent: set[NodeId]) -> None:
        """Of what it was found not to have; put among the ``silent`` when it does not say."""
        try:
            for batch in _batches(pieces):
                held = await self._asker.renew(host, [piece for piece, _shard in batch])
                for (piece, shard), is_held in zip(batch, held, strict=True):
                    if is_held:
                        self._on_held(shard, piece)
        except LayrError:
            silent.add(host)

    async def _ask(self, host: NodeId) -> None:
        started = int(self._now())
        try:
            await self._renew_host(host, 0.0)
            self._renewals.set_renewed(host, started)
        except LayrError as error:
            _log.info("host %s does not say what it has: %s", host.hex()[:12], error)

    async def renew_due(self) -> int:
        """Renew what is due, at every host that answers; how many pieces. Raises ``LocalError``."""
        renewed = 0
        for host in self._due():
            started = int(self._now())
            try:
                renewed += await self._renew_host(host, PAUSE_SECONDS)
            except RemoteError as error:
                _log.info("host %s did not renew its pieces: %s", host.hex()[:12], error)
                continue
            self._renewals.set_renewed(host, started)
        return renewed

    def _due(self) -> list[NodeId]:
        renewed = self._renewals.renewed()
        return sorted(host for host in self._holding() if renewal_due(renewed.get(host), self._now()))

    def _holding(self) -> set[NodeId]:
        metadata = (piece.host for segment in self._segments() for shard in segment.shards for piece in shard.pieces)
        return {*self._catalog.pieces.holders(), *metadata}

    async def _renew_host(self, host: NodeId, pause_seconds: float) -> int:
        count = await self._renew_metadata(host, pause_seconds)
        after = (0, -1)
        while rows := self._renewals.pieces_at(host, after, TOGETHER):
            after = rows[-1][:2]
            held = await self._asker.renew(host, [piece for _shard, _position, piece in rows])
            for (shard, _position, piece), is_held in zip(rows, held, strict=True):
                if not is_held and self._renewals.has_piece(shard, piece, host):
                    self._on_missing(self._catalog.shard(shard).id, piece, host)
            count += len(rows)
            await trio.sleep(pause_seconds)
        return count

    async def _renew_metadata(self, host: NodeId, pause_seconds: float) -> int:
        pieces = {
            piece.id: shard.id
            for segment in self._segments()
            for shard in segment.shards
            for piece in shard.pieces
            if piece.host == host
        }
        for batch in _batches(list(pieces)):
            held = await self._asker.renew(host, batch)
            for piece, is_held in zip(batch, held, strict=True):
                if not is_held:
                    self._on_missing(pieces[piece], piece, host)
            await trio.sleep(pause_seconds)
        return len(pieces)


def _batches(pieces: Sequence[T]) -> list[Sequence[T]]:
    return [pieces[at : at + TOGETHER] for at in range(0, len(pieces), TOGETHER)]
