"""What an owner and a host that wants money say to each other: quote, propose, open, cover, disclose, end.

Owns the shapes only, like `layrfs.wire.messages`, whose unions these requests and responses are part of. Every request
but `Quote` is signed by the owner's tenant key for this host, so a contract is known to its two parties alone. Terms
are opaque here (`layrfs.model.contracts` has them). Only `Cover` has a body.
Invariant: no transaction is ever said, only what it takes to build one: neither side signs what it has not made itself.
"""

from __future__ import annotations

import struct
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from layrfs.crypto import labels
from layrfs.crypto.digests import Buffer
from layrfs.errors import BadMessage
from layrfs.ids import NodeId, PieceId
from layrfs.wire.codec import Uint16, Uint32, Uint63, encode

TERMS_LIMIT_BYTES = 1024
PIECE_ID_BYTES = 32
COVERED_PIECES_LIMIT = 16_384
"""In one cover: half a MiB of ids, for up to 64 GiB of pieces."""

BATCHES_LIMIT = 1024
"""Covers of one contract; all of them fit in the header of one `Stands`."""

INSTALMENTS_LIMIT = 64

Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Instalment = Annotated[int, Meta(ge=0, lt=INSTALMENTS_LIMIT)]
Terms = Annotated[bytes, Meta(max_length=TERMS_LIMIT_BYTES)]

ContractState = Literal["agreed", "open", "notice", "ended"]
InstalmentState = Literal["waiting", "disclosed", "claimed", "missed"]


class Quote(Struct, frozen=True, tag="quote"):
    """What do you take? For everybody, as the price is in the node's record."""


class Quoted(Struct, frozen=True, tag="quoted"):
    """Terms must have this price, account and ledger, and keep within the bounds. Refused by hosts that are free."""

    price: Uint63
    """Stroops for one TiB and 30 days."""

    account: Bytes32
    """The host's on the ledger; it exists."""

    ledger: Bytes32
    """SHA-256 of the ledger's passphrase."""

    instalments_min: Instalment
    instalments_max: Annotated[int, Meta(ge=0, le=INSTALMENTS_LIMIT)]
    window_min_seconds: Uint32
    window_max_seconds: Uint32
    collateral_stroops: Uint63
    """The most that the host puts up in one contract."""


class Propose(Struct, frozen=True, tag="propose"):
    """Do you agree to these terms? Asked again, with the same terms, it is answered the same."""

    tenant: Bytes32
    terms: Terms
    signature: Signature


class Agreed(Struct, frozen=True, tag="agreed"):
    """They are on the host's disk, fsynced, as terms that it will keep to once the escrow is on the ledger."""

    setup_signature: Annotated[bytes, Meta(max_length=64)]
    """The host account's, of SETUP, when the terms have collateral of it; else empty."""


class Opened(Struct, frozen=True, tag="opened"):
    """SETUP is on the ledger: look."""

    tenant: Bytes32
    contract: Bytes32
    signature: Signature


class Ready(Struct, frozen=True, tag="ready"):
    """The escrow is just what the terms say. Pieces are taken, so many bytes before a cover has to come."""

    credit_bytes: Uint63


