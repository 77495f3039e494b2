"""A host that is paid: the whole life of a contract on a ledger in this process, and every lie of an owner."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from layrfs.app import claiming, letting_go, proposing
from layrfs.crypto import merkle, wallet_keys
from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import BadMessage, CorruptFile, LayrError, LedgerUnavailable, LocalError
from layrfs.ids import PieceId
from layrfs.model.contracts import Lock, Offer
from layrfs.model.hosted import Batch
from layrfs.model.ledger import Fate, LedgerAccount
from layrfs.payments import envelopes
from layrfs.policy.earning import LONGEST_ROUND_SECONDS
from layrfs.policy.pricing import credit_bytes, starting_stroops
from layrfs.wire import contracts
from layrfs.wire.messages import Refused
from tests.hosted import (
    OWNER,
    PRICE,
    START,
    TENANT,
    WALLET,
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
from tests.ledgers import PASSPHRASE

DATA, MORE = data_of(1), data_of(2, (100_000,))


def state_of(host: Hosting, instalment: int) -> str:
    return host.record.instalments(host.record.all()[-1].number)[instalment].state


async def covered(host: Hosting, owner: OwnerHere) -> None:
    """Opened, stored, covered."""
    await opened(host, owner)
    assert await stored(host, DATA) == []
    assert await host.ask(owner.add(DATA), owner.body()) == contracts.Covered()


async def claimed(host: Hosting, owner: OwnerHere, instalment: int) -> None:
    """Disclosed, and seen on the ledger."""
    assert await host.ask(owner.disclose(instalment)) == contracts.Disclosed("disclosed")
    hosted = host.record.find(owner.id)
    assert hosted is not None
    await host.until(lambda: host.record.instalments(hosted.number)[instalment].state == "claimed")


async def seen_to_end(host: Hosting, owner: OwnerHere, ledger: LedgerHere) -> None:
    """At the second at which the contract ends."""
    ledger.go_to(owner.terms.end)
    await host.until(lambda: host.record.all()[owner.terms.number].state == "ended")


async def test_pieces_are_paid_for_at_upload_and_at_each_audit(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    before, owners = ledger.balance(host.account), ledger.balance(owner.terms.owner)
    await covered(host, owner)
    await claimed(host, owner, 0)
    ledger.go_to(START + WINDOW_SECONDS + 5)
    assert await stored(host, MORE) == []
    assert await host.ask(owner.add(MORE, first=1), owner.body()) == contracts.Covered()
    for instalment in (1, 2, 3):
        ledger.go_to(START + instalment * WINDOW_SECONDS + 5)
        await claimed(host, owner, instalment)
    assert await host.ask(owner.disclose(3)) == contracts.Disclosed("claimed")
    report = await trio.to_thread.run_sync(host.earning.report)
    (hosted,) = host.record.all()
    due = sum(one.amount_stroops for one in host.record.instalments(hosted.number))
    assert due > 0
    assert ledger.balance(host.account) == before + due
    assert (report.earned_stroops, report.pending_stroops, report.at_risk_stroops) == (due, 0, 0)
    assert report.balance_stroops == before + due
    ledger.go_to(owner.terms.end)
    await owner.refund()
    fees = 300 + 4 * 100 + 100
    assert ledger.balance(owner.terms.owner) == owners - due - fees


async def test_what_is_asked_again_is_answered_again(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere
) -> None:
    for _ in range(2):
        assert await host.ask(owner.propose()) == contracts.Agreed(b"")
    await owner.set_up()
    for _ in range(2):
        assert await host.ask(owner.opened()) == contracts.Ready(credit_bytes(owner.terms))
    await stored(host, DATA)
    cover = owner.add(DATA)
    for _ in range(2):
        assert await host.ask(cover, owner.body()) == contracts.Covered()
    (hosted,) = host.record.all()
    assert len(host.record.batches(hosted.number)) == 1


WRONG_TERMS: dict[str, tuple[dict[str, object], str]] = {
    "another ledger": ({"network": bytes(32)}, "wrong ledger"),
    "a lower price": ({"price": PRICE - 1}, "wrong price"),
    "another host": ({"node": bytes(20)}, "bad terms"),
    "another account": ({"host": bytes(32)}, "bad terms"),
    "another tenant": ({"tenant": bytes(32)}, "bad terms"),
    "windows of a second": ({"window_seconds": 1}, "bad terms"),
    "a start long ago": ({"start": START - 5000}, "bad terms"),
    "a start far ahead": ({"start": START + 5000}, "bad terms"),
    "a set-up in a year": ({"last_setup_ledger": 10**6}, "bad terms"),
    "collateral that was not offered": ({"collateral_stroops": 1}, "bad terms"),
}


async def test_terms_that_were_not_offered_are_refused(
    autojump_clock: MockClock, host: Hosting, ledger: LedgerHere
) -> None:
    answers = {
        name: await host.ask(OwnerHere(ledger, **changes).propose()) for name, (changes, _) in WRONG_TERMS.items()
    }
    assert answers == {name: Refused(reason) for name, (_, reason) in WRONG_TERMS.items()}  # type: ignore[arg-type]
    assert host.record.all() == []


async def test_strangers_have_the_ledger_asked_for_nothing_that_can_be_known_without(
    autojump_clock: MockClock, host: Hosting, ledger: LedgerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.is_away = True
    assert await host.ask(OwnerHere(ledger, node=bytes(20)).propose()) == Refused("bad terms")
    with pytest.raises(LocalError):
        await host.ask(OwnerHere(ledger).propose())
    ledger.is_away = False
    assert await host.ask(OwnerHere(ledger).propose()) == contracts.Agreed(b"")

    async def account(_key: bytes) -> LedgerAccount | None:
        raise LedgerUnavailable("asked again")

    monkeypatch.setattr(ledger, "account", account)
    assert await host.ask(OwnerHere(ledger, number=1).propose()) == contracts.Agreed(b"")


async def test_terms_that_are_none_are_a_bad_message(autojump_clock: MockClock, host: Hosting) -> None:
    with pytest.raises(BadMessage):
        await host.ask(contracts.Propose(TENANT.public_key, b"\x90", bytes(64)))


async def test_a_price_that_was_raised_holds_for_new_contracts_only(
    autojump_clock: MockClock, tmp_path: Path, ledger: LedgerHere
) -> None:
    owner = OwnerHere(ledger)
    async with hosting(tmp_path, ledger) as host:
        await covered(host, owner)
    dearer = Offer(2 * PRICE, wallet_keys.account_of(WALLET), envelopes.network_id(PASSPHRASE))
    async with hosting(tmp_path, ledger, dearer) as host:
        assert await host.ask(OwnerHere(ledger, number=1).propose()) == Refused("wrong price")
        await claimed(host, owner, 0)


async def test_no_piece_before_the_escrow_is_there_and_good(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere
) -> None:
    assert await stored(host, DATA[:1]) == ["no contract"]
    assert await host.ask(owner.opened()) == Refused("no contract")
    await host.ask(owner.propose())
    assert await host.ask(owner.opened()) == Refused("not on the ledger")
    assert await stored(host, DATA[:1]) == ["no contract"]
    await owner.set_up()
    assert await stored(host, DATA[:1]) == ["no contract"]
    await host.ask(owner.opened())
    assert await stored(host, DATA[:1]) == []


async def test_an_escrow_with_another_signer_is_refused(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    from stellar_sdk import Account, Keypair, Signer, TransactionBuilder

    await host.ask(owner.propose())
    escrow, payer = (Keypair.from_raw_ed25519_seed(private) for private in (owner.escrow_private, OWNER))
    made = TransactionBuilder(Account(payer.public_key, owner.terms.owner_sequence - 1), PASSPHRASE)
    made.append_create_account_op(escrow.public_key, "10")
    for signer in (
        Signer.ed25519_public_key(Keypair.from_raw_ed25519_public_key(owner.terms.host).public_key, 1),
        Signer.pre_auth_tx(envelopes.refund(owner.terms).hash, 2),
        Signer.sha256_hash(bytes(32), 2),
    ):
        made.append_set_options_op(signer=signer, source=escrow.public_key)
    made.append_set_options_op(
        master_weight=1, low_threshold=2, med_threshold=2, high_threshold=2, source=escrow.public_key
    )
    envelope = made.add_time_bounds(0, 0).build()
    envelope.sign(payer)
    envelope.sign(escrow)
    await ledger.submit(envelope.to_xdr())
    assert await host.ask(owner.opened()) == Refused("bad escrow")
    assert await stored(host, DATA) == ["no contract"] * 2


def with_the_escrow_of(owner: OwnerHere, **changes: object) -> OwnerHere:
    """Terms of which the ledger shows nothing that would tell them from this owner's."""
    twin = OwnerHere(owner.ledger)
    twin.terms, twin.escrow_private = msgspec.structs.replace(owner.terms, **changes), owner.escrow_private
    return twin


