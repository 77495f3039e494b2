"""Which ledger is chosen, and what its file may hold."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from layrfs.config import Paths
from layrfs.errors import CorruptFile, NewerFormat, UsageError
from layrfs.ledger_config import KNOWN, LedgerConfig, addresses_now, check_url, chosen_ledger

CONFIG = LedgerConfig(("http://127.0.0.1:8000", "https://horizon.example/api"), "a network")


def test_only_a_ledger_of_the_same_passphrase_has_moved(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.json")
    assert addresses_now((path,), CONFIG.passphrase) == ()
    CONFIG.save(path)
    assert addresses_now((path,), CONFIG.passphrase) == CONFIG.horizon
    assert addresses_now((path,), "another network") == ()
    (tmp_path / "ledger.json").write_text("rubbish")
    assert addresses_now((path,), CONFIG.passphrase) == ()


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.json")
    assert LedgerConfig.load(path) is None
    CONFIG.save(path)
    assert LedgerConfig.load(path) == CONFIG
    assert os.stat(path).st_mode & 0o77 == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"horizon": [], "passphrase": "x"}',
        '{"horizon": ["https://a.example"], "passphrase": ""}',
        '{"horizon": [1], "passphrase": "x"}',
        '{"horizon": ["https://a.example"], "passphrase": 5}',
        '{"horizon": ["ftp://a.example"], "passphrase": "x"}',
    ],
)
def test_a_file_that_names_no_ledger_is_said_to_be_corrupt(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(text)
    with pytest.raises(CorruptFile, match="ledger"):
        LedgerConfig.load(str(path))


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(json.dumps({"version": 2}))
    with pytest.raises(NewerFormat):
        LedgerConfig.load(str(path))


@pytest.mark.parametrize(
    "url",
    ["https://horizon.example", "http://127.0.0.1:8000/", "http://localhost", "http://10.0.0.7:8000", "http://[::1]:1"],
)
def test_good_addresses(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url", ["horizon.example", "http://horizon.example", "http://8.8.8.8", "https://", "https://u:p@h.example",
            "https://h.example/?a=b", "https://h.example:999999", "file:///etc/passwd", ""]
)  # fmt: skip
def test_bad_addresses(url: str) -> None:
    with pytest.raises(UsageError):
        check_url(url)


def test_a_persons_choice_comes_before_the_embedded_networks_own(tmp_path: Path) -> None:
    paths = Paths.under(str(tmp_path))
    with pytest.raises(UsageError, match="layrfs wallet ledger"):
        chosen_ledger(paths.ledger_files)
    os.makedirs(os.path.dirname(paths.ledger_files[1]))
    CONFIG.save(paths.ledger_files[1])
    assert chosen_ledger(paths.ledger_files) == CONFIG
    KNOWN["test"].save(paths.ledger_files[0])
    assert chosen_ledger(paths.ledger_files).name == "test"
