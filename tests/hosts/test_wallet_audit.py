"""`layrfs wallet audit` of a volume that is not mounted, against a development ledger's process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from stellar_sdk import Keypair

from layrfs.cli.main import dispatch
from layrfs.cli.outcome import run_command
from layrfs.config import Paths
from layrfs.crypto.instalments import answer
from layrfs.crypto.keys import VolumeKeys
from layrfs.crypto.wallet_keys import SetupMemo, account_of, escrow_private, instalment_salt, salts_key
from layrfs.ids import NodeId, PieceId
from layrfs.model.contracts import Terms
from layrfs.model.payables import PieceDigests
from layrfs.payments import envelopes
from layrfs.payments.envelopes import Envelope
from layrfs.payments.horizon import Horizon
from layrfs.policy.paymaster import lock
from layrfs.storage.contracts import Contracts
from layrfs.storage.database import Database
from tests.hosts.local_ledger import LocalLedger, ledger_run

NODE, WINDOW, INSTALMENTS, DEPOSIT = NodeId(b"n" * 20), 1000, 3, 9_000_000
PIECES = [PieceId(bytes([number]) * 32) for number in range(2)]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LocalLedger]:
    with ledger_run(tmp_path / "ledger", "--close-seconds", "0.1") as started:
        yield started


class Books:
    """A volume that was never mounted, with one contract made by hand."""

    def __init__(self, directory: Path, ledger: LocalLedger, capture: pytest.CaptureFixture[str]) -> None:
        self._capture, self.ledger = capture, ledger
        self.says("init", "--phrase-file", str(directory / "phrase"))
        self.keys = VolumeKeys.from_phrase((directory / "phrase").read_text())
        self.says("wallet", "ledger", ledger.url)
        self.says("wallet", "fund")
        self.host = ledger.person()
        self.database = Paths.from_environment().database("default")

    def escrow_of(self, terms: Terms) -> bytes:
        """Its key."""
        return escrow_private(self.keys.wallet_private, NODE, 0, terms.owner_sequence)

    def salts_of(self, terms: Terms) -> list[bytes]:
        salts = salts_key(self.keys.wallet_private)
        return [instalment_salt(salts, terms.escrow, at) for at in range(INSTALMENTS)]

    def says(self, *words: str, code: int = 0) -> str:
        self._capture.readouterr()
        done = run_command("layrfs", lambda: dispatch(words))
        said = self._capture.readouterr()
        assert done == code, said
        return said.out

    def audit(self, code: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.says("wallet", "audit", "--json", code=code))
        return found

    def agree(self) -> Terms:
        """Terms of which nothing is on record."""

        async def read() -> Terms:
            horizon = Horizon((self.ledger.url,), self.ledger.passphrase)
            owner = account_of(self.keys.wallet_private)
            head, account = await horizon.head(), await horizon.account(owner)
            assert account is not None
            sequence = account.sequence + 1
            escrow = account_of(escrow_private(self.keys.wallet_private, NODE, 0, sequence))
            memo = SetupMemo(NODE, 0, head.closed_at, WINDOW, INSTALMENTS).hidden(self.keys.wallet_private, escrow)
            return Terms(
                owner=owner, host=self.host.raw_public_key(), escrow=escrow, node=NODE,
                tenant=bytes(32), number=0, start=head.closed_at, window_seconds=WINDOW, instalments=INSTALMENTS,
                price=10**10, deposit_stroops=DEPOSIT, last_setup_ledger=head.sequence + 50, collateral_stroops=0,
                memo=memo, owner_sequence=sequence, network=envelopes.network_id(self.ledger.passphrase),
            )  # fmt: skip

        return trio.run(read)

    def submit(self, envelope: Envelope, *privates: bytes, preimage: bytes | None = None) -> bytes:
        xdr = envelope.xdr({account_of(each): envelope.sign(each) for each in privates}, [preimage] if preimage else [])

        async def hand_in() -> bytes:
            return (await Horizon((self.ledger.url,), self.ledger.passphrase).submit(xdr)).hash

        return trio.run(hand_in)

    def record(self, terms: Terms) -> None:
        """The contract, and one cover of two pieces."""
        salts = self.salts_of(terms)
        with Database(self.database) as database:
            contracts = Contracts(database)
            contracts.add(terms, "open")
            digests = [PieceDigests(piece, 1 << 30, 1, 0, tuple(salts)) for piece in PIECES]
            contracts.keep(digests)
            contracts.set_covered(1, contracts.offer(1, digests, 0, terms.start, salts).number)

    def claim(self, terms: Terms, at: int) -> tuple[int, bytes]:
        """As the host does; what it paid."""
        with Database(self.database) as database:
            batches = Contracts(database).get(1).batches
        salt = self.salts_of(terms)[at]
        due = lock(terms, batches, at, salt)
        answered = answer(salt, terms.contract_id, at, [batches[0].digests[at]])
        envelope = envelopes.claim(terms, at, due)
        return due.amount_stroops, self.submit(
            envelope, self.escrow_of(terms), self.host.raw_secret_key(), preimage=answered
        )

    def note(self, at: int, stroops: int, payment: bytes) -> None:
        with Database(self.database) as database:
            Contracts(database).set_instalment(1, at, "claimed", stroops, payment)


@pytest.fixture
def books(
    tmp_path: Path, ledger: LocalLedger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Books:
    monkeypatch.setenv("LAYRFS_HOME", str(tmp_path / "home"))
    return Books(tmp_path, ledger, capsys)


def test_the_books_of_a_contract_balance_from_the_first_stroop_to_the_last(books: Books) -> None:
    assert books.audit()["came"] == "10000"
    assert not os.path.exists(books.database)
    terms = books.agree()
    books.submit(envelopes.setup(terms), books.keys.wallet_private, books.escrow_of(terms))
    assert "not on record, and 2.90004 XLM are in it" in books.audit(code=1)["differences"][0]
    books.record(terms)
    first, payment = books.claim(terms, 0)
    assert books.audit()["notes"] == [
        "contract 0 with host 6e6e6e6e6e6e: instalment 0 is paid, which is not on record yet"
    ]
    books.note(0, first, payment)
    books.says("wallet", "send", Keypair.random().public_key, "5", "--yes")
    found = books.audit()
    assert (found["sent"], found["notes"], found["fees"]) == ("5", [], "0.00005")
    assert [each["what"] for each in found["transactions"]] == ["received", "set-up", "instalment 0", "sent"]
    books.ledger.close_ledger(at=terms.window(1)[0])
    second, payment = books.claim(terms, 1)
    books.note(1, second, payment)
    books.ledger.close_ledger(at=terms.end + 10)
    while books.ledger.close_ledger()["sequence"] <= terms.last_setup_ledger:
        pass
    books.submit(envelopes.refund(terms))
    assert "came back" in books.audit()["notes"][0]
    with Database(books.database) as database:
        contracts = Contracts(database)
        contracts.set_instalment(1, 2, "missed")
        contracts.set_state(1, "merged")
    found = books.audit()
    assert (found["notes"], found["escrows"], found["pending"]) == ([], "0", [])
    assert found["to_hosts"] == f"0.{first + second:07d}".rstrip("0")
    assert "the books balance: 6 transactions, no difference" in books.says("wallet", "audit")
    books.note(1, second - 1, payment)
    assert "instalment 1 paid" in books.says("wallet", "audit", code=1)


def test_what_an_escrow_lacks_is_said(books: Books) -> None:
    terms = books.agree()
    books.submit(envelopes.setup(terms), books.keys.wallet_private, books.escrow_of(terms))
    books.record(terms)
    with Database(books.database) as database:
        database.write("UPDATE contract_batch SET bytes = ?", (1 << 50,))
    (difference,) = books.audit(code=1)["differences"]
    assert "lacks" in difference


def test_a_command_leaves_nothing_beside_the_database_of_a_volume_that_nobody_uses(books: Books) -> None:
    books.record(books.agree())
    before = sorted(os.listdir(os.path.dirname(books.database)))
    books.audit(code=1)
    assert sorted(os.listdir(os.path.dirname(books.database))) == before
