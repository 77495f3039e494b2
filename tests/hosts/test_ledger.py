"""A real ledger process: Stellar's own library takes it for Horizon, and nothing anybody sends ends it, nor a kill."""

from __future__ import annotations

import contextlib
import hashlib
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from stellar_sdk import Asset, Keypair, SignerKey, TransactionBuilder, TransactionEnvelope, xdr
from stellar_sdk import Signer as Extra
from stellar_sdk.exceptions import BadRequestError, NotFoundError

from layrfs.crashpoints import VARIABLE
from tests.hosts.local_ledger import LocalLedger, ledger_run
from tests.hosts.processes import REPOSITORY, SECONDS, child, wait_for

XLM = Asset.native()


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalLedger]:
    """Closes fast, because everybody waits for it."""
    with ledger_run(tmp_path_factory.mktemp("ledger") / "it", "--close-seconds", "0.1") as running:
        yield running


@pytest.fixture(scope="module")
def ann(ledger: LocalLedger) -> Keypair:
    return ledger.person()


@pytest.fixture(scope="module")
def bob(ledger: LocalLedger) -> Keypair:
    return ledger.person()


def signed(builder: TransactionBuilder, *signers: Keypair) -> TransactionEnvelope:
    envelope = builder.build()
    for each in signers:
        envelope.sign(each)
    return envelope


def paying(ledger: LocalLedger, source: Keypair, to: Keypair, amount: str = "1") -> TransactionBuilder:
    return ledger.build(source).append_payment_op(to.public_key, XLM, amount)


def test_the_root_says_which_network_it_is(ledger: LocalLedger) -> None:
    root = ledger.server.root().call()
    assert root["network_passphrase"] == ledger.passphrase
    assert ledger.passphrase.startswith("LayrFS development ledger ; ")
    before = root["history_latest_ledger"]
    wait_for(lambda: ledger.server.root().call()["history_latest_ledger"] > before, "ledgers close by themselves")


def test_an_account_is_as_horizon_shows_it(ledger: LocalLedger) -> None:
    eve = ledger.person()
    lock = Extra.sha256_hash(bytes(32), 3)
    ledger.server.submit_transaction(
        signed(ledger.build(eve).append_set_options_op(signer=lock, high_threshold=1), eve)
    )
    loaded = ledger.server.load_account(eve)
    assert [each.account_id for each in loaded.load_ed25519_public_key_signers()] == [eve.public_key]
    page = loaded.raw_data
    assert page is not None
    assert page["sequence"] == str(loaded.sequence)
    assert page["thresholds"] == {"low_threshold": 0, "med_threshold": 0, "high_threshold": 1}
    signers = {(each["type"], each["weight"]) for each in page["signers"]}
    assert signers == {
        ("sha256_hash", 3),
        ("ed25519_public_key", 1),
    }
    assert (page["subentry_count"], page["data"], page["balances"][0]["balance"]) == (1, {}, "9999.9999900")


def test_a_payment_is_found_by_hash_and_account(ledger: LocalLedger, ann: Keypair, bob: Keypair) -> None:
    envelope = signed(paying(ledger, ann, bob, "2.5").add_text_memo("Grüße"), ann)
    answer = ledger.server.submit_transaction(envelope)
    assert (answer["hash"], answer["successful"], answer["memo"]) == (envelope.hash_hex(), True, "Grüße")
    assert xdr.TransactionResult.from_xdr(answer["result_xdr"]).fee_charged.int64 == 100
    assert ledger.server.transactions().transaction(envelope.hash_hex()).call()["ledger"] == answer["ledger"]
    newest = ledger.server.transactions().for_account(bob.public_key).order().limit(1).call()
    assert [each["hash"] for each in newest["_embedded"]["records"]] == [envelope.hash_hex()]
    (paid,) = ledger.server.payments().for_account(bob.public_key).order().limit(1).call()["_embedded"]["records"]
    assert (paid["from"], paid["to"], paid["amount"]) == (ann.public_key, bob.public_key, "2.5000000")
    assert ledger.server.ledgers().ledger(answer["ledger"]).call()["successful_transaction_count"] >= 1


