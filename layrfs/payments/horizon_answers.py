"""Horizon's JSON, checked and turned into the values of `layrfs.model.ledger`. Pure.

Owns which fields are believed. Must not know how they were fetched. The invariant: anything but a complete and
consistent answer is BadMessage.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TypeVar

import msgspec
from stellar_sdk import StrKey
from stellar_sdk.exceptions import SdkError

from layrfs.errors import BadMessage
from layrfs.model.ledger import (
    HistoryPage,
    LedgerAccount,
    LedgerHead,
    LedgerSigner,
    LedgerTransaction,
    SignerKind,
)
from layrfs.payments import reading

_SIGNERS: dict[str, tuple[SignerKind, Callable[[str], bytes]]] = {
    "ed25519_public_key": ("key", StrKey.decode_ed25519_public_key),
    "preauth_tx": ("preauth", StrKey.decode_pre_auth_tx),
    "sha256_hash": ("hash", StrKey.decode_sha256_hash),
    "ed25519_signed_payload": ("payload", StrKey.decode_ed25519_signed_payload),
}
T = TypeVar("T")

_NOT_FOUND = "/not_found"
_MEMO_REQUIRED = ("config.memo_required", "MQ==")
_KEY_BYTES = 32
_MOST_DIGITS = 19


class Root(msgspec.Struct):
    """Of `GET /`."""

    network_passphrase: str


class _Ledger(msgspec.Struct):
    sequence: int
    closed_at: str
    base_fee_in_stroops: int
    base_reserve_in_stroops: int


class _LedgerRecords(msgspec.Struct):
    records: list[_Ledger]


class Ledgers(msgspec.Struct):
    """Of `GET /ledgers`."""

    embedded: _LedgerRecords = msgspec.field(name="_embedded")


class _Thresholds(msgspec.Struct):
    low_threshold: int
    med_threshold: int
    high_threshold: int


class _Signer(msgspec.Struct):
    key: str
    type: str
    weight: int
    sponsor: str | None = None


class _Flags(msgspec.Struct):
    auth_required: bool
    auth_revocable: bool
    auth_immutable: bool
    auth_clawback_enabled: bool = False


class _Balance(msgspec.Struct):
    asset_type: str
    balance: str
    selling_liabilities: str = "0"


class Account(msgspec.Struct):
    """Of `GET /accounts/{id}`."""

    account_id: str
    sequence: str
    subentry_count: int
    thresholds: _Thresholds
    signers: list[_Signer]
    flags: _Flags
    balances: list[_Balance]
    num_sponsoring: int = 0
    num_sponsored: int = 0
    data: dict[str, str] = {}


class Transaction(msgspec.Struct):
    """Of `GET /transactions/{hash}`, of `POST /transactions`, and of a page."""

    successful: bool
    ledger: int
    created_at: str
    fee_account: str
    fee_charged: int | str
    envelope_xdr: str
    result_xdr: str
    paging_token: str = ""


class _TransactionRecords(msgspec.Struct):
    records: list[Transaction]


class Transactions(msgspec.Struct):
    """Of `GET /accounts/{id}/transactions`."""

    embedded: _TransactionRecords = msgspec.field(name="_embedded")


class _Codes(msgspec.Struct):
    transaction: str = ""
    inner_transaction: str = ""
    operations: list[str] = []


class _Extras(msgspec.Struct):
    result_codes: _Codes | None = None


class Problem(msgspec.Struct):
    """Of any answer that is not what was asked for (RFC 7807)."""

    type: str
    title: str = ""
    detail: str = ""
    extras: _Extras | None = None

    def is_not_found(self) -> bool:
        """Horizon itself says that there is none: a page of some other server does not."""
        return self.type.endswith(_NOT_FOUND)

    def codes(self) -> tuple[str, ...]:
        """Why the ledger does not take a transaction; empty when that is not what it is about."""
        if self.extras is None or self.extras.result_codes is None:
            return ("tx_malformed",) if self.type.endswith("/transaction_malformed") else ()
        codes = self.extras.result_codes
        first = codes.inner_transaction or codes.transaction
        return (first, *codes.operations) if first else ()


def parsed_untrusted(text: str, kind: type[T]) -> T:
    """Raises BadMessage."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadMessage(f"the answer is not what Horizon says: {error}") from None


