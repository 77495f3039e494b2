"""Nodes that look after the volume while its owner is away are told what there is, and asked what they did.

Owns the conversation with each: first it hears that this machine is there, then what it made is merged, last it gets
the buckets it knows otherwise. Must not know how a piece is proven. Invariants: a delegate is told nothing of
a bucket while something it made of it waits for a host's proof, because what it is not told of it gives up, nor when it
has worked since it was asked what it made; one that said what was not so is believed nothing more until it is asked
anew; none is told the keys while or after it is revoked.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import defaultdict
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
from layrfs.upkeep.conversing import Line
from layrfs.upkeep.merging import Merged, Merger
from layrfs.wire.delegation import (
    DIGESTS_BYTES,
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

MOST_REFUSALS = 8
"""After so many buckets that a delegate did not take it would not take the others."""

_START = bytes(32)
_NO_DIGESTS = bytes(DIGESTS_BYTES)
"""Of who only says that it is there, or goes: which buckets are wanted is asked when all is merged."""

_NONE = "There is no such delegate (layrfs delegate --list shows them)."
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
        self._lines: defaultdict[NodeId, Line] = defaultdict(lambda: Line(now))
        self._merging = trio.Lock()
        self._goes = False

    async def run(self) -> None:
        """Until cancelled. All delegates at once: merging takes hours, and meanwhile each has to hear of us."""
        await trio.sleep(FIRST_SECONDS)
        async with trio.open_nursery() as nursery:
            while True:
                for delegate in self._delegates.all():
                    nursery.start_soon(self._visit, delegate.node)
                await trio.sleep(INTERVAL_SECONDS)

    async def _visit(self, node: NodeId) -> None:
        """Who is talked to for long hears that we are still there."""
        line = self._lines[node]
        if self._goes or line.greeting.locked():
            return
        try:
            if line.talking.locked():
                await self._greet(node)
            else:
                await self._talk(node)
        except LayrError as error:
            _log.info("delegate %s was not told: %s", node.hex()[:12], error)

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
        is_new = self._delegates.find(node) is None
        self._delegates.put(node, seconds)
        await self._database.sync()
        try:
            await self._greet(node)
        except Refused:
            if is_new:
                self._delegates.remove(node)
            raise
        self._lines[node].break_off()
        await self._talk(node)
        await self._database.sync()

    async def revoke(self, node: NodeId) -> bool:
        """Have it forget the volume; False when it could not be told. Raises ``NotFound``."""
        line = self._lines[node]
        line.break_off()
        async with line.greeting:
            if self._delegates.find(node) is None:
                raise NotFound(_NONE)
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
        self._goes = True
        async with trio.open_nursery() as nursery:
            for delegate in self._delegates.all():
                if not delegate.lies:
                    nursery.start_soon(self._leave, delegate.node)

    async def _leave(self, node: NodeId) -> None:
        line = self._lines[node]
        line.break_off()
        try:
            await line.talk(partial(self._take_leave, node))
        except LayrError as error:
            _log.info("delegate %s does not know that this machine goes: %s", node.hex()[:12], error)

    async def _take_leave(self, node: NodeId) -> None:
        await self._greet(node)
        self._lines[node].began()
        try:
            await self._tell(node, await self._claimed(node))
        finally:
            await self._hello(node, 0, _NO_DIGESTS)

    async def _talk(self, node: NodeId) -> None:
        """All that is to be said. Raises ``RemoteError``, ``LocalError``, ``NotFound``."""
        await self._lines[node].talk(partial(self._say_all, node))

    async def _say_all(self, node: NodeId) -> None:
        delegate = self._delegates.find(node)
        if delegate is None or not self._may_write():
            return
        try:
            if delegate.lies:
                raise Refused(f"the delegate {node.hex()[:12]}: {_SAY_SO}")
            await self._greet(node)
            self._lines[node].began()
            await self._tell(node, await self._merge(node))
        except RemoteError as error:
            self._delegates.failed(node, str(error))
            raise

    async def _tell(self, node: NodeId, unsettled: Collection[int]) -> None:
        """What has changed, but for some buckets. Of what is refused the rest hears nothing, and it is tried again."""
        refusals: list[Refused] = []
        metadata = self._metadata()
        for bucket in await self._hello(node, PRESENT_SECONDS, await self._digests(metadata)):
            if bucket in unsettled:
                continue
            self._lines[node].check_rests()
            try:
                await self._entrust(node, bucket, metadata)
            except Refused as error:
                _log.info("delegate %s did not take bucket %d: %s", node.hex()[:12], bucket, error)
                refusals.append(error)
            if len(refusals) >= MOST_REFUSALS:
                break
        if refusals:
            raise refusals[-1]
        self._delegates.heard(node, int(self._now()))

    async def _greet(self, node: NodeId) -> None:
        """This machine is there: whatever the delegate is at can wait."""
        await self._hello(node, PRESENT_SECONDS, _NO_DIGESTS)

    async def _hello(self, node: NodeId, present_seconds: int, digests: bytes) -> tuple[int, ...]:
        """The buckets that it knows otherwise. Raises ``NotFound`` when it is no delegate by now."""
        line = self._lines[node]
        async with line.greeting:
            delegate = self._delegates.find(node)
            if delegate is None:
                raise NotFound(_NONE)
            now = self._now()
            until = int(now) + delegate.seconds
            request = Delegate(self._volume, self._mask, until, present_seconds, self._patch_after_seconds, UNSIGNED)
            answer = await self._asker.ask(node, request, Delegated, digests)
            line.greeted(now + present_seconds)
        return answer.wanted

    async def _digests(self, metadata: Metadata) -> bytes:
        """Of all buckets. A million shards take 17 s of a core (100,000 measured), so not while all is as it was."""
        self._database.commit()
        is_published = not self._changes.has_pending()
        if self._digested is not None and is_published and self._digested[0] == metadata:
            return self._digested[1]
        digests = await trio.to_thread.run_sync(all_digests, self._database.path, metadata)
        self._digested = (metadata, digests) if is_published else None
        return digests

    async def _entrust(self, node: NodeId, bucket: int, metadata: Metadata) -> None:
        self._database.commit()
        read = partial(bucket_body, self._database.path, metadata, bucket)
        body = await trio.to_thread.run_sync(read)
        await self._asker.ask(node, Entrust(self._volume, bucket, UNSIGNED), Entrusted, body)

    # -------------------------------------------------------------------- merging

    async def _merge(self, node: NodeId) -> Collection[int]:
        """The buckets of which something is not settled yet. Raises ``RemoteError``, ``LocalError``."""
        unsettled: set[int] = set()

        async def merge(records: Sequence[PatchRecord]) -> None:
            async with self._merging:
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
