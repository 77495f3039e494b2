"""Challenges: whom they hit, and everything that does not meet them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.crypto import challenges, merkle
from layrfs.ids import PieceId

LEAF = merkle.LEAF_BYTES
NONCE = bytes(range(32))
PIECE = PieceId(bytes([7]) * 32)

sizes = st.one_of(
    st.integers(0, 3 * LEAF),
    st.builds(lambda leaves, more: leaves * LEAF + more, st.integers(0, 40), st.integers(0, 2)),
)
secrets = st.binary(min_size=32, max_size=32)
counts = st.integers(1, 32)


def sample(length: int) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in range(-(-length // 4)))[:length]


class Challenge:
    """One piece, and what an honest host shows when it is challenged."""

    def __init__(self, size: int, nonce: bytes, count: int) -> None:
        self.data = sample(size)
        self.piece = merkle.piece_id(self.data)
        self.hashes = merkle.leaf_hashes(self.data)
        self.chosen = challenges.chosen_leaves(nonce, self.piece, len(self.hashes), count)
        self.leaves = b"".join(self.data[leaf * LEAF : (leaf + 1) * LEAF] for leaf in self.chosen)
        self.proofs = merkle.prove_each(self.hashes, self.chosen)

    def is_met_by(self, leaves: bytes, proofs: list[tuple[bytes, ...]]) -> bool:
        return challenges.are_proven(self.piece, len(self.data), self.chosen, leaves, proofs)


@given(secrets, secrets, st.integers(1, 1 << 49), counts)
def test_chosen_are_so_many_different_leaves_of_the_piece(nonce: bytes, piece: bytes, leaves: int, count: int) -> None:
    chosen = challenges.chosen_leaves(nonce, PieceId(piece), leaves, count)
    assert len(chosen) == min(count, leaves)
    assert list(chosen) == sorted(set(chosen))
    assert 0 <= chosen[0] <= chosen[-1] < leaves


def test_nonce_piece_and_number_decide() -> None:
    def chosen(nonce: bytes = NONCE, piece: PieceId = PIECE, leaves: int = 256, count: int = 8) -> tuple[int, ...]:
        return challenges.chosen_leaves(nonce, piece, leaves, count)

    assert chosen() == chosen()
    others = [chosen(nonce=bytes(32)), chosen(piece=PieceId(bytes(32))), chosen(leaves=257), chosen(count=9)]
    assert len({chosen(), *others}) == 5


@pytest.mark.parametrize(("leaves", "count"), [(10, 3), (5, 4), (7, 1)])
def test_all_leaves_and_all_pairs_are_equally_likely(leaves: int, count: int) -> None:
    rounds = 6000
    single: Counter[int] = Counter()
    together: Counter[tuple[int, int]] = Counter()
    for number in range(rounds):
        chosen = challenges.chosen_leaves(number.to_bytes(32, "little"), PIECE, leaves, count)
        single.update(chosen)
        together.update((one, other) for one in chosen for other in chosen if one < other)
    expected = rounds * count / leaves
    assert all(abs(single[leaf] - expected) < 6 * expected**0.5 for leaf in range(leaves))
    if count > 1:
        expected = rounds * count * (count - 1) / (leaves * (leaves - 1))
        pairs = [together[one, other] for one in range(leaves) for other in range(one + 1, leaves)]
        assert all(abs(pair - expected) < 6 * expected**0.5 for pair in pairs)


@given(sizes, secrets, counts)
def test_whoever_has_the_piece_meets_every_challenge(size: int, nonce: bytes, count: int) -> None:
    challenge = Challenge(size, nonce, count)
    assert challenge.is_met_by(challenge.leaves, challenge.proofs)
    assert challenge.proofs == [tuple(merkle.prove(challenge.hashes, leaf, 1)) for leaf in challenge.chosen]


@given(st.integers(1, 40), secrets, counts, st.data())
def test_who_lacks_leaves_fails_exactly_when_one_of_them_is_chosen(
    leaves: int, nonce: bytes, count: int, draw: st.DataObject
) -> None:
    """It keeps all hashes, so its proofs are right: only the bytes are not there."""
    challenge = Challenge(leaves * LEAF, nonce, count)
    missing = draw.draw(st.sets(st.integers(0, leaves - 1)))
    shown = b"".join(
        bytes(LEAF) if leaf in missing else challenge.data[leaf * LEAF : (leaf + 1) * LEAF] for leaf in challenge.chosen
    )
    challenge_is_met = challenge.is_met_by(shown, challenge.proofs)
    lacking = {leaf for leaf in missing if challenge.data[leaf * LEAF : (leaf + 1) * LEAF] != bytes(LEAF)}
    assert challenge_is_met == lacking.isdisjoint(challenge.chosen)


@given(sizes, secrets, counts, st.data())
def test_no_mutation_of_what_is_shown_passes(size: int, nonce: bytes, count: int, draw: st.DataObject) -> None:
    challenge = Challenge(size, nonce, count)
    leaves, proofs = bytearray(challenge.leaves), list(challenge.proofs)
    flat = [(place, at) for place, proof in enumerate(proofs) for at in range(len(proof))]
    kinds = ["longer", "proof more", "proofs more", "proofs less"]
    kinds += ["flip", "shorter", "rotate"] if leaves else []
    kinds += ["hash", "hash length", "proof less"] if flat else []
    kind = draw.draw(st.sampled_from(kinds))
    place, at = draw.draw(st.sampled_from(flat)) if flat else (0, 0)
    proof = list(proofs[place])
    if kind == "flip":
        leaves[draw.draw(st.integers(0, len(leaves) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    elif kind == "rotate":
        leaves = leaves[1:] + leaves[:1]
    elif kind == "shorter":
        leaves.pop()
    elif kind == "longer":
        leaves.append(0)
    elif kind == "hash":
        proof[at] = bytes([proof[at][0] ^ 1]) + proof[at][1:]
    elif kind == "hash length":
        proof[at] += b"\0"
    elif kind == "proof less":
        proof.pop(at)
    elif kind == "proof more":
        proof.insert(at, bytes(32))
    proofs[place] = tuple(proof)
    proofs = [*proofs, proofs[-1]] if kind == "proofs more" else proofs[:-1] if kind == "proofs less" else proofs
    same = bytes(leaves) == challenge.leaves and proofs == challenge.proofs
    assert challenge.is_met_by(bytes(leaves), proofs) == same


@given(st.integers(2, 40), secrets, secrets, counts)
def test_what_met_one_challenge_meets_no_other(leaves: int, nonce: bytes, other: bytes, count: int) -> None:
    old, new = Challenge(leaves * LEAF, nonce, count), Challenge(leaves * LEAF, other, count)
    assert new.is_met_by(old.leaves, old.proofs) == (old.chosen == new.chosen)


def test_leaves_of_another_piece_are_refused() -> None:
    mine, other = Challenge(9 * LEAF, NONCE, 4), Challenge(9 * LEAF - 1, NONCE, 4)
    assert not mine.is_met_by(other.leaves, other.proofs)
    assert not challenges.are_proven(other.piece, 9 * LEAF, mine.chosen, mine.leaves, mine.proofs)
    assert not challenges.are_proven(mine.piece, 9 * LEAF - 1, mine.chosen, mine.leaves, mine.proofs)


@pytest.mark.parametrize("chosen", [(9,), (2**62,), (-1,)])
def test_leaves_that_the_piece_has_not_are_not_proven(chosen: tuple[int, ...]) -> None:
    whole = Challenge(9 * LEAF, NONCE, 9)
    for leaves in (b"", bytes(LEAF), whole.data[:LEAF]):
        assert not challenges.are_proven(whole.piece, 9 * LEAF, chosen, leaves, whole.proofs[:1])


@given(sizes, secrets)
def test_an_answer_is_the_same_from_the_piece_and_from_its_selected_leaves(size: int, salt: bytes) -> None:
    data = sample(size)
    piece = merkle.piece_id(data)
    selected = [data[leaf * LEAF : (leaf + 1) * LEAF] for leaf in challenges.answer_leaves(salt, piece, size)]
    assert challenges.answer_digest(salt, piece, data, "leaves") == challenges.digest_of_selected(
        salt, size, b"".join(selected)
    )
    whole = challenges.digest_of_selected(salt, size, data)
    assert challenges.answer_digest(salt, piece, memoryview(data), "whole") == whole


@given(st.integers(17, 40), secrets, st.data())
def test_an_answer_changes_with_every_byte_that_it_is_made_of(leaves: int, salt: bytes, draw: st.DataObject) -> None:
    data = bytearray(sample(leaves * LEAF))
    piece = merkle.piece_id(data)
    whole, part = (challenges.answer_digest(salt, piece, data, kind) for kind in ("whole", "leaves"))
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= 1
    assert challenges.answer_digest(salt, piece, data, "whole") != whole
    is_selected = at // LEAF in challenges.answer_leaves(salt, piece, len(data))
    assert (challenges.answer_digest(salt, piece, data, "leaves") != part) == is_selected


@pytest.mark.parametrize(("leaves", "selected"), [(1, 1), (4, 4), (5, 4), (64, 4), (65, 5), (256, 16), (257, 17)])
def test_an_answer_is_made_of_one_leaf_in_sixteen_and_of_four_at_least(leaves: int, selected: int) -> None:
    assert len(challenges.answer_leaves(NONCE, PIECE, leaves * LEAF)) == selected


def test_every_salt_has_its_own_answer_and_length_counts() -> None:
    data = bytes(100)
    digests = {challenges.answer_digest(bytes([number]) * 32, PIECE, data, "whole") for number in range(9)}
    assert len(digests) == 9
    assert challenges.answer_digest(NONCE, PIECE, data[1:], "whole") not in digests
