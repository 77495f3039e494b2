"""``Transfers`` without workers, hosts or keys: shards are kept in a dictionary. For tests of whoever moves blocks.

Passes the contract suite of the real one (``tests/contracts/test_transfers.py``). Faults are values set on the fake:

``failure``       every call raises this error (set it back to None to heal)
``uploads_left``  after so many uploads every other raises ``Unavailable``
``lost``          shard ids whose download raises ``Unavailable``
``hosts``         how many hosts take pieces; fewer than ``total`` gives degraded shards, too few ``Unavailable``
``full``          hosts that are there and take no pieces of shards that are topped up
``delay_seconds`` every call takes this long (virtual time under trio's autojump clock)
``store_seconds`` and an upload so much longer, after it has read its parts
``hold_after_look_up`` an upload waits when it knows which bytes are stored already, until ``release()``
``hold()``        every call waits until ``release()``; ``waiting`` says how many do
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import trio

from layrfs.errors import LayrError, LocalError, Unavailable
from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.notes import CONTENT, Purpose
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.pipeline.transfers import (
    Duplicate,
    Examined,
    ExaminedPart,
    FindContent,
    PartOutcome,
    Slot,
    SourcePart,
    Stored,
    StoredPart,
    TargetPart,
    Uploaded,
    Zero,
)


def nothing_stored(_digests: Sequence[bytes]) -> Mapping[bytes, tuple[int, int]]:
    """A ``FindContent`` of an empty catalog."""
    return {}


def missing_slots(shard: ShardRecord, generation: int) -> list[Slot]:
    """The positions of a degraded shard that have no piece.

    Pieces made later are never those of the upload: hosts that it gave up on may yet be asked to forget those.
    """
    filled = {piece.position for piece in shard.pieces}
    return [Slot(position, generation) for position in range(shard.redundancy.total) if position not in filled]


@dataclass
class FakeTransfers:
    find_content: FindContent = nothing_stored
    hosts: int = 5
    failure: LayrError | None = None
    uploads_left: int | None = None
    delay_seconds: float = 0.0
    gone: set[NodeId] = field(default_factory=set)
    full: set[NodeId] = field(default_factory=set)
    store_seconds: float = 0.0
    lost: set[bytes] = field(default_factory=set)
    payloads: dict[bytes, bytes] = field(default_factory=dict)
    shards: dict[Salt, tuple[ShardRecord, tuple[ExaminedPart, ...]]] = field(default_factory=dict)
    pieces: dict[PieceId, NodeId] = field(default_factory=dict)
    """What hosts keep, and which of them."""
    uploads: list[tuple[SourcePart, ...]] = field(default_factory=list)
    purposes: dict[Salt, Purpose] = field(default_factory=dict)
    downloads: list[tuple[ShardId, bool]] = field(default_factory=list)
    top_ups: list[ShardId] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    waiting: int = 0
    hold_after_look_up: bool = False
    last_moved: float = -math.inf
    _gate: trio.Event | None = None

    def hold(self) -> None:
        """From now on calls wait, until ``release``."""
        self._gate = trio.Event()

    def release(self) -> None:
        if self._gate is not None:
            self._gate.set()
        self._gate = None

    async def upload(
        self,
        parts: Sequence[SourcePart],
        redundancy: Redundancy,
        purpose: Purpose = CONTENT,
        *,
        deduplicate: bool = True,
    ) -> Uploaded:
        self.uploads.append(tuple(parts))
        await self._pass()
        if self.uploads_left is not None:
            if not self.uploads_left:
                raise Unavailable("No host takes pieces any more.")
            self.uploads_left -= 1
        data = [_trimmed(part) for part in parts]
        known = self.find_content([_digest(piece) for piece in data if piece]) if deduplicate else {}
        if self.hold_after_look_up:
            self.hold()
            await self._wait()
        await trio.sleep(self.store_seconds)
        payload, outcomes = _arrange(data, known)
        if not payload:
            return Uploaded(tuple(outcomes), None)
        shard = self._keep(payload, redundancy)
        self.purposes[shard.salt] = purpose
        self.shards[shard.salt] = (shard, _described(parts, outcomes))
        return Uploaded(tuple(outcomes), shard)

    async def download(self, shard: ShardRecord, targets: Sequence[TargetPart], *, urgent: bool) -> None:
        self.downloads.append((shard.id, urgent))
        await self._pass()
        payload = self._payload(shard)
        for target in targets:
            _write(target, payload[target.shard_offset : target.shard_offset + target.length])

    async def examine(self, shard: ShardRecord, path: str | None = None, offset: int = 0) -> Examined:
        await self._pass()
        known, parts = self.shards[shard.salt]
        payload = self._payload(known)
        if path is not None:
            _write(TargetPart(path, offset, 0, len(payload)), payload)
        return Examined(known.id, known.plain_bytes, known.sealed_bytes, parts)

    async def top_up(
        self,
        shard: ShardRecord,
        slots: Sequence[Slot],
        purpose: Purpose = CONTENT,  # noqa: ARG002 - pieces carry no notes here
    ) -> tuple[PieceRecord, ...]:
        self.top_ups.append(shard.id)
        await self._pass()
        self._payload(shard)
        used = {piece.host for piece in shard.pieces} | self.full
        free = [host for host in self._host_ids() if host not in used]
        return self._place(_piece(shard.id, slot, host) for slot, host in zip(slots, free, strict=False))

    def living_hosts(self) -> set[NodeId]:
        """Those that take pieces and are not gone."""
        return set(self._host_ids())

    def discard(self, pieces: Sequence[PieceRecord]) -> None:
        self.drop(piece.id for piece in pieces)

    def drop(self, pieces: Iterable[PieceId]) -> None:
        """Hosts keep these no longer."""
        for piece in pieces:
            self.pieces.pop(piece, None)

    async def _pass(self) -> None:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self._wait()
        finally:
            self.running -= 1
        if self.failure is not None:
            raise self.failure

    async def _wait(self) -> None:
        await trio.sleep(self.delay_seconds)
        if self._gate is not None:
            self.waiting += 1
            try:
                await self._gate.wait()
            finally:
                self.waiting -= 1

    def _keep(self, payload: bytes, redundancy: Redundancy) -> ShardRecord:
        taking = self._host_ids()[: redundancy.total]
        if len(taking) < redundancy.needed:
            raise Unavailable("Too few hosts take pieces.")
        salt = Salt(os.urandom(16))
        shard = ShardId(_digest(salt + payload))
        self.payloads[shard] = payload
        pieces = self._place(_piece(shard, Slot(position, 0), host) for position, host in enumerate(taking))
        return ShardRecord(
            id=shard,
            salt=salt,
            plain_bytes=len(payload),
            sealed_bytes=len(payload) + 16,
            redundancy=redundancy,
            pieces=pieces,
        )

    def _payload(self, shard: ShardRecord) -> bytes:
        kept = {
            piece.position
            for piece in shard.pieces
            if self.pieces.get(piece.id) == piece.host and piece.host not in self.gone
        }
        if shard.id in self.lost or len(kept) < shard.redundancy.needed:
            raise Unavailable("No good piece of the shard can be reached.")
        return self.payloads[shard.id]

    def _place(self, pieces: Iterable[PieceRecord]) -> tuple[PieceRecord, ...]:
        placed = tuple(pieces)
        self.pieces.update((piece.id, piece.host) for piece in placed)
        return placed

    def _host_ids(self) -> list[NodeId]:
        every = [NodeId(bytes([number + 1]) * 20) for number in range(self.hosts + len(self.gone))]
        return [host for host in every if host not in self.gone]

    def lose_hosts(self) -> None:
        """All hosts go, with what they have, and as many new ones come."""
        self.gone |= set(self._host_ids())


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


def _piece(shard: ShardId, slot: Slot, host: NodeId) -> PieceRecord:
    name = _digest(shard + bytes([slot.position, slot.generation]))
    return PieceRecord(position=slot.position, generation=slot.generation, id=PieceId(name), host=host)


def _trimmed(part: SourcePart) -> bytes:
    try:
        file = os.open(part.path, os.O_RDONLY)
    except OSError as error:
        raise LocalError(f"Cannot read {part.path}: {error.strerror}.") from error
    try:
        return os.pread(file, part.length, part.offset).rstrip(b"\0")
    finally:
        os.close(file)


def _arrange(data: list[bytes], known: Mapping[bytes, tuple[int, int]]) -> tuple[bytes, list[PartOutcome]]:
    payload, placed = bytearray(), dict[bytes, StoredPart]()
    outcomes: list[PartOutcome] = []
    for piece in data:
        digest = _digest(piece)
        if not piece:
            outcomes.append(Zero())
        elif digest in known:
            outcomes.append(Duplicate(*known[digest]))
        else:
            if digest not in placed:
                placed[digest] = StoredPart(digest, len(payload), len(piece))
                payload += piece
            outcomes.append(Stored(placed[digest]))
    return bytes(payload), outcomes


def _described(parts: Sequence[SourcePart], outcomes: Sequence[PartOutcome]) -> tuple[ExaminedPart, ...]:
    """What a real shard's table says: of equal parts the first."""
    table: dict[StoredPart, SourcePart] = {}
    for part, outcome in zip(parts, outcomes, strict=True):
        if isinstance(outcome, Stored):
            table.setdefault(outcome.part, part)
    return tuple(
        ExaminedPart(part.inode, part.block, part.block_bytes, stored.digest, stored.offset, stored.length)
        for stored, part in table.items()
    )


def _write(target: TargetPart, data: bytes) -> None:
    try:
        file = os.open(target.path, os.O_WRONLY | os.O_CREAT, 0o600)
    except OSError as error:
        raise LocalError(f"Cannot write {target.path}: {error.strerror}.") from error
    try:
        os.pwrite(file, data, target.file_offset)
    finally:
        os.close(file)
