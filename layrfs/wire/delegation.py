"""What an owner and a delegate say to each other, and the two things they exchange: entrusted shards, patch records.

Owns the shapes only, like `layrfs.wire.messages`, whose unions these requests and responses are part of. Every request
is signed by the volume's root key: the volume's id is its public key, so a delegate needs to know nobody beforehand,
and nobody else can hand over, change, read or end what was delegated. Only `Delegate` and `Entrust` have a body.
Invariant: nothing here has room for a content key, a name, or a digest of plaintext.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from layrfs.crypto import labels
from layrfs.crypto.digests import Buffer, labelled
from layrfs.errors import BadMessage
from layrfs.ids import NodeId, PieceId, Salt, ShardId
from layrfs.wire.codec import Uint16, Uint32, Uint63, decode_untrusted, encode
from layrfs.wire.frames import BODY_LIMIT

BUCKETS = 4096
"""Shards are compared and handed over by the first twelve bits of their ids: with a million shards 250 at a time."""

BUCKET_DIGEST_BYTES = 16
DIGESTS_BYTES = BUCKETS * BUCKET_DIGEST_BYTES
"""The body of `Delegate`: the digest of each bucket, zeros for one without shards."""

RECORDS_PER_MESSAGE = 192
PIECES_LIMIT = 64
"""Of one shard."""

SHARDS_LIMIT = 4096
BUCKET_PIECES_LIMIT = 16_384
"""Of one bucket: four times what an average one has of the largest volume that a delegate takes. Whoever hands it over,
the delegate has to write it in one go (0.15 s), while all others wait.
"""

_BLOB_TAG_BYTES = 6

Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Bucket = Annotated[int, Meta(ge=0, lt=BUCKETS)]
Piece = Annotated[PieceId, Meta(min_length=32, max_length=32)]
Shard = Annotated[ShardId, Meta(min_length=32, max_length=32)]
Node = Annotated[NodeId, Meta(min_length=20, max_length=20)]
Count = Annotated[int, Meta(ge=1, le=PIECES_LIMIT)]
Tag = Annotated[bytes, Meta(min_length=_BLOB_TAG_BYTES, max_length=_BLOB_TAG_BYTES)]


class EntrustedPiece(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One piece on one host."""

    position: Uint16
    generation: Uint32
    id: Piece
    host: Node


