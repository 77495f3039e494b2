from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layrfs.crypto.aead import seal as seal_bytes
from layrfs.crypto.keys import VolumeKeys
from layrfs.errors import LocalError, NoSpace, WrongBytes
from layrfs.ids import BlockNumber, InodeNumber, Salt, VolumeId
from layrfs.model.shard_format import (
    CODEC_RAW,
    CODEC_ZSTD,
    HEADER_BYTES,
    MAX_PLAINTEXT_BYTES,
    Part,
    ShardHeader,
    associated_data,
    decode_header_untrusted,
    decode_table_untrusted,
    encode_header,
    encode_table,
)
from layrfs.pipeline.sealing import Gathered, SealingKeys, local_error, seal, unseal, write_targets
from layrfs.pipeline.transfers import Duplicate, SourcePart, Stored, StoredPart, TargetPart, Zero

VOLUME_KEYS = VolumeKeys(content=b"c" * 32, mask=b"m" * 32, root_private=b"r" * 32, wallet_private=b"w" * 32)
KEYS = SealingKeys.of(VOLUME_KEYS)
SALT = Salt(b"s" * 16)


def plaintext_of(payload: bytes) -> bytes:
    return encode_table([Part(InodeNumber(2), BlockNumber(0), len(payload), 65536)]) + payload


def nothing(_digests: Sequence[bytes]) -> Mapping[bytes, tuple[int, int]]:
    return {}


def files(directory: Path, contents: Sequence[bytes]) -> list[SourcePart]:
    """All contents one after the other in one file, as blocks of one inode."""
    path = directory / "file"
    path.write_bytes(b"".join(contents))
    parts, offset = [], 0
    for number, content in enumerate(contents):
        parts.append(SourcePart(9, number, str(path), offset, len(content)))
        offset += len(content)
    return parts


def test_sealing_uses_the_keys_that_the_volume_would() -> None:
    assert KEYS.shard_key(SALT) == VOLUME_KEYS.shard_key(SALT)
    assert "c" * 8 not in repr(KEYS)


@given(st.binary(min_size=1, max_size=5000))
def test_what_was_sealed_opens_again(payload: bytes) -> None:
    sealed = seal(KEYS, plaintext_of(payload))
    assert sealed.plain_bytes == len(payload)
    assert bytes(unseal(KEYS, sealed.salt, sealed.data)) == payload
    assert payload not in bytes(sealed.data[HEADER_BYTES:]) or len(payload) < 8


@given(st.data())
def test_any_flipped_bit_is_noticed(data: st.DataObject) -> None:
    sealed = seal(KEYS, plaintext_of(b"some payload " * 20))
    at = data.draw(st.integers(0, len(sealed.data) - 1))
    sealed.data[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(WrongBytes):
        unseal(KEYS, sealed.salt, sealed.data)


def test_a_shard_opens_only_as_itself_and_for_its_volume() -> None:
    sealed = seal(KEYS, plaintext_of(b"payload"))
    with pytest.raises(WrongBytes):
        unseal(KEYS, SALT, sealed.data)
    other = SealingKeys(KEYS.content, KEYS.digest, VolumeId(b"v" * 32))
    with pytest.raises(WrongBytes):
        unseal(other, sealed.salt, sealed.data)


def test_two_seals_of_the_same_are_different() -> None:
    first, second = seal(KEYS, plaintext_of(b"same")), seal(KEYS, plaintext_of(b"same"))
    assert first.salt != second.salt
    assert first.id != second.id


def test_text_is_compressed_and_noise_is_not() -> None:
    text, noise = seal(KEYS, plaintext_of(b"a line of text\n" * 50_000)), seal(KEYS, plaintext_of(os.urandom(300_000)))
    assert decode_header_untrusted(text.data).codec == CODEC_ZSTD
    assert len(text.data) < 50_000
    assert decode_header_untrusted(noise.data).codec == CODEC_RAW
    assert len(noise.data) < 300_000 + 200


def test_one_compressible_region_is_enough_for_the_probe() -> None:
    mixed = os.urandom(1 << 20) + bytes(1 << 20) + os.urandom(1 << 20)
    assert len(seal(KEYS, plaintext_of(mixed)).data) < len(mixed) * 0.7


def sealed_by_hand(body: bytes) -> bytes:
    header = encode_header(ShardHeader(CODEC_ZSTD, SALT))
    return header + seal_bytes(KEYS.shard_key(SALT), associated_data(header, KEYS.volume), body)


def test_several_frames_are_one_plaintext() -> None:
    plaintext = plaintext_of(b"first half, second half")
    compress = zstandard.ZstdCompressor().compress
    assert (
        bytes(unseal(KEYS, SALT, sealed_by_hand(compress(plaintext[:30]) + compress(plaintext[30:])))) == plaintext[28:]
    )


@pytest.mark.parametrize("body", [b"no zstd frame at all", zstandard.ZstdCompressor().compress(bytes(3))])
def test_our_own_nonsense_is_wrong_bytes_too(body: bytes) -> None:
    with pytest.raises(WrongBytes):
        unseal(KEYS, SALT, sealed_by_hand(body))


def test_a_shard_never_expands_beyond_what_a_shard_may_hold() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(MAX_PLAINTEXT_BYTES + 2))
    with pytest.raises(WrongBytes, match="expands"):
        unseal(KEYS, SALT, sealed_by_hand(bomb))