class SignedLock(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What makes P_i: its amount, its hash lock h_i, and the escrow key's signature of it."""

    amount_stroops: Uint63
    hash: Bytes32
    signature: Signature


class Cover(Struct, frozen=True, tag="cover"):
    """These pieces are paid for from now on. The body is their ids, in the order in which they are hashed."""

    tenant: Bytes32
    contract: Bytes32
    batch: Annotated[int, Meta(ge=0, lt=BATCHES_LIMIT)]
    """The next one, from 0; the last one again, unchanged, is covered again."""

    first: Instalment
    """The first instalment that has to do with these pieces."""

    at: Uint63
    """Since when they are paid for, in Unix seconds."""

    bytes: Uint63
    """Of the pieces, all together."""

    locks: Annotated[tuple[SignedLock, ...], Meta(min_length=1, max_length=INSTALMENTS_LIMIT)]
    """Of the instalments from `first` on, for all pieces covered so far and these, instead of the earlier ones."""

    signature: Signature


class Covered(Struct, frozen=True, tag="covered"):
    """The host has all of the pieces; they and the locks are on its disk, fsynced."""


class Disclose(Struct, frozen=True, tag="disclose"):
    """Here is the salt of an instalment whose window is open. May be asked again, to hear how far it is."""

    tenant: Bytes32
    contract: Bytes32
    instalment: Instalment
    salt: Bytes32
    signature: Signature


class Disclosed(Struct, frozen=True, tag="disclosed"):
    """The salt is on the host's disk, fsynced. Refused: `missing`, `lock does not fit` when it came to nothing."""

    state: Literal["disclosed", "claimed"]
    """`disclosed`: the host reads its pieces, or waits for the ledger."""


class Settle(Struct, frozen=True, tag="settle"):
    """May the contract end now, with so much for the host and the rest for the owner?"""

    tenant: Bytes32
    contract: Bytes32
    host_stroops: Uint63
    sequence: Uint63
    """The transaction's: one more than the escrow's account has."""

    max_time: Uint63
    """Unix seconds until which it may enter the ledger."""

    signature: Signature


class Settled(Struct, frozen=True, tag="settled"):
    """Yes: the host account's signature of the co-operative end."""

    host_signature: Signature


class Standing(Struct, frozen=True, tag="standing"):
    """What have you on record of the owner's contract with this number? For owners who have lost theirs."""

    tenant: Bytes32
    number: Uint16
    signature: Signature


class StandingBatch(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One cover, as it was said."""

    first: Instalment
    at: Uint63
    bytes: Uint63
    pieces: Uint32


class StandingInstalment(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One instalment, as it was last covered; the hash is empty when it never was."""

    amount_stroops: Uint63
    hash: Annotated[bytes, Meta(max_length=32)]
    state: InstalmentState


class Stands(Struct, frozen=True, tag="stands"):
    """That. Refused `no contract` when there is none."""

    terms: Terms
    state: ContractState
    batches: Annotated[tuple[StandingBatch, ...], Meta(max_length=BATCHES_LIMIT)]
    instalments: Annotated[tuple[StandingInstalment, ...], Meta(max_length=INSTALMENTS_LIMIT)]
    uncovered_bytes: Uint63
    """Stored, and in no cover yet."""

    leaving: bool
    """Whether the host takes nothing new, because it is going."""


class Leave(Struct, frozen=True, tag="leave"):
    """Take nothing new, and end when nothing is due any more. Answered only to who proves the host's own identity."""


class Leaving(Struct, frozen=True, tag="leaving"):
    """So it does: so many contracts run, the last one until then (Unix seconds; 0: none does)."""

    contracts: Uint32
    until: Uint63


class OwnerReport(Struct, frozen=True, array_like=True):
    """What one owner's contracts bring, all of them; `state`, `stored_bytes` and `until` are of the newest."""

    tenant: bytes
    state: ContractState
    stored_bytes: int
    until: int
    earned_stroops: int
    pending_stroops: int
    at_risk_stroops: int


class EarningReport(Struct, frozen=True):
    """What `layrfs host status` shows of money. `balance_stroops` None: no account was seen on the ledger."""

    price: int
    account: bytes
    balance_stroops: int | None
    problem: str
    """Why the ledger cannot be asked; empty: it can."""

    leaving: bool
    running: int
    earned_stroops: int
    pending_stroops: int
    at_risk_stroops: int
    owners: tuple[OwnerReport, ...]


ContractRequest = Propose | Opened | Cover | Disclose | Settle | Standing
ContractResponse = Agreed | Ready | Covered | Disclosed | Settled | Stands

UNSIGNED = bytes(64)


def contract_statement(
    network: bytes, host: NodeId, challenge: bytes, number: int, request: ContractRequest, body: Buffer
) -> bytes:
    """What a request signs: good for one host, one connection, and the `number`-th signed request on it (from 0).

    The request itself is in it with 64 zero bytes for a signature, and then the body.
    """
    bound = network + host + challenge + struct.pack("<I", number)
    unsigned = encode(msgspec.structs.replace(request, signature=UNSIGNED))
    return labels.signed_bytes(labels.SIGN_CONTRACT, bound + unsigned + bytes(body))


def cover_body(pieces: tuple[PieceId, ...]) -> bytes:
    """The body of a `Cover`."""
    return b"".join(pieces)


def covered_untrusted(body: bytes | bytearray | memoryview) -> tuple[PieceId, ...]:
    """The pieces of a `Cover`, in order, each once; BadMessage for anything else."""
    if len(body) % PIECE_ID_BYTES or not 0 < len(body) <= COVERED_PIECES_LIMIT * PIECE_ID_BYTES:
        raise BadMessage("a cover is not of so many pieces")
    data = bytes(body)
    pieces = tuple(PieceId(data[at : at + PIECE_ID_BYTES]) for at in range(0, len(data), PIECE_ID_BYTES))
    if len(set(pieces)) != len(pieces):
        raise BadMessage("a cover names a piece twice")
    return pieces
