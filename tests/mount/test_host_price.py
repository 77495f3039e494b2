"""A mount whose embedded hosts ask a price, as a new user tries it: a ledger, a gift, a limit, and hosts that earn."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import requests
from stellar_sdk import Keypair

from layrfs.ledger_config import LedgerConfig
from layrfs.model.lumens import parse_lumens
from layrfs.storage.keyring import load_or_create_identity
from tests.drive import Drive, kill, layrfs, wait_for
from tests.hosts.test_embedded_money import ledger_process
from tests.trees import MIB, write_stream

GIFT = 10_000.0
HANDING_ON_SECONDS = 120.0
KILLING_SECONDS, SETTLING_SECONDS = 120.0, 40.0


def wallet(drive: Drive) -> dict[str, Any] | None:
    """The owner's; None while there is no ledger, or it does not answer yet."""
    answer = layrfs(drive.home, "wallet", "balance", "--json", check=False)
    return None if answer.returncode else dict(json.loads(answer.stdout))


def host_lumens(drive: Drive) -> list[float]:
    """What each host's account has."""
    directory = Path(drive.home, "embedded")
    ledger = LedgerConfig.load(str(directory / "ledger" / "ledger.json"))
    assert ledger is not None
    return [_lumens(ledger, directory / f"host-{number}" / "wallet.key") for number in range(5)]


def _lumens(ledger: LedgerConfig, key: Path) -> float:
    account = Keypair.from_raw_ed25519_public_key(load_or_create_identity(str(key)).public_key).public_key
    found = requests.get(f"{ledger.horizon[0]}/accounts/{account}", timeout=60)
    return float(found.json()["balances"][0]["balance"]) if found.status_code == 200 else 0.0


def test_hosts_earn_by_what_is_uploaded_and_all_is_there_after_a_plain_mount(tmp_path: Path) -> None:
    options = ["host_price=1000000", "contract_period=96", "instalments=2"]
    with Drive(str(tmp_path), options=options) as drive:
        wait_for(lambda: (wallet(drive) or {}).get("balance") == "10000", "a gift")
        wait_for(lambda: min(host_lumens(drive)) == GIFT, "hosts have accounts")
        layrfs(drive.home, "set", drive.path, "max_price=2000000")
        write_stream(os.path.join(drive.path, "file"), 2 * MIB)
        drive.sync()
        what_it_costs_is_shown(drive)
        wait_for(lambda: sum(lumens > GIFT for lumens in host_lumens(drive)) >= 3, "hosts have earned")
        drive.umount()
        drive.options.clear()
        drive.mount()
        wait_for(lambda: wallet(drive) is not None, "the ledger answers again")
        assert sum(lumens > GIFT for lumens in host_lumens(drive)) >= 3
        assert "no difference" in layrfs(drive.home, "wallet", "audit").stdout


@pytest.mark.timeout(900)
def test_contracts_are_handed_on_and_kills_of_ledger_hosts_and_mount_cost_no_stroop_and_no_byte(
    tmp_path: Path, big: bool
) -> None:
    """Contracts of eighty seconds: first all goes well, and each ends by consent when the next one has its pieces; then
    there is a kill every few seconds."""
    if not big:
        pytest.skip("takes four minutes: --big")
    dice, data = random.Random(3), os.urandom(5 * MIB)
    with Drive(str(tmp_path), options=["host_price=2000000", "contract_period=80", "instalments=2"]) as drive:
        wait_for(lambda: (wallet(drive) or {}).get("balance") == "10000", "a gift")
        layrfs(drive.home, "set", drive.path, "max_price=2000000")
        Path(drive.path, "file").write_bytes(data)
        drive.sync()
        contracts_are_handed_on(drive)
        until = time.monotonic() + KILLING_SECONDS
        while time.monotonic() < until:
            time.sleep(dice.uniform(5, 12))
            kill_one(drive, dice.choice(["ledger", "hosts", "mount"]))
        time.sleep(SETTLING_SECONDS)
        drive.sync()
        drive.drop_cache()
        assert Path(drive.path, "file").read_bytes() == data
        assert "no difference" in layrfs(drive.home, "wallet", "audit").stdout
        assert sum(lumens > GIFT for lumens in host_lumens(drive)) >= 3


def contracts_are_handed_on(drive: Drive) -> None:
    """Each host that has something is paid by two contracts, of which the first has ended before its time."""
    wait_for(lambda: done(drive)["end by consent"] >= 3, lambda: str(done(drive)), HANDING_ON_SECONDS)
    found = done(drive)
    assert found["set-up"] <= 2 * 5
    assert found["refund"] == 0
    assert "no difference" in layrfs(drive.home, "wallet", "audit").stdout


def done(drive: Drive) -> Counter[str]:
    """How many transactions there are of each kind."""
    report = json.loads(layrfs(drive.home, "wallet", "audit", "--json", check=False).stdout)
    assert report["differences"] == []
    return Counter(each["what"] for each in report["transactions"])


def kill_one(drive: Drive, what: str) -> None:
    """`kill -9`; all come back by themselves, but for the mount."""
    if what == "mount":
        drive.crash()
        drive.mount()
        return
    directory = Path(drive.home, "embedded")
    process = ledger_process(directory) if what == "ledger" else drive.status()["network"]["embedded_pid"]
    if process is not None:
        kill(process)


def what_it_costs_is_shown(drive: Drive) -> None:
    """While contracts are open, which is not for long here."""
    wait_for(lambda: cost(drive) > 0, "hosts are paid for the file")
    assert "XLM a month" in layrfs(drive.home, "cost", drive.path).stdout
    assert drive.status()["money"]["max_price"] == 2_000_000 * 10**7
    wait_for(lambda: drive.status()["money"]["in_contracts"] > 0, "what is in contracts is shown")


def cost(drive: Drive) -> int:
    """Of all files, in stroops."""
    (*_parts, whole) = json.loads(layrfs(drive.home, "cost", "--json").stdout)["paths"]
    assert whole["path"] == "/"
    return parse_lumens(whole["cost"])
