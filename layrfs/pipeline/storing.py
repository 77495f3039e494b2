"""The jobs of a worker that make pieces, and those that end with pieces on hosts: upload, top-up, discard. Blocking.

Owns the order: read, ask what is known, seal, make pieces, ask where to, send, another host where one fails.
Must not know why a host was chosen.
Invariant: a piece is in the answer only after its host said it is on disk.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

import msgspec

from layrfs.crashpoints import reached
from layrfs.crypto.digests import Buffer, shard_id
from layrfs.crypto.keys import tenant_private
from layrfs.errors import RemoteError, Unavailable, WrongBytes
from layrfs.ids import PieceId
from layrfs.model.answers import PieceAnswer
from layrfs.model.notes import PieceNote, Purpose
from layrfs.model.payables import PieceDigests, Salts, digests_of
from layrfs.model.records import HostAddress
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.pipeline.answering import new_answers
from layrfs.pipeline.coding import Piece, make_pieces
from layrfs.pipeline.fetching import fetch, outcome_of
from layrfs.pipeline.jobs import Attempt, Discard, Done, FetchPlan, Identify, Place, TopUp, Upload, Wish
from layrfs.pipeline.ports import Calls, Cancelled, Foreman, Tools
from layrfs.pipeline.sealing import Gathered, Sealed, seal
from layrfs.pipeline.transfers import PartOutcome, Slot, SourcePart, Uploaded
from layrfs.policy.finishing import stops_in
from layrfs.policy.pacing import SMALL_BYTES

STORE_DEADLINE_SECONDS = 600.0
"""For one piece on one host: 4 MiB at 7 KB/s. Hosts hang up earlier."""

STALL_SECONDS = 30.0
"""A host at which nothing arrives for so long, or that does not answer when all has, does not take the piece."""


def upload(tools: Tools, foreman: Foreman, job: Upload) -> Done:
    """Store the parts as one shard; raises Unavailable, LocalError."""
    outcomes, sealed = _sealed(tools, foreman, job.parts)
    if sealed is None:
        return Done(job.job, Uploaded(tuple(outcomes), None))
    reached("shard sealed")
    slots = [Slot(position, 0) for position in range(job.redundancy.total)]
    pieces = make_pieces(tools.mask, sealed.salt, job.redundancy, slots, sealed.data)
    record = _record(sealed, job.redundancy)
    pieces = _noted(tools, record, job.purpose, pieces)
    del sealed
    late = _Late()
    placed = _place(tools, foreman, pieces, late, together=job.together, redundancy=job.redundancy)
    if len(placed) < job.redundancy.needed:
        raise Unavailable(_too_few(len(placed), job.redundancy))
    reached("pieces placed")
    answers, digests = _answers(tools, pieces, placed, job.answers), _digests(pieces, placed)
    uploaded = Uploaded(tuple(outcomes), _with_pieces(record, [each.record for each in placed]))
    return Done(job.job, uploaded, attempts=tuple(late.attempts), answers=answers, digests=digests)


def top_up(tools: Tools, foreman: Foreman, job: TopUp, attempts: list[Attempt]) -> Done:
    """Make and place more pieces of a shard from others of it."""
    shard = job.plan.shard
    sealed = _fetched(tools, foreman, job.plan, attempts)
    pieces = make_pieces(tools.mask, shard.salt, shard.redundancy, job.slots, sealed)
    pieces = _noted(tools, shard, job.purpose, pieces)
    placed = _place(tools, foreman, pieces, _Late(), together=job.together)
    answers, digests = _answers(tools, pieces, placed, job.answers), _digests(pieces, placed)
    records = tuple(each.record for each in placed)
    return Done(job.job, pieces=records, attempts=tuple(attempts), answers=answers, digests=digests)


def identify(tools: Tools, foreman: Foreman, job: Identify, attempts: list[Attempt]) -> Done:
    """Make pieces of a shard, and tell their ids and digests."""
    shard = job.plan.shard
    sealed = _fetched(tools, foreman, job.plan, attempts)
    pieces = make_pieces(tools.mask, shard.salt, shard.redundancy, job.slots, sealed)
    digests = tuple(digests_of(salts, piece.id, piece.data) for salts, piece in zip(job.salts, pieces, strict=False))
    return Done(job.job, attempts=tuple(attempts), ids=tuple(piece.id for piece in pieces), digests=digests)


def discard(tools: Tools, job: Discard) -> Done:
    """Ask hosts to forget pieces. What cannot be reached stays: garbage costs space, never data."""
    by_host: dict[HostAddress, list[PieceId]] = {}
    for address, piece in job.pieces:
        by_host.setdefault(address, []).append(piece)
    wait([tools.hands.submit(_discard_at, tools, address, pieces) for address, pieces in by_host.items()])
    return Done(job.job)


def _fetched(tools: Tools, foreman: Foreman, plan: FetchPlan, attempts: list[Attempt]) -> Buffer:
    """The sealed shard, whose id proves it, of pieces that hosts have."""

    def checked(sealed: Buffer) -> Buffer:
        if shard_id(sealed) != plan.shard.id:
            raise WrongBytes("a piece is not of the shard it is recorded for")
        return sealed

    return fetch(tools, foreman.calls, plan, checked, attempts)


def _sealed(tools: Tools, foreman: Foreman, parts: Sequence[SourcePart]) -> tuple[list[PartOutcome], Sealed | None]:
    """A function of its own, so that the plaintext's memory is gone before the pieces need theirs."""
    outcomes, plaintext = Gathered(parts).outcomes(tools.keys, foreman.find_content)
    foreman.calls.check()
    return outcomes, seal(tools.keys, plaintext) if len(plaintext) else None


