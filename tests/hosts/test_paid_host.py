"""A host process that is paid, on a ledger process: from the first run to the last, killed on the way."""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from stellar_sdk import Keypair, StrKey

from layrfs.cli.main import dispatch
from layrfs.cli.outcome import run_command
from layrfs.crashpoints import VARIABLE
from layrfs.crypto import instalments, keys, merkle, wallet_keys
from layrfs.crypto.identity import NodeIdentity
from layrfs.errors import RemoteError, Unreachable
from layrfs.model.contracts import Lock, Terms
from layrfs.model.hosted import Batch
from layrfs.model.records import HostAddress
from layrfs.network.contract_links import ContractLinks
from layrfs.network.links import HostLinks, HostRefused
from layrfs.payments import envelopes
from layrfs.policy.earning import amounts_due
from layrfs.policy.ending import Cover, host_due_stroops
from layrfs.policy.pricing import deposit_for
from layrfs.wire import contracts
from tests.hosts.local_ledger import LocalLedger, ledger_run
from tests.hosts.processes import SECONDS, Child, child, wait_for
from tests.hosts.test_host_run import address_of, command, host_run, links_to

WINDOW_SECONDS = 3600
MASK, UNSIGNED = bytes([6]) * 32, bytes(64)
DATA = secrets.token_bytes(1 << 20)
PIECE = merkle.piece_id(DATA)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalLedger]:
    with ledger_run(tmp_path_factory.mktemp("ledger") / "ledger", "--close-seconds", "0.2") as started:
        yield started


def paid_host(directory: Path, ledger: LocalLedger) -> AbstractContextManager[Child]:
    return host_run(
        directory, "--space", "1G", "--listen", "127.0.0.1:0", "--price", "20000", "--ledger", ledger.url
    )  # fmt: skip


