"""Conversations with hosts: store, retrieve, ask, delete. Blocking, thread-safe, over pooled TLS connections.

Owns what is said and the check of every answer: the bytes are the piece, the numbers fit the question. Must not know
shards, placement or files. Callers see a few failures only: Unreachable (also: too late, no longer wanted),
HostRefused, MissingPiece, BadMessage, WrongBytes.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn, TypeVar

from layrfs.crypto import merkle
from layrfs.crypto.challenges import AnswerKind, are_proven, chosen_bytes, chosen_leaves
from layrfs.crypto.digests import Buffer
from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import BadMessage, MissingPiece, TimedOut, Unreachable, WrongBytes
from layrfs.ids import PieceId
from layrfs.model.records import HostAddress
from layrfs.network.connections import Cancellation, Connection, ConnectionPool, HostRefused
from layrfs.network.frame_stream import ConnectionEnded, Progress
from layrfs.wire import messages
from layrfs.wire.contracts import Leave, Leaving
from layrfs.wire.messages import PIECES_PER_MESSAGE, Response

__all__ = ["Cancellation", "HostLinks", "HostRefused"]

ANSWER_SECONDS = 20.0
"""For questions without a body, when the caller names no deadline."""

ResponseT = TypeVar("ResponseT")
Talk = Callable[[Connection, float], ResponseT]
"""One question and its answer on a connection, before a deadline (monotonic seconds)."""


def _nobody() -> None:
    """Nobody wants to know."""


class HostLinks:
    """Everything one process says to hosts, as one node. Thread-safe; each call has a connection to itself."""

    def __init__(self, identity: NodeIdentity, network_id: bytes) -> None:
        self._pool = ConnectionPool(identity, network_id)

    def store(
        self,
        host: HostAddress,
        piece: PieceId,
        data: Buffer,
        *,
        tenant_private: bytes,
        deadline_seconds: float,
        stall_seconds: float = ANSWER_SECONDS,
        moved: Callable[[], None] = _nobody,
        note: bytes = b"",
        cancellation: Cancellation | None = None,
    ) -> None:
        """Returns when the piece, and the note with it, is on the host's disk. `piece` must be the id of `data`.

        It may take until the deadline, but never `stall_seconds` with nothing arriving there. While bytes arrive,
        `moved` is called now and then.
        """
        request = messages.Store(piece, NodeIdentity(tenant_private).public_key, note)
        progress = partial(Progress, stall_seconds, moved)
        self._call(host, partial(_store, request, data, progress), deadline_seconds, cancellation)

    def retrieve(
        self,
        host: HostAddress,
        piece: PieceId,
        *,
        deadline_seconds: float,
        offset: int = 0,
        length: int | None = None,
        stall_seconds: float = ANSWER_SECONDS,
        arrived: Callable[[], None] = _nobody,
        cancellation: Cancellation | None = None,
    ) -> bytearray:
        """The piece, or `length` bytes of it from `offset` on (fewer where it ends), verified against its id.

        It may take until the deadline, but never `stall_seconds` with nothing arriving; `arrived` is called whenever
        something did. Raises WrongBytes when the host sent something else, MissingPiece when it has no such piece.
        """
        if length == 0:
            return bytearray()
        request = messages.Retrieve(piece, offset, length or 0)
        talk = partial(_retrieve, request, stall_seconds, arrived)
        answer, body = self._call(host, talk, deadline_seconds, cancellation)
        if length is None and offset == 0:
            return _whole(piece, body)
        return _range(piece, answer, body, offset, length)

    def prove(
        self,
        host: HostAddress,
        piece: PieceId,
        piece_bytes: int,
        nonce: bytes,
        leaves: int,
        *,
        deadline_seconds: float,
        cancellation: Cancellation | None = None,
    ) -> None:
        """Returns when the host has shown the leaves that a fresh `nonce` chooses, at most 32 of them.

        Raises MissingPiece; WrongBytes for anything but these leaves with their proofs; HostRefused; TimedOut when
        there was a connection but no answer; Unreachable.
        """
        chosen = chosen_leaves(nonce, piece, merkle.leaf_count(piece_bytes), leaves)
        talk = partial(_prove, messages.Prove(piece, nonce, leaves), piece_bytes, chosen)
        answer, body = self._call_auditing(host, talk, deadline_seconds, cancellation)
        if answer.piece_bytes != piece_bytes or not are_proven(piece, piece_bytes, chosen, body, answer.proofs):
            raise WrongBytes("a host met a challenge with bytes that are not the leaves it was asked for")

    def answer(
        self,
        host: HostAddress,
        piece: PieceId,
        salt: bytes,
        kind: AnswerKind,
        *,
        deadline_seconds: float,
        cancellation: Cancellation | None = None,
    ) -> bytes:
        """What the host says is the piece's digest under the salt. Raises what `prove` does."""
        talk = partial(_answer, messages.Answer(piece, salt, kind))
        return self._call_auditing(host, talk, deadline_seconds, cancellation)

    def has(
        self, host: HostAddress, pieces: Sequence[PieceId], *, deadline_seconds: float = ANSWER_SECONDS
    ) -> list[bool]:
        """Whether the host says it holds each of the pieces."""
        held: list[bool] = []
        for batch in _batches(pieces):
            held += self._call(host, partial(_has, batch), deadline_seconds, None)
        return held

    def delete(
        self,
        host: HostAddress,
        pieces: Sequence[PieceId],
        tenant_private: bytes,
        *,
        deadline_seconds: float = ANSWER_SECONDS,
    ) -> int:
        """Ask the host to forget pieces that were stored with this tenant key; how many it says are gone now."""
        tenant = NodeIdentity(tenant_private)
        deletes = (partial(_delete, batch, tenant) for batch in _batches(pieces))
        return sum(self._call(host, delete, deadline_seconds, None) for delete in deletes)

    def renew(
        self,
        host: HostAddress,
        pieces: Sequence[PieceId],
        tenant_private: bytes,
        *,
        deadline_seconds: float = ANSWER_SECONDS,
    ) -> list[bool]:
        """Have the lease of pieces begin anew; whether the host says it has each of them, as this tenant's."""
        tenant = NodeIdentity(tenant_private)
        renewed: list[bool] = []
        for batch in _batches(pieces):
            renewed += self._call(host, partial(_renew, batch, tenant), deadline_seconds, None)
        return renewed

    def inventory(
        self, host: HostAddress, after: PieceId, tenant_private: bytes, *, deadline_seconds: float = ANSWER_SECONDS
    ) -> messages.Listing:
        """The next pieces after an id that the host says it has of this tenant key; what it says is not proven."""
        tenant = NodeIdentity(tenant_private)
        listing = self._call(host, partial(_inventory, after, tenant), deadline_seconds, None)
        ids = [after, *(listed.piece for listed in listing.pieces)]
        through = listing.through
        if ids != sorted(set(ids)) or (through is not None and (through < ids[-1] or through == after)):
            raise BadMessage("a host listed pieces in another order than it must")
        return listing

    def put_root(self, host: HostAddress, record: bytes, *, deadline_seconds: float = ANSWER_SECONDS) -> None:
        """Returns when the host keeps this root record; raises HostRefused ("stale": it has a newer one)."""
        self._call(host, partial(_put_root, record), deadline_seconds, None)

    def get_root(self, host: HostAddress, volume: bytes, *, deadline_seconds: float = ANSWER_SECONDS) -> bytes | None:
        """The root record the host has of a volume, unverified; None when it has none."""
        try:
            return self._call(host, partial(_get_root, volume), deadline_seconds, None)
        except MissingPiece:
            return None

    def status(self, host: HostAddress, *, deadline_seconds: float = ANSWER_SECONDS) -> messages.StatusReport:
        """How a host is; answered only when these links have the host's own identity."""
        return self._call(host, _status, deadline_seconds, None)

    def leave(self, host: HostAddress, *, deadline_seconds: float = ANSWER_SECONDS) -> Leaving:
        """Have our own host take nothing new and end when nothing is due; like `status`."""
        return self._call(host, _leave, deadline_seconds, None)

    def converse(self, host: HostAddress, talk: Talk[ResponseT], *, deadline_seconds: float) -> ResponseT:
        """Any other conversation; raises what `talk` and all others do."""
        return self._call(host, talk, deadline_seconds, None)

    def close(self) -> None:
        """Close idle connections, and those in use when their calls end."""
        self._pool.close()

    def _call_auditing(
        self, host: HostAddress, talk: Talk[ResponseT], deadline_seconds: float, cancellation: Cancellation | None
    ) -> ResponseT:
        """A reply that is none is no proof."""
        try:
            return self._call(host, talk, deadline_seconds, cancellation)
        except BadMessage as error:
            raise WrongBytes(f"a host met a challenge with nonsense: {error}") from error

    def _call(
        self, host: HostAddress, talk: Talk[ResponseT], deadline_seconds: float, cancellation: Cancellation | None
    ) -> ResponseT:
        """One conversation. A pooled connection that turns out to be dead costs a second try, not a failure."""
        watch = cancellation or Cancellation()
        deadline = time.monotonic() + deadline_seconds
        try:
            connection = self._pool.take(host)
            if connection is not None:
                try:
                    return self._converse(host, connection, talk, deadline, watch)
                except (ConnectionEnded, ConnectionError, ssl.SSLError):
                    pass
            connection = self._pool.connect(host, deadline, watch)
            return self._converse(host, connection, talk, deadline, watch)
        except (ConnectionEnded, OSError) as error:
            _raise_unreachable(host, error, watch)

    def _converse(
        self, host: HostAddress, connection: Connection, talk: Talk[ResponseT], deadline: float, watch: Cancellation
    ) -> ResponseT:
        keep = False
        try:
            watch.watch(connection.socket)
            answer = talk(connection, deadline)
            keep = True
        except (HostRefused, MissingPiece):
            keep = True
            raise
        except TimeoutError as error:
            if watch.cancelled:
                raise
            raise TimedOut(f"{_place(host)} did not answer in time") from error
        finally:
            watch.release()
            if keep and not watch.cancelled:
                self._pool.give_back(host, connection)
            else:
                connection.stream.close()
        return answer


