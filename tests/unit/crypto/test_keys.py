"""Phrase to keys: published vectors, and the mistakes people make with 24 words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.crypto import keys
from layrfs.errors import WrongPhrase
from layrfs.ids import NodeId, Salt

ABANDON = "abandon " * 23 + "art"
SALT = Salt(bytes(range(16)))


def test_bip39_seed_as_published() -> None:
    """The all-zero entropy of BIP-39's own vectors, with an empty passphrase."""
    assert keys.phrase_to_seed(ABANDON).hex() == (
        "408b285c123836004f4b8842c89324c1f01382450c0d439af345ba7fc49acf70"
        "5489c6fc77dbd4e3dc1dd8cc6bc9f043db8ada1e243c4a0eafb290d399480840"
    )


def test_bip39_seed_as_stellar_publishes_it() -> None:
    """SEP-0005, test 3: a Stellar wallet that opens from the same words."""
    phrase = (
        "bench hurt jump file august wise shallow faculty impulse spring exact slush "
        "thunder author capable act festival slice deposit sauce coconut afford frown better"
    )
    assert keys.phrase_to_seed(phrase).hex() == (
        "937ae91f6ab6f12461d9936dfc1375ea5312d097f3f1eb6fed6a82fbe38c8582"
        "4da8704389831482db0433e5f6c6c9700ff1946aa75ad8cc2654d6e40f567866"
    )


def test_derive_is_rfc_5869() -> None:
    """RFC 5869, test cases 1 and 3, of which 32 bytes are ours."""
    okm = keys.derive(b"\x0b" * 22, bytes(range(0xF0, 0xFA)), salt=bytes(range(13)))
    assert okm.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
    assert keys.derive(b"\x0b" * 22, b"").hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"


@given(st.binary(min_size=32, max_size=32))
def test_entropy_and_phrase_are_the_same_thing(entropy: bytes) -> None:
    assert keys.phrase_to_entropy(keys.entropy_to_phrase(entropy)) == entropy


def test_new_phrases_are_phrases_and_differ() -> None:
    first, second = keys.new_phrase(), keys.new_phrase()
    assert first != second
    assert len(keys.phrase_to_entropy(first)) == 32


@pytest.mark.parametrize("typed", [ABANDON.upper(), f"  {ABANDON} \n", ABANDON.replace(" ", "\n  "), ABANDON.title()])
def test_case_and_space_do_not_matter(typed: str) -> None:
    assert keys.phrase_to_seed(typed) == keys.phrase_to_seed(ABANDON)


@pytest.mark.parametrize(
    ("phrase", "complaint"),
    [
        ("", "24 words; this has 0"),
        ("abandon " * 11 + "about", "24 words; this has 12"),
        ("abandon " * 25, "24 words; this has 25"),
        ("abandon " * 6 + "secretword " + "abandon " * 16 + "art", "word 7 "),
        ("abandon " * 24, "do not fit together"),
        ("art " + "abandon " * 23, "do not fit together"),
    ],
)
def test_wrong_phrases_are_explained_without_repeating_them(phrase: str, complaint: str) -> None:
    with pytest.raises(WrongPhrase, match=complaint) as raised:
        keys.phrase_to_seed(phrase)
    assert "secretword" not in str(raised.value)
    assert raised.value.__cause__ is None


@given(st.text())
def test_anything_typed_is_a_phrase_or_wrong(text: str) -> None:
    with pytest.raises(WrongPhrase):
        keys.phrase_to_seed(text)


def test_entropy_of_the_wrong_length_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        keys.entropy_to_phrase(bytes(16))


def test_keys_of_a_volume_are_all_different_and_always_the_same() -> None:
    volume = keys.VolumeKeys.from_phrase(ABANDON)
    again = keys.VolumeKeys.from_phrase(ABANDON)
    assert volume == again
    found = [volume.content, volume.mask, volume.root_private, volume.volume_id, volume.digest_key]
    found += [volume.wallet_private]
    found += [volume.shard_key(SALT), keys.mask_key(volume.mask, SALT, 0, 0), keys.mask_key(volume.mask, SALT, 1, 0)]
    found += [keys.mask_key(volume.mask, SALT, 0, 1), keys.mask_key(volume.mask, Salt(bytes(16)), 0, 0)]
    found += [volume.shard_key(Salt(bytes(16))), keys.tenant_private(volume.mask, NodeId(bytes(20)))]
    found += [keys.tenant_private(volume.mask, NodeId(b"\1" * 20))]
    assert len(set(found)) == len(found)
    assert {len(key) for key in found} == {32}


def test_printing_keys_shows_none() -> None:
    volume = keys.VolumeKeys.from_phrase(ABANDON)
    for text in (repr(volume), str(volume), f"{volume}"):
        assert volume.volume_id.hex() in text
        for secret in (volume.content, volume.mask, volume.root_private, volume.wallet_private):
            assert secret.hex() not in text
            assert repr(secret)[2:-1] not in text