class Owner:
    """Talks to one host, pays by one contract of two instalments."""

    def __init__(self, ledger: LocalLedger, links: HostLinks, host: HostAddress) -> None:
        self._ledger = ledger
        self._wallet = ledger.person()
        self._host = host
        self._links = links
        self._contracts = ContractLinks(links, MASK)
        self.due = 0
        self.amounts: tuple[int, ...] = ()
        self._escrow = secrets.token_bytes(32)
        self._tenant_private = keys.tenant_private(MASK, host.node_id)
        self.tenant = NodeIdentity.from_private(self._tenant_private).public_key
        quoted = self._contracts.quote(host)
        head = ledger.close_ledger()
        self.terms = Terms(
            owner=self._wallet.raw_public_key(),
            host=quoted.account,
            escrow=wallet_keys.account_of(self._escrow),
            node=host.node_id,
            tenant=self.tenant,
            number=0,
            start=head["closed_at"],
            window_seconds=WINDOW_SECONDS,
            instalments=2,
            price=quoted.price,
            deposit_stroops=deposit_for(quoted.price, len(DATA) * 4, 2, WINDOW_SECONDS),
            last_setup_ledger=head["sequence"] + 90,
            collateral_stroops=0,
            memo=bytes(32),
            owner_sequence=int(ledger.server.load_account(self._wallet).sequence) + 1,
            network=quoted.ledger,
        )

    def ask(self, request: contracts.ContractRequest, kind: type[Any], body: bytes = b"") -> Any:
        return self._contracts.ask(self._host, request, kind, body)

    def open(self) -> None:
        self.propose()
        self.set_up()
        self.opened()

    def propose(self) -> None:
        self.ask(contracts.Propose(self.tenant, self.terms.to_bytes(), UNSIGNED), contracts.Agreed)

    def opened(self) -> None:
        self.ask(contracts.Opened(self.tenant, self.terms.contract_id, UNSIGNED), contracts.Ready)

    def set_up(self) -> None:
        """It may be there already."""
        envelope = envelopes.setup(self.terms)
        owner = envelope.sign(self._wallet.raw_secret_key())
        signatures = {self.terms.owner: owner, self.terms.escrow: envelope.sign(self._escrow)}
        self._ledger.request("POST", "transactions", data={"tx": envelope.xdr(signatures)}).raise_for_status()

    def store(self) -> None:
        self._links.store(
            self._host, PIECE, DATA, tenant_private=self._tenant_private, deadline_seconds=SECONDS
        )  # fmt: skip

    def salt(self, instalment: int) -> bytes:
        return bytes([instalment]) * 32

    def cover(self) -> int:
        """What all instalments pay."""
        batch = Batch(0, self.terms.start, len(DATA), 1)
        amounts = amounts_due(self.terms, [batch])
        locks = []
        for instalment, stroops in enumerate(amounts):
            salt = self.salt(instalment)
            digest = instalments.piece_digest(salt, instalment, PIECE, DATA)
            answer = instalments.answer(
                salt, self.terms.contract_id, instalment, [instalments.batch_digest(salt, [digest])]
            )
            lock = Lock(stroops, instalments.lock_hash(answer))
            signature = envelopes.claim(self.terms, instalment, lock).sign(self._escrow)
            locks.append(contracts.SignedLock(lock.amount_stroops, lock.hash, signature))
        cover = contracts.Cover(
            self.tenant, self.terms.contract_id, 0, 0, batch.at, batch.bytes, tuple(locks), UNSIGNED
        )
        self.due, self.amounts = sum(amounts), amounts
        self.ask(cover, contracts.Covered, contracts.cover_body((PIECE,)))
        return self.due

    def goes_on(self, done: int = 0) -> int:
        """From a step on, as far as the host takes it: how many steps it has answered."""
        for step in (self.propose, self.set_up, self.opened, self.store, self.cover, partial(self.disclose, 0))[done:]:
            try:
                step()
            except Unreachable:
                break
            done += 1
        return done

    def close(self) -> None:
        self._links.close()

    def pass_set_up(self) -> None:
        """Until a set-up can be in no ledger."""
        while self._ledger.close_ledger()["sequence"] <= self.terms.last_setup_ledger:
            pass

    def end(self, seconds: int) -> contracts.Settle:
        """What would be asked for now, after the first instalment."""
        now = self._ledger.close_ledger()["closed_at"]
        number = int(self._ledger.server.load_account(StrKey.encode_ed25519_public_key(self.terms.escrow)).sequence) + 1
        due = host_due_stroops(self.terms, [Cover(0, self.terms.start, len(DATA))], {1}, now + seconds)
        return contracts.Settle(self.tenant, self.terms.contract_id, due, number, now + seconds, UNSIGNED)

    def settle(self, request: contracts.Settle) -> bytes:
        return bytes(self.ask(request, contracts.Settled).host_signature)

    def is_signed(self, request: contracts.Settle) -> bool:
        try:
            self.settle(request)
        except HostRefused:
            return False
        return True

    def submit(self, end: contracts.Settle, host_signature: bytes) -> None:
        envelope = envelopes.settle(
            self.terms, host_stroops=end.host_stroops, sequence_number=end.sequence, last_second=end.max_time
        )
        signatures = {self.terms.escrow: envelope.sign(self._escrow), self.terms.host: host_signature}
        self._ledger.request("POST", "transactions", data={"tx": envelope.xdr(signatures)}).raise_for_status()

    def is_claimed(self, instalment: int) -> bool:
        """Said again and again; a host whose ledger is away cannot answer."""
        try:
            return self.disclose(instalment) == "claimed"
        except RemoteError:
            return False

    def disclose(self, instalment: int) -> str:
        request = contracts.Disclose(self.tenant, self.terms.contract_id, instalment, self.salt(instalment), UNSIGNED)
        return str(self.ask(request, contracts.Disclosed).state)


def status_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(command("status", "--dir", str(directory), "--json").stdout)
    return found["earning"]


def earns(ledger: LocalLedger, directory: Path, host: Child) -> tuple[Owner, Keypair]:
    """The first run, up to the cover."""
    host.says("ready")
    wallet = Keypair.from_public_key(host.says("wallet").split()[1])
    ledger.request("GET", "friendbot", params={"addr": wallet.public_key}).raise_for_status()
    return Owner(ledger, links_to(directory), address_of(directory)), wallet


