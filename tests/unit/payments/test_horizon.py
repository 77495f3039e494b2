"""What Horizon's client makes of servers that fail: one sentence each, and never an answer that nobody gave."""

from __future__ import annotations

import contextlib
import datetime
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from stellar_sdk import Account, Asset, Keypair, StrKey, TransactionBuilder

from layrfs.errors import LayrError, LedgerUnavailable, Rejected, Unfunded, WrongLedger
from layrfs.payments import horizon as module
from layrfs.payments.horizon import Horizon
from tests.canned_http import Answerer, Canned, canned_server
from tests.unit.payments.test_reading import paid, result

NETWORK = "a network ; of tests"
NOW = int(time.time())
OWNER, HOST = (Keypair.from_raw_ed25519_seed(bytes([number]) * 32) for number in (1, 2))
KEY = OWNER.raw_public_key()

ACCOUNT: dict[str, Any] = {
    "account_id": OWNER.public_key,
    "sequence": "4294967296",
    "subentry_count": 2,
    "thresholds": {"low_threshold": 2, "med_threshold": 2, "high_threshold": 2},
    "flags": {"auth_required": False, "auth_revocable": True, "auth_immutable": False, "auth_clawback_enabled": True},
    "balances": [
        {"asset_type": "credit_alphanum4", "asset_code": "USD", "balance": "7.0000000"},
        {"asset_type": "native", "balance": "12.5000001", "selling_liabilities": "1.0000000"},
    ],
    "signers": [
        {"key": OWNER.public_key, "type": "ed25519_public_key", "weight": 1},
        {"key": StrKey.encode_pre_auth_tx(bytes(32)), "type": "preauth_tx", "weight": 2},
    ],
    "data": {"config.memo_required": "MQ=="},
    "num_sponsoring": 1,
    "num_sponsored": 0,
}


def ledgers(hours: float = 0.0) -> dict[str, Any]:
    """So many hours off this machine's clock."""
    moment = datetime.datetime.fromtimestamp(NOW, datetime.UTC) + datetime.timedelta(hours=hours)
    newest = {
        "sequence": 7,
        "closed_at": moment.isoformat(),
        "base_fee_in_stroops": 100,
        "base_reserve_in_stroops": 5_000_000,
    }
    return {"_embedded": {"records": [newest]}}


ROOT = {"network_passphrase": NETWORK}
MISSING = {"type": "https://stellar.org/horizon-errors/not_found", "title": "Resource Missing", "status": 404}


def said(value: object, status: int = 200, **headers: str) -> Canned:
    return Canned(status, json.dumps(value).encode(), headers)


def pages(table: dict[str, Canned]) -> Answerer:
    """By the start of the path, the longest first; the root is right unless a test has another."""
    known = {"/": said(ROOT), "/ledgers": said(ledgers()), **table}

    def answer(_method: str, path: str, _body: bytes) -> Canned:
        if path == "/":
            return known["/"]
        found = [start for start in known if start != "/" and path.startswith(start)]
        return known[max(found, key=len)] if found else said(MISSING, 404)

    return answer


def payment() -> tuple[str, bytes]:
    builder = TransactionBuilder(Account(OWNER.public_key, 41), NETWORK, base_fee=100)
    built = builder.append_payment_op(HOST.public_key, Asset.native(), "1").add_time_bounds(0, 1_000).build()
    built.sign(OWNER)
    return built.to_xdr(), built.hash()


def record(xdr: str, **changes: object) -> dict[str, object]:
    return {
        "successful": True,
        "ledger": 7,
        "created_at": "2026-01-02T03:04:05Z",
        "fee_account": OWNER.public_key,
        "fee_charged": "100",
        "envelope_xdr": xdr,
        "result_xdr": result(paid()),
        "paging_token": "30064775168",
        **changes,
    }


def rejection(**codes: object) -> Canned:
    kind = "https://stellar.org/horizon-errors/transaction_failed"
    return said({"type": kind, "title": "Transaction Failed", "extras": {"result_codes": codes}}, 400)


