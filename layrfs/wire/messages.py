"""What owners and hosts say to each other over one TLS connection: a frame's header is one of these messages.

Owns the shapes only; `layrfs.wire.frames` carries them, `layrfs.host` decides what to answer. A connection starts with
`Hello` (the client names its network) and `Welcome` (the server's challenge for this connection); then requests are
answered one by one, in order. Only `Store`, `Retrieved`, `Proven`, `PutRoot` and `RootFound` have a body, two of
those in `layrfs.wire.delegation`, and `Cover` in `layrfs.wire.contracts`.
Invariant: every field that a stranger fills in has its size bounded here, so a decoded message needs no more checks of
shape.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct

from layrfs.crypto import labels
from layrfs.crypto.challenges import AnswerKind
from layrfs.ids import NodeId, PieceId
from layrfs.wire.codec import Uint16, Uint63, decode_untrusted
from layrfs.wire.contracts import (
    Agreed,
    Cover,
    Covered,
    Disclose,
    Disclosed,
    EarningReport,
    Leave,
    Leaving,
    Opened,
    Propose,
    Quote,
    Quoted,
    Ready,
    Settle,
    Settled,
    Standing,
    Stands,
)
from layrfs.wire.delegation import (
    Delegate,
    Delegated,
    Entrust,
    Entrusted,
    GetPatches,
    Patches,
    Revoke,
    Revoked,
)
from layrfs.wire.frames import HEADER_LIMIT

PROTOCOL_VERSION = 1
CHALLENGE_BYTES = 32
NETWORK_ID_BYTES = 32
PIECES_PER_MESSAGE = 1024
NOTE_LIMIT = 64
LISTED_PER_MESSAGE = 512
"""Pieces with their notes, in one header."""

ROOT_LIMIT_BYTES = 66 * 1024
"""Of a root record, the body of `PutRoot` and `RootFound`."""

PROOF_LIMIT = 128
"""Two hashes for each level of the largest tree that 63-bit lengths allow."""

LEAVES_PER_CHALLENGE = 32
"""Half a MiB of body."""

LEAF_PROOF_LIMIT = 49
"""One hash for each level of that tree; so many for each challenged leaf fit in one header."""

Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Piece = Annotated[PieceId, Meta(min_length=32, max_length=32)]
Note = Annotated[bytes, Meta(max_length=NOTE_LIMIT)]
LeafProof = Annotated[tuple[Bytes32, ...], Meta(max_length=LEAF_PROOF_LIMIT)]
Pieces = Annotated[tuple[Piece, ...], Meta(min_length=1, max_length=PIECES_PER_MESSAGE)]

Reason = Literal[
    "missing",
    "full",
    "busy",
    "wrong piece",
    "not the owner",
    "network",
    "version",
    "not allowed",
    "failed",
    "stale",
    "bad root",
    "bad delegation",
    "no contract",
    "no credit",
    "leaving",
    "wrong ledger",
    "wrong price",
    "bad terms",
    "not on the ledger",
    "bad escrow",
    "no funds",
    "bad lock",
    "lock does not fit",
    "wrong window",
    "ending",
]
"""Why a host says no. A word of ours, never a stranger's sentence, so it can be shown and matched."""


class Hello(Struct, frozen=True, tag="hello"):
    """First message of a client: the network it believes to be on."""

    network: Bytes32
    version: Uint16 = PROTOCOL_VERSION


class Welcome(Struct, frozen=True, tag="welcome"):
    """First answer of a server. The random challenge makes each signed request good for this connection only."""

    challenge: Bytes32
    version: Uint16 = PROTOCOL_VERSION


class Store(Struct, frozen=True, tag="store"):
    """Keep the body, which is this piece, for whoever signs with the tenant key, and show them the note with it."""

    piece: Piece
    tenant: Bytes32
    note: Note = b""


class Stored(Struct, frozen=True, tag="stored"):
    """The piece is on the host's disk, fsynced."""


class Retrieve(Struct, frozen=True, tag="retrieve"):
    """Bytes `offset` to `offset + length - 1` of a piece; `length` 0 means all of it."""

    piece: Piece
    offset: Uint63 = 0
    length: Uint63 = 0


class Retrieved(Struct, frozen=True, tag="retrieved"):
    """The body is the whole piece, or the leaves from `first_leaf` on that cover what was asked, and their proof."""

    piece_bytes: Uint63
    first_leaf: Uint63 = 0
    proof: Annotated[tuple[Bytes32, ...], Meta(max_length=PROOF_LIMIT)] = ()


class Prove(Struct, frozen=True, tag="prove"):
    """Show so many leaves of a piece: those that `crypto.challenges.chosen_leaves` makes of the nonce."""

    piece: Piece
    nonce: Bytes32
    leaves: Annotated[int, Meta(ge=1, le=LEAVES_PER_CHALLENGE)] = 1


class Proven(Struct, frozen=True, tag="proven"):
    """The body is the leaves, in order; `proofs` ties each of them to the piece's id."""

    piece_bytes: Uint63
    proofs: Annotated[tuple[LeafProof, ...], Meta(min_length=1, max_length=LEAVES_PER_CHALLENGE)]


class Answer(Struct, frozen=True, tag="answer"):
    """The digest of a piece, or of leaves of it, under a salt: see `crypto.challenges.answer_digest`."""

    piece: Piece
    salt: Bytes32
    kind: AnswerKind = "leaves"


class Answered(Struct, frozen=True, tag="answered"):
    """What the owner has known since the piece was stored."""

    digest: Bytes32


class Has(Struct, frozen=True, tag="has"):
    """Which of these pieces do you hold?"""

    pieces: Pieces


