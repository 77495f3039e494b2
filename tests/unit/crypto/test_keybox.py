"""The key file's bytes: what opens, and one clear answer for everything that does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.crypto import keybox, labels
from layrfs.crypto.digests import labelled
from layrfs.crypto.keybox import ScryptCost, lock, unlock
from layrfs.errors import CorruptFile, NewerFormat, WrongPassphrase

CHEAP = ScryptCost(log2_n=1, r=1, p=1)
WRAPPED = lock(b"secret of 32 bytes, or any other", b"open", cost=CHEAP)
PLAIN = lock(b"secret of 32 bytes, or any other", None)


def with_checksum(data: bytes) -> bytes:
    return data + labelled(labels.KEY_FILE_CHECKSUM, data)


@given(st.binary(max_size=100), st.one_of(st.none(), st.binary(max_size=30)))
def test_round_trip(secret: bytes, passphrase: bytes | None) -> None:
    blob = lock(secret, passphrase, cost=CHEAP)
    assert keybox.needs_passphrase(blob) == (passphrase is not None)
    assert unlock(blob, passphrase) == secret


def test_the_default_cost_is_what_is_promised() -> None:
    assert keybox.DEFAULT_COST.memory_bytes == 128 << 20
    blob = lock(b"secret", b"open")
    assert blob[6:9] == bytes([17, 8, 1])
    assert unlock(blob, b"open") == b"secret"


def test_wrapping_is_never_the_same_twice_and_hides_the_secret() -> None:
    assert lock(b"secret", b"open", cost=CHEAP) != lock(b"secret", b"open", cost=CHEAP)
    assert b"secret" not in WRAPPED


def test_wrong_and_missing_passphrases() -> None:
    for passphrase in (b"opem", b"", None):
        with pytest.raises(WrongPassphrase):
            unlock(WRAPPED, passphrase)


def test_a_passphrase_for_a_file_without_one_is_ignored() -> None:
    assert unlock(PLAIN, b"whatever") == b"secret of 32 bytes, or any other"


@pytest.mark.parametrize("blob", [PLAIN, WRAPPED])
def test_any_flipped_bit_is_told_from_a_wrong_passphrase(blob: bytes) -> None:
    for bit in range(len(blob) * 8):
        damaged = bytearray(blob)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises((CorruptFile, NewerFormat)):
            unlock(bytes(damaged), b"open")


@pytest.mark.parametrize("blob", [PLAIN, WRAPPED])
def test_any_cut_is_damage(blob: bytes) -> None:
    for length in range(len(blob)):
        with pytest.raises(CorruptFile):
            unlock(blob[:length], b"open")
    with pytest.raises(CorruptFile):
        unlock(blob + b"\0", b"open")


@given(st.binary(max_size=200), st.booleans())
def test_hostile_bytes(data: bytes, whole: bool) -> None:
    blob = with_checksum(b"LYRK" + data) if whole else data
    try:
        unlock(blob, None)
    except (CorruptFile, NewerFormat, WrongPassphrase):
        pass
    else:
        assert blob[4:6] == b"\1\0"


def test_newer_versions_are_named_before_their_checksum_is_judged() -> None:
    with pytest.raises(NewerFormat, match="format 2"):
        unlock(b"LYRK\2whatever comes", None)


def test_versions_and_kinds_that_never_existed() -> None:
    for head in (b"LYRK\0\0", b"LYRK\1\2"):
        with pytest.raises(CorruptFile, match="never existed"):
            unlock(with_checksum(head + bytes(64)), None)


@pytest.mark.parametrize(
    "cost", [(21, 1, 1), (21, 8, 1), (20, 16, 1), (17, 17, 1), (17, 8, 5), (0, 8, 1), (17, 0, 1), (17, 8, 0)]
)
def test_costs_beyond_the_bounds_are_refused_before_they_are_paid(cost: tuple[int, int, int]) -> None:
    blob = with_checksum(b"LYRK\1\1" + bytes(cost) + bytes(16) + bytes(48))
    with pytest.raises(CorruptFile, match="more memory or time"):
        unlock(blob, b"open")


def test_a_wrapped_file_too_short_for_its_parameters() -> None:
    with pytest.raises(CorruptFile, match="damaged"):
        unlock(with_checksum(b"LYRK\1\1" + bytes(20)), b"open")


def test_long_secrets_are_not_for_key_files() -> None:
    with pytest.raises(ValueError, match="short"):
        lock(bytes(keybox.SECRET_LIMIT_BYTES + 1), None)
    assert unlock(lock(bytes(keybox.SECRET_LIMIT_BYTES), b"", cost=CHEAP), b"") == bytes(keybox.SECRET_LIMIT_BYTES)


def test_a_passphrase_is_the_same_however_it_was_typed() -> None:
    assert keybox.normalized_passphrase("caf\u00e9") == keybox.normalized_passphrase("cafe\u0301")
    assert keybox.normalized_passphrase("\udcff") == b"\xff"