def _store(
    request: messages.Store, data: Buffer, progress: Callable[[], Progress], connection: Connection, deadline: float
) -> None:
    with connection.stream.watched(progress()):
        answer = connection.ask(request, data, deadline)
    expect(messages.Stored, *answer)


def _retrieve(
    request: messages.Retrieve,
    stall_seconds: float,
    arrived: Callable[[], None],
    connection: Connection,
    deadline: float,
) -> tuple[messages.Retrieved, bytearray]:
    answer, body_bytes = connection.ask(request, b"", min(deadline, time.monotonic() + stall_seconds))
    retrieved = expect(messages.Retrieved, answer, 0 if isinstance(answer, messages.Retrieved) else body_bytes)
    body = bytearray(body_bytes)
    connection.stream.receive_slowly_into(memoryview(body), deadline, stall_seconds, arrived)
    return retrieved, body


def _prove(
    request: messages.Prove, piece_bytes: int, chosen: Sequence[int], connection: Connection, deadline: float
) -> tuple[messages.Proven, bytearray]:
    answer, body_bytes = connection.ask(request, b"", deadline)
    proven = expect(messages.Proven, answer, 0 if isinstance(answer, messages.Proven) else body_bytes)
    if body_bytes != chosen_bytes(piece_bytes, chosen):
        raise BadMessage("it sent more or less than the leaves it was asked for")
    body = bytearray(body_bytes)
    connection.stream.receive_into(memoryview(body), deadline)
    return proven, body


