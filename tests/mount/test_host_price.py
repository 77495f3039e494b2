"""A mount whose embedded hosts ask a price: a ledger runs beside them, and owner and hosts have something on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import requests
from stellar_sdk import Keypair

from layrfs.ledger_config import LedgerConfig
from layrfs.storage.keyring import load_or_create_identity
from tests.drive import Drive, layrfs, wait_for

GIFT = 10_000.0


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


def test_a_ledger_and_gifts_come_with_a_plain_mount_and_stay(tmp_path: Path) -> None:
    with Drive(str(tmp_path), options=["host_price=2"]) as drive:
        wait_for(lambda: (wallet(drive) or {}).get("balance") == "10000", "a gift")
        wait_for(lambda: min(host_lumens(drive)) == GIFT, "hosts have accounts")
        drive.umount(wait=False)  # hosts that are not paid have taken nothing
        drive.options.clear()
        drive.mount()
        wait_for(lambda: (wallet(drive) or {}).get("balance") == "10000", "the ledger answers again")
