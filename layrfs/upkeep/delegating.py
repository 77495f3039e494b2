"""Nodes that look after the volume while its owner is away are told what there is, and asked what they did.

Owns the conversation with each: first what it made is merged, then it gets the buckets it knows otherwise, and last it
hears for how long this machine is there. Must not know how a piece is proven. Invariants: a delegate is told nothing of
a bucket while something it made of it waits for a host's proof, because what it is not told of it gives up; one that
said what was not so is believed nothing more until it is asked anew.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Protocol, TypeVar

import trio

from layrfs.errors import LayrError, MissingPiece, NotFound, ReadOnly, Refused, RemoteError
from layrfs.ids import NodeId, VolumeId
from layrfs.model.patch_records import is_signed
from layrfs.storage.changes import ChangeLog
from layrfs.storage.database import Database
from layrfs.storage.delegates import Delegates, Delegation, Metadata, all_digests, bucket_body
from layrfs.upkeep.merging import Merged, Merger
from layrfs.wire.delegation import (
    UNSIGNED,
    Delegate,
    Delegated,
    DelegationRequest,
    Entrust,
    Entrusted,
    GetPatches,
    Patches,
    PatchRecord,
    Revoke,
    Revoked,
    bucket_of,
)

FIRST_SECONDS = 20.0
"""After the start: hosts are to be known by then, and prove what they have."""

INTERVAL_SECONDS = 300.0
PRESENT_SECONDS = 900
"""For so long a delegate rests after it last heard of us: two conversations may fail."""

MOST_RECORDS = 1 << 20
"""Of one round: a delegate that always has more cannot keep us for ever."""

_START = bytes(32)
_SAY_SO = "what it says it did is not so, and nothing of it is believed; revoke it, or delegate again to try once more"

AnswerT = TypeVar("AnswerT")

_log = logging.getLogger(__name__)


class DelegateAsker(Protocol):
    """How delegates are reached; ``layrfs.app.delegating``'s, or a fake. Raises ``RemoteError``s."""

    async def ask(self, node: NodeId, request: DelegationRequest, kind: type[AnswerT], body: bytes = b"") -> AnswerT:
        """Sign the request for this node; its answer, of this kind."""
        ...


