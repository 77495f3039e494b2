"""A host's answer to an instalment, made from the bytes on its disk now.

Owns the reading. Must not know money, locks or the ledger. Blocking, for a thread of its own: a contract may have
hundreds of GiB here. Invariant: it takes at most a share of the time, so those who are served hardly notice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from layrfs.crypto.challenges import answer_leaves, digest_of_selected
from layrfs.crypto.instalments import kind_of, piece_digest
from layrfs.errors import MissingPiece
from layrfs.ids import PieceId
from layrfs.model.contracts import paid_bytes
from layrfs.storage.piece_file import PieceHead

SHARE = 0.5
"""Of the time that reading takes; the rest of it is the serving threads'."""


ResultT = TypeVar("ResultT")


class Holdings(Protocol):
    """What this needs of `layrfs.storage.piece_store.PieceStore`, which says what each means."""

    def head(self, piece: PieceId) -> PieceHead | None: ...
    def read(self, piece: PieceId) -> bytes | None: ...
    def read_unverified(self, piece: PieceId, choose: Callable[[int], Sequence[int]]) -> tuple[int, bytes] | None: ...


def digests_of_some(
    holdings: Holdings,
    instalment: int,
    salt: bytes,
    pieces: Sequence[PieceId],
    seconds: float,
    rest: Callable[[float], object] = time.sleep,
) -> list[bytes]:
    """The parts of the answer of the first of these pieces: as many as there is time for, one at least.

    Only the first instalment reads whole pieces. `rest` is called with seconds after each. Raises MissingPiece.
    """
    read = _whole if kind_of(instalment) == "whole" else _leaves
    return _of_some(pieces, seconds, rest, lambda piece: read(holdings, salt, piece))


def read_some(
    holdings: Holdings, pieces: Sequence[PieceId], seconds: float, rest: Callable[[float], object] = time.sleep
) -> list[int]:
    """The lengths of the first of these pieces, as above; raises MissingPiece when one is not what it is called: when
    an answer does not fit, this says whose fault it is."""
    return _of_some(pieces, seconds, rest, lambda piece: _length(holdings.read(piece)))


def held_bytes(holdings: Holdings, tenant: bytes, pieces: Iterable[PieceId]) -> int:
    """Of the pieces all together, as they count. Raises MissingPiece when one is not here, or another tenant's."""
    total = 0
    for piece in pieces:
        head = holdings.head(piece)
        if head is None or head.tenant != tenant:
            raise MissingPiece("a piece that is to be covered is not here")
        total += paid_bytes(head.length)
    return total


def _of_some(
    pieces: Sequence[PieceId],
    seconds: float,
    rest: Callable[[float], object],
    each: Callable[[PieceId], ResultT | None],
) -> list[ResultT]:
    found, ends = list[ResultT](), time.monotonic() + seconds
    for piece in pieces:
        started = time.monotonic()
        result = each(piece)
        if result is None:
            raise MissingPiece("a piece of the contract is not here any more")
        found.append(result)
        rest((time.monotonic() - started) * (1 / SHARE - 1))
        if time.monotonic() >= ends:
            break
    return found


def _length(data: bytes | None) -> int | None:
    return None if data is None else len(data)


def _whole(holdings: Holdings, salt: bytes, piece: PieceId) -> bytes | None:
    data = holdings.read(piece)
    return None if data is None else piece_digest(salt, 0, piece, data)


def _leaves(holdings: Holdings, salt: bytes, piece: PieceId) -> bytes | None:
    found = holdings.read_unverified(piece, partial(answer_leaves, salt, piece))
    return None if found is None else digest_of_selected(salt, *found)
