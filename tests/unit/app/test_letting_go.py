"""What a host lets go of is decided by what is on record when it goes, not by what was there a while ago."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from layrfs.app import letting_go
from layrfs.app.trade import Trade
from layrfs.crypto import merkle
from layrfs.ids import PieceId
from layrfs.wire import contracts
from tests.hosted import TENANT, WINDOW_SECONDS, Hosting, LedgerHere, OwnerHere, data_of, hosting, opened, stored

DATA, MORE = data_of(1), data_of(2, (100_000,))
EVER = 1 << 40


async def renewed(host: Hosting, owner: OwnerHere, ledger: LedgerHere) -> OwnerHere:
    """The owner's next contract, open and with something of its own in it; the first one is over, and not released."""
    await opened(host, owner)
    assert await stored(host, [*DATA, *MORE]) == []
    assert await host.ask(owner.add([*DATA, *MORE]), owner.body()) == contracts.Covered()
    ledger.go_to(owner.terms.window(3)[0])
    again = OwnerHere(ledger, number=1)
    await opened(host, again)
    assert await host.ask(again.add(MORE), again.body()) == contracts.Covered()
    ledger.go_to(owner.terms.end)
    await host.until(lambda: host.record.all()[0].state == "ended")
    return again


async def released(host: Hosting, owner: OwnerHere, ledger: LedgerHere) -> None:
    ledger.go_to(owner.terms.end + WINDOW_SECONDS)
    await host.until(lambda: host.record.all()[0].released)


def here(host: Hosting) -> list[bool]:
    return [host.store.head(merkle.piece_id(one)) is not None for one in DATA]


async def test_what_is_covered_while_it_is_handed_over_waits_for_nothing(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, held, answers = await renewed(host, owner, ledger), letting_go._held, []

    def held_and_cover(trade: Trade, pieces: Sequence[PieceId]) -> list[tuple[PieceId, int]]:
        cover = again.add(DATA[:1], first=again.terms.instalment_at(ledger.now) or 0)
        answers.append(host.earning.answer(cover, memoryview(again.body())))
        return held(trade, pieces)

    monkeypatch.setattr(letting_go, "_held", held_and_cover)
    await released(host, owner, ledger)
    assert answers == [contracts.Covered()]
    assert host.record.overdue(EVER) == {TENANT.public_key: [merkle.piece_id(DATA[1])]}


async def test_what_is_stored_anew_while_others_go_stays(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letting_go, "DELETED_AT_ONCE", 1)
    await renewed(host, owner, ledger)
    await released(host, owner, ledger)
    delete, gone = host.store.delete, list[PieceId]()

    def delete_and_store_others(piece: PieceId, tenant: bytes) -> bool:
        gone.append(piece)
        for one in DATA:
            if merkle.piece_id(one) not in gone:
                host.earning.stored(merkle.piece_id(one), tenant, len(one))
        return delete(piece, tenant)

    monkeypatch.setattr(host.store, "delete", delete_and_store_others)
    await host.earning._letting_go.overdue(EVER)
    assert len(gone) == 1
    assert sorted(here(host)) == [False, True]


async def test_while_the_ledger_is_away_no_notice_runs(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await opened(host, owner)
    assert await stored(host, DATA) == []
    assert await host.ask(owner.add(DATA), owner.body()) == contracts.Covered()
    ledger.go_to(owner.terms.window(2)[1] + 1)
    await host.until(lambda: host.record.all()[0].state == "notice")
    await away(ledger, owner.terms.end + 2 * WINDOW_SECONDS)
    assert here(host) == [True, True]
    ledger.go_to(ledger.now + WINDOW_SECONDS + 60)
    await host.until(lambda: here(host) == [False, False])


async def test_while_the_ledger_is_away_no_end_runs(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await opened(host, owner)
    assert await stored(host, DATA) == []
    assert await host.ask(owner.add(DATA), owner.body()) == contracts.Covered()
    ledger.go_to(owner.terms.end)
    await host.until(lambda: host.record.all()[0].state == "ended")
    await trio.sleep(100)
    await away(ledger, owner.terms.end + 3 * WINDOW_SECONDS)
    assert here(host) == [True, True]
    ledger.go_to(ledger.now + WINDOW_SECONDS)
    await host.until(lambda: here(host) == [False, False])
    await host.until(lambda: host.record.last_round is None)


async def test_while_the_host_is_away_what_was_handed_over_waits(
    autojump_clock: MockClock, tmp_path: Path, owner: OwnerHere, ledger: LedgerHere
) -> None:
    async with hosting(tmp_path, ledger) as host:
        await renewed(host, owner, ledger)
        await released(host, owner, ledger)
        await trio.sleep(100)
    ledger.go_to(ledger.now + 3 * WINDOW_SECONDS)
    async with hosting(tmp_path, ledger) as host:
        await trio.sleep(200)
        assert here(host) == [True, True]
        ledger.go_to(ledger.now + WINDOW_SECONDS)
        await host.until(lambda: here(host) == [False, False])


async def away(ledger: LedgerHere, until: int) -> None:
    """And back, for a few rounds."""
    ledger.is_away = True
    ledger.go_to(until)
    await trio.sleep(200)
    ledger.is_away = False
    await trio.sleep(200)


async def test_claims_do_not_wait_for_what_goes(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, held = await renewed(host, owner, ledger), letting_go._held
    began, may_end = threading.Event(), threading.Event()

    def held_for_long(trade: Trade, pieces: Sequence[PieceId]) -> list[tuple[PieceId, int]]:
        began.set()
        may_end.wait(20)
        return held(trade, pieces)

    monkeypatch.setattr(letting_go, "_held", held_for_long)
    ledger.go_to(owner.terms.end + WINDOW_SECONDS)
    try:
        await host.until(began.is_set)
        instalment = again.terms.instalment_at(ledger.now) or 0
        assert await host.ask(again.disclose(instalment)) == contracts.Disclosed("disclosed")
        await host.until(lambda: host.record.instalments(2)[instalment].state == "claimed")
        assert not host.record.all()[0].released
    finally:
        may_end.set()
    await host.until(lambda: host.record.all()[0].released)
