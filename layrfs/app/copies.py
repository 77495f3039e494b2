"""A volume's shards against its hosts: who still has what.

Owns the asking, which changes nothing anywhere. Must not know the command line. What a host says of a piece is its
word; ``deep`` fetches every shard and compares its bytes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from functools import partial

import trio

from layrfs.app.reaching import Network
from layrfs.crypto.digests import BlockDigester
from layrfs.errors import LayrError, RemoteError
from layrfs.ids import NodeId, PieceId, ShardId
from layrfs.model.findings import Finding
from layrfs.pipeline.transfers import TargetPart
from layrfs.policy.copies import Fate, fate, to_forget
from layrfs.storage.content import Catalog
from layrfs.storage.copies import Copies, Shard
from layrfs.storage.database import Database

SEARCH_SECONDS = 15.0
"""How long hosts that should hold something are looked for."""

ANSWER_SECONDS = 60.0
FETCHES_AT_ONCE = 4
_NAMED = 3
_LOOK_SECONDS = 0.2


class Survey:
    """What hosts said: pieces they hold, pieces they do not, hosts that said nothing."""

    def __init__(self) -> None:
        self.held: set[PieceId] = set()
        self.missing: set[PieceId] = set()
        self.silent: dict[NodeId, int] = {}


class CopyChecks:
    """One volume's."""

    def __init__(self, database: Database, network: Network, digester: BlockDigester, scratch: str) -> None:
        """``scratch``: a directory for what is fetched."""
        self._copies = Copies(database)
        self._catalog = Catalog(database)
        self._network = network
        self._digester = digester
        self._scratch = scratch
        self._gone: list[tuple[ShardId, PieceId]] = []
        self._lost: list[int] = []

    async def find(self, *, deep: bool) -> list[Finding]:
        """Ask every host; with ``deep`` fetch every shard as well."""
        survey = await self._survey()
        shards = list(self._copies.shards())
        fates: dict[Fate, list[int]] = {"good": [], "fewer": [], "unseen": [], "lost": []}
        for shard in shards:
            known = shard.needed, shard.pieces, survey.held, survey.missing
            fates[fate(*known)].append(shard.number)
            self._gone += [(shard.id, PieceId(piece)) for piece in to_forget(*known)]
        self._lost = fates["lost"]
        found = [*self._silence(survey), *self._missing(fates), *self._few(shards)]
        return [*found, *(await self._fetched(shards) if deep else [])]

    def repair(self) -> list[str]:
        """Record what is gone; the drive completes it when it is mounted next. After ``find``."""
        dropped = self._copies.drop(self._gone)
        again = self._copies.send_again(self._lost)
        said = [f"{dropped} copies that hosts lost are made anew at the next mount"] if dropped else []
        return [*said, *([f"{again} blocks that no host has are sent again from the cache"] if again else [])]

    # ------------------------------------------------------------------ asking

    async def _survey(self) -> Survey:
        survey, expected = Survey(), self._copies.by_host()
        await self._look_for(set(expected))
        async with trio.open_nursery() as nursery:
            for node, pieces in expected.items():
                nursery.start_soon(self._ask, survey, node, pieces)
        return survey

    async def _look_for(self, nodes: set[NodeId]) -> None:
        with trio.move_on_after(SEARCH_SECONDS):
            while not nodes <= {record.node_id for record in self._network.membership.known_hosts()}:
                await self._network.membership.explore()
                await trio.sleep(_LOOK_SECONDS)

    async def _ask(self, survey: Survey, node: NodeId, pieces: Sequence[PieceId]) -> None:
        record = await self._network.membership.find_node(node)
        held: list[bool] = []
        if record is not None:
            ask = partial(self._network.links.has, record.address, pieces, deadline_seconds=ANSWER_SECONDS)
            with contextlib.suppress(RemoteError):
                held = await trio.to_thread.run_sync(ask, abandon_on_cancel=True)
        if not held:
            survey.silent[node] = len(pieces)
            return
        for piece, is_held in zip(pieces, held, strict=True):
            (survey.held if is_held else survey.missing).add(piece)

    def _silence(self, survey: Survey) -> list[Finding]:
        if not survey.silent:
            return []
        text = f"{len(survey.silent)} hosts do not answer; {sum(survey.silent.values())} copies there were not checked"
        return [Finding("silent hosts", "note", text, len(survey.silent))]

    def _missing(self, fates: dict[Fate, list[int]]) -> list[Finding]:
        found = []
        if fates["fewer"]:
            text = f"{len(fates['fewer'])} shards have lost copies at their hosts; the others are enough"
            found.append(Finding("copies", "problem", text, len(fates["fewer"]), repairable=True))
        if fates["unseen"]:
            text = f"{len(fates['unseen'])} shards have copies only on hosts that do not answer now"
            found.append(Finding("unseen shards", "lost", text + self._of_files(fates["unseen"]), len(fates["unseen"])))
        if fates["lost"]:
            text = f"{len(fates['lost'])} shards are on no host any more"
            found.append(Finding("lost shards", "lost", text + self._of_files(fates["lost"]), len(fates["lost"])))
        return found

    def _few(self, shards: Sequence[Shard]) -> list[Finding]:
        few = [shard for shard in shards if len(shard.pieces) < shard.total]
        text = f"{len(few)} shards wait for more hosts: they have fewer copies than they should"
        return [Finding("degraded shards", "note", text, len(few))] if few else []

    def _of_files(self, shards: Sequence[int]) -> str:
        paths = self._copies.files(shards)
        if not paths:
            return "; all they hold is in the cache"
        names = ", ".join(os.fsdecode(path) for path in paths[:_NAMED])
        return f": {len(paths)} files, {names}{', …' if len(paths) > _NAMED else ''}"

    # ---------------------------------------------------------------- fetching

    async def _fetched(self, shards: Sequence[Shard]) -> list[Finding]:
        unreadable: list[int] = []
        wrong: list[int] = []
        limit = trio.CapacityLimiter(FETCHES_AT_ONCE)

        async def check(shard: Shard) -> None:
            try:
                if not await self._is_right(shard.number):
                    wrong.append(shard.number)
            except LayrError:
                unreadable.append(shard.number)
            finally:
                limit.release_on_behalf_of(shard)

        async with trio.open_nursery() as nursery:
            for shard in shards:
                await limit.acquire_on_behalf_of(shard)
                nursery.start_soon(check, shard)
        found = []
        if unreadable:
            text = f"{len(unreadable)} shards could not be fetched from any host{self._of_files(unreadable)}"
            found.append(Finding("unreadable shards", "lost", text, len(unreadable)))
        if wrong:
            text = f"{len(wrong)} shards hold other bytes than the database says{self._of_files(wrong)}"
            found.append(Finding("wrong shards", "lost", text, len(wrong)))
        return found

    async def _is_right(self, number: int) -> bool:
        """Fetch a shard, which proves that a copy opens, and compare what is in it."""
        path, record = os.path.join(self._scratch, str(number)), self._catalog.shard(number)
        try:
            target = TargetPart(path, 0, 0, record.plain_bytes)
            await self._network.transfers.download(record, [target], urgent=False)
            return await trio.to_thread.run_sync(self._matches, path, self._copies.parts(number))
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _matches(self, path: str, parts: Sequence[tuple[int, bytes, int, int]]) -> bool:
        with open(path, "rb") as file:
            payload = file.read()
        digest = self._digester.digest
        return all(digest(payload[offset : offset + length]) == wanted for _content, wanted, offset, length in parts)
