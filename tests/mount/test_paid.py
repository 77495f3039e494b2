"""Hosts that are paid, by a real drive on a real ledger: for the upload, for each audit, and while they live."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import apsw
import msgspec
import pytest
from stellar_sdk import Keypair

from layrfs import crashpoints, tempo
from layrfs.model.contracts import Terms
from layrfs.model.lumens import parse_lumens
from tests.drive import FUSE_IS_THERE, Drive, HostNetwork, layrfs, wait_for
from tests.hosts.local_ledger import LocalLedger, ledger_run

pytestmark = pytest.mark.skipif(not FUSE_IS_THERE, reason="needs /dev/fuse")

HOSTS = 3
PRICE = "20000"
"""So that a few pieces for a few seconds are many stroops."""

LEAVING_HOSTS, HAND_OVER_SECONDS = 7, 300.0
"""Two more than a list of files has copies: for all that one of them has there is another."""

SETUP_FEES, FEE = 300, 100
CLOSE_SECONDS = 1
"""A set-up may take twelve ledgers, and what is not in after three is bid more for."""

PATIENCE_SECONDS = 240.0


class Paying(NamedTuple):
    """All there is."""

    ledger: LocalLedger
    hosts: HostNetwork
    drive: Drive

    def wallet_of(self, host: int) -> Keypair:
        """As the host says when it starts."""

        def said() -> list[str]:
            lines = Path(self.hosts.output(host)).read_text("utf-8").splitlines(keepends=True)
            return [line.split()[1] for line in lines if line.startswith("wallet ") and line.endswith("\n")]

        wait_for(lambda: bool(said()), "it says where its wallet is")
        return Keypair.from_public_key(said()[0])

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """Of the owner's database."""
        path = os.path.join(self.drive.home, "volumes", "default", "metadata.db")
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        connection.set_busy_timeout(5000)
        try:
            return list(connection.execute(query))
        finally:
            connection.close()

    def instalments(self) -> dict[bytes, list[tuple[str, int]]]:
        """State and what was paid of each, by the account of the host; of those that came on the ledger."""
        found: dict[bytes, list[tuple[str, int]]] = {}
        query = (
            "SELECT c.terms, i.state, i.paid_stroops FROM contract c JOIN contract_instalment i"
            " ON i.contract = c.number WHERE c.state != 'void' ORDER BY c.number, i.number"
        )
        for terms, state, paid in self.rows(query):
            host = msgspec.msgpack.decode(terms, type=Terms).host
            found.setdefault(host, []).append((str(state), int(str(paid))))
        return found

    def node_of(self, host: int) -> bytes:
        """As the host said when it started."""
        lines = Path(self.hosts.output(host)).read_text("utf-8").splitlines()
        return bytes.fromhex(next(line.split()[1] for line in lines if line.startswith("host ")))

    def holders(self) -> set[object]:
        """Hosts that have pieces of files on record."""
        return {node for (node,) in self.rows("SELECT node_id FROM host JOIN piece ON piece.host = host.number")}

    def contract_of(self, host: int) -> tuple[Terms, str]:
        """Terms and state of the first one with a host."""
        account = self.wallet_of(host).raw_public_key()
        found = self.rows("SELECT terms, state FROM contract ORDER BY number")
        decoded = ((msgspec.msgpack.decode(terms, type=Terms), str(state)) for terms, state in found)
        return next((terms, state) for terms, state in decoded if terms.host == account)

    def states(self) -> list[str]:
        """Of the contracts."""
        return [str(state) for (state,) in self.rows("SELECT state FROM contract")]

    def claimed(self) -> int:
        """How many instalments hosts have got."""
        return sum(state == "claimed" for each in self.instalments().values() for state, _paid in each)

    def says(self) -> str:
        """For a failure's message."""
        problems = self.drive.status()["problems"]
        return f"{self.states()} {self.instalments()} {problems}"


@contextmanager
def paying(
    directory: Path,
    *,
    instalments: int,
    window_seconds: int,
    variables: Mapping[str, str] = MappingProxyType({}),
    count: int = HOSTS,
) -> Iterator[Paying]:
    """Windows are longer on a machine that needs longer for everything."""
    began = time.monotonic()
    with ledger_run(directory / "ledger", "--close-seconds", str(CLOSE_SECONDS)) as ledger:
        words = ("--price", PRICE, "--ledger", ledger.url)
        with HostNetwork(str(directory / "hosts"), count, words=words) as hosts:
            drive = Drive(str(directory / "drive"), seeds=hosts.seeds)
            drive.init()
            layrfs(drive.home, "wallet", "ledger", ledger.url)
            layrfs(drive.home, "wallet", "fund")
            found = Paying(ledger, hosts, drive)
            for host in range(count):
                address = found.wallet_of(host).public_key
                ledger.request("GET", "friendbot", params={"addr": address}).raise_for_status()
            window_seconds = max(window_seconds, math.ceil(time.monotonic() - began))
            drive.options = [f"instalments={instalments}", f"contract_period={instalments * window_seconds}"]
            drive.variables = dict(variables)
            with drive:
                yield found