class EntrustedPurpose(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the note of a new piece has to say; see `layrfs.model.notes.Purpose`."""

    role: Literal[0, 1, 2]
    number: Uint63
    index: Uint16
    count: Uint16
    blob: Tag
    previous: Tag


class EntrustedShard(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What it takes to check and repair a shard, and no more. `generation`: the highest that any piece ever had."""

    id: Shard
    salt: Annotated[Salt, Meta(min_length=16, max_length=16)]
    sealed_bytes: Annotated[int, Meta(ge=0, le=BODY_LIMIT)]
    needed: Count
    total: Count
    generation: Uint32
    pieces: Annotated[tuple[EntrustedPiece, ...], Meta(max_length=PIECES_LIMIT)]
    purpose: EntrustedPurpose


class PatchRecord(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One piece that a delegate made anew, signed by its node; see `layrfs.model.patch_records`."""

    volume: Bytes32
    shard: Shard
    position: Uint16
    generation: Uint32
    piece: Piece
    host: Node
    replaced: Annotated[bytes, Meta(max_length=32)]
    """The piece that the owner had at this position when it was last heard of; empty: none."""

    signature: Signature


class Delegate(Struct, frozen=True, tag="delegate"):
    """Look after this volume until a time, while its owner's machine is not there. The body is the bucket digests."""

    volume: Bytes32
    mask: Bytes32
    until: Uint63
    """Unix seconds; after that everything is forgotten."""

    present_seconds: Uint32
    """The owner's machine looks after it by itself for so long, and says so again before that ends; 0: it goes."""

    patch_after_seconds: Uint32
    """What a host has is not counted on when it was silent for so long (72 hours at most)."""

    signature: Signature


class Delegated(Struct, frozen=True, tag="delegated"):
    """The delegation is on the disk, fsynced. These buckets are to be entrusted: here they are other than digested."""

    wanted: Annotated[tuple[Bucket, ...], Meta(max_length=BUCKETS)]


class Entrust(Struct, frozen=True, tag="entrust"):
    """All shards of a bucket, instead of those known so far. The body is a msgpack array of `EntrustedShard`."""

    volume: Bytes32
    bucket: Bucket
    signature: Signature


class Entrusted(Struct, frozen=True, tag="entrusted"):
    """They are on the disk, fsynced."""


class GetPatches(Struct, frozen=True, tag="get patches"):
    """What was made anew of shards with ids above `after`? The delegate rests for a while, as after `Delegate`."""

    volume: Bytes32
    after: Bytes32
    signature: Signature


class Patches(Struct, frozen=True, tag="patches"):
    """Records by shard, ascending, those of one shard together. The key is that of the delegate's node."""

    public_key: Bytes32
    records: Annotated[tuple[PatchRecord, ...], Meta(max_length=RECORDS_PER_MESSAGE)]
    more: bool
    """Whether there are others, of shards after these."""


class Revoke(Struct, frozen=True, tag="revoke"):
    """Forget the volume, its mask key and all that is known of its shards."""

    volume: Bytes32
    signature: Signature


class Revoked(Struct, frozen=True, tag="revoked"):
    """Nothing of it is on the disk any more."""


DelegationRequest = Delegate | Entrust | GetPatches | Revoke
DelegationResponse = Delegated | Entrusted | Patches | Revoked

UNSIGNED = bytes(64)
_Shards = Annotated[tuple[EntrustedShard, ...], Meta(max_length=SHARDS_LIMIT)]
_NO_SHARDS = msgspec.msgpack.encode(())


def delegation_statement(
    network: bytes, host: NodeId, challenge: bytes, number: int, request: DelegationRequest, body: Buffer
) -> bytes:
    """What a request signs: good for one host, one connection, and the `number`-th signed request on it (from 0).

    The request itself is in it with 64 zero bytes for a signature, and then the body.
    """
    bound = network + host + challenge + struct.pack("<I", number)
    unsigned = encode(msgspec.structs.replace(request, signature=UNSIGNED))
    return labels.signed_bytes(labels.SIGN_DELEGATION, bound + unsigned + bytes(body))


def shards_untrusted(body: bytes | bytearray | memoryview, bucket: int) -> tuple[EntrustedShard, ...]:
    """The body of an `Entrust` for this bucket; BadMessage for anything else."""
    shards: tuple[EntrustedShard, ...] = decode_untrusted(_Shards, body, limit=BODY_LIMIT)
    if sum(len(shard.pieces) for shard in shards) > BUCKET_PIECES_LIMIT:
        raise BadMessage("a bucket of entrusted shards has too many pieces")
    ids = [shard.id for shard in shards]
    if ids != sorted(set(ids)) or any(bucket_of(shard) != bucket for shard in ids):
        raise BadMessage("entrusted shards are not those of one bucket, in order")
    for shard in shards:
        _check(shard)
    return shards


def shards_body(shards: Sequence[EntrustedShard]) -> bytes:
    """The body of an `Entrust`; `shards` are in the order of their ids, their pieces in that of their positions."""
    return msgspec.msgpack.encode(shards)


def bucket_digest(body: Buffer) -> bytes:
    """What tells whether a bucket is known as it is: of its body; zeros of a bucket without shards."""
    if bytes(body) == _NO_SHARDS:
        return bytes(BUCKET_DIGEST_BYTES)
    return labelled(labels.BUCKET_DIGEST, body)[:BUCKET_DIGEST_BYTES]


def bucket_of(shard: ShardId) -> int:
    """The first twelve bits of a shard's id."""
    return shard[0] << 4 | shard[1] >> 4


def _check(shard: EntrustedShard) -> None:
    positions = [piece.position for piece in shard.pieces]
    hosts = {piece.host for piece in shard.pieces}
    if shard.needed > shard.total or len(set(positions)) != len(positions) or len(hosts) != len(positions):
        raise BadMessage("an entrusted shard has two pieces in one place")
    if any(piece.generation > shard.generation or piece.position >= shard.total for piece in shard.pieces):
        raise BadMessage("an entrusted shard has a piece that it cannot have")
