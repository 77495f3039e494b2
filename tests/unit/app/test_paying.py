"""Payments are off until a limit is set, and cost nothing before."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
import pytest
import trio
from trio.testing import MockClock

from layrfs.app.paying import LOOK_SECONDS, Payments
from layrfs.config import MountOptions, Paths
from layrfs.control.commands import Nothing, SetSpending
from layrfs.errors import ReadOnly, UsageError
from layrfs.model.status import SpendingLimit
from layrfs.storage.contracts import Contracts
from layrfs.storage.database import Database
from tests.contract_terms import TERMS
from tests.drive import REPOSITORY
from tests.fakes.loopback import KEYS
from tests.unit.pipeline.test_placing import record

if TYPE_CHECKING:
    from layrfs.app.reach_of_payments import Reach


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(str(tmp_path / "metadata.db")) as database:
        yield database


def payments(database: Database, tmp_path: Path, *, read_only: bool = False) -> Payments:
    options = MountOptions(read_only=read_only)
    return Payments(database=database, paths=Paths.under(str(tmp_path)), keys=KEYS, options=options)


async def test_limits_are_set_one_by_one_and_taken_away(database: Database, tmp_path: Path) -> None:
    paying = payments(database, tmp_path)
    assert await paying.get(Nothing(), print) == SpendingLimit(None, None)
    assert await paying.set(SetSpending(max_price="2.5"), print) == SpendingLimit(25_000_000, None)
    assert await paying.set(SetSpending(budget="10"), print) == SpendingLimit(25_000_000, 100_000_000)
    with pytest.raises(UsageError):
        await paying.set(SetSpending(max_price="much", budget="1"), print)
    assert await payments(database, tmp_path).get(Nothing(), print) == SpendingLimit(25_000_000, 100_000_000)
    assert await paying.set(SetSpending(max_price="off"), print) == SpendingLimit(None, 100_000_000)


async def test_who_only_reads_sets_nothing(database: Database, tmp_path: Path) -> None:
    with pytest.raises(ReadOnly):
        await payments(database, tmp_path, read_only=True).set(SetSpending(max_price="1"), print)


async def test_nobody_is_paid_before_a_limit_is_set_and_it_is_said_when_that_is_why(
    database: Database, tmp_path: Path
) -> None:
    paying = payments(database, tmp_path)
    assert paying.highest_price() == 0
    assert paying.unpaid() == frozenset()
    assert paying.problems([record(1), record(2, price=7)], set) == []
    (problem,) = paying.problems([record(1, price=9), record(2, price=7)], set)
    assert "max_price" in problem


async def test_hosts_that_begin_to_want_more_than_is_paid_are_named_while_they_have_pieces(
    database: Database, tmp_path: Path
) -> None:
    paying, hosts = payments(database, tmp_path), [record(1), record(2, price=7), record(3, price=9)]
    holders = {host.node_id for host in hosts[:2]}
    (problem,) = paying.problems(hosts, lambda: holders)
    assert "1 hosts that have pieces" in problem
    assert paying.problems(hosts[:1], lambda: holders) == []
    await paying.set(SetSpending(max_price="0.0000007"), print)
    assert paying.problems(hosts, lambda: holders) == []
    await paying.set(SetSpending(max_price="0.0000006"), print)
    number = Contracts(database).add(msgspec.structs.replace(TERMS, node=hosts[1].node_id), "open")
    assert paying.problems(hosts, lambda: holders) == [], "what was agreed holds"
    Contracts(database).set_state(number, "merged")
    assert len(paying.problems(hosts, lambda: holders)) == 1


async def test_records_that_cannot_be_read_end_no_drive(
    autojump_clock: MockClock, database: Database, tmp_path: Path
) -> None:
    database.write("ALTER TABLE contract RENAME TO elsewhere")
    paying = payments(database, tmp_path)
    with trio.move_on_after(2 * LOOK_SECONDS) as waited:
        await paying.run(cast("Reach", None))  # looked at when a ledger has been chosen
    assert waited.cancelled_caught
    assert any("no host can be paid" in problem for problem in paying.problems([], set))


async def test_who_was_taken_over_pays_nobody_any_more(
    autojump_clock: MockClock, database: Database, tmp_path: Path
) -> None:
    paying = payments(database, tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(paying.run, cast("Reach", None))
        await paying.set(SetSpending(max_price="1"), print)
        await trio.sleep(2 * LOOK_SECONDS)  # it waits for a ledger to be chosen
        with trio.fail_after(1):
            paying.stop()
            while nursery.child_tasks:
                await trio.lowlevel.checkpoint()


def test_without_payments_the_ledgers_library_is_not_loaded() -> None:
    code = "import layrfs.app.drive, layrfs.worker, sys; print(sorted(m for m in sys.modules if 'stellar' in m))"
    variables = {**os.environ, "PYTHONPATH": REPOSITORY}
    done = subprocess.run([sys.executable, "-c", code], env=variables, check=True, text=True, capture_output=True)
    assert done.stdout.strip() == "[]"