def owner_of(paying: Paying) -> Keypair:
    (terms,) = paying.rows("SELECT terms FROM contract LIMIT 1")[0]
    return Keypair.from_raw_ed25519_public_key(msgspec.msgpack.decode(terms, type=Terms).owner)


def test_hosts_earn_at_upload_and_at_each_audit_and_a_dead_ones_instalments_come_back(
    tmp_path: Path, big: bool
) -> None:
    instalments, window_seconds = (4, 20) if big else (2, 8)
    with paying(tmp_path, instalments=instalments, window_seconds=window_seconds) as at:
        drive = at.drive
        layrfs(drive.home, "set", drive.path, f"max_price={PRICE}")
        data = os.urandom(3 << 20)
        Path(drive.path, "file").write_bytes(data)
        drive.sync()
        owner, before = owner_of(at), 10_000 * 10**7
        dead = at.wallet_of(0).raw_public_key()
        wait_for(lambda: [*at.instalments().get(dead, ()), ("", 0)][0][0] == "claimed", at.says, PATIENCE_SECONDS)
        at.hosts.kill(0)
        layrfs(drive.home, "set", drive.path, "max_price=off")
        wait_for(lambda: set(at.states()) <= {"merged", "void"}, at.says, PATIENCE_SECONDS)
        found = at.instalments()
        assert [state for state, _paid in found.pop(dead)][-1] == "missed"
        assert len(found) == HOSTS - 1
        for living in found.values():
            assert [state for state, _paid in living] == ["claimed"] * instalments
            assert all(paid > 0 for _state, paid in living)
        drive.drop_cache()
        assert Path(drive.path, "file").read_bytes() == data
        books_balance(at, owner, before)
        drive.umount(wait=False)
        audited(drive)


def audited(drive: Drive) -> dict[str, Any]:
    """`layrfs wallet audit`, which has found no difference."""
    found: dict[str, Any] = json.loads(layrfs(drive.home, "wallet", "audit", "--json").stdout)
    assert found["differences"] == []
    return found


POINTS = [
    name
    for name, what in crashpoints.POINTS.items()
    if what.startswith("Owner: ") and not name.startswith("end ")  # an hour later: tests/unit/upkeep/test_both_sides.py
] + ["transaction sent"]


@pytest.mark.parametrize("point", POINTS)
def test_a_drive_that_dies_while_it_pays_goes_on_when_it_is_mounted_again(
    tmp_path: Path, big: bool, point: str
) -> None:
    if not big:
        pytest.skip("--big: half a minute for each; in one process every point is tried in any case")
    armed = tmp_path / "armed"
    armed.touch()
    variables = {crashpoints.VARIABLE: f"{point}@1@{armed}"}
    with paying(tmp_path, instalments=2, window_seconds=8, variables=variables) as at:
        drive, data = at.drive, os.urandom(1 << 20)
        layrfs(drive.home, "set", drive.path, f"max_price={PRICE}")
        Path(drive.path, "file").write_bytes(data)
        wait_for(lambda: not armed.exists(), at.says, PATIENCE_SECONDS)
        drive.crash()
        drive.variables = {}
        drive.mount()
        drive.sync()
        layrfs(drive.home, "set", drive.path, "max_price=off")
        wait_for(lambda: set(at.states()) <= {"merged", "void"}, at.says, PATIENCE_SECONDS)
        assert Path(drive.path, "file").read_bytes() == data
        books_balance(at, owner_of(at), 10_000 * 10**7)


def books_balance(at: Paying, owner: Keypair, before: int) -> None:
    """Every stroop that left the owner's account was paid to a host, or is a fee."""
    instalments = at.instalments()
    paid = sum(stroops for each in instalments.values() for _state, stroops in each)
    claims = sum(state == "claimed" for each in instalments.values() for state, _paid in each)
    fees = at.states().count("merged") * (SETUP_FEES + FEE) + claims * FEE
    assert before - at.ledger.stroops(owner) == paid + fees
    found = audited(at.drive)
    assert (parse_lumens(found["to_hosts"]), parse_lumens(found["fees"])) == (paid, fees)
    assert (found["sent"], found["escrows"]) == ("0", "0")


