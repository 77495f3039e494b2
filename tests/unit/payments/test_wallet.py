"""A wallet on a ledger in this process: what it refuses to send, and a history longer than a page."""

from __future__ import annotations

import msgspec
import pytest
import trio
from trio.testing import MockClock

from layrfs.errors import UsageError
from layrfs.model.ledger import STROOPS_PER_XLM, LedgerAccount
from layrfs.payments.reading import address_of
from layrfs.payments.wallet import Wallet
from tests.fakes.intents import MemoryIntents
from tests.fakes.ledger import PAGE_TRANSACTIONS, InProcessLedger
from tests.ledgers import Bank, person

PRIVATE = (1).to_bytes(32, "big")
SHOP = person(2).raw_public_key()


class Exchange(InProcessLedger):
    """Where account 2 takes payments with a memo only, as exchanges do."""

    async def account(self, key: bytes) -> LedgerAccount | None:
        found = await super().account(key)
        return msgspec.structs.replace(found, memo_required=True) if found is not None and key == SHOP else found


def opened(kind: type[InProcessLedger] = InProcessLedger) -> tuple[Wallet, InProcessLedger]:
    bank = Bank()
    for number in (1, 2):
        bank.person(number)
    ledger = kind(bank)
    return Wallet(ledger, MemoryIntents(), PRIVATE), ledger


async def test_none_is_sent_while_another_may_still_come(autojump_clock: MockClock) -> None:
    wallet, ledger = opened()
    ledger.loses_submissions = True
    with trio.move_on_after(3):
        await wallet.send(address_of(SHOP), STROOPS_PER_XLM, "")
    assert (await wallet.balance()).open_purposes == (f"1 XLM to {address_of(SHOP)}",)
    with pytest.raises(UsageError, match="may still come"):
        await wallet.send(address_of(SHOP), STROOPS_PER_XLM, "")
    ledger.loses_submissions = False
    (settled,) = await wallet.settle()
    assert settled.transaction is not None
    await wallet.send(address_of(SHOP), STROOPS_PER_XLM, "")
    assert [line.stroops for line in await wallet.history(2)] == [-STROOPS_PER_XLM] * 2


async def test_who_needs_a_memo_is_not_paid_without(autojump_clock: MockClock) -> None:
    wallet, ledger = opened(Exchange)
    with pytest.raises(UsageError, match="memo"):
        await wallet.send(address_of(SHOP), STROOPS_PER_XLM, "")
    assert ledger.submitted == []
    await wallet.send(address_of(SHOP), STROOPS_PER_XLM, "customer 5")
    (line,) = await wallet.history(1)
    assert (line.memo, line.kinds, line.parties, line.fee_stroops) == ("customer 5", ("payment",), (SHOP,), 100)


async def test_history_goes_back_over_pages(autojump_clock: MockClock) -> None:
    wallet, _ledger = opened()
    count = PAGE_TRANSACTIONS + 5
    for amount in range(1, count + 1):
        await wallet.send(address_of(SHOP), amount, "")
    lines = await wallet.history(1_000)
    assert [-line.stroops for line in lines[:-1]] == list(range(count, 0, -1))
    assert lines[-1].kinds == ("create",)
    assert len(await wallet.history(PAGE_TRANSACTIONS + 1)) == PAGE_TRANSACTIONS + 1