def test_a_host_earns_through_a_kill_and_leaves(
    ledger: LocalLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, armed = tmp_path / "host", tmp_path / "armed"
    armed.touch()
    monkeypatch.setenv(VARIABLE, f"salt recorded@1@{armed}")
    with paid_host(directory, ledger) as host:
        owner, wallet = earns(ledger, directory, host)
        before = ledger.stroops(wallet)
        with pytest.raises(HostRefused, match="no contract"):
            owner.store()
        owner.open()
        owner.store()
        due = owner.cover()
        with pytest.raises(Unreachable):
            owner.disclose(0)
        assert host.ended() == -signal.SIGKILL
    assert ledger.stroops(wallet) == before
    with host_run(directory) as host:
        host.says("ready")
        wait_for(lambda: owner.disclose(0) == "claimed", "it claims what it was going to")
        ledger.close_ledger(at=owner.terms.window(1)[0])
        wait_for(lambda: owner.disclose(1) == "claimed", "the audit is paid for too")
        assert ledger.stroops(wallet) == before + due
        report = status_of(directory)
        assert (report["earned_stroops"], report["pending_stroops"]) == (due, 0)
        page = command("status", "--dir", str(directory)).stdout
        assert "20000 XLM for a TiB" in page
        assert owner.tenant.hex()[:12] in page
        ledger.close_ledger(at=owner.terms.end)
        left = command("leave", "--dir", str(directory))
        assert left.returncode == 0, left.stderr
        assert host.ended() == 0
        assert host.says("left")
    owner.close()
    other = ledger.person()
    with host_run(directory, "--price", "20000", "--payout", other.public_key) as host:
        host.says("ready")
        wait_for(lambda: ledger.stroops(wallet) < 10**8, "earnings go on, but for a little")
        assert not status_of(directory)["leaving"]
    assert ledger.stroops(wallet) + ledger.stroops(other) == before + due + 10**11 - 100


STEPS = ["contract agreed", "contract open", "cover recorded", "intent kept", "transaction sent", "claim recorded"]


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_it_is_paid_once(
    ledger: LocalLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, big: bool
) -> None:
    if not big:
        pytest.skip("each step with --big; one of them above")
    directory, armed = tmp_path / "host", tmp_path / "armed"
    armed.touch()
    monkeypatch.setenv(VARIABLE, f"{step}@1@{armed}")
    with paid_host(directory, ledger) as host:
        owner, wallet = earns(ledger, directory, host)
        before = ledger.stroops(wallet)
        done = owner.goes_on()
        assert host.ended() == -signal.SIGKILL, step
    with host_run(directory) as host:
        host.says("ready")
        owner.goes_on(done)
        wait_for(lambda: owner.disclose(0) == "claimed", "the upload is paid for")
        ledger.close_ledger(at=owner.terms.window(1)[0])
        wait_for(lambda: owner.disclose(1) == "claimed", "the audit is paid for too")
        assert ledger.stroops(wallet) == before + owner.due
        assert status_of(directory)["earned_stroops"] == owner.due
    owner.close()


DEATHS = [
    ("ledger closed", ""),
    ("ledger written", ""),
    ("ledger closed", "transaction sent"),
    ("ledger written", "transaction sent"),
    ("", "intent kept"),
]
"""Where the ledger dies with a host's claim, and where the host does; empty: it is killed without it, or not at all."""


@pytest.mark.parametrize(("ledger_point", "host_point"), DEATHS)
def test_a_ledger_that_is_killed_in_the_middle_of_a_claim_pays_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger_point: str, host_point: str, big: bool
) -> None:
    if (ledger_point, host_point) != DEATHS[0] and not big:
        pytest.skip("each with --big; the first one always")
    directory, of_ledger, of_host = tmp_path / "host", tmp_path / "ledger armed", tmp_path / "host armed"
    monkeypatch.setenv(VARIABLE, f"{ledger_point or 'ledger closed'}@1@{of_ledger}")
    with ledger_run(tmp_path / "ledger", "--close-seconds", "0.2") as ledger:
        monkeypatch.setenv(VARIABLE, f"{host_point or 'intent kept'}@1@{of_host}")
        with paid_host(directory, ledger) as host, contextlib.ExitStack() as again:
            owner, wallet = earns(ledger, directory, host)
            before = ledger.stroops(wallet)
            owner.open()
            owner.store()
            owner.cover()
            for flag in [flag for flag, point in ((of_ledger, ledger_point), (of_host, host_point)) if point]:
                flag.touch()
            with contextlib.suppress(Unreachable):
                owner.disclose(0)
            if host_point:
                assert host.ended() == -signal.SIGKILL
                again.enter_context(host_run(directory)).says("ready")
            if not ledger_point:
                ledger.process.end(signal.SIGKILL)
            assert ledger.process.ended() == -signal.SIGKILL
            there = again.enter_context(ledger_run(tmp_path / "ledger", "--close-seconds", "0.2", listen=None))
            wait_for(lambda: owner.is_claimed(0), "the upload is paid for")
            there.close_ledger(at=owner.terms.window(1)[0])
            wait_for(lambda: owner.is_claimed(1), "the audit is paid for too")
            assert there.stroops(wallet) == before + owner.due
            assert status_of(directory)["earned_stroops"] == owner.due
            owner.close()


