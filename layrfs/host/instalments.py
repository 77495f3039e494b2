"""A host's answer to an instalment, made from the bytes on its disk now.

Owns the reading. Must not know money, locks or the ledger. Blocking, for a thread of its own: a contract may have
hundreds of GiB here. Invariant: it takes at most a share of the time, so those who are served hardly notice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

from layrfs.crypto.challenges import answer_leaves, digest_of_selected
from layrfs.crypto.instalments import answer, batch_digest, kind_of, piece_digest
from layrfs.errors import MissingPiece
from layrfs.ids import PieceId
from layrfs.storage.piece_file import PieceHead

SHARE = 0.5
"""Of the time that reading takes; the rest of it is the serving threads'."""


class Holdings(Protocol):
    """What this needs of `layrfs.storage.piece_store.PieceStore`, which says what each means."""

    def head(self, piece: PieceId) -> PieceHead | None: ...
    def read(self, piece: PieceId) -> bytes | None: ...
    def read_unverified(self, piece: PieceId, choose: Callable[[int], Sequence[int]]) -> tuple[int, bytes] | None: ...


def answer_from_disk(
    holdings: Holdings,
    contract_id: bytes,
    instalment: int,
    salt: bytes,
    batches: Iterable[Sequence[PieceId]],
    rest: Callable[[float], object] = time.sleep,
) -> bytes:
    """The 32 bytes that should open the instalment; `batches` are those it is about. Raises MissingPiece.

    Only the first instalment reads whole pieces. `rest` is called with seconds after each piece.
    """
    digests = [
        batch_digest(salt, [_digest(holdings, salt, instalment, piece, rest) for piece in batch]) for batch in batches
    ]
    return answer(salt, contract_id, instalment, digests)


def are_whole(
    holdings: Holdings, batches: Iterable[Sequence[PieceId]], rest: Callable[[float], object] = time.sleep
) -> bool:
    """Whether all pieces are what they are called: when an answer does not fit, this says whose fault it is."""
    for piece in (piece for batch in batches for piece in batch):
        started = time.monotonic()
        if holdings.read(piece) is None:
            return False
        rest((time.monotonic() - started) * (1 / SHARE - 1))
    return True


def held_bytes(holdings: Holdings, tenant: bytes, pieces: Iterable[PieceId]) -> int:
    """Of the pieces all together. Raises MissingPiece when one is not here, or another tenant's."""
    total = 0
    for piece in pieces:
        head = holdings.head(piece)
        if head is None or head.tenant != tenant:
            raise MissingPiece("a piece that is to be covered is not here")
        total += head.length
    return total


def _digest(holdings: Holdings, salt: bytes, instalment: int, piece: PieceId, rest: Callable[[float], object]) -> bytes:
    started = time.monotonic()
    digest = _whole(holdings, salt, piece) if kind_of(instalment) == "whole" else _leaves(holdings, salt, piece)
    if digest is None:
        raise MissingPiece("a piece of the contract is not here any more")
    rest((time.monotonic() - started) * (1 / SHARE - 1))
    return digest


def _whole(holdings: Holdings, salt: bytes, piece: PieceId) -> bytes | None:
    data = holdings.read(piece)
    return None if data is None else piece_digest(salt, 0, piece, data)


def _leaves(holdings: Holdings, salt: bytes, piece: PieceId) -> bytes | None:
    found = holdings.read_unverified(piece, partial(answer_leaves, salt, piece))
    return None if found is None else digest_of_selected(salt, *found)