def test_pages_follow_each_other(ledger: LocalLedger) -> None:
    eve, other = ledger.person(), ledger.person()
    for amount in ("1", "2", "3"):
        ledger.server.submit_transaction(signed(paying(ledger, eve, other, amount), eve))
    builder = ledger.server.operations().for_account(eve.public_key).limit(3)
    first, rest, nothing = builder.call(), builder.next(), builder.next()
    kinds = [each["type"] for page in (first, rest) for each in page["_embedded"]["records"]]
    assert kinds == ["create_account", "payment", "payment", "payment"]
    assert nothing["_embedded"]["records"] == []
    again = builder.cursor(rest["_embedded"]["records"][0]["paging_token"]).order().limit(2).call()
    assert [each["amount"] for each in again["_embedded"]["records"]] == ["2.0000000", "1.0000000"]


def test_a_fee_bump_is_found_by_both_hashes(ledger: LocalLedger, ann: Keypair, bob: Keypair) -> None:
    inner = signed(paying(ledger, ann, bob), ann)
    outer = TransactionBuilder.build_fee_bump_transaction(bob, 200, inner, ledger.passphrase)
    outer.sign(bob)
    assert ledger.server.submit_transaction(outer)["fee_charged"] == "200"
    for envelope in (inner, outer):
        found = ledger.server.transactions().transaction(envelope.hash_hex()).call()
        assert found["hash"] == envelope.hash_hex()
        assert found["inner_transaction"]["hash"] == inner.hash_hex()
        assert found["fee_bump_transaction"]["hash"] == outer.hash_hex()


def refused(ledger: LocalLedger, envelope: object) -> dict[str, Any]:
    with pytest.raises(BadRequestError) as caught:
        ledger.server.submit_transaction(envelope, skip_memo_required_check=True)
    assert caught.value.extras is not None
    return dict(caught.value.extras["result_codes"])


def test_refusals_have_horizons_codes(ledger: LocalLedger, ann: Keypair, bob: Keypair) -> None:
    nobody = Keypair.random()
    assert refused(ledger, signed(paying(ledger, ann, bob), bob)) == {"transaction": "tx_bad_auth"}
    assert refused(ledger, signed(paying(ledger, ann, nobody), ann)) == {
        "transaction": "tx_failed",
        "operations": ["op_no_destination"],
    }
    inner = signed(paying(ledger, ann, bob), bob)
    outer = TransactionBuilder.build_fee_bump_transaction(bob, 200, inner, ledger.passphrase)
    outer.sign(bob)
    assert refused(ledger, outer) == {"transaction": "tx_fee_bump_inner_failed", "inner_transaction": "tx_bad_auth"}


def test_what_failed_in_a_ledger_is_listed_on_request(ledger: LocalLedger) -> None:
    eve = ledger.person()
    failing = signed(paying(ledger, eve, Keypair.random()), eve)
    refused(ledger, failing)
    assert ledger.server.transactions().transaction(failing.hash_hex()).call()["successful"] is False
    listing = ledger.server.transactions().for_account(eve.public_key)
    assert len(listing.call()["_embedded"]["records"]) == 1
    assert len(listing.include_failed(include_failed=True).call()["_embedded"]["records"]) == 2
    assert refused(ledger, failing)["operations"] == ["op_no_destination"], "the same answer again"


def test_locks_and_conditions_are_shown(ledger: LocalLedger, ann: Keypair, bob: Keypair) -> None:
    secret = b"open"
    key = SignerKey.sha256_hash(hashlib.sha256(secret).digest())
    builder = paying(ledger, ann, bob).add_extra_signer(key).set_min_sequence_number(0)
    envelope = signed(builder, ann)
    envelope.sign_hashx(secret)
    shown = ledger.server.submit_transaction(envelope)["preconditions"]
    assert shown == {"min_account_sequence": "0", "extra_signers": [key.encoded_signer_key]}


def test_what_is_not_there(ledger: LocalLedger) -> None:
    with pytest.raises(NotFoundError):
        ledger.server.load_account(Keypair.random())
    with pytest.raises(NotFoundError):
        ledger.server.transactions().transaction("00" * 32).call()


def test_friendbot_gives_once(ledger: LocalLedger, ann: Keypair) -> None:
    again = ledger.request("GET", "friendbot", params={"addr": ann.public_key})
    assert again.status_code == 400
    assert again.json()["extras"]["result_codes"]["operations"] == ["op_already_exists"]


