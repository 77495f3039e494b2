"""Making the answers that the host of a piece will have to give, while the piece's bytes are at hand.

Owns that step of storing and fetching. Must not know where answers are kept (``layrfs.storage.answers``).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Protocol

from layrfs.crypto.challenges import answer_digest
from layrfs.crypto.digests import Buffer
from layrfs.crypto.keys import answer_salt
from layrfs.ids import PieceId, ShardId
from layrfs.model.answers import KEPT_BYTES, NUMBER_BITS, PieceAnswer, kind_of


def new_answers(mask: bytes, piece: PieceId, data: Buffer, count: int) -> list[PieceAnswer]:
    """So many answers about a piece, whose (masked) bytes are ``data``."""
    return [_answer(mask, piece, data, secrets.randbits(NUMBER_BITS)) for _ in range(count)]


def _answer(mask: bytes, piece: PieceId, data: Buffer, number: int) -> PieceAnswer:
    digest = answer_digest(answer_salt(mask, piece, number), piece, data, kind_of(number))
    return PieceAnswer(piece, number, digest[:KEPT_BYTES])


class AnswerBook(Protocol):
    """Where answers are kept; called on the trio thread, so quick."""

    @property
    def per_piece(self) -> int:
        """How many to make of each new piece of content."""
        ...

    def lacking(self, shard: ShardId, piece: PieceId) -> int:
        """How many to make of a piece that is fetched."""
        ...

    def keep(self, answers: Iterable[PieceAnswer]) -> None:
        """They were made."""
        ...

    def forget(self, pieces: Iterable[PieceId]) -> None:
        """Hosts are asked to drop these pieces."""
        ...


class NoAnswers:
    """For who audits nothing."""

    per_piece = 0

    def lacking(self, _shard: ShardId, _piece: PieceId) -> int:
        """None."""
        return 0

    def keep(self, _answers: Iterable[PieceAnswer]) -> None:
        """There are none."""

    def forget(self, _pieces: Iterable[PieceId]) -> None:
        """There are none."""