def _answer(request: messages.Answer, connection: Connection, deadline: float) -> bytes:
    return expect(messages.Answered, *connection.ask(request, b"", deadline)).digest


def _has(batch: tuple[PieceId, ...], connection: Connection, deadline: float) -> tuple[bool, ...]:
    held = expect(messages.Held, *connection.ask(messages.Has(batch), b"", deadline)).held
    if len(held) != len(batch):
        raise BadMessage("a host answered for another number of pieces than it was asked")
    return held


def _delete(batch: tuple[PieceId, ...], tenant: NodeIdentity, connection: Connection, deadline: float) -> int:
    request = connection.sign_delete(batch, tenant, deadline)
    return expect(messages.Deleted, *connection.ask(request, b"", deadline)).deleted


def _renew(
    batch: tuple[PieceId, ...], tenant: NodeIdentity, connection: Connection, deadline: float
) -> tuple[bool, ...]:
    request = connection.sign_renew(batch, tenant, deadline)
    renewed = expect(messages.Renewed, *connection.ask(request, b"", deadline)).renewed
    if len(renewed) != len(batch):
        raise BadMessage("a host answered for another number of pieces than it was asked")
    return renewed


def _inventory(after: PieceId, tenant: NodeIdentity, connection: Connection, deadline: float) -> messages.Listing:
    request = connection.sign_inventory(after, tenant, deadline)
    return expect(messages.Listing, *connection.ask(request, b"", deadline))