BAD_REQUESTS = [
    ("GET", "accounts/GABC", {}, 400),
    ("GET", "accounts/" + "%00" * 56, {}, 400),
    ("GET", "nothing/here", {}, 404),
    ("GET", "transactions/xyz", {}, 400),
    ("GET", "transactions?limit=100000", {}, 400),
    ("GET", "transactions?limit=x&cursor=y", {}, 400),
    ("GET", "operations/99999999999999999999", {}, 400),
    ("GET", "operations/4096", {}, 404),
    ("GET", "ledgers/999999999", {}, 404),
    ("GET", "friendbot?addr=me", {}, 400),
    ("DELETE", "transactions", {}, 405),
    ("HEAD", "fee_stats", {}, 200),
    ("POST", "accounts", {}, 404),
    ("POST", "transactions", {}, 415),
    ("POST", "transactions", {"json": {"tx": "AAAA"}}, 415),
    ("POST", "transactions", {"data": {"tx": "AAAA"}}, 400),
    ("POST", "transactions", {"data": {"tx": "ü"}}, 400),
    ("POST", "transactions", {"data": {"nothing": ""}}, 400),
    ("POST", "transactions", {"data": {"tx": "A" * 200_000}}, 400),
    ("POST", "transactions", {"data": {f"field {number}": "x" for number in range(99)}}, 400),
    ("POST", "layrfs/close", {"data": {"at": "-5"}}, 400),
    ("POST", "layrfs/close", {"data": {"at": str(1 << 32)}}, 400),
    ("POST", "layrfs/close", {"data": {"at": "1"}, "headers": {"Origin": "https://example.org"}}, 403),
]


@pytest.mark.parametrize(("method", "path", "arguments", "status"), BAD_REQUESTS)
def test_bad_requests_get_an_answer(
    ledger: LocalLedger, method: str, path: str, arguments: dict[str, Any], status: int
) -> None:
    assert ledger.request(method, path, **arguments).status_code == status


def raw(ledger: LocalLedger, data: bytes) -> bytes:
    """What comes back on a connection of its own."""
    host, port = ledger.url.removeprefix("http://").split(":")
    heard = b""
    with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                heard += chunk
        except TimeoutError:
            raise
        except OSError:
            pass  # it had enough before the end
    return heard


HEAD = b"POST /transactions HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
HOSTILE = [
    b"\x16\x03\x01\x02\x00" + bytes(200),
    b"GET / HTTP/1.1\nHost\n\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    HEAD + b"Content-Length: 99999999999\r\n\r\n" + b"tx=" + b"A" * 600_000,
    HEAD + b"Content-Length: -1\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nzzz\r\n",
    HEAD + b"Content-Length: 4\r\n\r\n\xff\xfe\x00\x01",
    b"GET /transactions?cursor=%ff%fe HTTP/1.1\r\nHost: \xff\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"",
]


def test_whatever_comes_in_ends_nothing_but_its_connection(ledger: LocalLedger) -> None:
    host, port = ledger.url.removeprefix("http://").split(":")
    dice = random.Random(5)
    with contextlib.ExitStack() as slow:
        for _ in range(20):
            connection = slow.enter_context(socket.create_connection((host, int(port))))
            connection.sendall(HEAD + b"Content-Length: 100\r\n\r\ntx=")
        for data in (*HOSTILE, *(dice.randbytes(500) for _ in range(20))):
            answer = raw(ledger, data)
            assert not answer or answer.split()[1] in {b"400", b"404"}, (data[:60], answer)
    assert ledger.server.root().call()["network_passphrase"] == ledger.passphrase
    assert ledger.process.process.poll() is None


def test_pipelined_requests_are_answered_in_turn(ledger: LocalLedger) -> None:
    one = b"GET /fee_stats HTTP/1.1\r\nHost: x\r\n\r\n"
    assert raw(ledger, one * 3).count(b"HTTP/1.1 200") == 3


