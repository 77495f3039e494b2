"""What a ledger is at one moment: its header and its accounts, and drafts of what they would be. Pure.

Owns the shapes, and the reserve that follows from them. Must not know transactions. Invariant: accounts are never
changed in place; whoever keeps a draft's changes keeps all of them or none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec

from layrfs.errors import UsageError
from layrfs.model.ledger import STROOPS_PER_XLM

DEVELOPMENT_PREFIX = "LayrFS development ledger ; "
TOTAL_STROOPS = 100_000_000_000 * STROOPS_PER_XLM
"""As many as Stellar began with; an account cannot hold more than 2^63 - 1."""

BASE_FEE_STROOPS = 100
BASE_RESERVE_STROOPS = 5_000_000
MOST_SIGNERS = 20
_LEDGER_BITS = 32

SignerKind = Literal["ed25519_public_key", "sha256_hash", "preauth_tx"]
"""As Horizon calls them."""


class SignerKey(msgspec.Struct, frozen=True, order=True, array_like=True):
    """Who or what may sign: a public key, the hash of something secret, the hash of one transaction."""

    kind: SignerKind
    key: bytes


class Signer(msgspec.Struct, frozen=True, array_like=True):
    """A signer of an account, and what its word weighs."""

    key: SignerKey
    weight: int


class Account(msgspec.Struct, frozen=True):
    """One account; its key is an ed25519 public key of 32 bytes."""

    key: bytes
    balance_stroops: int
    sequence: int
    sequence_ledger: int = 0
    """The ledger that last set the sequence number, as the next field is its time; 0 while none has."""
    sequence_time: int = 0
    master_weight: int = 1
    low: int = 0
    medium: int = 0
    high: int = 0
    flags: int = 0
    home_domain: str = ""
    signers: tuple[Signer, ...] = ()
    modified_ledger: int = 0

    def all_signers(self) -> tuple[Signer, ...]:
        """With the account's own key, as far as that still counts."""
        own = Signer(SignerKey("ed25519_public_key", self.key), self.master_weight)
        return (own, *self.signers) if self.master_weight else self.signers


class Header(msgspec.Struct, frozen=True):
    """The last closed ledger; times are Unix seconds."""

    sequence: int
    closed_at: int
    base_fee_stroops: int = BASE_FEE_STROOPS
    base_reserve_stroops: int = BASE_RESERVE_STROOPS
    fee_pool_stroops: int = 0

    def reserve_stroops(self, account: Account) -> int:
        """What an account has to keep: for itself, and for each signer."""
        return (2 + len(account.signers)) * self.base_reserve_stroops

    def available_stroops(self, account: Account) -> int:
        """What it may spend; negative when the reserve was raised above its balance."""
        return account.balance_stroops - self.reserve_stroops(account)

    def first_sequence(self) -> int:
        """The sequence number of accounts that begin in this ledger."""
        return self.sequence << _LEDGER_BITS


class Accounts(Protocol):
    """Accounts by key."""

    def get(self, key: bytes, /) -> Account | None:
        """None when there is no such account."""
        ...


class Draft:
    """Accounts as they would be. Nothing below changes until somebody keeps what is in `changes`."""

    def __init__(self, below: Accounts) -> None:
        self._below = below
        self.changes: dict[bytes, Account | None] = {}
        """None: the account is gone."""

    def get(self, key: bytes, /) -> Account | None:
        """As it would be."""
        return self.changes[key] if key in self.changes else self._below.get(key)

    def put(self, account: Account) -> None:
        """A new one, or one that is different now."""
        self.changes[account.key] = account

    def remove(self, key: bytes) -> None:
        """It is gone."""
        self.changes[key] = None

    def keep(self, inner: Draft) -> None:
        """Take over what a draft above this one says."""
        self.changes.update(inner.changes)


class State(msgspec.Struct, frozen=True):
    """A whole ledger. Its passphrase names the network that transactions are signed for."""

    passphrase: str
    header: Header
    accounts: Mapping[bytes, Account]

    def total_stroops(self) -> int:
        """All there is: never changes."""
        return self.header.fee_pool_stroops + sum(each.balance_stroops for each in self.accounts.values())


def network_id(passphrase: str) -> bytes:
    """32 bytes, part of everything that is signed."""
    return hashlib.sha256(passphrase.encode()).digest()


def genesis(passphrase: str, root: bytes, at_seconds: int) -> State:
    """The first ledger: one account has everything. Raises UsageError for a passphrase that is no development ledger's.

    Whoever gets a transaction for a ledger of real money signed here could spend that money there.
    """
    check_passphrase(passphrase)
    header = Header(sequence=1, closed_at=at_seconds)
    return State(passphrase, header, {root: Account(root, TOTAL_STROOPS, sequence=0, modified_ledger=1)})


def check_passphrase(passphrase: str) -> None:
    """Raises UsageError unless it is a development ledger's."""
    if not passphrase.startswith(DEVELOPMENT_PREFIX):
        raise UsageError(
            f"a development ledger's passphrase begins with {DEVELOPMENT_PREFIX!r}; "
            "what is signed here must be worth nothing on a ledger of real money"
        )
