"""Accounts are read whole, though the ledger goes on."""

from __future__ import annotations

import pytest
from stellar_sdk import Asset

from layrfs.errors import LedgerUnavailable
from layrfs.model.ledger import LedgerAccount
from layrfs.payments.books import Owner, reconcile
from layrfs.payments.statements import read_all
from layrfs.policy.bookkeeping import Records
from tests.fakes.ledger import InProcessLedger
from tests.ledgers import sign

OWNER = Owner(salt=lambda _terms, _at: bytes(32), terms=lambda _transaction: None)


class Restless(InProcessLedger):
    """Somebody pays into the account after it was looked at, so often."""

    def __init__(self, key: str, times: int) -> None:
        super().__init__()
        self._key, self._times = key, times

    async def account(self, key: bytes) -> LedgerAccount | None:
        found = await super().account(key)
        if self._times:
            self._times -= 1
            paid = self.bank.build(self.bank.root).append_payment_op(self._key, Asset.native(), "0.0000001")
            assert self.bank.run(sign(paid, self.bank.root)).is_success
        return found


async def test_what_is_read_is_of_one_moment() -> None:
    person = InProcessLedger().bank.person(7)
    ledger = Restless(person.public_key, times=3)
    ledger.bank.person(7)
    ledgers, _records = await read_all(ledger, person.raw_public_key(), OWNER, Records)
    found = reconcile(ledgers, (), OWNER)
    assert found.differences == ()
    assert found.sums.came == found.sums.wallet == 1000 * 10**7 + 3


async def test_what_never_rests_is_left_for_later() -> None:
    person = InProcessLedger().bank.person(7)
    ledger = Restless(person.public_key, times=10**9)
    ledger.bank.person(7)
    with pytest.raises(LedgerUnavailable, match="money moves"):
        await read_all(ledger, person.raw_public_key(), OWNER, Records)
