"""What an owner keeps of a piece to audit it with a hundred bytes: digests under salts that its host does not know yet.

Owns the shapes and what follows from an answer's number. Must not know where answers are kept, or who asks.
Invariant: a number is drawn at random and used once. So no two questions about a piece are ever the same, also after
the owner's records were lost, and a host that kept old answers has nothing of them.
"""

from __future__ import annotations

import hmac

import msgspec

from layrfs.crypto.challenges import AnswerKind
from layrfs.crypto.keys import answer_salt
from layrfs.ids import PieceId

NUMBER_BITS = 63
KEPT_BYTES = 16
"""Of a digest: nobody guesses so much, and there are several for each piece."""

_WHOLE_EVERY = 8


class PieceAnswer(msgspec.Struct, frozen=True):
    """What the host of a piece has to answer; the number says to what."""

    piece: PieceId
    number: int
    digest: bytes


class Question(msgspec.Struct, frozen=True):
    """What to ask a host about a piece, once, and what the answer begins with."""

    piece: PieceId
    salt: bytes
    kind: AnswerKind
    expected: bytes

    def is_met_by(self, digest: bytes) -> bool:
        """Whether this is the answer of somebody who has the piece."""
        return hmac.compare_digest(digest[:KEPT_BYTES], self.expected)


def question(mask: bytes, answer: PieceAnswer) -> Question:
    """The question that an answer belongs to; only the number was kept of it."""
    salt = answer_salt(mask, answer.piece, answer.number)
    return Question(answer.piece, salt, kind_of(answer.number), answer.digest)


def kind_of(number: int) -> AnswerKind:
    """One in eight is about the whole piece, which costs ten times as much to make and to answer."""
    return "leaves" if number % _WHOLE_EVERY else "whole"
