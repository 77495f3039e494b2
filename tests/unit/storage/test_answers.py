"""Answers that hosts owe: asked once, of the right piece, gone with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from layrfs.crypto.challenges import answer_digest
from layrfs.crypto.keys import answer_salt
from layrfs.crypto.merkle import piece_id
from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.answers import PieceAnswer, kind_of
from layrfs.model.redundancy import Redundancy
from layrfs.model.shards import PieceRecord, ShardRecord
from layrfs.pipeline.answering import new_answers
from layrfs.storage.answers import KeptAnswers
from layrfs.storage.content import Catalog
from layrfs.storage.database import Database
from layrfs.storage.pieces import Pieces

MASK, HOST = bytes(range(32)), NodeId(bytes(20))
DATA = bytes(range(256)) * 1000
PIECE = piece_id(DATA)
OTHER = PieceId(bytes([7]) * 32)


def record(piece: PieceId = PIECE, generation: int = 0) -> PieceRecord:
    return PieceRecord(position=0, generation=generation, id=piece, host=HOST)


SHARD = ShardRecord(ShardId(bytes(32)), Salt(bytes(16)), 1, 1, Redundancy(1, 2), (record(),))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(f"{tmp_path}/metadata.db") as database:
        yield database


@pytest.fixture
def answers(database: Database) -> KeptAnswers:
    return KeptAnswers(database, MASK, 4)


def made(piece: PieceId = PIECE, count: int = 4) -> list[PieceAnswer]:
    return new_answers(MASK, piece, DATA, count)


def rows(database: Database) -> int:
    count: int = database.value("SELECT count(*) FROM local_answer")
    return count


def test_every_answer_is_asked_for_once_and_met_by_who_has_the_piece(answers: KeptAnswers) -> None:
    answers.keep(made(count=9))
    asked = [question for _ in range(9) if (question := answers.take(PIECE)) is not None]
    assert len({question.salt for question in asked}) == 9
    for question in asked:
        assert question.is_met_by(answer_digest(question.salt, PIECE, DATA, question.kind))
        assert not question.is_met_by(answer_digest(question.salt, PIECE, DATA[1:], question.kind))
        assert not question.is_met_by(answer_digest(bytes(32), PIECE, DATA, question.kind))
    assert answers.take(PIECE) is None


def test_answers_stay_with_their_piece(answers: KeptAnswers) -> None:
    answers.keep([*made(count=1), *made(OTHER, count=1)])
    asked = answers.take(OTHER)
    assert asked is not None
    assert asked.piece == OTHER
    assert answers.take(OTHER) is None
    assert answers.take(PIECE) is not None


def test_what_is_lacking(answers: KeptAnswers, database: Database) -> None:
    assert answers.lacking(SHARD.id, PIECE) == 0, "of a shard that nobody knows"
    Catalog(database).add_shard(SHARD)
    assert answers.lacking(SHARD.id, PIECE) == 4
    answers.keep(made(count=3))
    assert answers.lacking(SHARD.id, PIECE) == 1
    answers.take(PIECE)
    assert answers.lacking(SHARD.id, PIECE) == 2
    answers.keep(made(count=9))
    assert answers.lacking(SHARD.id, PIECE) == 0
    assert KeptAnswers(database, MASK, 0).lacking(SHARD.id, OTHER) == 0


def test_answers_go_with_a_piece_that_is_dropped(answers: KeptAnswers, database: Database) -> None:
    other = PieceRecord(position=1, generation=0, id=OTHER, host=NodeId(bytes([1]) * 20))
    pieces = Pieces(database)
    Catalog(database).add_shard(msgspec.structs.replace(SHARD, pieces=(record(), other)))
    answers.keep([*made(), *made(OTHER)])
    pieces.drop(SHARD.id, PIECE)
    assert answers.take(PIECE) is None
    assert rows(database) == 4


def test_answers_go_with_a_piece_that_is_never_recorded(answers: KeptAnswers, database: Database) -> None:
    answers.keep([*made(), *made(OTHER)])
    answers.forget([OTHER])
    assert rows(database) == 4
    assert answers.take(OTHER) is None


def test_answers_go_with_a_piece_that_is_replaced_and_stay_when_it_is_recorded_again(
    answers: KeptAnswers, database: Database
) -> None:
    pieces = Pieces(database)
    number = Catalog(database).add_shard(SHARD)
    answers.keep(made())
    pieces.put(number, [record()])
    assert rows(database) == 4
    answers.keep(made(OTHER, count=2))
    pieces.put(number, [record(OTHER, generation=1)])
    assert rows(database) == 2
    assert answers.take(PIECE) is None
    assert answers.take(OTHER) is not None


def test_one_answer_in_eight_is_about_the_whole_piece() -> None:
    kinds = [kind_of(answer.number) for answer in made(count=400)]
    assert 15 < kinds.count("whole") < 110


def test_salts_differ_by_piece_number_and_owner() -> None:
    salts = [answer_salt(MASK, PIECE, 1), answer_salt(MASK, PIECE, 2), answer_salt(MASK, OTHER, 1)]
    assert len({*salts, answer_salt(bytes(32), PIECE, 1)}) == 4