async def test_an_escrow_serves_one_contract(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await covered(host, owner)
    stranger = NodeIdentity(bytes([99]) * 32).public_key
    for changes in ({"number": 1}, {"price": PRICE + 1}, {"tenant": stranger}):
        twin = with_the_escrow_of(owner, **changes)
        asked = msgspec.structs.replace(twin.propose(), tenant=twin.terms.tenant)
        assert await host.ask(asked) == Refused("bad terms")
    await claimed(host, owner, 0)
    await seen_to_end(host, owner, ledger)
    assert await host.ask(with_the_escrow_of(owner, start=ledger.now).propose()) == Refused("bad terms")


async def test_who_did_not_hear_that_we_agreed_may_propose_again_and_a_stranger_may_not(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    stranger = NodeIdentity(bytes([99]) * 32).public_key
    await host.ask(owner.propose())
    ledger.go_to(START + 20)
    later = with_the_escrow_of(owner, start=ledger.now)
    stolen = with_the_escrow_of(owner, tenant=stranger)
    assert await host.ask(msgspec.structs.replace(stolen.propose(), tenant=stranger)) == Refused("bad terms")
    assert await host.ask(later.propose()) == contracts.Agreed(b"")
    assert [one.terms for one in host.record.all()] == [later.terms]
    await later.set_up()
    assert isinstance(await host.ask(later.opened()), contracts.Ready)


async def test_what_gave_way_while_its_escrow_was_looked_at_opens_nothing_else(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    await host.ask(owner.propose())
    await owner.set_up()
    longer = with_the_escrow_of(owner, window_seconds=2 * WINDOW_SECONDS)
    asked = ledger.account

    async def account(key: bytes) -> LedgerAccount | None:
        found = await asked(key)
        if key == owner.terms.escrow:
            host.record.forget(1)
            host.record.add(longer.terms, START)
        return found

    monkeypatch.setattr(ledger, "account", account)
    assert await host.ask(owner.opened()) == Refused("no contract")
    assert [(one.terms, one.state) for one in host.record.all()] == [(longer.terms, "agreed")]


async def test_a_contract_that_never_came_is_forgotten(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await host.ask(owner.propose())
    for _ in range(14):
        ledger.go_to(ledger.now + 5)
    await host.until(lambda: host.record.all() == [])


async def test_what_is_only_agreed_to_is_forgotten_at_its_end_though_its_escrow_is_there(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await host.ask(owner.propose())
    await owner.set_up()
    ledger.go_to(owner.terms.end)
    await host.until(lambda: host.record.all() == [])


async def test_a_contract_that_is_opened_while_the_ledger_is_asked_for_it_is_not_forgotten(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    await host.ask(owner.propose())
    asked = ledger.fate

    async def fate(hash_: bytes, source: bytes) -> Fate:
        host.record.set_state(1, "open", START)
        return await asked(hash_, source)

    monkeypatch.setattr(ledger, "fate", fate)
    owner.pass_set_up()
    ledger.go_to(START + 100)
    await host.until(lambda: host.record.all()[0].state == "open")
    await trio.sleep(100)
    assert [one.state for one in host.record.all()] == ["open"]


def behind(ledger: LedgerHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on servers share the ledger's address, and the one that knows transactions and accounts is behind."""

    async def fate(_hash: bytes, _source: bytes) -> Fate:
        return Fate(await ledger.head(), None, None, 120)

    async def account(_key: bytes) -> LedgerAccount | None:
        return None

    monkeypatch.setattr(ledger, "fate", fate)
    monkeypatch.setattr(ledger, "account", account)


async def test_a_contract_that_a_server_which_is_behind_does_not_know_is_not_forgotten(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    await host.ask(owner.propose())
    await owner.set_up()
    owner.pass_set_up()
    ledger.go_to(START + 180)
    with monkeypatch.context() as patched:
        behind(ledger, patched)
        await trio.sleep(200)
    assert isinstance(await host.ask(owner.opened()), contracts.Ready)


async def test_a_claim_that_a_server_which_is_behind_does_not_know_is_not_missed(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    await covered(host, owner)
    await claimed(host, owner, 0)
    with monkeypatch.context() as patched:
        behind(ledger, patched)
        ledger.go_to(START + WINDOW_SECONDS + 100)
        host.record.set_instalment(1, 0, "disclosed")  # as if killed before it was written down
        await trio.sleep(200)
        assert state_of(host, 0) == "disclosed"
    await host.until(lambda: state_of(host, 0) == "claimed")


async def test_terms_that_cost_nothing_push_no_contract_out_that_is_paid_for(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposing, "MOST_AGREED", 3)
    await opened(host, owner)
    pushed = OwnerHere(ledger, number=1)
    await host.ask(pushed.propose())
    await pushed.set_up()
    others = [OwnerHere(ledger, number=number) for number in (2, 3, 4)]
    for other in others:
        await host.ask(other.propose())
    assert [one.terms.number for one in host.record.all()] == [0, 2, 3, 4]
    assert await host.ask(pushed.opened()) == Refused("no contract")
    await host.ask(pushed.propose())
    assert isinstance(await host.ask(pushed.opened()), contracts.Ready)


async def test_credit_is_one_instalment_and_comes_back_with_a_cover(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere
) -> None:
    credit = credit_bytes(owner.terms)
    await opened(host, owner)
    big = data_of(3, (credit - 5000, 5000, 1))
    assert await stored(host, big) == ["no credit"]
    assert await host.ask(owner.add(big[:2]), owner.body()) == contracts.Covered()
    assert await stored(host, big[2:]) == []


async def test_a_piece_counts_as_what_the_disk_gives_it_at_least(
    autojump_clock: MockClock, host: Hosting, ledger: LedgerHere
) -> None:
    owner = OwnerHere(ledger, stored_bytes=1 << 14)
    await opened(host, owner)
    credit = credit_bytes(owner.terms)
    tiny = [bytes([number]) for number in range(credit // 4096 + 1)]
    assert await stored(host, tiny) == ["no credit"]
    said = owner.add(tiny[:-1])
    assert said.bytes == 4096 * (len(tiny) - 1)
    less = msgspec.structs.replace(said, bytes=len(tiny) - 1)
    assert await host.ask(less, owner.body()) == Refused("bad lock")
    assert await host.ask(said, owner.body()) == contracts.Covered()


async def test_what_is_gone_costs_no_credit(autojump_clock: MockClock, host: Hosting, owner: OwnerHere) -> None:
    await opened(host, owner)
    await stored(host, DATA)
    host.store.delete(merkle.piece_id(DATA[0]), TENANT.public_key)
    await trio.sleep(3700)
    await host.until(lambda: host.record.uncovered_pieces() == [merkle.piece_id(DATA[1])])


@pytest.mark.parametrize("fault", [LocalError("the disk fails"), CorruptFile("it is damaged"), BadMessage("no terms")])
async def test_a_disk_that_fails_does_not_end_the_host(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, monkeypatch: pytest.MonkeyPatch, fault: LayrError
) -> None:
    await covered(host, owner)
    assert await stored(host, MORE) == []
    host.store.delete(merkle.piece_id(MORE[0]), TENANT.public_key)

    def fail(*_arguments: object) -> NoReturn:
        raise fault

    with monkeypatch.context() as patched:
        for call in ("write", "write_many") if type(fault) is LocalError else ("write", "write_many", "row", "rows"):
            patched.setattr(host.database, call, fail)
        await trio.sleep(2 * 3700)
    await host.until(lambda: host.record.uncovered_pieces() == [])
    await claimed(host, owner, 0)


async def test_a_host_that_can_put_nothing_on_record_any_more_takes_nothing_and_ends(
    mock_clock: MockClock, tmp_path: Path, ledger: LedgerHere, owner: OwnerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> NoReturn:
        raise OSError(errno.EIO, "the disk fails for a moment")

    with pytest.RaisesGroup(pytest.RaisesExc(LocalError, match="start the host again"), flatten_subgroups=True):
        async with hosting(tmp_path, ledger) as host:
            await opened(host, owner)
            with monkeypatch.context() as patched:
                patched.setattr(os, "fdatasync", fail)
                with pytest.raises(LocalError):
                    await host.ask(OwnerHere(ledger, number=1).propose())
            with pytest.raises(LocalError):
                await stored(host, DATA)
            assert here(host, list(DATA)) == [False, False]
            mock_clock.jump(LONGEST_ROUND_SECONDS)
            await wait_all_tasks_blocked()
    async with hosting(tmp_path, ledger) as host:
        assert await stored(host, DATA) == []


async def test_a_contract_that_cannot_go_on_keeps_no_other_from_it(
    autojump_clock: MockClock,
    host: Hosting,
    owner: OwnerHere,
    ledger: LedgerHere,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await covered(host, owner)
    other = OwnerHere(ledger, number=1, instalments=2)
    await opened(host, other)
    await stored(host, MORE)
    await host.ask(other.add(MORE), other.body())
    real = host.record.batches

    def fail(number: int) -> list[Batch]:
        if number == 1:
            raise LocalError("it cannot be counted")
        return real(number)

    asked = ledger.account

    async def no_balance(key: bytes) -> LedgerAccount | None:
        if key == host.account:
            raise LedgerUnavailable("too many questions")
        return await asked(key)

    monkeypatch.setattr(host.record, "batches", fail)
    monkeypatch.setattr(ledger, "account", no_balance)
    await claimed(host, other, 0)
    assert "it cannot be counted" in caplog.text
    ledger.go_to(other.terms.end)
    await host.until(lambda: [one.state for one in host.record.all()] == ["open", "ended"])


async def test_a_claim_that_the_disk_does_not_let_begin_waits(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    await covered(host, owner)
    tries = 0

    def fail(*_arguments: object) -> NoReturn:
        nonlocal tries
        tries += 1
        raise CorruptFile("it is damaged")

    with monkeypatch.context() as patched:
        patched.setattr(host.record, "pieces", fail)
        assert await host.ask(owner.disclose(0)) == contracts.Disclosed("disclosed")
        await host.until(lambda: tries > 1)
    await host.until(lambda: state_of(host, 0) == "claimed")


Lie = Callable[[contracts.Cover, OwnerHere], contracts.Cover]


def less_paid(cover: contracts.Cover, owner: OwnerHere) -> contracts.Cover:
    short = cover.locks[2]
    lock = owner.signed_lock(2, Lock(short.amount_stroops - 1, short.hash))
    return msgspec.structs.replace(cover, locks=(*cover.locks[:2], lock, cover.locks[3]))


def another_signature(cover: contracts.Cover, owner: OwnerHere) -> contracts.Cover:
    moved = msgspec.structs.replace(cover.locks[1], signature=cover.locks[2].signature)
    return msgspec.structs.replace(cover, locks=(cover.locks[0], moved, *cover.locks[2:]))


def paid_later(cover: contracts.Cover, owner: OwnerHere) -> contracts.Cover:
    return msgspec.structs.replace(cover, first=2, locks=cover.locks[2:])


LIES: dict[str, tuple[Lie, str]] = {
    "a stroop less": (less_paid, "bad lock"),
    "the signature of another instalment": (another_signature, "bad lock"),
    "fewer bytes": (lambda cover, _: msgspec.structs.replace(cover, bytes=cover.bytes - 1), "bad lock"),
    "more bytes": (lambda cover, _: msgspec.structs.replace(cover, bytes=cover.bytes + 1), "bad lock"),
    "fewer locks": (lambda cover, _: msgspec.structs.replace(cover, locks=cover.locks[1:]), "bad lock"),
    "paid later": (paid_later, "wrong window"),
    "dated ahead": (lambda cover, _: msgspec.structs.replace(cover, at=cover.at + 4000), "wrong window"),
    "another number": (lambda cover, _: msgspec.structs.replace(cover, batch=1), "bad terms"),
    "another contract": (lambda cover, _: msgspec.structs.replace(cover, contract=bytes(32)), "no contract"),
}


async def test_a_cover_that_does_not_pay_is_refused(autojump_clock: MockClock, host: Hosting, owner: OwnerHere) -> None:
    await opened(host, owner)
    await stored(host, DATA)
    cover, body = owner.add(DATA), owner.body()
    answers = {name: await host.ask(lie(cover, owner), body) for name, (lie, _) in LIES.items()}
    assert answers == {name: Refused(reason) for name, (_, reason) in LIES.items()}  # type: ignore[arg-type]
    (hosted,) = host.record.all()
    assert host.record.batches(hosted.number) == []
    assert await host.ask(cover, body) == contracts.Covered()


async def test_a_cover_of_pieces_that_are_not_here_is_refused(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere
) -> None:
    await opened(host, owner)
    await stored(host, DATA[:1])
    assert await host.ask(owner.add(DATA), owner.body()) == Refused("missing")


async def test_a_cover_that_the_escrow_cannot_pay_is_refused(
    autojump_clock: MockClock, host: Hosting, ledger: LedgerHere
) -> None:
    owner = OwnerHere(ledger, stored_bytes=350_000)
    await opened(host, owner)
    for part in data_of(5, (80_000,) * 5):
        assert await stored(host, [part]) == []
        last = await host.ask(owner.add([part]), owner.body())
        if last != contracts.Covered():
            break
    assert last == Refused("no funds")


async def test_a_salt_of_another_window_or_of_nothing_is_refused(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await opened(host, owner)
    assert await host.ask(owner.disclose(0)) == Refused("bad lock")
    await stored(host, DATA)
    await host.ask(owner.add(DATA), owner.body())
    assert await host.ask(owner.disclose(1)) == Refused("wrong window")
    ledger.go_to(START + WINDOW_SECONDS)
    assert await host.ask(owner.disclose(0)) == Refused("wrong window")
    assert len(ledger.submitted) == 1, "the set-up"


async def test_a_lock_that_does_not_fit_moves_nothing_and_says_so(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await covered(host, owner)
    wrong = owner.disclose(0, bytes(32))
    assert await host.ask(wrong) == contracts.Disclosed("disclosed")
    await host.until(lambda: state_of(host, 0) == "waiting")
    assert await host.ask(wrong) == Refused("lock does not fit")
    assert len(ledger.submitted) == 1, "the set-up"
    await claimed(host, owner, 0)


async def test_the_claim_whose_window_ends_first_is_read_for_first_and_faults_are_looked_for_last(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    await covered(host, owner)
    others: list[OwnerHere] = []
    for windows in (2, 1):
        other = OwnerHere(ledger, number=3 - windows, window_seconds=windows * WINDOW_SECONDS)
        others.append(other)
        await opened(host, other)
        await stored(host, MORE)
        assert await host.ask(other.add(MORE), other.body()) == contracts.Covered()
    done: list[object] = []
    all_asked = threading.Event()
    read_from_disk = claiming.digests_of_some

    def read(*arguments: object) -> list[bytes]:
        assert all_asked.wait(10)
        done.append(arguments[2])
        return read_from_disk(*arguments)  # type: ignore[arg-type]  # passed on as they came

    def look(*_arguments: object) -> list[int]:
        done.append("whose fault")
        return [1, 1]

    monkeypatch.setattr(claiming, "digests_of_some", read)
    monkeypatch.setattr(claiming, "read_some", look)
    assert await host.ask(owner.disclose(0, bytes(32))) == contracts.Disclosed("disclosed")
    for other in others:
        assert await host.ask(other.disclose(0)) == contracts.Disclosed("disclosed")
    all_asked.set()
    await host.until(lambda: len(done) == 4)
    assert done == [bytes(32), others[1].salt(0), others[0].salt(0), "whose fault"]


def read_one_by_one(host: Hosting, monkeypatch: pytest.MonkeyPatch) -> tuple[list[PieceId], threading.Event]:
    """What is read, a piece in each turn, and what the first of them waits for."""
    asked, go_on, read = list[PieceId](), threading.Event(), host.store.read

    def seen(piece: PieceId) -> bytes | None:
        asked.append(piece)
        assert go_on.wait(10)
        return read(piece)

    monkeypatch.setattr(host.store, "read", seen)
    monkeypatch.setattr(claiming, "TURN_SECONDS", 0.0)
    return asked, go_on


async def test_between_two_pieces_of_one_instalment_another_has_its_turn(
    autojump_clock: MockClock, host: Hosting, ledger: LedgerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = OwnerHere(ledger, window_seconds=2 * WINDOW_SECONDS)
    await covered(host, owner)
    sooner = OwnerHere(ledger, number=1)
    await opened(host, sooner)
    assert await stored(host, MORE) == []
    assert await host.ask(sooner.add(MORE), sooner.body()) == contracts.Covered()
    asked, go_on = read_one_by_one(host, monkeypatch)
    assert await host.ask(owner.disclose(0)) == contracts.Disclosed("disclosed")
    await host.until(lambda: len(asked) == 1)
    assert await host.ask(sooner.disclose(0)) == contracts.Disclosed("disclosed")
    await trio.sleep(10)
    go_on.set()
    await host.until(lambda: host.record.instalments(1)[0].state == state_of(host, 0) == "claimed")
    assert asked == [merkle.piece_id(one) for one in (DATA[0], *MORE, DATA[1])]


async def test_when_a_window_is_over_nothing_more_is_read_for_it(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    await covered(host, owner)
    asked, go_on = read_one_by_one(host, monkeypatch)
    assert await host.ask(owner.disclose(0)) == contracts.Disclosed("disclosed")
    await host.until(lambda: len(asked) == 1)
    ledger.go_to(START + WINDOW_SECONDS)
    await trio.sleep(100)
    go_on.set()
    await host.until(lambda: state_of(host, 0) == "missed")
    assert asked == [merkle.piece_id(DATA[0])]


async def test_a_host_that_is_stopped_reads_no_further(
    autojump_clock: MockClock, tmp_path: Path, ledger: LedgerHere, owner: OwnerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, begun, stopped = Hosting(tmp_path, ledger), trio.Event(), threading.Event()
    read, asked = host.store.read, list[PieceId]()

    def slow(piece: PieceId) -> bytes | None:
        trio.from_thread.run_sync(begun.set)
        stopped.wait()
        asked.append(piece)
        return read(piece)

    monkeypatch.setattr(host.store, "read", slow)
    with host.database:
        async with trio.open_nursery() as nursery:
            await nursery.start(host.earning.run)
            await covered(host, owner)
            await host.ask(owner.disclose(0))
            await begun.wait()
            nursery.cancel_scope.cancel()
            stopped.set()
    assert asked == [merkle.piece_id(DATA[0])]


async def test_what_is_known_already_needs_no_ledger(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await covered(host, owner)
    await claimed(host, owner, 0)
    offered = owner.add(MORE)
    assert await stored(host, MORE) == []
    ledger.is_away = True
    assert await host.ask(owner.disclose(0)) == contracts.Disclosed("claimed")
    wrong = msgspec.structs.replace(offered, bytes=offered.bytes + 1)
    assert await host.ask(wrong, owner.body()) == Refused("bad lock")
    ledger.is_away = False


async def test_tries_at_a_salt_are_numbered(autojump_clock: MockClock, host: Hosting, owner: OwnerHere) -> None:
    await covered(host, owner)
    for number in range(3):
        await host.ask(owner.disclose(0, bytes([number]) * 32))
        await host.until(lambda: state_of(host, 0) == "waiting")
    assert await host.ask(owner.disclose(0)) == Refused("lock does not fit")


async def test_a_host_that_lost_a_piece_says_so(autojump_clock: MockClock, host: Hosting, owner: OwnerHere) -> None:
    await covered(host, owner)
    host.store.delete(merkle.piece_id(DATA[1]), TENANT.public_key)
    await host.ask(owner.disclose(0))
    await host.until(lambda: state_of(host, 0) == "waiting")
    assert await host.ask(owner.disclose(0)) == Refused("missing")


async def test_what_a_contract_needs_is_not_forgotten_at_its_owners_word(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere
) -> None:
    await covered(host, owner)
    assert await stored(host, MORE) == []
    assert await trio.to_thread.run_sync(deleted, host, [*DATA, *MORE]) == MORE


async def test_what_comes_back_while_it_is_deleted_costs_credit_and_counts_as_stored_the_next_time(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(host, owner)
    await stored(host, DATA)
    again = partial(trio.from_thread.run, stored, host, DATA[:1])
    with pytest.raises(LocalError):
        await trio.to_thread.run_sync(deleted, host, DATA, again)
    assert here(host, DATA) == [True, False]
    assert host.record.uncovered_pieces() == [merkle.piece_id(DATA[0])]
    assert await stored(host, DATA[:1]) == []
    real = host.store.put

    def put_and_lost(piece: PieceId, data: bytes, tenant: bytes) -> None:
        real(piece, data, tenant)
        host.store.delete(piece, tenant)

    monkeypatch.setattr(host.store, "put", put_and_lost)
    with pytest.raises(LocalError):
        await stored(host, DATA)


async def test_what_is_being_deleted_is_not_covered_nor_deleted_what_is_being_covered(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(host, owner)
    await stored(host, [*DATA, *MORE])
    cover = partial(trio.from_thread.run, host.ask, owner.add(DATA), owner.body())
    asked, heard, gone = ledger.account, list[object](), list[bytes]()

    def begun() -> None:
        with host.earning.deleting(TENANT.public_key, [merkle.piece_id(DATA[0])]):
            heard.append(cover())

    async def account(key: bytes) -> LedgerAccount | None:
        if key == owner.terms.escrow:
            gone.extend(await trio.to_thread.run_sync(deleted, host, [*DATA, *MORE]))
        return await asked(key)

    await trio.to_thread.run_sync(begun)
    assert heard == [Refused("missing")]
    monkeypatch.setattr(ledger, "account", account)
    assert await host.ask(owner.cover(0), owner.body()) == contracts.Covered()
    assert gone == MORE, "only what is not being covered"
    assert here(host, [*DATA, *MORE]) == [True, True, False]


def here(host: Hosting, data: list[bytes]) -> list[bool]:
    return [host.store.has(merkle.piece_id(one)) for one in data]


async def test_silence_ends_service_and_then_frees_the_room(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await covered(host, owner)
    await stored(host, MORE)
    piece = merkle.piece_id(DATA[0])
    ledger.go_to(START + 3 * WINDOW_SECONDS)
    await host.until(lambda: host.record.all()[0].state == "notice")
    assert not host.earning.serves(piece)
    assert await host.ask(OwnerHere(ledger, number=1).propose()) == contracts.Agreed(b"")
    await trio.sleep(100)
    assert not host.earning.serves(piece), "terms alone cost nothing"
    assert await stored(host, data_of(9)) == ["no contract"] * 2
    assert here(host, [*DATA, *MORE]) == [True] * 3
    ledger.go_to(owner.terms.end + WINDOW_SECONDS)
    await host.until(lambda: here(host, [*DATA, *MORE]) == [False] * 3)
    assert [one.state for one in host.record.instalments(1)] == ["missed"] * 4


async def test_who_had_nothing_here_for_long_is_served_when_something_comes(
    autojump_clock: MockClock, host: Hosting, ledger: LedgerHere
) -> None:
    owner = OwnerHere(ledger, instalments=8)
    await opened(host, owner)
    ledger.go_to(START + 3 * WINDOW_SECONDS + 5)
    await trio.sleep(100)
    assert await stored(host, DATA) == []
    await trio.sleep(100)
    assert await stored(host, MORE) == []
    assert await host.ask(owner.add([*DATA, *MORE], first=3), owner.body()) == contracts.Covered()
    ledger.go_to(START + 6 * WINDOW_SECONDS - 60)
    await trio.sleep(100)
    assert host.record.all()[0].state == "open"
    ledger.go_to(START + 6 * WINDOW_SECONDS)
    await host.until(lambda: host.record.all()[0].state == "notice")


async def test_an_owner_who_comes_back_in_time_is_served_again(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await covered(host, owner)
    ledger.go_to(START + 3 * WINDOW_SECONDS)
    await host.until(lambda: host.record.all()[0].state == "notice")
    await claimed(host, owner, 3)
    await host.until(lambda: host.record.all()[0].state == "open")
    await host.until(lambda: host.earning.serves(merkle.piece_id(DATA[0])))


async def test_what_an_owner_says_at_the_last_moment_keeps_its_pieces(
    autojump_clock: MockClock, host: Hosting, ledger: LedgerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = OwnerHere(ledger, instalments=8)
    await covered(host, owner)
    ledger.go_to(START + 3 * WINDOW_SECONDS)
    await host.until(lambda: host.record.all()[0].state == "notice")
    asked = ledger.fate

    async def fate(hash_: bytes, source: bytes) -> Fate:
        if host.record.instalments(1)[4].salt is None:
            host.record.disclose(1, 4, owner.salt(4))
        return await asked(hash_, source)

    monkeypatch.setattr(ledger, "fate", fate)
    ledger.go_to(START + 4 * WINDOW_SECONDS)
    await host.until(lambda: state_of(host, 4) == "claimed")
    await host.until(lambda: host.record.all()[0].state == "open")
    assert here(host, DATA) == [True, True]


async def test_what_is_covered_at_last_ends_a_notice(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await opened(host, owner)
    await stored(host, data_of(3, (credit_bytes(owner.terms),)))
    ledger.go_to(START + WINDOW_SECONDS + 60)
    await host.until(lambda: host.record.all()[0].state == "notice")
    cover = owner.add(data_of(3, (credit_bytes(owner.terms),)), first=1)
    assert await host.ask(cover, owner.body()) == contracts.Covered()
    await host.until(lambda: host.record.all()[0].state == "open")


async def test_a_renewed_contract_keeps_what_it_covers_and_the_rest_on_credit(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await covered(host, owner)
    ledger.go_to(START + 3 * WINDOW_SECONDS)
    await claimed(host, owner, 3)
    again = OwnerHere(ledger, number=1)
    await opened(host, again)
    assert await host.ask(again.add(DATA[:1]), again.body()) == contracts.Covered()
    await seen_to_end(host, owner, ledger)
    ledger.go_to(again.terms.window(2)[0])
    assert ledger.now >= owner.terms.end + WINDOW_SECONDS
    await claimed(host, again, 2)
    await host.until(lambda: host.record.all()[0].released)
    assert here(host, DATA) == [True, True]
    assert host.record.uncovered(TENANT.public_key, 0).bytes == len(DATA[1])
    assert host.record.on_credit(TENANT.public_key, 0).bytes == 0, "it is not held against its owner"
    assert await host.ask(again.add(DATA[1:], first=3), again.body()) == contracts.Covered()
    assert host.record.uncovered(TENANT.public_key, 0).bytes == 0


async def test_what_is_covered_late_is_kept_for_it_and_served_and_goes_alone_when_it_is_not(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    small, large = data = data_of(5, (10_000, 300_000))
    await opened(host, owner)
    assert await stored(host, data) == []
    assert await host.ask(owner.add(data), owner.body()) == contracts.Covered()
    ledger.go_to(owner.terms.window(3)[0])
    await claimed(host, owner, 3)
    again = OwnerHere(ledger, number=1, instalments=12, deposit_stroops=12)
    await opened(host, again)
    assert credit_bytes(again.terms) < len(large)
    assert await host.ask(again.add([small]), again.body()) == contracts.Covered()
    await seen_to_end(host, owner, ledger)
    for instalment in (1, 2):
        ledger.go_to(again.terms.window(instalment)[1] - 60)
        await claimed(host, again, instalment)
    assert host.record.all()[0].released
    assert here(host, data) == [True, True]
    assert host.earning.serves(merkle.piece_id(large))
    assert await stored(host, [b"x"]) == [], "it takes none of the credit"
    ledger.go_to(owner.terms.end + 3 * WINDOW_SECONDS)
    await host.until(lambda: here(host, data) == [True, False])
    await host.until(lambda: host.record.uncovered(TENANT.public_key, 0).bytes == 4096)
    assert host.record.all()[1].state == "open"


async def test_what_is_kept_on_credit_goes_with_the_last_contract(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await covered(host, owner)
    ledger.go_to(START + 3 * WINDOW_SECONDS)
    again = OwnerHere(ledger, number=1)
    await opened(host, again)
    await seen_to_end(host, owner, ledger)
    await seen_to_end(host, again, ledger)
    ledger.go_to(again.terms.end + WINDOW_SECONDS - 1)
    await host.until(lambda: host.record.all()[0].released)
    assert await host.ask(OwnerHere(ledger, number=2).propose()) == contracts.Agreed(b""), "costs nothing"
    assert here(host, DATA) == [True, True]
    ledger.go_to(again.terms.end + WINDOW_SECONDS)
    await host.until(lambda: here(host, DATA) == [False, False])


async def test_what_was_on_credit_before_a_contract_began_is_not_held_against_it(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await covered(host, owner)
    orphan = data_of(3, (credit_bytes(owner.terms) // 2,))
    await stored(host, orphan)
    ledger.go_to(START + 4 * WINDOW_SECONDS - 5)
    again = OwnerHere(ledger, number=1)
    await opened(host, again)
    assert await host.ask(again.add(DATA), again.body()) == contracts.Covered()
    ledger.go_to(again.terms.start + WINDOW_SECONDS // 2)
    await trio.sleep(200)
    assert host.record.all()[1].state == "open"


@pytest.mark.parametrize("is_covered", [False, True])
async def test_nobody_goes_on_for_nothing_from_one_contract_to_the_next(
    autojump_clock: MockClock, host: Hosting, ledger: LedgerHere, is_covered: bool
) -> None:
    """The attack: the next one is opened before each ends, and none is paid, but for something tiny."""
    much, tiny, answers = data_of(8, (3_000_000,)), data_of(9, (1,)), []
    for number in range(5):
        again = OwnerHere(ledger, number=number, instalments=2, stored_bytes=1 << 24)
        answers.append(await host.ask(again.propose()))
        if isinstance(answers[-1], Refused):
            break
        await again.set_up()
        assert isinstance(await host.ask(again.opened()), contracts.Ready)
        assert await stored(host, [*much, *tiny]) == []
        paid = [*much, *tiny] if is_covered else tiny
        assert await host.ask(again.add(paid), again.body()) == contracts.Covered()
        assert await host.ask(again.disclose(0, bytes(32) if is_covered else None)) == contracts.Disclosed("disclosed")
        await host.until(lambda: state_of(host, 0) == ("waiting" if is_covered else "claimed"))
        ledger.go_to(ledger.now + 3 * WINDOW_SECONDS // 2)
        await trio.sleep(200)
    assert answers == [contracts.Agreed(b"")] * 3 + [Refused("no credit")]
    for _ in range(2):
        ledger.go_to(ledger.now + WINDOW_SECONDS)
        await trio.sleep(200)
    await host.until(lambda: all(one.released for one in host.record.all()))
    assert here(host, much) == [False]
    assert await host.ask(OwnerHere(ledger, number=9).propose()) == contracts.Agreed(b""), "nothing is here any more"


async def test_whose_machine_is_on_for_one_window_in_four_goes_on(
    autojump_clock: MockClock, host: Hosting, ledger: LedgerHere
) -> None:
    for number in range(4):
        owner = OwnerHere(ledger, number=number)
        await opened(host, owner)
        assert await stored(host, DATA) == []
        assert await host.ask(owner.add(DATA), owner.body()) == contracts.Covered()
        assert await host.ask(owner.disclose(0)) == contracts.Disclosed("disclosed")
        await host.until(lambda: state_of(host, 0) == "claimed")
        ledger.go_to(owner.terms.end + WINDOW_SECONDS // 2)
        await trio.sleep(200)
    assert here(host, DATA) == [True, True]


async def test_what_was_let_go_of_is_at_risk_no_longer(
    autojump_clock: MockClock, host: Hosting, ledger: LedgerHere
) -> None:
    owner = OwnerHere(ledger, instalments=12)
    await covered(host, owner)
    for windows in (3, 4):
        ledger.go_to(START + windows * WINDOW_SECONDS)
        await trio.sleep(200)
    await host.until(lambda: here(host, DATA) == [False, False])
    found = []
    for _ in range(2):
        found.append((await trio.to_thread.run_sync(host.earning.report)).at_risk_stroops)
        ledger.go_to(ledger.now + WINDOW_SECONDS)
    assert found[0] == found[1] > 0


async def test_pieces_of_which_some_are_gone_when_a_host_ends_go_when_it_is_back(
    autojump_clock: MockClock, tmp_path: Path, ledger: LedgerHere, owner: OwnerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letting_go, "DELETED_AT_ONCE", 1)
    pieces = [*DATA, *MORE]
    async with hosting(tmp_path, ledger) as host:
        await covered(host, owner)
        assert await stored(host, MORE) == []
        delete, deleted_already = host.store.delete, []

        def delete_one(piece: PieceId, tenant: bytes) -> bool:
            if deleted_already:
                raise LocalError("the disk is gone")
            deleted_already.append(piece)
            return delete(piece, tenant)

        monkeypatch.setattr(host.store, "delete", delete_one)
        await seen_to_end(host, owner, ledger)
        ledger.go_to(owner.terms.end + WINDOW_SECONDS)
        await host.until(lambda: sum(here(host, pieces)) == 2)
        await trio.sleep(200)
    async with hosting(tmp_path, ledger) as host:
        await host.until(lambda: here(host, pieces) == [False] * 3)
        await host.until(lambda: host.record.all()[0].released)


async def test_who_opens_a_contract_while_pieces_go_keeps_what_is_left(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letting_go, "DELETED_AT_ONCE", 1)
    await covered(host, owner)
    assert await stored(host, MORE) == []
    await seen_to_end(host, owner, ledger)
    again = OwnerHere(ledger, number=1)
    assert await host.ask(again.propose()) == contracts.Agreed(b"")
    await again.set_up()
    delete, answers = host.store.delete, []

    def delete_and_hear(piece: PieceId, tenant: bytes) -> bool:
        answers.append(host.earning.answer(again.opened(), memoryview(b"")))
        return delete(piece, tenant)

    monkeypatch.setattr(host.store, "delete", delete_and_hear)
    ledger.go_to(owner.terms.end + WINDOW_SECONDS)
    await host.until(lambda: host.record.all()[0].released)
    assert answers == [contracts.Ready(credit_bytes(again.terms))]
    assert sorted([*here(host, DATA), *here(host, MORE)]) == [False, True, True]
    left = [one for one in DATA if here(host, [one]) == [True]]
    assert await host.ask(again.add([*left, *MORE], first=1), again.body()) == contracts.Covered()


async def test_what_is_being_covered_is_not_let_go_of(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await covered(host, owner)
    await seen_to_end(host, owner, ledger)
    with host.earning._agreements._in_hand.covering(TENANT.public_key, [merkle.piece_id(DATA[1])]):
        ledger.go_to(owner.terms.end + WINDOW_SECONDS)
        await host.until(lambda: here(host, DATA) == [False, True])
        await trio.sleep(200)
        assert (here(host, DATA), host.record.all()[0].released) == ([False, True], False)
    await host.until(lambda: here(host, DATA) == [False, False])
    await host.until(lambda: host.record.all()[0].released)


async def test_who_could_not_see_the_end_lets_go_a_window_after_it_is_seen(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    """While the ledger was away no owner could renew."""
    await covered(host, owner)
    ledger.is_away = True
    ledger.go_to(owner.terms.end + 3 * WINDOW_SECONDS)
    await trio.sleep(200)
    ledger.is_away = False
    await host.until(lambda: host.record.all()[0].state == "ended")
    await trio.sleep(200)
    assert here(host, DATA) == [True, True]
    ledger.go_to(ledger.now + WINDOW_SECONDS)
    await host.until(lambda: here(host, DATA) == [False, False])


async def test_a_ledger_that_is_away_stops_claims_and_nothing_else(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await covered(host, owner)
    ledger.is_away = True
    assert await stored(host, MORE) == []
    with pytest.raises(LocalError):
        await host.ask(owner.disclose(0))
    ledger.is_away = False
    await claimed(host, owner, 0)


async def test_a_host_that_is_started_again_claims_what_it_was_going_to(
    autojump_clock: MockClock, tmp_path: Path, ledger: LedgerHere, owner: OwnerHere
) -> None:
    async with hosting(tmp_path, ledger) as host:
        await covered(host, owner)
        host.record.disclose(1, 0, owner.salt(0))
    before = ledger.balance(host.account)
    async with hosting(tmp_path, ledger) as host:
        await host.until(lambda: state_of(host, 0) == "claimed")
        amount = host.record.instalments(1)[0].amount_stroops
        host.record.set_instalment(1, 0, "disclosed")  # as if killed before it was written down
    async with hosting(tmp_path, ledger) as host:
        await host.until(lambda: state_of(host, 0) == "claimed")
    assert ledger.balance(host.account) == before + amount


async def test_a_host_that_lost_its_record_gets_it_back_from_ledger_and_owner(
    autojump_clock: MockClock, tmp_path: Path, ledger: LedgerHere, owner: OwnerHere
) -> None:
    async with hosting(tmp_path, ledger) as host:
        await covered(host, owner)
        await claimed(host, owner, 0)
        ledger.go_to(START + WINDOW_SECONDS + 5)
        await stored(host, MORE)
        await host.ask(owner.add(MORE, first=1), owner.body())
        await claimed(host, owner, 1)
    for name in tmp_path.glob("contracts.db*"):
        name.unlink()
    before = ledger.balance(host.account)
    async with hosting(tmp_path, ledger) as host:
        assert await host.ask(owner.disclose(1)) == Refused("no contract")
        assert await host.ask(owner.propose()) == contracts.Agreed(b"")
        assert isinstance(await host.ask(owner.opened()), contracts.Ready)
        for number in range(2):
            assert await host.ask(owner.cover(number), owner.body(number)) == contracts.Covered()
        await host.until(lambda: state_of(host, 0) == "claimed")
        await claimed(host, owner, 1)
        assert ledger.balance(host.account) == before, "nothing is paid twice"
        ledger.go_to(START + 2 * WINDOW_SECONDS + 5)
        await claimed(host, owner, 2)
        assert ledger.balance(host.account) > before


async def test_terms_of_an_escrow_that_we_never_agreed_to_are_not_taken_up_later(
    autojump_clock: MockClock, host: Hosting, ledger: LedgerHere
) -> None:
    owner = OwnerHere(ledger)
    ledger.go_to(START + WINDOW_SECONDS)
    assert await host.ask(owner.propose()) == Refused("bad terms")


async def test_collateral_is_put_up_to_the_limit_and_comes_back_with_instalments(
    autojump_clock: MockClock, tmp_path: Path, ledger: LedgerHere
) -> None:
    offer = Offer(PRICE, wallet_keys.account_of(WALLET), envelopes.network_id(PASSPHRASE), most_collateral_stroops=4000)
    async with hosting(tmp_path, ledger, offer) as host:
        too_much = OwnerHere(ledger, collateral_stroops=4001)
        assert await host.ask(too_much.propose()) == Refused("bad terms")
        owner = OwnerHere(ledger, collateral_stroops=4000)
        before = ledger.balance(host.account)
        agreed = await host.ask(owner.propose())
        assert isinstance(agreed, contracts.Agreed)
        await owner.set_up(agreed.setup_signature)
        assert ledger.balance(host.account) == before - 4000
        assert ledger.balance(owner.terms.escrow) == starting_stroops(owner.terms) + 4000
        assert isinstance(await host.ask(owner.opened()), contracts.Ready)
        await stored(host, DATA)
        assert await host.ask(owner.add(DATA), owner.body()) == contracts.Covered()
        await claimed(host, owner, 0)
        report = await trio.to_thread.run_sync(host.earning.report)
        assert ledger.balance(host.account) == before - 3000 + report.earned_stroops


async def test_a_host_that_leaves_takes_nothing_new_and_ends_when_nothing_is_due(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere, ledger: LedgerHere
) -> None:
    await covered(host, owner)
    left = await trio.to_thread.run_sync(host.earning.leave)
    assert left == contracts.Leaving(1, owner.terms.end)
    assert await stored(host, MORE) == ["leaving"]
    assert await host.ask(OwnerHere(ledger, number=1).propose()) == Refused("leaving")
    await claimed(host, owner, 0)
    assert not host.earning.left.is_set()
    ledger.go_to(owner.terms.end)
    await host.until(host.earning.left.is_set)


async def test_an_owner_is_told_what_is_on_record(autojump_clock: MockClock, host: Hosting, owner: OwnerHere) -> None:
    await covered(host, owner)
    await stored(host, MORE)
    await claimed(host, owner, 0)
    stands = await host.ask(contracts.Standing(TENANT.public_key, 0, bytes(64)))
    assert isinstance(stands, contracts.Stands)
    assert (stands.terms, stands.state, stands.uncovered_bytes) == (owner.terms.to_bytes(), "open", 100_000)
    assert stands.batches == (contracts.StandingBatch(0, owner.batches[0][0].at, 370_000, 2),)
    assert [one.state for one in stands.instalments] == ["claimed", "waiting", "waiting", "waiting"]
    other = NodeIdentity(bytes([99]) * 32).public_key
    for question in (contracts.Standing(other, 0, bytes(64)), contracts.Standing(TENANT.public_key, 1, bytes(64))):
        assert await host.ask(question) == Refused("no contract")


async def test_another_tenant_has_no_part_in_a_contract(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere
) -> None:
    await covered(host, owner)
    other = NodeIdentity(bytes([99]) * 32).public_key
    for request in (owner.opened(), owner.disclose(0), owner.cover(0)):
        stolen = msgspec.structs.replace(request, tenant=other)
        body = owner.body() if isinstance(request, contracts.Cover) else b""
        assert await host.ask(stolen, body) == Refused("no contract")
    assert not await trio.to_thread.run_sync(host.earning.has_contract, other)
    assert await trio.to_thread.run_sync(host.earning.has_contract, TENANT.public_key)


async def test_what_was_only_agreed_to_keeps_nothing(
    autojump_clock: MockClock, host: Hosting, owner: OwnerHere
) -> None:
    await host.ask(owner.propose())
    assert not await trio.to_thread.run_sync(host.earning.has_contract, TENANT.public_key)


def test_what_a_trade_prints_shows_no_key(tmp_path: Path, ledger: LedgerHere) -> None:
    host = Hosting(tmp_path, ledger)
    with host.database:
        assert WALLET.hex() not in repr(host.trade)
        assert repr(WALLET) not in repr(host.trade)