def on_another_machine(at: Paying, directory: Path) -> Paying:
    """The same volume, recovered where it takes over when it is mounted."""
    second = Drive(str(directory / "second"), options=[*at.drive.options, "take_over"], seeds=at.hosts.seeds)
    phrase = os.path.join(os.path.dirname(at.drive.home), "phrase")
    layrfs(second.home, "recover", "--phrase-file", phrase, *at.hosts.seeds)
    layrfs(second.home, "wallet", "ledger", at.ledger.url)
    return at._replace(drive=second)


def test_with_the_phrase_another_machine_pays_on(tmp_path: Path, big: bool) -> None:
    if not big:
        pytest.skip("--big: three quarters of a minute")
    with paying(tmp_path, instalments=2, window_seconds=20) as at:
        drive, data = at.drive, os.urandom(1 << 20)
        layrfs(drive.home, "set", drive.path, f"max_price={PRICE}")
        Path(drive.path, "file").write_bytes(data)
        drive.sync()
        wait_for(lambda: at.claimed() == HOSTS, at.says, PATIENCE_SECONDS)
        drive.sync()
        drive.crash()
        there = on_another_machine(at, tmp_path)
        with there.drive as second:
            layrfs(second.home, "set", second.path, "max_price=off")
            wait_for(lambda: set(there.states()) <= {"merged", "void"}, there.says, PATIENCE_SECONDS)
            assert there.claimed() == 2 * HOSTS
            assert Path(second.path, "file").read_bytes() == data
            books_balance(there, owner_of(there), 10_000 * 10**7)


def test_who_was_taken_over_and_stays_mounted_pays_nothing_more(tmp_path: Path, big: bool) -> None:
    if not big:
        pytest.skip("--big: a minute")
    with paying(tmp_path, instalments=2, window_seconds=20) as at:
        first, data = at.drive, os.urandom(1 << 20)
        layrfs(first.home, "set", first.path, f"max_price={PRICE}")
        Path(first.path, "file").write_bytes(data)
        first.sync()
        wait_for(lambda: at.claimed() == HOSTS, at.says, PATIENCE_SECONDS)
        first.sync()
        there = on_another_machine(at, tmp_path)
        with there.drive as second:
            layrfs(second.home, "set", second.path, "max_price=off")
            wait_for(lambda: set(there.states()) == {"merged"}, there.says, PATIENCE_SECONDS)
            assert first.status()["read_only"]
            books_balance(there, owner_of(there), 10_000 * 10**7)


def test_a_host_that_leaves_hands_over_is_paid_and_ends_long_before_its_contract(tmp_path: Path, big: bool) -> None:
    if not big:
        pytest.skip("--big: three minutes, most of them until its owner hears of it")
    variables = {tempo.VARIABLE: "100"}  # what was dropped is needed for an hour
    with paying(tmp_path, instalments=2, window_seconds=300, variables=variables, count=LEAVING_HOSTS) as at:
        drive, data = at.drive, os.urandom(3 << 20)
        layrfs(drive.home, "set", drive.path, f"max_price={PRICE}")
        Path(drive.path, "file").write_bytes(data)
        drive.sync()
        wait_for(lambda: len(at.holders()) == HOSTS, at.says, PATIENCE_SECONDS)
        leaver = next(host for host in range(LEAVING_HOSTS) if at.node_of(host) in at.holders())
        data_directory = os.path.join(at.hosts.homes[leaver], "data")
        layrfs(at.hosts.homes[leaver], "host", "leave", "--dir", data_directory)
        process = at.hosts.processes[leaver]
        assert process is not None
        assert process.wait(HAND_OVER_SECONDS) == 0
        terms, _state = at.contract_of(leaver)
        assert at.ledger.close_ledger()["closed_at"] < terms.end
        assert "left" in Path(at.hosts.output(leaver)).read_text("utf-8")
        assert terms.node not in at.holders()
        assert len(at.holders()) == HOSTS
        wait_for(lambda: at.contract_of(leaver)[1] == "merged", at.says, PATIENCE_SECONDS)
        assert at.ledger.stroops(at.wallet_of(leaver)) > 10_000 * 10**7
        drive.drop_cache()
        assert Path(drive.path, "file").read_bytes() == data
        audited(drive)