class Delegator:
    """One volume's; ``run`` once."""

    def __init__(
        self,
        *,
        database: Database,
        volume: VolumeId,
        network_id: bytes,
        mask: bytes,
        asker: DelegateAsker,
        merger: Merger,
        metadata: Callable[[], Metadata],
        may_write: Callable[[], bool],
        patch_after_seconds: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``may_write``: whether this machine still speaks for the volume; it is silent otherwise.

        ``metadata``: the shards of the newest version's lists and of those of all retained ones."""
        self._database = database
        self._volume = volume
        self._network_id = network_id
        self._mask = mask
        self._asker = asker
        self._merger = merger
        self._metadata = metadata
        self._may_write = may_write
        self._patch_after_seconds = math.ceil(patch_after_seconds)
        self._now = now
        self._delegates = Delegates(database)
        self._changes = ChangeLog(database)
        self._digested: tuple[Metadata, bytes] | None = None
        """Of the newest published version, known by its own shards; what changed since would be pending."""
        self._talking = trio.Lock()

    async def run(self) -> None:
        """Until cancelled."""
        await trio.sleep(FIRST_SECONDS)
        while True:
            for delegate in self._delegates.all():
                try:
                    await self._talk(delegate.node)
                except LayrError as error:
                    _log.info("delegate %s was not told: %s", delegate.node.hex()[:12], error)
            await trio.sleep(INTERVAL_SECONDS)

    @property
    def delegates(self) -> list[Delegation]:
        """All, and how it went last."""
        return self._delegates.all()

    @property
    def problem(self) -> str | None:
        """Who is not to be trusted, in a sentence."""
        liars = [delegate.node.hex()[:12] for delegate in self._delegates.all() if delegate.lies]
        return f"delegate {', '.join(liars)}: {_SAY_SO}" if liars else None

    async def begin(self, node: NodeId, seconds: int) -> None:
        """Have a node look after the volume, or go on with it, for so long after it last hears of us; all is told.

        Raises ``RemoteError``, ``ReadOnly``. A node that is not there or does not want to has learned nothing and is
        none then.
        """
        if not self._may_write():
            raise ReadOnly("Another machine writes to the volume now; delegate there.")
        with contextlib.suppress(MissingPiece):
            await self._asker.ask(node, GetPatches(self._volume, _START, UNSIGNED), Patches)
        self._delegates.put(node, seconds)
        await self._database.sync()
        await self._talk(node)
        await self._database.sync()

    async def revoke(self, node: NodeId) -> bool:
        """Have it forget the volume; False when it could not be told. Raises ``NotFound``."""
        if self._delegates.find(node) is None:
            raise NotFound("There is no such delegate (layrfs delegate --list shows them).")
        async with self._talking:
            told = True
            try:
                await self._asker.ask(node, Revoke(self._volume, UNSIGNED), Revoked)
            except MissingPiece:
                pass
            except RemoteError as error:
                _log.info("delegate %s was not told that it is none: %s", node.hex()[:12], error)
                told = False
            self._delegates.remove(node)
            await self._database.sync()
        return told

    async def leave(self) -> None:
        """Tell all of them what there is, and that this machine goes. Raises nothing; the caller bounds it in time.

        What they made meanwhile waits for the next time: proofs take long.
        """
        async with trio.open_nursery() as nursery:
            for delegate in self._delegates.all():
                nursery.start_soon(self._leave, delegate.node)

    async def _leave(self, node: NodeId) -> None:
        delegate = self._delegates.find(node)
        if delegate is None or delegate.lies:
            return
        try:
            async with self._talking:
                until = await self._tell(delegate, await self._claimed(node))
                await self._hello(node, until, 0)
        except LayrError as error:
            _log.info("delegate %s does not know that this machine goes: %s", node.hex()[:12], error)

    async def _talk(self, node: NodeId) -> None:
        """All that is to be said. Raises ``RemoteError``, ``LocalError``."""
        async with self._talking:
            delegate = self._delegates.find(node)
            if delegate is None or not self._may_write():
                return
            try:
                if delegate.lies:
                    raise Refused(f"the delegate {node.hex()[:12]}: {_SAY_SO}")
                await self._tell(delegate, await self._merge(node))
            except RemoteError as error:
                self._delegates.failed(node, str(error))
                raise

    async def _tell(self, delegate: Delegation, unsettled: Collection[int]) -> int:
        """What has changed, but for some buckets; until when the delegate goes on, if it hears no more of us."""
        until = int(self._now()) + delegate.seconds
        for bucket in await self._hello(delegate.node, until, PRESENT_SECONDS):
            if bucket not in unsettled:
                await self._entrust(delegate.node, bucket)
        self._delegates.heard(delegate.node, int(self._now()))
        return until

    async def _hello(self, node: NodeId, until: int, present_seconds: int) -> tuple[int, ...]:
        digests = await self._digests()
        request = Delegate(self._volume, self._mask, until, present_seconds, self._patch_after_seconds, UNSIGNED)
        return (await self._asker.ask(node, request, Delegated, digests)).wanted

    async def _digests(self) -> bytes:
        """Of all buckets. A million shards take 17 s of a core (100,000 measured), so not while all is as it was."""
        self._database.commit()
        metadata, is_published = self._metadata(), not self._changes.has_pending()
        if self._digested is not None and is_published and self._digested[0] == metadata:
            return self._digested[1]
        digests = await trio.to_thread.run_sync(all_digests, self._database.path, metadata)
        self._digested = (metadata, digests) if is_published else None
        return digests

    async def _entrust(self, node: NodeId, bucket: int) -> None:
        self._database.commit()
        read = partial(bucket_body, self._database.path, self._metadata(), bucket)
        body = await trio.to_thread.run_sync(read)
        await self._asker.ask(node, Entrust(self._volume, bucket, UNSIGNED), Entrusted, body)

    # -------------------------------------------------------------------- merging

    async def _merge(self, node: NodeId) -> Collection[int]:
        """The buckets of which something is not settled yet. Raises ``RemoteError``, ``LocalError``."""
        unsettled: set[int] = set()

        async def merge(records: Sequence[PatchRecord]) -> None:
            merged = await self._merger.merge(records)
            self._say(node, merged)
            if merged.lies:
                self._believe_no_more(node)
            unsettled.update(bucket_of(shard) for shard in merged.unsettled)

        await self._read(node, merge)
        return unsettled

    async def _claimed(self, node: NodeId) -> Collection[int]:
        """The buckets of which it made something."""
        claimed: set[int] = set()

        async def note(records: Sequence[PatchRecord]) -> None:
            claimed.update(bucket_of(record.shard) for record in records)

        await self._read(node, note)
        return claimed

    async def _read(self, node: NodeId, hear: Callable[[Sequence[PatchRecord]], Awaitable[None]]) -> None:
        """What the delegate says it made, signed by it. One that knows nothing of the volume yet has made nothing."""
        after, seen, more = _START, 0, True
        while more and seen < MOST_RECORDS:
            try:
                page = await self._asker.ask(node, GetPatches(self._volume, after, UNSIGNED), Patches)
            except MissingPiece:
                return
            records = self._checked(node, page, after)
            await hear(records)
            more = page.more and bool(records)
            after, seen = records[-1].shard if records else after, seen + len(records)

    def _checked(self, node: NodeId, page: Patches, after: bytes) -> tuple[PatchRecord, ...]:
        """The records, if they are this node's, of this volume, and in order."""
        shards = [record.shard for record in page.records]
        is_in_order = shards == sorted(shards) and all(shard > after for shard in shards)
        ours = all(record.volume == self._volume for record in page.records)
        if not (ours and is_in_order and all(self._is_signed(node, page, record) for record in page.records)):
            self._believe_no_more(node)
        return page.records

    def _is_signed(self, node: NodeId, page: Patches, record: PatchRecord) -> bool:
        return is_signed(record, node, page.public_key, self._network_id)

    def _believe_no_more(self, node: NodeId) -> None:
        self._delegates.lied(node)
        _log.warning("Delegate %s: %s", node.hex()[:12], _SAY_SO)
        raise Refused(f"the delegate {node.hex()[:12]}: {_SAY_SO}")

    def _say(self, node: NodeId, merged: Merged) -> None:
        if merged.taken or merged.left:
            said = node.hex()[:12], merged.taken, merged.left
            _log.info("delegate %s made %d pieces that are ours now, and %d that nothing needs", *said)
