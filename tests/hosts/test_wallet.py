"""`layrfs wallet`, as a person types it, against a development ledger's process: money, mistakes, kills, secrets."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from stellar_sdk import Keypair

from layrfs.cli.main import dispatch
from layrfs.cli.outcome import run_command
from layrfs.crashpoints import VARIABLE
from layrfs.crypto.keys import VolumeKeys
from layrfs.crypto.wallet_keys import account_of
from layrfs.payments.horizon import Horizon
from layrfs.payments.reading import address_of
from layrfs.payments.submitting import Submitter
from layrfs.payments.wallet import Wallet, secret_of
from layrfs.storage.intents import IntentFile
from tests.canned_http import Canned, canned_server
from tests.drive import layrfs, wait_for
from tests.hosts.local_ledger import LocalLedger, ledger_run
from tests.hosts.processes import child

FAILED, USAGE, CORRUPT, NETWORK, MONEY, KILLED = 1, 2, 8, 11, 16, -9


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalLedger]:
    with ledger_run(tmp_path_factory.mktemp("ledger") / "ledger", "--close-seconds", "0.2") as started:
        yield started


class Done(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


class Purse:
    """A state directory with a volume, not mounted, and its wallet. Commands run in this process, which is quicker."""

    def __init__(self, directory: Path, capture: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = str(directory / "home")
        self._capture = capture
        monkeypatch.setenv("LAYRFS_HOME", self.home)
        phrase_file = directory / "phrase"
        assert run_command("layrfs", lambda: dispatch(["init", "--phrase-file", str(phrase_file)])) == 0
        self.keys = VolumeKeys.from_phrase(phrase_file.read_text())
        self.address = address_of(account_of(self.keys.wallet_private))
        self.other = address_of(account_of(secrets.token_bytes(32)))
        """Somebody who is not on the ledger yet."""

    def run(self, *words: str) -> Done:
        self._capture.readouterr()
        code = run_command("layrfs", lambda: dispatch(["wallet", *words]))
        return Done(code, *self._capture.readouterr())

    def says(self, *words: str) -> str:
        done = self.run(*words)
        assert (done.code, done.err) == (0, ""), done
        return done.out

    def json(self, *words: str) -> Any:
        return json.loads(self.says(*words, "--json"))

    def refused(self, *words: str) -> tuple[int, str]:
        """Exit code and sentence."""
        done = self.run(*words)
        assert done.out == ""
        assert done.err.count("\n") == 1, done.err
        return done.code, done.err


@pytest.fixture
def purse(
    tmp_path: Path,
    ledger: LocalLedger,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Purse:
    """On the development ledger, with nothing in it."""
    made = Purse(tmp_path, capsys, monkeypatch)
    made.says("ledger", ledger.url)
    return made


@pytest.fixture
def rich(purse: Purse) -> Purse:
    """With 10,000 XLM."""
    purse.says("fund")
    return purse


def test_money_comes_and_goes(purse: Purse, ledger: LocalLedger) -> None:
    assert purse.says("address") == f"{purse.address}\n"
    assert purse.json("ledger")["passphrase"] == ledger.passphrase
    assert not purse.json("balance")["exists"]
    assert "begins with the first 1 XLM" in purse.says("balance")
    code, sentence = purse.refused("send", purse.other, "1")
    assert (code, "not on the ledger" in sentence) == (MONEY, True)
    purse.says("fund")
    assert purse.json("balance")["spendable"] == "9999"
    sent = purse.json("send", purse.other, "12.5", "--memo", "for rent")
    assert purse.json("balance")["balance"] == "9987.49999"
    purse.says("send", purse.other, "0.0000001")
    newest, first, gift = purse.json("history")
    assert (newest["kind"], newest["amount"], newest["fee"]) == ("payment", "-0.0000001", "0.00001")
    assert (first["kind"], first["amount"], first["party"]) == ("create", "-12.5", purse.other)
    assert (first["memo"], first["hash"], first["successful"]) == ("for rent", sent["hash"], True)
    assert (gift["kind"], gift["amount"], gift["fee"]) == ("create", "10000", "0")
    assert "for rent" in purse.says("history")


def test_mistakes_move_nothing(rich: Purse) -> None:
    secret = secret_of(rich.keys.wallet_private)
    for words, code, sentence in (
        (("send", rich.other, "9999"), MONEY, "9998.99999 XLM at most"),
        (("send", rich.other, "0"), USAGE, "no amount"),
        (("send", rich.other, "1e3"), USAGE, "no amount"),
        (("send", rich.other, "0.00000001"), USAGE, "no amount"),
        (("send", rich.other[:-1] + "A", "1"), USAGE, "no Stellar address"),
        (("send", secret, "1"), USAGE, "secret key"),
        (("send", rich.address, "1"), USAGE, "own address"),
        (("send", rich.other, "0.5"), MONEY, "needs more than that to begin with"),
        (("send", rich.other, "1", "--memo", "x" * 29), USAGE, "at most 28 bytes"),
        (("send", rich.other), USAGE, "takes an ADDRESS and an AMOUNT"),
        (("ledger", "http://horizon.example"), USAGE, "https"),
        (("history", "--limit", "0"), USAGE, "1 or more"),
        (("fund",), MONEY, "gave nothing"),
    ):
        found_code, found = rich.refused(*words)
        assert (found_code, sentence in found) == (code, True), (words, found)
        assert secret not in found
    assert rich.json("balance")["pending"] == []
    assert float(rich.json("balance")["balance"]) > 9999.9


def test_a_ledger_that_is_away_wrong_or_mad(rich: Purse, ledger: LocalLedger) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        rich.says("ledger", f"http://127.0.0.1:{taken.getsockname()[1]}", "--passphrase", ledger.passphrase)
        code, sentence = rich.refused("balance")
        assert (code, "cannot be reached" in sentence) == (NETWORK, True)
    rich.says("ledger", ledger.url, "--passphrase", "Public Global Stellar Network ; September 2015")
    code, sentence = rich.refused("send", rich.other, "5")
    assert (code, "no money was moved" in sentence) == (USAGE, True)
    with canned_server(lambda *_request: Canned(200, b"<html>")) as mad:
        rich.says("ledger", mad, "--passphrase", "x")
        code, sentence = rich.refused("history")
        assert (code, "makes no sense" in sentence) == (NETWORK, True)
    Path(rich.home, "ledger.json").write_text("{}")
    assert rich.refused("balance")[0] == CORRUPT
    rich.says("ledger", ledger.url)
    assert float(rich.json("balance")["balance"]) == 10_000


@pytest.mark.parametrize("point", ["intent kept", "transaction sent", "intent forgotten"])
def test_a_payment_that_is_killed_is_made_once(rich: Purse, tmp_path: Path, point: str) -> None:
    armed = tmp_path / "armed"
    armed.touch()
    armament = {VARIABLE: f"{point}@1@{armed}"}
    killed = layrfs(rich.home, "wallet", "send", rich.other, "7", check=False, variables=armament)
    assert (killed.returncode, armed.exists()) == (KILLED, False)
    settled = rich.run("balance", "--json")
    assert json.loads(settled.out)["pending"] == []
    told = f"7 XLM to {rich.other}: it was done"
    assert (told in settled.err) == (point != "intent forgotten")
    assert [row["amount"] for row in rich.json("history")].count("-7") == 1


def test_a_ledger_that_is_killed_meanwhile_is_waited_for(purse: Purse, tmp_path: Path) -> None:
    directory = tmp_path / "ledger"
    with ledger_run(directory, "--close-seconds", "0") as first:
        purse.says("ledger", first.url)
        purse.says("fund")
        send = ("-m", "layrfs.cli.main", "wallet", "send", purse.other, "7")
        with child(*send, home=Path(purse.home)) as sending:
            wait_for(Path(purse.home, "volumes", "default", "payments.json").exists, "the payment is written down")
            first.process.process.kill()
            with ledger_run(directory, "--close-seconds", "0.2", listen=None) as second:
                assert second.url == first.url
                assert sending.says("sent: transaction")
                assert sending.ended() == 0
                assert [row["amount"] for row in purse.json("history")] == ["-7", "10000"]


def test_a_volume_with_a_passphrase_opens_with_it_alone(purse: Purse, tmp_path: Path) -> None:
    passfile = tmp_path / "pass"
    passfile.write_text("a good one\n")
    passfile.chmod(0o600)
    words = ["init", "--volume", "other", "--phrase-file", str(tmp_path / "words"), "--passfile", str(passfile)]
    assert run_command("layrfs", lambda: dispatch(words)) == 0
    found = purse.says("address", "--volume", "other", "--passfile", str(passfile)).strip()
    assert found == address_of(account_of(VolumeKeys.from_phrase((tmp_path / "words").read_text()).wallet_private))
    assert purse.refused("address", "--volume", "other", "--passfile", "/nowhere")[0] == FAILED


def test_the_secret_shows_only_when_it_is_asked_for(
    rich: Purse, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in what commands print, not in a traceback or a log of theirs, not in a file."""
    caplog.set_level("DEBUG")
    secret, raw = secret_of(rich.keys.wallet_private), rich.keys.wallet_private
    exported = rich.run("export")
    assert exported.out.strip() == secret
    assert secret not in exported.err
    monkeypatch.setenv("LAYRFS_DEBUG", "1")
    said = ""
    for words in (("balance",), ("send", rich.other, "3"), ("send", rich.other, "999999"), ("fund",)):
        done = rich.run(*words)
        said += done.out + done.err
    assert "Traceback" in said
    assert "transactions" in caplog.text
    for shown in (secret, raw.hex(), repr(raw)[2:-1]):
        assert shown not in said + caplog.text
    for directory, _, names in os.walk(rich.home):
        for name in names:
            data = Path(directory, name).read_bytes()
            assert raw not in data
            assert secret.encode() not in data


def test_the_secret_is_in_no_repr(purse: Purse) -> None:
    secret, raw = secret_of(purse.keys.wallet_private), purse.keys.wallet_private
    ledger, intents = Horizon(["http://127.0.0.1:1"], "x"), IntentFile("/nowhere")
    holders = [purse.keys, Wallet(ledger, intents, raw), Submitter(ledger, intents, raw), Keypair.from_secret(secret)]
    for holder in holders:
        for shown in (secret, raw.hex(), repr(raw)[2:-1]):
            assert shown not in f"{holder!r} {holder}"


def test_the_code_in_the_terminal_is_the_address(purse: Purse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    *code, last = purse.says("address").splitlines()
    assert last == purse.address
    assert {letter for line in code for letter in line} > {"█", "▀", "▄"}