def _noted(tools: Tools, shard: ShardRecord, purpose: Purpose, pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces with what tells their owner, when all records are lost, what they are."""

    def note(piece: Piece) -> PieceNote:
        return PieceNote(shard.salt, piece.slot.position, piece.slot.generation, shard.redundancy, purpose)

    return [msgspec.structs.replace(piece, note=note(piece).sealed(tools.mask, piece.id)) for piece in pieces]


class _Placed(msgspec.Struct, frozen=True):
    """A piece that a host has now, and what it is to be digested under."""

    record: PieceRecord
    salts: Salts | None


def _digests(pieces: Sequence[Piece], placed: Sequence[_Placed]) -> tuple[PieceDigests, ...]:
    """What hosts that are paid will have to know of the pieces they took."""
    data = {piece.id: piece.data for piece in pieces}
    return tuple(digests_of(each.salts, each.record.id, data[each.record.id]) for each in placed if each.salts)


def _answers(tools: Tools, pieces: Sequence[Piece], placed: Sequence[_Placed], count: int) -> tuple[PieceAnswer, ...]:
    """What the hosts that took pieces will have to answer."""
    taken = {each.record.id for each in placed}
    made = (new_answers(tools.mask, piece.id, piece.data, count) for piece in pieces if piece.id in taken)
    return tuple(itertools.chain.from_iterable(made))


class _Late(Calls):
    """Calls that go on while a shard waits for them, and whom they were made to when it did not any more."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts: list[Attempt] = []


def _place(
    tools: Tools,
    foreman: Foreman,
    pieces: list[Piece],
    late: _Late,
    *,
    together: bool,
    redundancy: Redundancy | None = None,
) -> list[_Placed]:
    """Send every piece to a host, all at the same time or one after the other; those that found one, in order.

    With the ``redundancy`` of a whole shard, nothing is sent that would be in vain (raises Unavailable), and hosts that
    are much later than the others are not waited for.
    """
    foreman.calls.check()
    places = foreman.find_places([Wish(piece.slot, piece.id, len(piece.data)) for piece in pieces])
    if redundancy is not None and (found := sum(place is not None for place in places)) < redundancy.needed:
        raise Unavailable(_too_few(found, redundancy))
    together = together or all(len(piece.data) <= SMALL_BYTES for piece in pieces)
    sending: list[Future[_Placed | None]] = []
    for piece, place in zip(pieces, places, strict=True):
        sending.append(tools.hands.submit(_place_one, tools, foreman, piece, place, late))
        wait(sending if not together else ())
    if redundancy is not None and together:
        _await_enough(sending, redundancy)
        late.cancel()
    wait(sending)
    return [placed for sent in sending if (placed := sent.result()) is not None]


def _await_enough(sending: Sequence[Future[_Placed | None]], redundancy: Redundancy) -> None:
    """Return when all have ended, or so many well that the others are not worth waiting for."""
    started, arrived = time.monotonic(), list[float]()
    unfinished = set(sending)
    while unfinished:
        left_seconds = stops_in(redundancy, arrived, time.monotonic() - started)
        if left_seconds == 0:
            return
        done, unfinished = wait(unfinished, left_seconds, FIRST_COMPLETED)
        arrived += [time.monotonic() - started for sent in done if not sent.exception() and sent.result() is not None]


def _place_one(tools: Tools, foreman: Foreman, piece: Piece, place: Place | None, late: _Late) -> _Placed | None:
    """Offer the piece to one host after the other until one keeps it, none is left, or it is too late."""
    while place is not None:
        started, host = time.monotonic(), place.host.node_id
        try:
            _store(tools, foreman, piece, place.host, late)
        except Cancelled:  # before the host was asked: it may have been found when it was too late
            foreman.calls.check()
            return None
        except RemoteError as error:
            foreman.calls.check()
            if late.cancelled:
                late.attempts.append(Attempt(piece.id, host, "late", time.monotonic() - started))
                return None
            foreman.tried(len(piece.data), time.monotonic() - started, well=False)
            wish = Wish(piece.slot, piece.id, len(piece.data), failed=host, outcome=outcome_of(error))
            (place,) = foreman.find_places([wish])
        else:
            foreman.tried(len(piece.data), time.monotonic() - started, well=True)
            return _Placed(PieceRecord(piece.slot.position, piece.slot.generation, piece.id, host), place.salts)
    return None


def _store(tools: Tools, foreman: Foreman, piece: Piece, place: HostAddress, late: Calls) -> None:
    with foreman.calls.one() as call, late.one(call):
        tools.links.store(
            place,
            piece.id,
            piece.data,
            tenant_private=tenant_private(tools.mask, place.node_id),
            deadline_seconds=STORE_DEADLINE_SECONDS,
            stall_seconds=STALL_SECONDS,
            moved=foreman.moving,
            note=piece.note,
            cancellation=call,
        )


def _too_few(placed: int, redundancy: Redundancy) -> str:
    if redundancy.mirrors or not placed:
        return "No host took a piece of the shard."
    return f"Only {placed} hosts took a piece; {redundancy} needs {redundancy.needed} at least."


def _discard_at(tools: Tools, address: HostAddress, pieces: list[PieceId]) -> int:
    try:
        return tools.links.delete(address, pieces, tenant_private(tools.mask, address.node_id))
    except RemoteError:
        return 0


def _record(sealed: Sealed, redundancy: Redundancy) -> ShardRecord:
    return ShardRecord(sealed.id, sealed.salt, sealed.plain_bytes, len(sealed.data), redundancy, ())


def _with_pieces(record: ShardRecord, pieces: list[PieceRecord]) -> ShardRecord:
    return ShardRecord(
        record.id, record.salt, record.plain_bytes, record.sealed_bytes, record.redundancy, tuple(pieces)
    )