async def test_an_account_is_read_in_full() -> None:
    with canned_server(pages({"/accounts/": said(ACCOUNT)})) as url:
        account = await Horizon([url], NETWORK).account(KEY)
    assert account is not None
    assert (account.sequence, account.balance_stroops, account.liabilities_stroops) == (
        1 << 32,
        125_000_001,
        10_000_000,
    )
    assert (account.thresholds, account.subentries, account.sponsoring, account.flags) == ((2, 2, 2), 2, 1, 0b1010)
    assert [(each.kind, each.weight, len(each.key)) for each in account.signers] == [("key", 1, 32), ("preauth", 2, 32)]
    assert account.memo_required


async def test_head_transaction_and_history() -> None:
    xdr, hash_ = payment()
    page = {"_embedded": {"records": [record(xdr)]}}
    table = {"/transactions/": said(record(xdr)), f"/accounts/{OWNER.public_key}/transactions": said(page)}
    with canned_server(pages(table)) as url:
        ledger = Horizon([url], NETWORK)
        head = await ledger.head()
        done = await ledger.transaction(hash_)
        found = await ledger.history(KEY)
        fate = await ledger.fate(hash_, KEY)
    assert (head.sequence, head.closed_at, head.base_fee_stroops) == (7, NOW, 100)
    assert done is not None
    assert (done.hash, done.successful, done.fee_charged_stroops, done.codes) == (hash_, True, 100, ())
    assert (found.transactions, found.cursor) == ((done,), "30064775168")
    assert (fate.head, fate.source, fate.transaction) == (head, None, done)


async def test_what_horizon_says_is_missing_is_missing() -> None:
    with canned_server(pages({})) as url:
        ledger = Horizon([url], NETWORK)
        assert await ledger.account(KEY) is None
        assert await ledger.transaction(bytes(32)) is None
        assert await ledger.history(KEY, "5") == module.HistoryPage((), "5")


async def submit(ledger: Horizon) -> object:
    return await ledger.submit(payment()[0])


async def account(ledger: Horizon) -> object:
    return await ledger.account(KEY)


async def transaction(ledger: Horizon) -> object:
    return await ledger.transaction(payment()[1])


XDR = payment()[0]
OTHER = {**ACCOUNT, "account_id": HOST.public_key}


@pytest.mark.parametrize(
    "answer",
    [
        Canned(404, b"<html>nothing here</html>"),
        said({"type": "about:blank"}, 404),
        Canned(200, b"<html>hello</html>"),
        Canned(200, b"\xff\xfe"),
        Canned(200, b"{}"),
        Canned(200, b"[" * 100_000),
        Canned(200, b'{"type": "x", "lies": true}' * 10, cut=True),
        Canned(200, b"{}", {"Content-Type": "text/html; charset=nonsense"}),
        Canned(400, b""),
        said({"type": "https://stellar.org/horizon-errors/bad_request"}, 400),
        said([], 400),
        Canned(403, b"no"),
        Canned(500, b""),
        Canned(503, b"{}"),
        Canned(504, b""),
        Canned(302, b"", {"Location": "/again"}),
        said({**ACCOUNT, "balances": []}),
        said(OTHER),
        said({**ACCOUNT, "sequence": "-5"}),
        said({**ACCOUNT, "signers": [{"key": "GA", "type": "ed25519_public_key", "weight": 1}]}),
        said({**ACCOUNT, "signers": [{"key": "?", "type": "quantum", "weight": 1}]}),
        said(record("AAAA")),
        said(record(XDR, result_xdr="AAAA")),
        said(record(XDR, successful=False)),
        said(record(XDR, created_at="yesterday")),
        said(record(XDR, ledger=-1)),
        said(record(XDR, fee_charged="much")),
        said(record(XDR, fee_account="S")),
    ],
)
async def test_whatever_makes_no_sense_is_one_sentence(answer: Canned) -> None:
    with canned_server(pages({"/accounts/": answer, "/transactions": answer, "/again": answer})) as url:
        for ask in (submit, account, transaction):
            with pytest.raises(LedgerUnavailable) as raised:
                await ask(Horizon([url], NETWORK))
            sentence = str(raised.value)
            assert url.removeprefix("http://") in sentence
            assert "\n" not in sentence
            assert len(sentence) < 400


