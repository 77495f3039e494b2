"""What is handed over to delegates: its bytes, and what becomes of anything else."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import BadMessage
from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.model.notes import CONTENT, Purpose
from layrfs.model.patch_records import is_signed, signed
from layrfs.model.purposes import entrusted_purpose, purpose_of
from layrfs.wire import delegation
from layrfs.wire.delegation import EntrustedPiece, EntrustedShard, PatchRecord

NETWORK = bytes([9]) * 32
DELEGATE = NodeIdentity(bytes([1]) * 32)
OTHER = NodeIdentity(bytes([2]) * 32)
PURPOSE = entrusted_purpose(CONTENT)


def piece(number: int, position: int, generation: int = 0) -> EntrustedPiece:
    return EntrustedPiece(position, generation, PieceId(bytes([number]) * 32), NodeId(bytes([number]) * 20))


def shard(first: bytes = b"\x01\x20", **changed: Any) -> EntrustedShard:
    made = EntrustedShard(
        ShardId(first + bytes(30)), Salt(bytes(16)), 100, 1, 3, 2, (piece(1, 0), piece(2, 2, 2)), PURPOSE
    )
    return msgspec.structs.replace(made, **changed)


def test_a_bucket_goes_there_and_back() -> None:
    shards = (shard(), shard(b"\x01\x21", pieces=(), generation=0))
    assert delegation.shards_untrusted(delegation.shards_body(shards), 0x012) == shards
    assert delegation.shards_untrusted(delegation.shards_body(()), 7) == ()


@pytest.mark.parametrize(
    "shards",
    [
        (shard(b"\x01\x30"),),
        (shard(), shard()),
        (shard(b"\x01\x21"), shard()),
        (shard(needed=4),),
        (shard(generation=1),),
        (shard(pieces=(piece(1, 3),)),),
        (shard(pieces=(piece(1, 0), piece(2, 0))),),
        (shard(pieces=(piece(1, 0), piece(1, 1))),),
        (shard(total=65),),
        (shard(salt=Salt(bytes(15))),),
        (shard(sealed_bytes=6 << 20),),
    ],
    ids=[
        "bucket", "twice", "order", "needed", "generation", "position", "two at one position", "two on one host",
        "total", "salt", "too long",
    ],
)  # fmt: skip
def test_what_no_owner_would_hand_over_is_refused(shards: tuple[EntrustedShard, ...]) -> None:
    with pytest.raises(BadMessage):
        delegation.shards_untrusted(delegation.shards_body(shards), 0x012)


def many(count: int, pieces: int) -> bytes:
    ids = (b"\x01\x20" + number.to_bytes(30, "big") for number in range(count))
    held = tuple(piece(number, number) for number in range(pieces))
    return delegation.shards_body([shard(id=one, total=max(3, pieces), pieces=held) for one in ids])


def test_a_bucket_is_as_large_as_a_delegate_can_take_in_at_a_time() -> None:
    for count, pieces in ((delegation.SHARDS_LIMIT, 4), (delegation.BUCKET_PIECES_LIMIT // 16, 16)):
        assert len(delegation.shards_untrusted(many(count, pieces), 0x012)) == count
        with pytest.raises(BadMessage):
            delegation.shards_untrusted(many(count + 1, pieces), 0x012)


@given(st.binary(max_size=200))
def test_any_bytes_are_shards_or_a_bad_message(data: bytes) -> None:
    with contextlib.suppress(BadMessage):
        delegation.shards_untrusted(data, 0)


def test_a_digest_tells_buckets_apart_and_is_zeros_of_none() -> None:
    bodies = [delegation.shards_body(one) for one in ((), (shard(),), (shard(generation=3),))]
    digests = [delegation.bucket_digest(body) for body in bodies]
    assert digests[0] == bytes(16)
    assert len(set(digests)) == 3


def test_nothing_that_is_handed_over_has_room_for_what_it_must_not_tell() -> None:
    """The fields are few, so that a new one is thought about here first: none is a key, a name or of plaintext."""
    assert EntrustedShard.__struct_fields__ == (
        "id", "salt", "sealed_bytes", "needed", "total", "generation", "pieces", "purpose",
    )  # fmt: skip
    assert EntrustedPiece.__struct_fields__ == ("position", "generation", "id", "host")
    assert delegation.Delegate.__struct_fields__ == (
        "volume", "mask", "until", "present_seconds", "patch_after_seconds", "signature",
    )  # fmt: skip


def test_a_request_is_signed_for_one_host_connection_number_and_body() -> None:
    request = delegation.Revoke(bytes(32), bytes(64))
    bound: dict[str, Any] = {"network": NETWORK, "host": OTHER.node_id, "challenge": bytes(32), "number": 3}
    bound |= {"request": request, "body": b"body"}
    statement = delegation.delegation_statement(**bound)
    for name, other in (
        ("network", bytes(32)),
        ("host", DELEGATE.node_id),
        ("challenge", bytes([1]) * 32),
        ("number", 4),
        ("request", delegation.Revoke(bytes([1]) * 32, bytes(64))),
        ("body", b"bodies"),
    ):
        assert delegation.delegation_statement(**(bound | {name: other})) != statement
    signed_one = msgspec.structs.replace(request, signature=bytes([5]) * 64)
    assert delegation.delegation_statement(**(bound | {"request": signed_one})) == statement


@pytest.mark.parametrize("purpose", [CONTENT, Purpose("checkpoint", 3, 1, 2), Purpose("changes", 2**40, 0, 1)])
def test_purposes_go_there_and_back(purpose: Purpose) -> None:
    assert purpose_of(entrusted_purpose(purpose)) == purpose


RECORD = PatchRecord(
    bytes(32), ShardId(bytes(32)), 1, 2, PieceId(bytes(32)), NodeId(bytes(20)), bytes(32), delegation.UNSIGNED
)


def test_a_patch_record_is_its_delegates_in_its_network() -> None:
    record = signed(RECORD, DELEGATE, NETWORK)
    assert is_signed(record, DELEGATE.node_id, DELEGATE.public_key, NETWORK)
    assert not is_signed(record, DELEGATE.node_id, DELEGATE.public_key, bytes(32))
    assert not is_signed(record, DELEGATE.node_id, OTHER.public_key, NETWORK)
    assert not is_signed(record, OTHER.node_id, OTHER.public_key, NETWORK)
    assert not is_signed(RECORD, DELEGATE.node_id, DELEGATE.public_key, NETWORK)


@pytest.mark.parametrize(
    "changed",
    [{"shard": bytes([1]) * 32}, {"position": 2}, {"generation": 3}, {"piece": bytes([1]) * 32}, {"replaced": b""}],
    ids=str,
)
def test_no_field_of_a_patch_record_can_be_changed(changed: dict[str, Any]) -> None:
    record = msgspec.structs.replace(signed(RECORD, DELEGATE, NETWORK), **changed)
    assert not is_signed(record, DELEGATE.node_id, DELEGATE.public_key, NETWORK)
