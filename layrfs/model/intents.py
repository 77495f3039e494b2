"""A transaction that shall get into the ledger: written down before it is sent, forgotten when its fate is known."""

from __future__ import annotations

from msgspec import Struct

from layrfs.model.ledger import LedgerTransaction


class Intent(Struct, frozen=True):
    """`hash` and the signed `xdr` (base64); `latest`: the last second it may be in, by the ledger (0: whenever).

    `purpose` is for people. `is_abandoned`: it was refused, so it is not sent again, only watched until it cannot come.
    """

    hash: bytes
    xdr: str
    made_at: int
    latest: int
    purpose: str
    is_abandoned: bool = False


class Settled(Struct, frozen=True):
    """An intent whose fate is known: `transaction` is None when it can never come."""

    intent: Intent
    transaction: LedgerTransaction | None
