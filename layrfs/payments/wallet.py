"""A wallet: one account on one ledger, and the private key that spends from it.

Owns what a person asks of an account: balance, history, payments. Must not know volumes or contracts. The invariant: a
payment is written down before it is sent, and none is begun while the fate of an earlier one is open.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from stellar_sdk import Account, Asset, Keypair, TextMemo, TransactionBuilder
from stellar_sdk.exceptions import SdkError

from layrfs.crypto.wallet_keys import account_of
from layrfs.errors import Unfunded, UsageError
from layrfs.model.intents import Settled
from layrfs.model.ledger import LedgerAccount, LedgerHead, LedgerTransaction
from layrfs.model.lumens import shown_lumens
from layrfs.payments.ledger import Ledger
from layrfs.payments.reading import (
    Movement,
    account_key,
    address_of,
    movements_untrusted,
    stroops_of,
    submission_untrusted,
)
from layrfs.payments.submitting import Intents, Submitter

PAYMENT_SECONDS = 120
"""A payment gets in within so many seconds of the ledger's time, or never."""

LONGEST_MEMO_BYTES = 28
_SECRET_CHARACTERS = 56


class Balance(Struct, frozen=True):
    """`account` is None when it is not on the ledger; `open_purposes`: payments whose fate is not known."""

    head: LedgerHead
    account: LedgerAccount | None
    open_purposes: tuple[str, ...]

    @property
    def spendable_stroops(self) -> int:
        """What can be spent, fees included."""
        return self.account.spendable_stroops(self.head.base_reserve_stroops) if self.account else 0


class Line(Struct, frozen=True):
    """A transaction as it concerns an account: `stroops` came in (or went out, negative), without the fee it paid.

    `kinds`: of the movements (`layrfs.payments.reading.Movement`); `parties`: who else had a part in them.
    """

    transaction: LedgerTransaction
    kinds: tuple[str, ...]
    parties: tuple[bytes, ...]
    stroops: int
    fee_stroops: int
    memo: str


class Wallet:
    """All methods raise LedgerUnavailable and WrongLedger."""

    def __init__(self, ledger: Ledger, intents: Intents, private: bytes) -> None:
        self._ledger = ledger
        self._private = private
        self._submitter = Submitter(ledger, intents, private)
        self.account = account_of(private)

    async def settle(self) -> list[Settled]:
        """What became of payments that were begun earlier."""
        return await self._submitter.settle()

    async def balance(self) -> Balance:
        """Now."""
        head = await self._ledger.head()
        account = await self._ledger.account(self.account)
        return Balance(head, account, tuple(each.purpose for each in self._submitter.open()))

    async def history(self, limit: int) -> list[Line]:
        """The newest first."""
        lines: list[Line] = []
        cursor = ""
        while len(lines) < limit:
            page = await self._ledger.history(self.account, cursor, newest_first=True)
            lines += [line_of(each, self.account, self._ledger.passphrase) for each in page.transactions]
            if page.cursor == cursor or not page.transactions:
                break
            cursor = page.cursor
        return lines[:limit]

    async def send(self, destination: str, stroops: int, memo: str) -> LedgerTransaction:
        """Pay an address; one that is not on the ledger begins with it. Raises UsageError, Unfunded, Rejected."""
        target = checked_destination(destination, self.account)
        check_memo(memo)
        source, fee, last_second = await self._ready(stroops)
        there = await self._ledger.account(target)
        if there is not None and there.memo_required and not memo:
            raise UsageError(f"{destination} takes payments with a memo only (--memo); without one it would be lost")
        builder = TransactionBuilder(
            Account(address_of(self.account), source.sequence), self._ledger.passphrase, base_fee=fee
        )
        if there is None:
            builder.append_create_account_op(destination, shown_lumens(stroops))
        else:
            builder.append_payment_op(destination, Asset.native(), shown_lumens(stroops))
        if memo:
            builder.add_memo(TextMemo(memo))
        envelope = builder.add_time_bounds(0, last_second).build()
        envelope.sign(Keypair.from_raw_ed25519_seed(self._private))
        return await self._submitter.submit(envelope.to_xdr(), f"{shown_lumens(stroops)} XLM to {destination}")

    async def _ready(self, stroops: int) -> tuple[LedgerAccount, int, int]:
        """The account, the fee to offer, and the last second of a payment of so much. Raises Unfunded, UsageError."""
        if waiting := self._submitter.open():
            raise UsageError(f"an earlier payment ({waiting[0].purpose}) may still come; try again in two minutes")
        balance = await self.balance()
        fee = balance.head.base_fee_stroops
        if balance.account is None:
            raise Unfunded(f"the account {address_of(self.account)} is not on the ledger yet: nothing to send")
        if stroops + fee > balance.spendable_stroops:
            most = max(0, balance.spendable_stroops - fee)
            raise Unfunded(f"{shown_lumens(stroops)} XLM are more than can be sent: {shown_lumens(most)} XLM at most")
        return balance.account, fee, balance.head.closed_at + PAYMENT_SECONDS


def line_of(transaction: LedgerTransaction, account: bytes, passphrase: str) -> Line:
    """Raises BadMessage."""
    moved: tuple[Movement, ...] = ()
    if transaction.successful:
        moved = movements_untrusted(transaction.envelope, transaction.result_xdr, passphrase)
    ours = tuple(each for each in moved if account in {each.source, each.destination})
    return Line(
        transaction=transaction,
        kinds=tuple(sorted({each.kind for each in ours})),
        parties=tuple(dict.fromkeys(key for each in ours for key in (each.source, each.destination) if key != account)),
        stroops=_sum(ours, account),
        fee_stroops=transaction.fee_charged_stroops if transaction.fee_account == account else 0,
        memo=submission_untrusted(transaction.envelope, passphrase).memo,
    )


def _sum(movements: Sequence[Movement], account: bytes) -> int:
    came = sum(each.stroops for each in movements if each.destination == account)
    return came - sum(each.stroops for each in movements if each.source == account)


def checked_destination(address: str, own: bytes) -> bytes:
    """The account of a G address that is not our own. Raises UsageError."""
    try:
        key = account_key(address)
    except (ValueError, SdkError):
        if len(address) == _SECRET_CHARACTERS and address.startswith("S"):
            raise UsageError("that is a secret key and not an address: whoever sees it can spend what it has") from None
        raise UsageError(f"{address!r} is no Stellar address (G and 55 more letters and digits)") from None
    if key == own:
        raise UsageError("that is this wallet's own address")
    return key


def check_memo(memo: str) -> None:
    """Raises UsageError."""
    if len(memo.encode()) > LONGEST_MEMO_BYTES:
        raise UsageError(f"a memo has at most {LONGEST_MEMO_BYTES} bytes")


def stroops_to_send(text: str) -> int:
    """Of an amount in XLM. Raises UsageError."""
    try:
        stroops = stroops_of(text)
    except (ValueError, ArithmeticError):
        stroops = 0
    if stroops <= 0:
        raise UsageError(f"{text!r} is no amount of lumens: more than 0, with at most 7 decimals")
    return stroops


def secret_of(private: bytes) -> str:
    """The S key that other wallets import."""
    return Keypair.from_raw_ed25519_seed(private).secret


def private_of(secret: str) -> bytes:
    """The 32 bytes of an S key. Raises UsageError, which does not repeat it."""
    try:
        return Keypair.from_secret(secret).raw_secret_key()
    except (SdkError, ValueError):
        raise UsageError("that is no secret key of a Stellar account (S and 55 more characters)") from None
