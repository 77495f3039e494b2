"""Answers that hosts will have to give: the table ``local_answer``.

Owns its rows. Must not know how answers are made or asked for. A row names its piece by the first bytes of its id, so
it can never be taken for one of another piece that has the same place now; rows of pieces that go, go with them by the
triggers of ``schema``. (What stays are a few rows of pieces that were not recorded after all: a crash, two patchers.)
Invariant: an answer is given out once.
"""

from __future__ import annotations

from collections.abc import Iterable

from layrfs.ids import PieceId, ShardId
from layrfs.model.answers import PieceAnswer, Question, question
from layrfs.storage.database import Database

_NAME_BYTES = 8


class KeptAnswers:
    """Plain code on the trio thread, in the open transaction."""

    def __init__(self, database: Database, mask: bytes, per_piece: int) -> None:
        """``per_piece``: how many there should be; 0: none are made."""
        self._database = database
        self._mask = mask
        self.per_piece = per_piece

    def lacking(self, shard: ShardId, piece: PieceId) -> int:
        """How many more answers about a piece of the shard should be made when its bytes are at hand."""
        if self.per_piece == 0 or self._database.value("SELECT 1 FROM shard WHERE id = ?", (shard,)) is None:
            return 0
        kept: int = self._database.value("SELECT count(*) FROM local_answer WHERE piece = ?", (_name(piece),))
        return max(0, self.per_piece - kept)

    def keep(self, answers: Iterable[PieceAnswer]) -> None:
        """From now on these can be asked for."""
        rows = ((_name(answer.piece), answer.number, answer.digest) for answer in answers)
        self._database.write_many("INSERT OR REPLACE INTO local_answer(piece, number, digest) VALUES(?, ?, ?)", rows)

    def forget(self, pieces: Iterable[PieceId]) -> None:
        """Of pieces that are dropped before they were ever on record."""
        self._database.write_many("DELETE FROM local_answer WHERE piece = ?", ((_name(piece),) for piece in pieces))

    def take(self, piece: PieceId) -> Question | None:
        """Something to ask the piece's host, which is never given out again; None when there is nothing left."""
        row = self._database.row(
            "SELECT number, digest FROM local_answer WHERE piece = ? ORDER BY number LIMIT 1", (_name(piece),)
        )
        if row is None:
            return None
        self._database.write("DELETE FROM local_answer WHERE piece = ? AND number = ?", (_name(piece), row[0]))
        return question(self._mask, PieceAnswer(piece, row[0], row[1]))


def _name(piece: PieceId) -> bytes:
    return piece[:_NAME_BYTES]
