"""The embedded network with hosts that are paid: a ledger beside them, which begins with gifts and outlives kills."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import requests
from stellar_sdk import Keypair

from layrfs.ledger_config import LedgerConfig
from layrfs.network.contract_links import ContractLinks
from tests.canned_http import Canned, canned_server
from tests.hosts.processes import SECONDS, Child, child, wait_for
from tests.hosts.test_embedded import hosts_of, links_to
from tests.ledgers import person

OWNER, LATER = person(7), person(8)
PAID = ("--host-price", "2.5", "--owner", OWNER.raw_public_key().hex())


def embedded(directory: Path, *words: str) -> AbstractContextManager[Child]:
    return child("-m", "layrfs.app.embedded", str(directory), *words, home=directory / "unused")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("network")


@pytest.fixture(scope="module")
def running(directory: Path) -> Iterator[Child]:
    with embedded(directory, *PAID) as network:
        network.says("ready")
        yield network


def ledger_of(directory: Path) -> LedgerConfig:
    found = LedgerConfig.load(str(directory / "ledger" / "ledger.json"))
    assert found is not None
    return found


def balance(directory: Path, whose: Keypair) -> str | None:
    """None also while the ledger is not there."""
    with contextlib.suppress(requests.ConnectionError):
        answer = requests.get(f"{ledger_of(directory).horizon[0]}/accounts/{whose.public_key}", timeout=SECONDS)
        return str(answer.json()["balances"][0]["balance"]) if answer.status_code == 200 else None
    return None


def test_the_owner_begins_with_a_gift(running: Child, directory: Path) -> None:
    wait_for(lambda: balance(directory, OWNER) == "10000.0000000", "a gift")


def test_the_hosts_ask_that_price_and_begin_with_a_gift_too(running: Child, directory: Path) -> None:
    links = links_to(directory)
    quotes = [ContractLinks(links, bytes(32)).quote(host) for host in hosts_of(directory)]
    links.close()
    assert [quote.price for quote in quotes] == [25_000_000] * 5
    wallets = [Keypair.from_raw_ed25519_public_key(quote.account) for quote in quotes]
    wait_for(lambda: all(balance(directory, wallet) == "10000.0000000" for wallet in wallets), "five gifts")


def ledger_process(directory: Path) -> int | None:
    """Of the network in a directory."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(directory / "ledger").encode() in (process / "cmdline").read_bytes().split(b"\0"):
                return int(process.name)
    return None


def test_a_ledger_that_is_killed_comes_back_at_the_same_place(running: Child, directory: Path) -> None:
    wait_for(lambda: balance(directory, OWNER) is not None, "a gift")
    before, place = ledger_process(directory), ledger_of(directory)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: ledger_process(directory) not in {None, before}, "another process")
    wait_for(lambda: balance(directory, OWNER) is not None, "it answers")
    assert ledger_of(directory) == place
    assert balance(directory, OWNER) == "10000.0000000"


def test_the_ledger_is_the_same_after_a_kill_and_without_the_option(tmp_path: Path) -> None:
    with embedded(tmp_path, *PAID) as network:
        network.says("ready")
        wait_for(lambda: balance(tmp_path, OWNER) is not None, "a gift")
        before = ledger_of(tmp_path)
        network.end(signal.SIGKILL)
    with embedded(tmp_path) as network:
        network.says("ready")
        wait_for(lambda: balance(tmp_path, OWNER) is not None, "the ledger answers again")
        assert ledger_of(tmp_path) == before
        assert balance(tmp_path, OWNER) == "10000.0000000"


def test_a_ledger_whose_place_is_taken_is_found_at_another(tmp_path: Path) -> None:
    with embedded(tmp_path, *PAID) as network:
        network.says("ready")
        passphrase = ledger_of(tmp_path).passphrase
    wait_for(lambda: ledger_process(tmp_path) is None, "the ledger has ended")
    with canned_server(lambda *_request: Canned(200, b'{"network_passphrase": "another"}')) as place:
        taken = LedgerConfig((place,), passphrase)
        taken.save(str(tmp_path / "ledger" / "ledger.json"))
        with embedded(tmp_path, "--host-price", "2.5", "--owner", LATER.raw_public_key().hex()) as network:
            network.says("ready")
            wait_for(lambda: ledger_of(tmp_path) != taken, "the ledger is elsewhere")
            wait_for(lambda: balance(tmp_path, LATER) == "10000.0000000", "a gift there")


def test_a_ledger_that_cannot_be_read_takes_no_host_with_it(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir(parents=True)
    (tmp_path / "ledger" / "ledger.db").write_bytes(b"rubbish" * 1000)
    with embedded(tmp_path, *PAID) as network:
        network.says("ready")
        assert len(json.loads((tmp_path / "seeds.json").read_text())["seeds"]) == 5
        assert "nobody can be paid" in (tmp_path / "log").read_text()