def _put_root(record: bytes, connection: Connection, deadline: float) -> None:
    expect(messages.RootKept, *connection.ask(messages.PutRoot(), record, deadline))


def _get_root(volume: bytes, connection: Connection, deadline: float) -> bytes:
    answer, body_bytes = connection.ask(messages.GetRoot(volume), b"", deadline)
    expect(messages.RootFound, answer, 0 if isinstance(answer, messages.RootFound) else body_bytes)
    if body_bytes > messages.ROOT_LIMIT_BYTES:
        raise BadMessage("a host sent a root record that is too long")
    body = bytearray(body_bytes)
    connection.stream.receive_into(memoryview(body), deadline)
    return bytes(body)


def _status(connection: Connection, deadline: float) -> messages.StatusReport:
    return expect(messages.StatusReport, *connection.ask(messages.Status(), b"", deadline))


def _leave(connection: Connection, deadline: float) -> Leaving:
    return expect(Leaving, *connection.ask(Leave(), b"", deadline))


def expect(kind: type[ResponseT], answer: Response, body_bytes: int) -> ResponseT:
    """The answer, if it is of this kind and without a body; a refusal becomes the error it stands for.

    Raises MissingPiece, HostRefused, BadMessage.
    """
    if isinstance(answer, messages.Refused) and body_bytes == 0:
        if answer.reason == "missing":
            raise MissingPiece("the host does not have the piece")
        raise HostRefused(answer.reason)
    if not isinstance(answer, kind) or body_bytes > 0:
        raise BadMessage("a host gave an answer that does not fit the question")
    return answer


def _whole(piece: PieceId, body: bytearray) -> bytearray:
    if merkle.piece_id(body) != piece:
        raise WrongBytes("a host answered with bytes that are not the piece")
    return body


def _range(piece: PieceId, answer: messages.Retrieved, body: bytearray, offset: int, length: int | None) -> bytearray:
    if not merkle.verify(piece, answer.piece_bytes, answer.first_leaf, body, answer.proof):
        raise WrongBytes("a host answered with bytes that are not of the piece")
    start = answer.first_leaf * merkle.LEAF_BYTES
    end = answer.piece_bytes if length is None else min(answer.piece_bytes, offset + length)
    if offset >= end:
        return bytearray()
    if offset < start or end > start + len(body):
        raise WrongBytes("a host answered with another range than it was asked for")
    return body[offset - start : end - start]


def _batches(pieces: Sequence[PieceId]) -> list[tuple[PieceId, ...]]:
    return [tuple(pieces[at : at + PIECES_PER_MESSAGE]) for at in range(0, len(pieces), PIECES_PER_MESSAGE)]


def _raise_unreachable(host: HostAddress, error: Exception, watch: Cancellation) -> NoReturn:
    if watch.cancelled:
        raise Unreachable("the call is no longer wanted") from None
    if isinstance(error, TimeoutError):
        raise Unreachable(f"{_place(host)} did not answer in time") from error
    if isinstance(error, ConnectionEnded):
        raise Unreachable(f"{_place(host)} closed the connection") from error
    raise Unreachable(f"{_place(host)} cannot be reached: {error}") from error


def _place(host: HostAddress) -> str:
    return f"the host at {host.ip} port {host.port}"
