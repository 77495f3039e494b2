"""``layrfs wallet audit``: how the books of a wallet look to a person, and to a program that asked for ``--json``."""

from __future__ import annotations

import time
from collections.abc import Sequence

from msgspec import Struct

from layrfs.cli.rendering import shown_count, table
from layrfs.logs import printable
from layrfs.model.intents import Intent
from layrfs.model.lumens import shown_lumens
from layrfs.payments.books import Books, Line

_SHOWN_HASH = 12


class AuditedLine(Struct, frozen=True):
    """One transaction. Amounts are strings, in XLM; `wallet` and `escrow`: what came in, negative when it went out."""

    time: int
    what: str
    contract: str
    wallet: str
    escrow: str
    fee: str
    hash: str
    ledger: int


class WalletAudit(Struct, frozen=True):
    """Of `layrfs wallet audit`. `came` = `to_hosts` + `sent` + `fees` + `wallet` + `escrows`, or there is a difference.

    `notes`: what is not on record yet; `pending`: transactions under way.
    """

    came: str
    to_hosts: str
    sent: str
    fees: str
    wallet: str
    escrows: str
    differences: tuple[str, ...]
    notes: tuple[str, ...]
    pending: tuple[str, ...]
    transactions: tuple[AuditedLine, ...]


def audit_report(books: Books, pending: Sequence[Intent]) -> WalletAudit:
    sums = books.sums
    return WalletAudit(
        came=shown_lumens(sums.came),
        to_hosts=shown_lumens(sums.to_hosts),
        sent=shown_lumens(sums.sent),
        fees=shown_lumens(sums.fees),
        wallet=shown_lumens(sums.wallet),
        escrows=shown_lumens(sums.escrows),
        differences=books.differences,
        notes=books.notes,
        pending=tuple(each.purpose for each in pending),
        transactions=tuple(map(_audited, books.lines)),
    )


def audit_page(report: WalletAudit) -> list[str]:
    rows = [
        (
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.time)),
            _signed(each.wallet),
            _signed(each.escrow),
            each.fee,
            printable(each.what),
            each.contract,
            each.hash[:_SHOWN_HASH],
        )
        for each in report.transactions
    ]
    head = ("when", "wallet", "escrow", "fee", "what", "", "transaction")
    sums = [
        ("came in", report.came),
        ("to hosts", report.to_hosts),
        ("sent", report.sent),
        ("fees", report.fees),
        ("in the wallet", report.wallet),
        ("in escrows", report.escrows),
    ]
    return [
        *(table([head, *rows]) if rows else []),
        *table([(name, f"{amount} XLM") for name, amount in sums]),
        *(f"  {printable(note)}" for note in report.notes),
        *(f"  under way: {printable(purpose)}" for purpose in report.pending),
        *(f"! {printable(difference)}" for difference in report.differences),
        _verdict(report),
    ]


def _verdict(report: WalletAudit) -> str:
    if report.differences:
        return f"the books do not balance: {shown_count(len(report.differences), 'difference')}"
    return f"the books balance: {shown_count(len(report.transactions), 'transaction')}, no difference"


def _audited(line: Line) -> AuditedLine:
    return AuditedLine(
        time=line.at,
        what=line.what,
        contract=line.contract,
        wallet=shown_lumens(line.wallet_stroops),
        escrow=shown_lumens(line.escrow_stroops),
        fee=shown_lumens(line.fee_stroops),
        hash=line.hash.hex(),
        ledger=line.ledger,
    )


def _signed(amount: str) -> str:
    return "" if amount == "0" else amount if amount.startswith("-") else f"+{amount}"
