"""A host that is asked for an end by consent: what it signs, what it takes meanwhile, what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from layrfs.app.claiming import Claimer
from layrfs.crypto import merkle
from layrfs.errors import Rejected
from layrfs.model.hosted import Ending, Hosted
from layrfs.payments import envelopes
from layrfs.payments.ledger import Ledger
from layrfs.policy.ending import LONGEST_SECONDS, covers_of, host_due_stroops
from layrfs.policy.pricing import due_stroops
from layrfs.wire import contracts
from layrfs.wire.messages import Refused
from tests.hosted import (
    PRICE,
    START,
    TENANT,
    WINDOW_SECONDS,
    Hosting,
    LedgerHere,
    OwnerHere,
    data_of,
    deleted,
    hosting,
    opened,
    stored,
)
from tests.unit.app.test_earning import claimed, covered

DATA, MORE = data_of(1), data_of(2, (100_000,))


def record_of(host: Hosting, owner: OwnerHere) -> Hosted:
    found = host.record.find(owner.id)
    assert found is not None
    return found


def due(host: Hosting, owner: OwnerHere, latest: int) -> int:
    hosted = record_of(host, owner)
    unpaid = [one.instalment for one in host.record.instalments(hosted.number) if one.state == "waiting"]
    return host_due_stroops(hosted.terms, covers_of(host.record.batches(hosted.number)), unpaid, latest)


async def asked(host: Hosting, owner: OwnerHere, seconds: int = 300) -> contracts.Settle:
    """What an honest owner asks for now."""
    account = await owner.ledger.account(owner.terms.escrow)
    assert account is not None
    latest = owner.ledger.now + seconds
    return contracts.Settle(
        TENANT.public_key, owner.id, due(host, owner, latest), account.sequence + 1, latest, bytes(64)
    )


async def submitted(owner: OwnerHere, settle: contracts.Settle, signature: bytes) -> None:
    envelope = envelopes.settle(
        owner.terms, host_stroops=settle.host_stroops, sequence_number=settle.sequence, last_second=settle.max_time
    )
    signatures = {owner.terms.escrow: envelope.sign(owner.escrow_private), owner.terms.host: signature}
    await owner.ledger.submit(envelope.xdr(signatures))


async def signed(host: Hosting, settle: contracts.Settle) -> bytes:
    answer = await host.ask(settle)
    assert isinstance(answer, contracts.Settled), answer
    return answer.host_signature


async def agreed(host: Hosting, owner: OwnerHere, ledger: LedgerHere) -> None:
    """Covered, paid for the upload, and in the second window."""
    await covered(host, owner)
    await claimed(host, owner, 0)
    owner.pass_set_up()
    ledger.go_to(START + WINDOW_SECONDS + 100)


async def test_an_end_pays_what_is_due_and_pieces_stay_for_the_usual_notice(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    begun = ledger.balance(host.account)
    await agreed(host, owner, ledger)
    before, settle = ledger.balance(host.account), await asked(host, owner)
    signature = await signed(host, settle)
    assert await signed(host, settle) == signature, "asked again, it is the same end"
    await submitted(owner, settle, signature)
    assert ledger.balance(host.account) == before + settle.host_stroops > before
    await host.until(lambda: host.record.all()[0].state == "ended")
    pieces = [merkle.piece_id(one) for one in DATA]
    assert all(host.store.head(piece) and host.earning.serves(piece) for piece in pieces)
    assert await host.ask(OwnerHere(ledger, number=1).propose()) == Refused("ending")
    report = await trio.to_thread.run_sync(host.earning.report)
    assert report.at_risk_stroops <= 2, "but for what is rounded up"
    assert report.earned_stroops == ledger.balance(host.account) - begun
    ledger.go_to(host.record.all()[0].since + WINDOW_SECONDS - 10)
    await trio.sleep(300)
    assert all(host.store.head(piece) for piece in pieces)
    ledger.go_to(host.record.all()[0].since + WINDOW_SECONDS)
    await host.until(lambda: host.record.all()[0].released)
    await host.until(lambda: not any(host.store.head(piece) for piece in pieces))
    assert await host.ask(OwnerHere(ledger, number=1).propose()) == contracts.Agreed(b"")


async def test_while_an_end_may_come_nothing_is_taken_and_then_all_goes_on(
    autojump_clock: MockClock, tmp_path: Path, owner: OwnerHere, ledger: LedgerHere
) -> None:
    async with hosting(tmp_path, ledger) as host:
        await agreed(host, owner, ledger)
        settle = await asked(host, owner)
        await signed(host, settle)
    async with hosting(tmp_path, ledger) as host:  # killed and back: it has not forgotten
        assert await stored(host, MORE) == ["no contract"]
        assert await host.ask(owner.disclose(1)) == Refused("ending")
        assert await host.ask(owner.add(DATA, first=1), owner.body()) == Refused("ending")
        owner.batches.pop()
        assert await host.ask(await asked(host, owner, 200)) == Refused("ending")
        ledger.go_to(settle.max_time)
        await trio.sleep(300)
        assert await host.ask(owner.disclose(1)) == Refused("ending"), "it may have come in the last second"
        ledger.go_to(settle.max_time + 1)
        await host.until(lambda: host.record.all()[0].ending is None)
        await claimed(host, owner, 1)
        assert await stored(host, MORE) == []
        assert await host.ask(owner.add(MORE, first=2), owner.body()) == contracts.Covered()
        for instalment in (2, 3):
            ledger.go_to(START + instalment * WINDOW_SECONDS + 5)
            await claimed(host, owner, instalment)


async def test_an_end_that_is_signed_in_advance_takes_no_contract_for_free(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    """The attack: a signature right after the contract is open, for an end that never expires, and used at leisure."""
    await opened(host, owner)
    account = await ledger.account(owner.terms.escrow)
    assert account is not None

    def settle(latest: int, sequence: int = account.sequence + 1) -> contracts.Settle:
        return contracts.Settle(TENANT.public_key, owner.id, 0, sequence, latest, bytes(64))

    for latest in (0, 1, ledger.now, ledger.now + LONGEST_SECONDS + 1, 2**62):
        assert await host.ask(settle(latest)) == Refused("wrong window")
    for sequence in (0, account.sequence, account.sequence + 2, 2**62):
        assert await host.ask(settle(ledger.now + 300, sequence)) == Refused("bad terms")
    soon = settle(ledger.now + 300)
    signature = await signed(host, soon)
    assert await stored(host, DATA) == ["no contract"] * 2
    ledger.go_to(soon.max_time + 1)
    await host.until(lambda: host.record.all()[0].ending is None)
    assert await stored(host, DATA) == []
    assert await host.ask(owner.add(DATA), owner.body()) == contracts.Covered()
    with pytest.raises(Rejected):
        await submitted(owner, soon, signature)
    await claimed(host, owner, 0)


async def test_an_end_that_fails_on_the_ledger_ends_nothing(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await agreed(host, owner, ledger)
    honest = await asked(host, owner)
    balance = ledger.balance(owner.terms.escrow)
    greedy = contracts.Settle(TENANT.public_key, owner.id, balance, honest.sequence, honest.max_time, bytes(64))
    signature = await signed(host, greedy)
    with pytest.raises(Rejected):
        await submitted(owner, greedy, signature)
    await host.until(lambda: host.record.all()[0].ending is None)
    for instalment in (1, 2, 3):
        ledger.go_to(START + instalment * WINDOW_SECONDS + 100)
        await claimed(host, owner, instalment)
    ledger.go_to(owner.terms.end)
    await owner.refund()


async def test_a_piece_on_credit_or_on_its_way_is_paid_for_before_anything_ends(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await agreed(host, owner, ledger)
    settle = await asked(host, owner)

    def on_its_way() -> None:
        with host.earning.room(TENANT.public_key, 1000) as reason:
            assert reason is None
            assert trio.from_thread.run(host.earning._agreements.respond, settle, b"") == Refused("no credit")

    await trio.to_thread.run_sync(on_its_way)
    assert await stored(host, MORE) == []
    assert await host.ask(settle) == Refused("no credit")
    assert host.record.all()[0].ending is None


async def claims_slowly(*_what: object) -> None:
    await trio.sleep_forever()


async def test_a_salt_that_was_told_is_claimed_with_first(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    await agreed(host, owner, ledger)
    settle = await asked(host, owner)
    (hosted,) = host.record.all()
    monkeypatch.setattr(Claimer, "claim", claims_slowly)
    host.record.disclose(hosted.number, 1, owner.salt(1))
    assert await host.ask(settle) == Refused("wrong window")
    assert Ending(settle.host_stroops, settle.sequence, settle.max_time) != host.record.all()[0].ending


async def renewed(host: Hosting, owner: OwnerHere, ledger: LedgerHere) -> OwnerHere:
    """In the last window, which is paid for, there is another contract."""
    await covered(host, owner)
    owner.pass_set_up()
    ledger.go_to(START + 3 * WINDOW_SECONDS + WINDOW_SECONDS // 2)
    await claimed(host, owner, 3)
    again = OwnerHere(ledger, number=1)
    await opened(host, again)
    return again


async def ended(host: Hosting, owner: OwnerHere) -> int:
    """By consent; what the host got for that."""
    settle = await asked(host, owner)
    await submitted(owner, settle, await signed(host, settle))
    await host.until(lambda: record_of(host, owner).state == "ended")
    return settle.host_stroops


async def test_what_another_contract_goes_on_with_is_paid_once_and_stays_when_the_first_ends(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    begun = ledger.balance(host.account)
    again = await renewed(host, owner, ledger)
    amount = host.record.instalments(1)[3].amount_stroops
    for late, pieces in ((1, DATA), (0, [*DATA, *MORE])):
        await stored(host, MORE)
        cover = again.add(pieces, at=owner.terms.end + late)
        assert await host.ask(cover, again.body()) == Refused("wrong window"), "not paid for until then"
        again.batches.pop()
    await trio.to_thread.run_sync(deleted, host, MORE)
    assert await host.ask(again.add(DATA, at=owner.terms.end), again.body()) == contracts.Covered()
    assert await ended(host, owner) == 0
    assert ledger.now < owner.terms.end
    assert await stored(host, MORE) == []
    assert await host.ask(OwnerHere(ledger, number=2).propose()) == Refused("ending"), "nobody paid for it yet"
    await claimed(host, again, 0)
    assert await host.ask(OwnerHere(ledger, number=2).propose()) == contracts.Agreed(b"")
    kept = again.terms.window(0)[1] + 1 - owner.terms.end
    assert ledger.balance(host.account) - begun - amount == due_stroops(PRICE, sum(map(len, DATA)), kept)
    ledger.go_to(again.terms.window(1)[0] + 5)
    await claimed(host, again, 1)
    ledger.go_to(again.terms.window(2)[0])
    await host.until(lambda: record_of(host, owner).released)
    pieces = [merkle.piece_id(one) for one in DATA]
    assert all(host.store.head(piece) and host.earning.serves(piece) for piece in pieces)
    await claimed(host, again, 2)


async def test_what_no_other_contract_goes_on_with_is_let_go_of_before_there_is_another(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    again = await renewed(host, owner, ledger)
    assert await host.ask(again.add(DATA[:1], at=owner.terms.end), again.body()) == contracts.Covered()
    await claimed(host, again, 0)
    await ended(host, owner)
    assert await host.ask(OwnerHere(ledger, number=2).propose()) == Refused("ending")
    assert await trio.to_thread.run_sync(deleted, host, DATA) == DATA[1:]
    assert await host.ask(OwnerHere(ledger, number=2).propose()) == contracts.Agreed(b"")


async def test_pieces_are_not_kept_for_nothing_by_one_end_after_another(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    """The attack: each contract is dated a little ahead, and ends before that, when the next one names the pieces."""
    first = owner
    await opened(host, first)
    assert await stored(host, DATA) == []
    assert await host.ask(first.add(DATA, at=ledger.now + 200), first.body()) == contracts.Covered()
    first.pass_set_up()
    second = OwnerHere(ledger, number=1)
    await opened(host, second)
    assert await host.ask(second.add(DATA, at=ledger.now + 200), second.body()) == contracts.Covered()
    settle = await asked(host, first, 30)
    assert settle.host_stroops == 0
    await submitted(first, settle, await signed(host, settle))
    await host.until(lambda: record_of(host, first).state == "ended")
    for _ in range(3):
        assert await host.ask(OwnerHere(ledger, number=2).propose()) == Refused("ending")
        ledger.go_to(ledger.now + WINDOW_SECONDS // 5)
    await claimed(host, second, 0)
    assert await host.ask(OwnerHere(ledger, number=2).propose()) == contracts.Agreed(b"")


async def test_what_is_on_credit_since_before_a_contract_began_is_covered_before_the_earlier_one_ends(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await agreed(host, owner, ledger)
    assert await stored(host, MORE) == []
    ledger.go_to(ledger.now + 60)
    again = OwnerHere(ledger, number=1)
    await opened(host, again)
    later = data_of(3, (50_000,))
    assert await stored(host, later) == []
    assert await host.ask(await asked(host, owner)) == Refused("no credit")
    assert await host.ask(again.add(MORE), again.body()) == contracts.Covered()
    await ended(host, owner)
    assert await host.ask(again.add(later), again.body()) == contracts.Covered()


class CountingLedger:
    """Counts what its servers are asked; a fate takes three questions."""

    def __init__(self, ledger: LedgerHere) -> None:
        self._ledger = ledger
        self.asked = 0

    def __getattr__(self, name: str) -> object:
        found = getattr(self._ledger, name)
        if not callable(found):
            return found

        async def counted(*arguments: object) -> object:
            self.asked += 3 if name == "fate" else 1
            return await found(*arguments)

        return counted


async def test_ends_that_may_come_hardly_have_the_ledger_asked_more(
    autojump_clock: MockClock, tmp_path: Path, ledger: LedgerHere
) -> None:
    counting = CountingLedger(ledger)
    async with hosting(tmp_path / "counting", cast("Ledger", counting)) as host:
        owner = OwnerHere(ledger, window_seconds=648_000)
        await opened(host, owner)
        before = counting.asked
        await trio.sleep(3600)
        idle = counting.asked - before
        assert isinstance(await host.ask(await asked(host, owner)), contracts.Settled)
        before = counting.asked
        await trio.sleep(3600)
        assert counting.asked - before <= idle + 3600 / 60 + 5