@pytest.mark.parametrize("step", ["end recorded", "end decided"])
def test_killed_while_a_contract_ends_it_knows_what_it_has_signed(
    ledger: LocalLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, big: bool
) -> None:
    if step == "end decided" and not big:
        pytest.skip("with --big")
    directory, armed = tmp_path / "host", tmp_path / "armed"
    armed.touch()
    monkeypatch.setenv(VARIABLE, f"{step}@1@{armed}")
    with paid_host(directory, ledger) as host:
        owner, wallet = earns(ledger, directory, host)
        before = ledger.stroops(wallet)
        owner.goes_on()
        wait_for(lambda: owner.disclose(0) == "claimed", "the upload is paid for")
        owner.pass_set_up()
        first = owner.end(seconds=120)
        with contextlib.suppress(Unreachable):
            owner.settle(first)
        if step == "end decided":
            ledger.close_ledger(at=first.max_time + 1)
        assert host.ended() == -signal.SIGKILL, step
    with host_run(directory) as host:
        host.says("ready")
        if step == "end recorded":
            with pytest.raises(HostRefused, match="ending"):
                owner.settle(owner.end(seconds=240))
            owner.submit(first, owner.settle(first))
            last = first
        else:
            last = owner.end(seconds=300)
            wait_for(lambda: owner.is_signed(last), "the one that never came is forgotten")
            owner.submit(last, owner.settle(last))
        wait_for(lambda: status_of(directory)["owners"][0][1] == "ended", "it sees that it is over")
        assert ledger.stroops(wallet) == before + owner.amounts[0] + last.host_stroops
    owner.close()


def test_a_free_host_leaves_when_it_is_stopped(tmp_path: Path) -> None:
    with child(
        "-m", "layrfs.cli.main", "host", "run", "--dir", str(tmp_path), "--space", "1G", "--listen", "127.0.0.1:0",
        home=tmp_path,
    ) as host:  # fmt: skip
        host.says("ready")
        refused = command("leave", "--dir", str(tmp_path))
    assert refused.returncode == 2
    assert "stop it whenever you like" in refused.stderr


def wallet_command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, and what was said where."""
    code = run_command("layrfs", lambda: dispatch(["host", "wallet", *words]))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_hosts_wallet_is_shown_exported_and_taken_to_another_machine(
    ledger: LocalLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = ["--dir", str(tmp_path / "host")], ["--dir", str(tmp_path / "other")]
    assert wallet_command(capsys, *here)[0] == 2
    wallet = ledger.person()
    for place in (here, there):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{wallet.secret}\n"))
        code, said, _warning = wallet_command(capsys, "import", *place)
        assert (code, said.split()[-1]) == (0, wallet.public_key)
    assert (tmp_path / "other" / "wallet.key").stat().st_mode & 0o777 == 0o600
    with paid_host(tmp_path / "other", ledger) as host:
        assert host.says("wallet").split()[1] == wallet.public_key
        host.says("ready")
        code, said, _warning = wallet_command(capsys, *there, "--json")
        shown = {"address": wallet.public_key, "ledger": ledger.passphrase, "balance": "10000", "problem": ""}
        assert (code, json.loads(said)) == (0, shown)
    assert wallet_command(capsys, "export", *there)[:2] == (0, f"{wallet.secret}\n")
    code, said, _warning = wallet_command(capsys, *here)
    assert (code, wallet.public_key in said, "was not run" in said) == (0, True, True)


def test_a_wallet_is_not_replaced_nor_is_a_secret_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, first = ["--dir", str(tmp_path / "host")], Keypair.random().secret
    for secret, code in ((first[:-1], 2), (first, 0), (Keypair.random().secret, 12)):
        monkeypatch.setattr("sys.stdin", io.StringIO(secret))
        found, said, warning = wallet_command(capsys, "import", *place)
        assert (found, secret in said + warning) == (code, False)
    assert wallet_command(capsys, "export", *place)[1].strip() == first
    assert run_command("layrfs", lambda: dispatch(["host", "status", "export", *place])) == 2


BAD_COMMANDS = [
    (["--price", "much", "--ledger", "test"], "no amount of XLM"),
    (["--price", "0", "--ledger", "test"], "above 0"),
    (["--price", "2"], "say which ledger"),
    (["--price", "2", "--ledger", "nowhere"], "no address of a Horizon server"),
    (["--price", "2", "--ledger", "http://horizon.example", "--passphrase", "p"], "in the clear"),
    (["--price", "2", "--ledger", "test", "--payout", "GABC"], "takes a Stellar address"),
    (["--ledger", "test"], "say what a TiB costs"),
]


@pytest.mark.parametrize(("words", "sentence"), BAD_COMMANDS)
def test_what_makes_no_sense_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    line = ["host", "run", "--dir", str(tmp_path / "host"), "--space", "1G", *words]
    assert run_command("layrfs", lambda: dispatch(line)) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
