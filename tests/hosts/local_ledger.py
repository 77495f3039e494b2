"""A development ledger of a test: its process, and the library of Stellar's that talks to it as to Horizon."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from stellar_sdk import Keypair, Server, TransactionBuilder
from stellar_sdk.client.requests_client import RequestsClient

from tests.hosts.processes import SECONDS, Child, child


class LocalLedger:
    """A running ledger. Close it after use: its connections are warned about otherwise."""

    def __init__(self, process: Child) -> None:
        process.says("ready")
        self.process = process
        self.url = process.says("ledger").split()[1]
        self.passphrase = process.says("passphrase").partition(" ")[2]
        self.server = Server(self.url, RequestsClient(num_retries=0))
        self._session = requests.Session()

    def request(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """As it is."""
        return self._session.request(method, f"{self.url}/{path}", timeout=SECONDS, **arguments)

    def person(self) -> Keypair:
        """Somebody with 10,000 XLM."""
        keypair = Keypair.random()
        given = self.request("GET", "friendbot", params={"addr": keypair.public_key})
        assert given.status_code == 200, given.text
        return keypair

    def build(self, source: Keypair) -> TransactionBuilder:
        """A transaction of somebody's with his next number."""
        account = self.server.load_account(source)
        return TransactionBuilder(account, self.passphrase, base_fee=100).add_time_bounds(0, 0)

    def close_ledger(self, **numbers: int) -> dict[str, int]:
        """The next one."""
        closed = self.request("POST", "layrfs/close", data=numbers)
        assert closed.status_code == 200, closed.text
        return dict(closed.json())

    def stroops(self, whose: Keypair) -> int:
        """What an account has."""
        (balance,) = self.server.accounts().account_id(whose.public_key).call()["balances"]
        return int(balance["balance"].replace(".", ""))

    @contextlib.contextmanager
    def waiting(self, envelope: str) -> Iterator[dict[str, Any]]:
        """Hand in a transaction, which is answered when a ledger closes: inside the block. The answer is filled in."""
        answer: dict[str, Any] = {}
        before = self.url

        def submit() -> None:
            with contextlib.suppress(requests.RequestException):
                answer.update(requests.post(f"{before}/transactions", data={"tx": envelope}, timeout=SECONDS).json())

        thread = threading.Thread(target=submit)
        thread.start()
        try:
            yield answer
        finally:
            thread.join(SECONDS)

    def close(self) -> None:
        """Let go of it."""
        self.server.close()
        self._session.close()


@contextlib.contextmanager
def ledger_run(directory: Path, *arguments: str, listen: str | None = "127.0.0.1:0") -> Iterator[LocalLedger]:
    """`layrfs ledger run`; where it was last time when `listen` is None."""
    where = ["--listen", listen] if listen else []
    command = ("-m", "layrfs.cli.main", "ledger", "run", "--dir", str(directory), *where, *arguments)
    with child(*command, home=directory.parent) as process:
        ledger = LocalLedger(process)
        try:
            yield ledger
        finally:
            ledger.close()
