"""The owner dies at every named step, with what it had not committed: nobody is paid twice, nothing is lost."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from trio.testing import MockClock

from layrfs import crashpoints
from layrfs.crypto.wallet_keys import account_of
from layrfs.storage.database import Database
from layrfs.storage.intents import IntentTable
from layrfs.storage.spending import Spending
from tests.fakes.ledger import InProcessLedger
from tests.fakes.paid_hosts import PaidHost
from tests.unit.upkeep.test_paymaster import PRICE, PRIVATE, WINDOW, Owner, balance

POINTS = [
    name for name, what in crashpoints.POINTS.items() if what.startswith("Owner: ") and not name.startswith("end ")
]
AGAIN = ["disclosure noted", "salt disclosed", "claim noted"]
"""What happens for each instalment."""

SENDING = ["intent kept", "transaction sent", "intent forgotten"]
SETUP_FEES, FEE = 300, 100


class Crash(BaseException):
    """The process is gone; nothing of ours may catch that."""


def die_at(monkeypatch: pytest.MonkeyPatch, name: str, times: int, dying: Callable[[], None]) -> list[str]:
    """From now on; the list says whether it has happened."""
    passes, died = itertools.count(1), list[str]()

    def reached(point: crashpoints._Armed, passed: str) -> None:
        if passed == point.name and not died and next(passes) >= times:
            died.append(passed)
            dying()
            raise Crash

    monkeypatch.setattr(crashpoints, "_ARMED", crashpoints._Armed(name, times, "", itertools.count(1)))
    monkeypatch.setattr(crashpoints, "_die_at", reached)
    return died


@pytest.mark.parametrize(
    ("point", "times"), [(name, 1) for name in [*POINTS, *SENDING]] + [(name, 2) for name in [*AGAIN, *SENDING]]
)
async def test_a_crash_costs_a_repetition_only(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, point: str, times: int
) -> None:
    ledger = InProcessLedger()
    ledger.fund(account_of(PRIVATE))
    host = PaidHost(9, ledger, PRICE)
    ledger.fund(host.account)
    before = balance(ledger, account_of(PRIVATE)), balance(ledger, host.account)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    died: list[str] = []
    with Database(str(first / "metadata.db")) as database:
        owner = Owner(database, ledger, [host], mock_clock)
        owner.limits.set(Spending(PRICE, None))
        await database.sync()
        died = die_at(monkeypatch, point, times, lambda: shutil.copytree(first, second))
        try:
            await owner.store(host, 1)
            await owner.rounds(4 * WINDOW + 500)
        except* Crash:
            pass
    assert died == [point]
    with Database(str(second / "metadata.db")) as database:
        again = Owner(database, ledger, [host], mock_clock)
        await again.lost.find(again.escrows.account)
        if states(database) != ["merged"]:
            await again.store(host, 1)  # an upload that no record names is done again
        await again.rounds(9 * WINDOW)
        assert set(states(database)) <= {"merged", "void"}
        assert IntentTable(database).all() == []
        contracts = [again.contracts.get(number) for number in range(1, 1 + len(states(database)))]
    paid = [each.paid_stroops for contract in contracts for each in contract.instalments]
    claims, set_up = len(host.claims), sum(contract.state == "merged" for contract in contracts)
    assert claims == len(set(host.claims)) == sum(stroops > 0 for stroops in paid)
    assert balance(ledger, host.account) - before[1] == sum(paid) > 0
    spent = before[0] - balance(ledger, account_of(PRIVATE))
    assert spent == sum(paid) + set_up * (SETUP_FEES + FEE) + claims * FEE
    last = [each.state for each in contracts[-1].instalments]
    assert last == ["claimed"] * 4, "no window was missed"


def states(database: Database) -> list[str]:
    """Of all contracts."""
    return [row[0] for row in database.rows("SELECT state FROM contract ORDER BY number")]
