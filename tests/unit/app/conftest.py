"""A host that is paid, its owner, and the ledger between them, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from layrfs.crypto import wallet_keys
from tests.hosted import OWNER, WALLET, Hosting, LedgerHere, OwnerHere, hosting


@pytest.fixture
def ledger() -> LedgerHere:
    return LedgerHere([wallet_keys.account_of(OWNER), wallet_keys.account_of(WALLET)])


@pytest.fixture
async def host(tmp_path: Path, ledger: LedgerHere) -> AsyncIterator[Hosting]:
    async with hosting(tmp_path, ledger) as host:
        yield host


@pytest.fixture
def owner(ledger: LedgerHere) -> OwnerHere:
    return OwnerHere(ledger)