async def test_an_answer_about_another_transaction_is_not_believed() -> None:
    with (
        canned_server(pages({"/transactions/": said(record(XDR))})) as url,
        pytest.raises(LedgerUnavailable, match="another transaction"),
    ):
        await Horizon([url], NETWORK).transaction(bytes(32))


async def test_another_network_is_told_apart() -> None:
    with canned_server(pages({"/": said({"network_passphrase": "Public money"})})) as url:
        for ask in (account, submit):
            with pytest.raises(WrongLedger, match="'Public money' and not 'a network ; of tests'"):
                await ask(Horizon([url], NETWORK))


async def test_a_server_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(LedgerUnavailable, match="refused"):
            await Horizon([f"http://127.0.0.1:{taken.getsockname()[1]}"], NETWORK).head()


async def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUESTION_SECONDS", 0.2)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        with pytest.raises(LedgerUnavailable, match="has not answered"):
            await Horizon([f"http://127.0.0.1:{mute.getsockname()[1]}"], NETWORK).head()


@contextlib.contextmanager
def dripping(head: bytes) -> Iterator[str]:
    """A server that begins an answer and then says a byte now and then, for ever."""
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(head)
            while not ended.wait(0.05):
                connection.sendall(b" ")

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _address = listening.accept()
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            ended.set()
            listening.shutdown(socket.SHUT_RDWR)


async def test_an_answer_that_never_ends_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GET_SECONDS", 0.3)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    with dripping(head) as url, pytest.raises(LedgerUnavailable, match="no answer in time"):
        await Horizon([url], NETWORK).head()


async def test_a_server_that_keeps_all_its_threads_keeps_no_other_server_from_being_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "QUESTION_SECONDS", 1.0)
    with dripping(b"HTTP/1.1 200 ") as first, canned_server(pages({})) as second:
        ledger = Horizon([first, second], NETWORK)
        async with trio.open_nursery() as nursery:
            for _question in range(12):
                nursery.start_soon(ledger.head)


async def test_an_answer_that_is_too_large_is_none() -> None:
    large = Canned(200, b" " * (5 << 20))
    with canned_server(pages({"/transactions": large, "/friendbot": large, "/ledgers": large})) as url:
        for ask in (submit, lambda ledger: ledger.fund(KEY), lambda ledger: ledger.head()):
            with pytest.raises(LedgerUnavailable, match="too large"):
                await ask(Horizon([url], NETWORK))


@pytest.mark.parametrize(("hours", "way"), [(1.1, "1 h ahead of"), (240, "240 h ahead of"), (-48, "48 h behind")])
async def test_a_ledger_of_another_time_is_not_believed(hours: float, way: str) -> None:
    with canned_server(pages({"/ledgers": said(ledgers(hours))})) as url:
        for ask in (lambda ledger: ledger.head(), lambda ledger: ledger.fate(bytes(32), KEY)):
            with pytest.raises(LedgerUnavailable, match=way):
                await ask(Horizon([url], NETWORK))


async def test_a_ledger_that_is_less_than_an_hour_off_and_a_development_ledger_at_any_time_are() -> None:
    with canned_server(pages({"/ledgers": said(ledgers(0.9))})) as url:
        assert (await Horizon([url], NETWORK).head()).sequence == 7
    development = "LayrFS development ledger ; of tests"
    table = {"/": said({"network_passphrase": development}), "/ledgers": said(ledgers(10_000))}
    with canned_server(pages(table)) as url:
        assert (await Horizon([url], development).head()).sequence == 7


