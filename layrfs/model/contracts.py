"""The terms of a contract between one owner and one host for one period, and the lock of an instalment.

Every transaction of a contract follows from its terms (`layrfs.payments.envelopes`), so both sides rebuild them and
nobody ever has to believe a stranger's. Amounts are in stroops, times in Unix seconds, keys 32 raw bytes.
Invariant: the windows of a contract's instalments are disjoint, adjacent and in order, and the refund is due after all.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from layrfs.crypto import labels
from layrfs.crypto.digests import labelled
from layrfs.errors import BadMessage
from layrfs.ids import NODE_ID_BYTES, NodeId
from layrfs.wire.codec import Uint16, Uint32, decode_untrusted, encode

TERMS_LIMIT_BYTES = 512
FEWEST_INSTALMENTS, MOST_INSTALMENTS = 2, 64
"""The first is for the upload, so there is always at least one for keeping."""

INSTALMENTS, WINDOW_SECONDS = 4, 648_000
"""What is proposed unless somebody says otherwise: four times seven and a half days."""

LONGEST_WINDOW_SECONDS = 366 * 86_400
MOST_STROOPS = 10**17
"""Ten thousand million XLM, a fifth of all there are: sums of a few of these stay within the ledger's 63 bits."""

LATEST_LEDGER = 2**31 - 2
"""A ledger's number is the upper half of a sequence number, which has 63 bits."""

Key = Annotated[bytes, Meta(min_length=32, max_length=32)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
NodeKey = Annotated[NodeId, Meta(min_length=NODE_ID_BYTES, max_length=NODE_ID_BYTES)]
Stroops = Annotated[int, Meta(ge=0, le=MOST_STROOPS)]
SomeStroops = Annotated[int, Meta(ge=1, le=MOST_STROOPS)]


class Terms(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What both agree on before money moves. ``owner``, ``host`` and ``escrow`` are accounts; ``node`` is the host."""

    owner: Key
    host: Key
    escrow: Key
    node: NodeKey
    tenant: Key
    """The owner's key at this host, which signs what the owner asks of it."""
    number: Uint16
    """Of the contract, counted for each owner and host."""
    start: Uint32
    window_seconds: Annotated[int, Meta(ge=1, le=LONGEST_WINDOW_SECONDS)]
    instalments: Annotated[int, Meta(ge=FEWEST_INSTALMENTS, le=MOST_INSTALMENTS)]
    price: SomeStroops
    """For one TiB and 30 days."""
    deposit_stroops: SomeStroops
    """What the owner puts in for all instalments together; reserve and fees come on top."""
    last_setup_ledger: Annotated[int, Meta(ge=1, le=LATEST_LEDGER)]
    """The escrow is set up in this ledger or before, or never."""
    collateral_stroops: Stroops
    """What the host puts in; each instalment that is claimed brings its share back."""
    memo: Bytes32
    owner_sequence: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    """Of the transaction that sets the escrow up."""
    network: Bytes32
    """SHA-256 of the passphrase of the ledger."""

    @property
    def contract_id(self) -> bytes:
        """32 bytes that stand for these terms and no others."""
        return labelled(labels.CONTRACT_ID, encode(self))

    @property
    def end(self) -> int:
        """The first second in which no instalment can be claimed any more, and the escrow goes back to the owner."""
        return self.start + self.instalments * self.window_seconds

    def window(self, instalment: int) -> tuple[int, int]:
        """The first and the last second in which the instalment can be claimed."""
        first = self.start + instalment * self.window_seconds
        return first, first + self.window_seconds - 1

    def instalment_at(self, seconds: float) -> int | None:
        """The instalment whose window is open then; None before the start and from the end on."""
        if not self.start <= seconds < self.end:
            return None
        return int(seconds - self.start) // self.window_seconds

    def to_bytes(self) -> bytes:
        """The terms as they are sent and kept."""
        return encode(self)


LEAST_PAID_BYTES = 4096
"""A host's disk has no smaller room for a piece."""


def paid_bytes(piece_bytes: int) -> int:
    """As how many bytes a piece counts: for credit, in covers, and so in what is paid."""
    return max(piece_bytes, LEAST_PAID_BYTES)


class Lock(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one instalment pays (the collateral's share included), and the SHA-256 of the answer that opens it."""

    amount_stroops: SomeStroops
    hash: Bytes32


class Offer(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a host asks for, and what it agrees to. ``price`` in stroops for one TiB and 30 days."""

    price: SomeStroops
    account: Key
    network: Bytes32
    fewest_instalments: Annotated[int, Meta(ge=FEWEST_INSTALMENTS, le=MOST_INSTALMENTS)] = FEWEST_INSTALMENTS
    most_instalments: Annotated[int, Meta(ge=FEWEST_INSTALMENTS, le=MOST_INSTALMENTS)] = MOST_INSTALMENTS
    shortest_window_seconds: Annotated[int, Meta(ge=1, le=LONGEST_WINDOW_SECONDS)] = 3_600
    longest_window_seconds: Annotated[int, Meta(ge=1, le=LONGEST_WINDOW_SECONDS)] = 31 * 86_400
    most_collateral_stroops: Stroops = 0


def terms_untrusted(data: bytes) -> Terms:
    """A stranger's terms, every number within its bounds and all keys apart; raises BadMessage.

    Whether they are what was offered, for the right ledger and the right time, is `layrfs.policy.agreeing`'s question.
    """
    terms = decode_untrusted(Terms, data, limit=TERMS_LIMIT_BYTES)
    if terms.owner in {terms.host, terms.escrow} or terms.host == terms.escrow:
        raise BadMessage("a contract's owner, host and escrow are three accounts, and these are not")
    return terms
