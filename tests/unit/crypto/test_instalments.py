"""The answer to an instalment changes with everything it is bound to, and with every byte it asks for."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from layrfs.crypto import challenges, instalments, merkle
from layrfs.ids import PieceId

SALT, CONTRACT = bytes(range(32)), bytes([9]) * 32
digests = st.binary(min_size=32, max_size=32)
batches = st.lists(st.lists(digests, max_size=4), max_size=4)


def answered(salt: bytes, contract_id: bytes, instalment: int, pieces: list[list[bytes]]) -> bytes:
    made = [instalments.batch_digest(salt, batch) for batch in pieces]
    return instalments.answer(salt, contract_id, instalment, made)


@given(batches, batches, digests, st.integers(0, 63))
def test_no_two_answers_are_the_same(one: list[list[bytes]], two: list[list[bytes]], other: bytes, at: int) -> None:
    first = answered(SALT, CONTRACT, at, one)
    assert len(first) == instalments.ANSWER_BYTES
    assert (first == answered(SALT, CONTRACT, at, two)) == (one == two)
    assert (first == answered(other, CONTRACT, at, one)) == (other == SALT)
    assert (first == answered(SALT, other, at, one)) == (other == CONTRACT)
    assert first != answered(SALT, CONTRACT, at + 1, one)


def test_the_first_instalment_needs_every_byte() -> None:
    data = bytearray(40 * merkle.LEAF_BYTES)
    piece = merkle.piece_id(data)
    whole = instalments.piece_digest(SALT, 0, piece, bytes(data))
    for leaf in range(40):
        changed = bytearray(data)
        changed[leaf * merkle.LEAF_BYTES] = 1
        assert instalments.piece_digest(SALT, 0, piece, changed) != whole


def test_the_others_need_the_leaves_that_the_salt_selects() -> None:
    data = bytes(40 * merkle.LEAF_BYTES)
    piece = PieceId(merkle.piece_id(data))
    selected = challenges.answer_leaves(SALT, piece, len(data))
    for leaf in range(40):
        changed = bytearray(data)
        changed[leaf * merkle.LEAF_BYTES] = 1
        same = instalments.piece_digest(SALT, 3, piece, changed) == instalments.piece_digest(SALT, 3, piece, data)
        assert same == (leaf not in selected)


def test_the_lock_is_what_the_ledger_computes() -> None:
    assert instalments.lock_hash(b"answer") == hashlib.sha256(b"answer").digest()
