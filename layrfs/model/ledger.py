"""What is read from the ledger, as values: its head, an account, a transaction and what became of it.

Amounts are in stroops (10^-7 XLM), times in Unix seconds of the ledger's own clock, keys 32 raw bytes. Must not know
who answers (Horizon, or a ledger for development), nor what an account is good for.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

STROOPS_PER_XLM = 10_000_000

SignerKind = Literal["key", "preauth", "hash", "payload"]
"""Who counts as a signer: a public key, one transaction by its hash, whoever shows a preimage, a key for a payload."""


class LedgerHead(Struct, frozen=True):
    """The last closed ledger, and what it asks of accounts and transactions."""

    sequence: int
    closed_at: int
    base_reserve_stroops: int
    base_fee_stroops: int


class LedgerSigner(Struct, frozen=True):
    """``key``: of a payload signer only the public key."""

    kind: SignerKind
    key: bytes
    weight: int
    sponsored: bool = False


class LedgerAccount(Struct, frozen=True):
    """An account in full, as far as anybody but its owner could depend on it.

    ``signers`` has the account's own key too, with its weight. ``sponsors`` counts what others pay reserves for, the
    account itself included, ``sponsoring`` what it pays for others; ``liabilities_stroops`` is owed to its offers.
    ``memo_required``: who pays it must say for what (SEP-0029; exchanges do).
    """

    key: bytes
    sequence: int
    balance_stroops: int
    thresholds: tuple[int, int, int]
    signers: tuple[LedgerSigner, ...]
    subentries: int = 0
    sponsors: int = 0
    sponsoring: int = 0
    flags: int = 0
    liabilities_stroops: int = 0
    memo_required: bool = False

    def reserve_stroops(self, base_reserve_stroops: int) -> int:
        """What the ledger keeps it from spending."""
        return (2 + self.subentries + self.sponsoring - self.sponsors) * base_reserve_stroops

    def spendable_stroops(self, base_reserve_stroops: int) -> int:
        """What it can spend, fees included; never negative."""
        kept = self.reserve_stroops(base_reserve_stroops) + self.liabilities_stroops
        return max(0, self.balance_stroops - kept)


class LedgerTransaction(Struct, frozen=True):
    """A transaction that is in the ledger, also one that failed there: the fee was charged, nothing else happened.

    ``hash`` is of the transaction that was meant, also when a fee-bump carried it; ``codes`` says why it failed: the
    transaction's result code, then those of its operations. ``fee_account`` has paid the fee; ``result_xdr`` (base64)
    is what the ledger says of each operation.
    """

    hash: bytes
    successful: bool
    ledger: int
    closed_at: int
    fee_charged_stroops: int
    envelope: str
    codes: tuple[str, ...] = ()
    fee_account: bytes = b""
    result_xdr: str = ""


class HistoryPage(Struct, frozen=True):
    """Transactions that touched an account; ``cursor`` asks for those after them, whenever."""

    transactions: tuple[LedgerTransaction, ...]
    cursor: str


class Fate(Struct, frozen=True):
    """What was answered, asked in this order: the newest ledger, the source account, the transaction.

    So when ``head`` is past the time a transaction may be in, or ``source`` past its number, and ``transaction`` is
    None, it can never come; unless several servers share an address, and the last to answer was ``lag_seconds`` of the
    ledger's time behind the first (`layrfs.policy.submitting`).
    """

    head: LedgerHead
    source: LedgerAccount | None
    transaction: LedgerTransaction | None
    lag_seconds: int = 0