class Held(Struct, frozen=True, tag="held"):
    """One answer per piece, in the order asked."""

    held: Annotated[tuple[bool, ...], Meta(max_length=PIECES_PER_MESSAGE)]


class Delete(Struct, frozen=True, tag="delete"):
    """Forget these pieces; signed (see `delete_statement`) with the tenant key given when they were stored."""

    pieces: Pieces
    tenant: Bytes32
    signature: Signature


class Deleted(Struct, frozen=True, tag="deleted"):
    """How many pieces are gone now; the others were absent or another tenant's."""

    deleted: Uint16


class Renew(Struct, frozen=True, tag="renew"):
    """Go on keeping these pieces; signed (see `renew_statement`) like `Delete`."""

    pieces: Pieces
    tenant: Bytes32
    signature: Signature


class Renewed(Struct, frozen=True, tag="renewed"):
    """Which of the pieces are here and this tenant's, in the order asked: their lease begins anew."""

    renewed: Annotated[tuple[bool, ...], Meta(max_length=PIECES_PER_MESSAGE)]


class Inventory(Struct, frozen=True, tag="inventory"):
    """Which pieces have you of this tenant, after this id? Signed (see `inventory_statement`) with the tenant's key."""

    tenant: Bytes32
    signature: Signature
    after: Piece


class Listed(Struct, frozen=True, array_like=True):
    """One piece of an inventory; `stored` is in Unix seconds."""

    piece: Piece
    stored: Uint63
    note: Note


class Listing(Struct, frozen=True, tag="listing"):
    """The tenant's pieces with ids up to `through`, ascending; None: there are no more. Empty need not be the end."""

    pieces: Annotated[tuple[Listed, ...], Meta(max_length=LISTED_PER_MESSAGE)]
    through: Piece | None = None


class PutRoot(Struct, frozen=True, tag="put root"):
    """Keep the body, a volume's root record, unless a newer one is here. Its own signature is the permission."""


class RootKept(Struct, frozen=True, tag="root kept"):
    """The record is on the host's disk, fsynced, and the newest there."""


class GetRoot(Struct, frozen=True, tag="get root"):
    """The newest root record you have of this volume."""

    volume: Bytes32


class RootFound(Struct, frozen=True, tag="root found"):
    """The body is the record."""


class Status(Struct, frozen=True, tag="status"):
    """How are you? Answered only to a client that proves the host's own identity."""


class StatusReport(Struct, frozen=True, tag="status report"):
    """What `layrfs host status` shows. `dropped` counts peers and messages turned away, by reason."""

    space_bytes: int
    used_bytes: int
    free_bytes: int
    pieces: int
    quarantined: int
    verified: int
    verifying: bool
    requests: dict[str, int]
    dropped: dict[str, int]
    started: float
    audits_answered: int = 0
    """Challenges met since the start: `prove` and `answer`."""
    earning: EarningReport | None = None
    """None: the host is free."""


class Refused(Struct, frozen=True, tag="refused"):
    """No."""

    reason: Reason


Request = (
    Store
    | Retrieve
    | Prove
    | Answer
    | Has
    | Delete
    | Renew
    | Inventory
    | Status
    | PutRoot
    | GetRoot
    | Delegate
    | Entrust
    | GetPatches
    | Revoke
    | Quote
    | Propose
    | Opened
    | Cover
    | Disclose
    | Settle
    | Standing
    | Leave
)
Response = (
    Welcome
    | Stored
    | Retrieved
    | Proven
    | Answered
    | Held
    | Deleted
    | Renewed
    | Listing
    | StatusReport
    | RootKept
    | RootFound
    | Delegated
    | Entrusted
    | Patches
    | Revoked
    | Quoted
    | Agreed
    | Ready
    | Covered
    | Disclosed
    | Settled
    | Stands
    | Leaving
    | Refused
)


def hello_untrusted(header: bytes | bytearray) -> Hello:
    """A client's first message; BadMessage for anything else."""
    return decode_untrusted(Hello, header, limit=HEADER_LIMIT)


def request_untrusted(header: bytes | bytearray) -> Request:
    """Any later message of a client; BadMessage for anything else."""
    request: Request = decode_untrusted(Request, header, limit=HEADER_LIMIT)
    return request


def response_untrusted(header: bytes | bytearray) -> Response:
    """A server's message; BadMessage for anything else."""
    response: Response = decode_untrusted(Response, header, limit=HEADER_LIMIT)
    return response


def delete_statement(network: bytes, host: NodeId, challenge: bytes, number: int, pieces: Sequence[PieceId]) -> bytes:
    """What a `Delete` signs: good for one host, one connection, and the `number`-th signed request on it (from 0)."""
    return _statement(labels.SIGN_DELETE, network, host, challenge, number, pieces)


def renew_statement(network: bytes, host: NodeId, challenge: bytes, number: int, pieces: Sequence[PieceId]) -> bytes:
    """What a `Renew` signs, good as seldom."""
    return _statement(labels.SIGN_RENEW, network, host, challenge, number, pieces)


def _statement(
    label: bytes, network: bytes, host: NodeId, challenge: bytes, number: int, pieces: Sequence[PieceId]
) -> bytes:
    bound = network + host + challenge + struct.pack("<II", number, len(pieces))
    return labels.signed_bytes(label, bound + b"".join(pieces))


def inventory_statement(network: bytes, host: NodeId, challenge: bytes, number: int, after: PieceId) -> bytes:
    """What an `Inventory` signs: good for one host, one connection, and the `number`-th signed request on it."""
    bound = network + host + challenge + struct.pack("<I", number)
    return labels.signed_bytes(labels.SIGN_INVENTORY, bound + after)