def head_untrusted(found: Ledgers) -> LedgerHead:
    """The newest ledger. Raises BadMessage."""
    if len(found.embedded.records) != 1:
        raise BadMessage("the answer has no newest ledger")
    ledger = found.embedded.records[0]
    return LedgerHead(
        sequence=_natural(ledger.sequence),
        closed_at=_seconds(ledger.closed_at),
        base_reserve_stroops=_natural(ledger.base_reserve_in_stroops),
        base_fee_stroops=_natural(ledger.base_fee_in_stroops),
    )


def account_untrusted(found: Account, key: bytes) -> LedgerAccount:
    """Raises BadMessage, also for another account than the one that was asked for."""
    if found.account_id != reading.address_of(key):
        raise BadMessage("the answer is about another account")
    lumens = next((each for each in found.balances if each.asset_type == "native"), None)
    if lumens is None:
        raise BadMessage("the answer names no lumens")
    flags = found.flags
    return LedgerAccount(
        key=key,
        sequence=_number(found.sequence),
        balance_stroops=_stroops(lumens.balance),
        thresholds=(found.thresholds.low_threshold, found.thresholds.med_threshold, found.thresholds.high_threshold),
        signers=tuple(map(_signer, found.signers)),
        subentries=_natural(found.subentry_count),
        sponsors=_natural(found.num_sponsored),
        sponsoring=_natural(found.num_sponsoring),
        flags=flags.auth_required | flags.auth_revocable << 1 | flags.auth_immutable << 2
        | flags.auth_clawback_enabled << 3,
        liabilities_stroops=_stroops(lumens.selling_liabilities),
        memo_required=_MEMO_REQUIRED in found.data.items(),
    )  # fmt: skip


def transaction_untrusted(found: Transaction, passphrase: str, asked_hash: bytes | None = None) -> LedgerTransaction:
    """Raises BadMessage, also when the envelope does not have the hash that was asked for on this network."""
    submission = reading.submission_untrusted(found.envelope_xdr, passphrase)
    if asked_hash is not None and submission.hash != asked_hash:
        raise BadMessage("the answer is about another transaction")
    codes = reading.codes_untrusted(found.result_xdr)
    if found.successful != (codes[0] == "tx_success"):
        raise BadMessage("the answer contradicts itself about whether the transaction was successful")
    return LedgerTransaction(
        hash=submission.hash,
        successful=found.successful,
        ledger=_natural(found.ledger),
        closed_at=_seconds(found.created_at),
        fee_charged_stroops=_number(str(found.fee_charged)),
        envelope=found.envelope_xdr,
        codes=() if found.successful else codes,
        fee_account=_key(found.fee_account),
        result_xdr=found.result_xdr,
    )


def page_untrusted(found: Transactions, passphrase: str, cursor: str) -> HistoryPage:
    """Raises BadMessage."""
    records = found.embedded.records
    transactions = tuple(transaction_untrusted(each, passphrase) for each in records)
    return HistoryPage(transactions, records[-1].paging_token if records else cursor)


def _signer(found: _Signer) -> LedgerSigner:
    try:
        kind, decode = _SIGNERS[found.type]
        key = decode(found.key)[:_KEY_BYTES]
    except (KeyError, ValueError, SdkError):
        raise BadMessage("the answer has a signer that is none") from None
    return LedgerSigner(kind, key, _natural(found.weight), sponsored=bool(found.sponsor))


def _key(address: str) -> bytes:
    try:
        return reading.account_key(address)
    except (ValueError, SdkError):
        raise BadMessage("the answer names an account that is none") from None


def _stroops(amount: str) -> int:
    try:
        return reading.stroops_of(amount)
    except ValueError:
        raise BadMessage("the answer has an amount that is none") from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise BadMessage("the answer has a number that is none")
    return int(text)


def _natural(number: int) -> int:
    if not 0 <= number < 2**63:
        raise BadMessage("the answer has a number that is none")
    return number


def _seconds(text: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise BadMessage("the answer has a time that is none") from None
    if moment.tzinfo is None:
        raise BadMessage("the answer has a time without a zone")
    return int(moment.timestamp())