def test_ledgers_close_when_they_are_told_to_and_at_any_time(tmp_path: Path) -> None:
    with ledger_run(tmp_path / "ledger", "--close-seconds", "0") as ledger:
        ann, bob = ledger.person(), ledger.person()
        first = ledger.close_ledger()
        later = ledger.close_ledger(at=first["closed_at"] + 1_000_000)
        assert later == {"sequence": first["sequence"] + 1, "closed_at": first["closed_at"] + 1_000_000}
        late = paying(ledger, ann, bob)
        late.time_bounds = None
        envelope = signed(late.add_time_bounds(first["closed_at"] + 999_999, 0), ann)
        with ledger.waiting(envelope.to_xdr()) as answer:
            wait_for(lambda: ledger.close_ledger() and bool(answer), "it is in")
        assert answer["successful"] is True
        assert ledger.process.end() == 0


@pytest.mark.parametrize("point", ["ledger written", "ledger closed"])
def test_killed_at_any_step_a_transaction_takes_effect_once(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first two ledgers give, the third has the payment."""
    flag = tmp_path / "flag"
    flag.touch()
    monkeypatch.setenv(VARIABLE, f"{point}@3@{flag}")
    with ledger_run(tmp_path / "ledger", "--close-seconds", "0") as ledger:
        ann, bob = ledger.person(), ledger.person()
        envelope = signed(paying(ledger, ann, bob, "7"), ann)
        with ledger.waiting(envelope.to_xdr()) as answer:
            while flag.exists():
                try:
                    ledger.request("POST", "layrfs/close")
                except requests.ConnectionError:
                    break
        assert not flag.exists()
        assert answer == {}
        assert ledger.process.ended() == -signal.SIGKILL
    with ledger_run(tmp_path / "ledger", "--close-seconds", "0.1", listen=None) as again:
        assert (again.url, again.passphrase) == (ledger.url, ledger.passphrase)
        assert again.server.submit_transaction(envelope)["successful"] is True
        assert again.stroops(ann) == 9993_0000000 - 100
        assert again.stroops(bob) == 10007_0000000


def test_killed_while_it_is_busy_it_has_each_payment_once(tmp_path: Path) -> None:
    envelopes: list[TransactionEnvelope] = []
    with ledger_run(tmp_path / "ledger", "--close-seconds", "0.02") as ledger, contextlib.ExitStack() as waiting:
        people = [ledger.person() for _ in range(3)]
        for number in range(21):
            envelopes.append(signed(paying(ledger, people[number % 3], people[(number + 1) % 3]), people[number % 3]))
            if number < 18:
                ledger.server.submit_transaction(envelopes[-1], skip_memo_required_check=True)
        for envelope in envelopes[18:]:
            waiting.enter_context(ledger.waiting(envelope.to_xdr()))
        ledger.process.process.kill()
    with ledger_run(tmp_path / "ledger", "--close-seconds", "0.02", listen=None) as again:
        for envelope in envelopes:
            assert again.server.submit_transaction(envelope, skip_memo_required_check=True)["successful"] is True
        assert sum(again.stroops(each) for each in people) == 30_000_0000000 - 21 * 100


def command(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "layrfs.cli.main", "ledger", "run", "--dir", str(directory), *arguments],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            ["--passphrase", "Public Global Stellar Network ; September 2015"],
            2,
            "worth nothing on a ledger of real money",
        ),
        (["--close-seconds", "-1"], 2, "--close-seconds"),
        (["--listen", "here"], 2, "no address"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(tmp_path: Path, arguments: list[str], code: int, sentence: str) -> None:
    answer = command(tmp_path / "ledger", *arguments)
    assert (answer.returncode, answer.stderr.count("\n")) == (code, 1)
    assert sentence in answer.stderr


def test_one_process_serves_a_directory(tmp_path: Path) -> None:
    with ledger_run(tmp_path / "ledger"):
        second = command(tmp_path / "ledger")
        assert second.returncode == 9
        assert "another process is using the ledger" in second.stderr
    other = command(tmp_path / "ledger", "--passphrase", "LayrFS development ledger ; another")
    assert other.returncode == 2
    assert "another passphrase" in other.stderr


def test_for_a_process_of_ours_it_ends_with_its_input(tmp_path: Path) -> None:
    with child("-m", "layrfs.app.ledger", str(tmp_path / "ledger"), home=tmp_path) as running:
        running.says("ready")
        running.close_input()
        assert running.ended() == 0