BLOCKS = st.lists(
    st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"twin", bytes(10), b"tail" + bytes(9)])), max_size=12
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BLOCKS, st.sets(st.integers(0, 11)))
def test_every_part_can_be_found_again(tmp_path: Path, blocks: list[bytes], known_ones: set[int]) -> None:
    trimmed = [block.rstrip(b"\0") for block in blocks]
    known = {KEYS.digester.digest(trimmed[at]): (at, len(trimmed[at])) for at in known_ones if at < len(blocks)}
    outcomes, plaintext = Gathered(files(tmp_path, blocks)).outcomes(
        KEYS, lambda digests: {digest: known[digest] for digest in digests if digest in known}
    )
    payload = plaintext[4 + 24 * len(decode_table_untrusted(plaintext)) :] if len(plaintext) else b""
    stored = set()
    for block, outcome in zip(trimmed, outcomes, strict=True):
        digest = KEYS.digester.digest(block)
        match outcome:
            case Zero():
                assert block == b""
            case Duplicate(content=content, length=length):
                assert known[digest] == (content, length)
            case Stored(part=part):
                assert part.digest == digest
                assert bytes(payload[part.offset : part.offset + part.length]) == block
                stored.add(block)
    assert len(payload) == sum(map(len, stored))


def test_the_table_says_whose_the_bytes_are(tmp_path: Path) -> None:
    parts = files(tmp_path, [b"one", bytes(4096), b"three"])
    outcomes, plaintext = Gathered(parts).outcomes(KEYS, nothing)
    assert decode_table_untrusted(plaintext) == (
        Part(InodeNumber(9), BlockNumber(0), 3, 4 << 20),
        Part(InodeNumber(9), BlockNumber(2), 5, 4 << 20),
    )
    assert [type(outcome) for outcome in outcomes] == [Stored, Zero, Stored]
    assert outcomes[2] == Stored(StoredPart(KEYS.digester.digest(b"three"), 3, 5))


def test_long_runs_of_zeros_are_found_at_every_boundary(tmp_path: Path) -> None:
    step = 64 << 10
    for kept in (1, step - 1, step, step + 1, 3 * step):
        content = b"\x01" * kept + bytes(5 * step - kept)
        (outcome,), _ = Gathered(files(tmp_path, [content])).outcomes(KEYS, nothing)
        assert isinstance(outcome, Stored)
        assert outcome.part.length == kept


def test_targets_are_written_where_they_belong(tmp_path: Path) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    targets = [TargetPart(one, 0, 2, 3), TargetPart(two, 5, 0, 2), TargetPart(one, 3, 7, 1)]
    write_targets(memoryview(b"0123456789"), targets)
    assert Path(one).read_bytes() == b"2347"
    assert Path(two).read_bytes() == bytes(5) + b"01"


def test_a_target_beyond_its_shard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="beyond"):
        write_targets(memoryview(b"0123"), [TargetPart(str(tmp_path / "file"), 0, 2, 3)])


def test_a_full_disk_has_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(NoSpace):
        write_targets(memoryview(b"data"), [TargetPart("/dev/full", 0, 0, 4)])
    assert isinstance(local_error("x", OSError(5, "Input/output error")), LocalError)
    with pytest.raises(LocalError):
        Gathered([SourcePart(2, 0, str(tmp_path), 0, 4)])


def test_what_one_file_holds_does_not_show_in_the_length_of_another() -> None:
    secret, padding = os.urandom(2000), b"some text that compresses\n" * 4000

    def length_with_guess(guess: bytes) -> int:
        files = [secret + padding, guess + padding]
        parts = [Part(InodeNumber(2 + at), BlockNumber(0), len(file), 65536) for at, file in enumerate(files)]
        return len(seal(KEYS, encode_table(parts) + b"".join(files)).data)

    assert length_with_guess(secret) == length_with_guess(os.urandom(2000))
