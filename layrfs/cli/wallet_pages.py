"""How a wallet looks to a person, and to a program that asked for ``--json``. Amounts in JSON are strings, in XLM."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence

from msgspec import Struct

from layrfs.cli.rendering import table
from layrfs.logs import printable
from layrfs.model.intents import Settled
from layrfs.model.ledger import LedgerTransaction
from layrfs.model.lumens import shown_lumens
from layrfs.payments.reading import address_of
from layrfs.payments.wallet import Balance, Line

_SHOWN_ADDRESS = 6
_SHOWN_HASH = 12


class BalanceReport(Struct, frozen=True):
    """Of `layrfs wallet balance`."""

    address: str
    ledger: str
    exists: bool
    balance: str
    spendable: str
    reserve: str
    pending: tuple[str, ...]


class HistoryRow(Struct, frozen=True):
    """Of `layrfs wallet history`. `amount` without the fee, negative when it went out; `party`: who had or got it."""

    time: int
    kind: str
    amount: str
    fee: str
    party: str
    memo: str
    hash: str
    ledger: int
    successful: bool


class SentReport(Struct, frozen=True):
    """Of `layrfs wallet send`."""

    hash: str
    ledger: int
    fee: str


def show_code(address: str) -> None:
    """A QR code in the terminal."""
    import segno

    segno.make(address, error="l").terminal(sys.stdout, compact=True)


def balance_report(balance: Balance, address: str, ledger: str) -> BalanceReport:
    account, base = balance.account, balance.head.base_reserve_stroops
    return BalanceReport(
        address=address,
        ledger=ledger,
        exists=account is not None,
        balance=shown_lumens(account.balance_stroops if account else 0),
        spendable=shown_lumens(balance.spendable_stroops),
        reserve=shown_lumens(account.reserve_stroops(base) if account else 2 * base),
        pending=balance.open_purposes,
    )


def balance_page(report: BalanceReport) -> list[str]:
    if report.exists:
        rows = [("balance", f"{report.balance} XLM"), ("to spend", f"{report.spendable} XLM")]
        rows += [("to stay", f"{report.reserve} XLM (the ledger's reserve)")]
    else:
        rows = [("balance", f"none: the account begins with the first {report.reserve} XLM or more it is sent")]
    rows += [("address", report.address), ("ledger", printable(report.ledger))]
    rows += [("pending", printable(purpose)) for purpose in report.pending]
    return table(rows)


def history_row(line: Line) -> HistoryRow:
    done = line.transaction
    kinds = line.kinds or ("other" if done.successful else "failed",)
    return HistoryRow(
        time=done.closed_at,
        kind=", ".join(kinds),
        amount=shown_lumens(line.stroops),
        fee=shown_lumens(line.fee_stroops),
        party=", ".join(map(address_of, line.parties)),
        memo=line.memo,
        hash=done.hash.hex(),
        ledger=done.ledger,
        successful=done.successful,
    )


def history_page(rows: Sequence[HistoryRow]) -> list[str]:
    if not rows:
        return ["nothing came or went yet"]
    head = ("when", "XLM", "fee", "what", "with", "memo", "transaction")
    lines = [
        (
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.time)),
            row.amount if row.amount.startswith("-") else f"+{row.amount}",
            row.fee,
            row.kind,
            _short_parties(row.party),
            printable(row.memo)[:28],
            row.hash[:_SHOWN_HASH],
        )
        for row in rows
    ]
    return table([head, *lines])


def sent_report(done: LedgerTransaction) -> SentReport:
    return SentReport(done.hash.hex(), done.ledger, shown_lumens(done.fee_charged_stroops))


def note_settled(settled: Iterable[Settled]) -> None:
    """What became of payments that an earlier command began."""
    for each in settled:
        done = each.transaction
        fate = "it never came and never will" if done is None else "it was done" if done.successful else "it has failed"
        sys.stderr.write(f"layrfs wallet: an earlier payment, {printable(each.intent.purpose)}: {fate}\n")


def _short_parties(parties: str) -> str:
    return ", ".join(f"{each[:_SHOWN_ADDRESS]}…{each[-_SHOWN_ADDRESS:]}" for each in parties.split(", ") if each)