async def test_the_next_server_is_asked_and_the_first_rests() -> None:
    asked: list[str] = []

    def broken(_method: str, path: str, _body: bytes) -> Canned:
        asked.append(path)
        return Canned(500, b"")

    with canned_server(broken) as first, canned_server(pages({})) as second:
        ledger = Horizon([first, second], NETWORK)
        for _time in range(3):
            assert (await ledger.head()).sequence == 7
    assert asked == ["/"]


async def test_a_ledger_that_has_moved_is_found_where_it_is_said_to_be() -> None:
    another = pages({"/": said({"network_passphrase": "another"})})
    with canned_server(another) as wrong, canned_server(pages({})) as right:
        for before in (wrong, "http://127.0.0.1:1"):
            ledger = Horizon([before], NETWORK, lambda: [right])
            with pytest.raises((LedgerUnavailable, WrongLedger)):
                await ledger.head()
            assert (await ledger.head()).sequence == 7


async def test_who_is_asked_too_often_is_left_alone() -> None:
    asked: list[str] = []

    def busy(_method: str, path: str, _body: bytes) -> Canned:
        asked.append(path)
        return Canned(429, b"", {"Retry-After": "1234"})

    with canned_server(busy) as url:
        ledger = Horizon([url], NETWORK)
        with pytest.raises(LedgerUnavailable, match="too often"):
            await ledger.head()
        with pytest.raises(LedgerUnavailable, match=r"too often; it is asked again in 12\d\d s"):
            await ledger.head()
    assert asked == ["/"]


async def test_a_rejection_has_its_reasons() -> None:
    answer = rejection(transaction="tx_failed", operations=["op_underfunded"])
    with (
        canned_server(pages({"/transactions": answer, "/transactions/": said(MISSING, 404)})) as url,
        pytest.raises(Rejected, match="too little above what must stay") as raised,
    ):
        await Horizon([url], NETWORK).submit(XDR)
    assert raised.value.codes == ("tx_failed", "op_underfunded")


async def test_the_reasons_of_a_fee_bump_are_those_of_what_it_carries() -> None:
    answer = rejection(transaction="tx_fee_bump_inner_failed", inner_transaction="tx_bad_seq")
    with (
        canned_server(pages({"/transactions": answer, "/transactions/": said(MISSING, 404)})) as url,
        pytest.raises(Rejected) as raised,
    ):
        await Horizon([url], NETWORK).submit(XDR)
    assert raised.value.codes == ("tx_bad_seq",)


async def test_a_rejection_of_what_is_in_already_is_none() -> None:
    answer = rejection(transaction="tx_bad_seq")
    with canned_server(pages({"/transactions": answer, "/transactions/": said(record(XDR))})) as url:
        done = await Horizon([url], NETWORK).submit(XDR)
    assert done.successful


async def test_friendbot_and_ledgers_without_one() -> None:
    with canned_server(pages({"/friendbot": said({})})) as url:
        await Horizon([url], NETWORK).fund(KEY)
    with canned_server(pages({})) as url, pytest.raises(Unfunded, match="only test networks"):
        await Horizon([url], NETWORK).fund(KEY)
    problem = {"type": "x/bad_request", "title": "Bad Request", "detail": "account already funded"}
    with (
        canned_server(pages({"/friendbot": said(problem, 400)})) as url,
        pytest.raises(Rejected, match="already funded"),
    ):
        await Horizon([url], NETWORK).fund(KEY)


async def test_the_loop_goes_on_while_a_server_is_slow() -> None:
    wait = trio.lowlevel.current_trio_token()
    ticks = 0

    def slow(_method: str, path: str, body: bytes) -> Canned:
        trio.from_thread.run(trio.sleep, 0.2, trio_token=wait)
        return pages({})("GET", path, body)

    async def tick() -> None:
        nonlocal ticks
        while True:
            await trio.sleep(0.01)
            ticks += 1

    with canned_server(slow) as url:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            await Horizon([url], NETWORK).head()
            nursery.cancel_scope.cancel()
    assert ticks > 5


def test_failures_are_errors_of_ours() -> None:
    assert issubclass(module.Silent, LayrError)
