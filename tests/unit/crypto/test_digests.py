"""Labelled BLAKE3 and the keyed digest of blocks."""

from __future__ import annotations

import pytest
from blake3 import blake3

from layrfs.crypto import labels
from layrfs.crypto.digests import BlockDigester, labelled, shard_id

# The official BLAKE3 test vectors (test_vectors.json of the reference implementation), input of length 0.
OFFICIAL_KEY = b"whats the Elvish word for friend"
OFFICIAL_CONTEXT = "BLAKE3 2019-12-27 16:29:52 test vectors context"


def test_labelled_is_blake3_derive_key_as_published() -> None:
    assert labelled(OFFICIAL_CONTEXT, b"").hex() == "2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d"


def test_block_digest_is_keyed_blake3_as_published() -> None:
    digest = BlockDigester(OFFICIAL_KEY).digest(b"")
    assert digest.hex() == "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26"


def test_block_digests_differ_between_volumes_and_from_a_plain_hash() -> None:
    ours, theirs = BlockDigester(bytes(32)), BlockDigester(bytes(31) + b"\1")
    assert ours.digest(b"block") == ours.digest(bytearray(b"block")) == ours.digest(memoryview(b"block"))
    assert len({ours.digest(b"block"), theirs.digest(b"block"), blake3(b"block").digest()}) == 3


def test_a_digest_key_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        BlockDigester(b"short")


def test_shard_id_has_its_own_label() -> None:
    assert shard_id(b"sealed") == labelled(labels.SHARD_ID, b"sealed")
    assert shard_id(b"sealed") != labelled(labels.MERKLE_LEAF, b"sealed")
