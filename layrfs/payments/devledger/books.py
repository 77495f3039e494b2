"""Where a development ledger is kept: one SQLite database, one transaction for each ledger that is closed.

Owns the tables and what is looked up in them. Must not know rules. Invariant: after a crash at any moment the database
has a ledger with all of its changes and its history, or nothing of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import apsw
import msgspec

from layrfs.crashpoints import reached
from layrfs.errors import CorruptFile, LocalError, NewerFormat, NoSpace
from layrfs.payments.devledger.rules import Outcome
from layrfs.payments.devledger.state import Account, Header, State, check_passphrase

_Kind = TypeVar("_Kind")

VERSION = 1
_POSITION_BITS = 12
_LEDGER_BITS = 32

_SCHEMA = """
CREATE TABLE ledger_state(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE account(key BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE closing(sequence INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE entry(token INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, inner_hash BLOB UNIQUE, body BLOB NOT NULL);
CREATE TABLE participant(account BLOB NOT NULL, token INTEGER NOT NULL, PRIMARY KEY(account, token)) WITHOUT ROWID;
"""


_TOKENS_UP = """
SELECT token FROM participant WHERE account = ? AND token > ? AND (token & 4095 > 0) = ? ORDER BY token
"""
_TOKENS_DOWN = """
SELECT token FROM participant WHERE account = ? AND token < ? AND (token & 4095 > 0) = ? ORDER BY token DESC
"""
_CLOSINGS_UP = "SELECT body FROM closing WHERE sequence > ? ORDER BY sequence LIMIT ?"
_CLOSINGS_DOWN = "SELECT body FROM closing WHERE sequence < ? ORDER BY sequence DESC LIMIT ?"
_LAST = (1 << 63) - 1

EVERYBODY = b""
"""Takes part in everything."""


class Entry(msgspec.Struct, frozen=True):
    """A transaction in the history. Its token orders it among all: ledger (32 bits), place in it (20), 12 bits of 0."""

    token: int
    hash: bytes
    inner_hash: bytes | None
    closed_at: int
    outcome: Outcome
    fee_stroops: int
    envelope: str
    participants: tuple[tuple[bytes, ...], ...]
    """Accounts that it touches, then those of each operation."""

    @property
    def ledger(self) -> int:
        """Which ledger it is in."""
        return self.token >> _LEDGER_BITS


class Closing(msgspec.Struct, frozen=True):
    """A closed ledger in the history; ledgers without transactions leave nothing."""

    header: Header
    successful: int
    failed: int
    operations: int


class Page(msgspec.Struct, frozen=True):
    """What part of a list is wanted: entries behind the cursor, at most `limit`."""

    cursor: int | None = None
    limit: int = 10
    newest_first: bool = False

    def start(self) -> int:
        """Behind which token the page begins."""
        if self.cursor is not None:
            return self.cursor
        return _LAST if self.newest_first else -1


def token_of(ledger: int, position: int) -> int:
    """Of the transaction at a place of a ledger, counted from 1; its operations follow it."""
    return ledger << _LEDGER_BITS | position << _POSITION_BITS


class Books:
    """An open database. Blocking; one process at a time, which the lock of its directory sees to."""

    def __init__(self, path: str = ":memory:") -> None:
        self._path = path
        try:
            self._connection = apsw.Connection(path)
            self._connection.pragma("journal_mode", "wal")
            self._connection.pragma("synchronous", "full")
            self._prepare()
        except apsw.Error as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Let go of it."""
        self._connection.close()

    def begin(self, state: State) -> None:
        """Keep a new ledger's first state; nothing when these books have a ledger."""
        if self._get("header") is not None:
            return
        with self._connection:
            self._put("passphrase", state.passphrase.encode())
            self._put("header", msgspec.msgpack.encode(state.header))
            self._put_accounts(state.accounts)

    def state(self) -> State | None:
        """The last closed ledger; None in new books. Raises CorruptFile."""
        try:
            passphrase = self._get("passphrase")
            if passphrase is None:
                return None
            check_passphrase(passphrase.decode())
            accounts = [_decoded(body, Account) for (body,) in self._connection.execute("SELECT body FROM account")]
            header = _decoded(self._get("header") or b"", Header)
            return State(passphrase.decode(), header, {account.key: account for account in accounts})
        except (apsw.Error, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CorruptFile(f"the ledger in {self._path} cannot be read: {error}") from error

    def record(self, closing: Closing, changes: Mapping[bytes, Account | None], entries: Sequence[Entry]) -> None:
        """A ledger that closes: on the disk when this returns. Without entries it may be lost to a power cut."""
        try:
            self._connection.pragma("synchronous", "full" if entries else "normal")
            with self._connection:
                self._put("header", msgspec.msgpack.encode(closing.header))
                if entries:
                    self._record(closing, changes, entries)
                    reached("ledger written")
            if entries:
                reached("ledger closed")
        except apsw.Error as error:
            raise self._failed(error) from error

    def entry(self, transaction_hash: bytes) -> Entry | None:
        """By the hash of a transaction, or of the one inside a fee bump."""
        question = "SELECT body FROM entry WHERE hash = ?1 OR inner_hash = ?1 ORDER BY token DESC"
        found = self._connection.execute(question, (transaction_hash,)).fetchone()
        return None if found is None else _decoded(found[0], Entry)

    def entry_at(self, token: int) -> Entry | None:
        """By the token of a transaction, or of an operation in one."""
        whole = token >> _POSITION_BITS << _POSITION_BITS
        found = self._connection.execute("SELECT body FROM entry WHERE token = ?", (whole,)).fetchone()
        return None if found is None else _decoded(found[0], Entry)

    def tokens(self, account: bytes, page: Page, *, of_operations: bool) -> Iterator[int]:
        """Tokens of an account's (or `EVERYBODY`'s) transactions or operations from the cursor on; no limit."""
        question = _TOKENS_DOWN if page.newest_first else _TOKENS_UP
        for (token,) in self._connection.execute(question, (account, page.start(), of_operations)):
            yield token

    def closings(self, page: Page) -> list[Closing]:
        """Closed ledgers that had transactions."""
        question = _CLOSINGS_DOWN if page.newest_first else _CLOSINGS_UP
        return [_decoded(body, Closing) for (body,) in self._connection.execute(question, (page.start(), page.limit))]

    def closing(self, sequence: int) -> Closing | None:
        """One of them."""
        found = self._connection.execute("SELECT body FROM closing WHERE sequence = ?", (sequence,)).fetchone()
        return None if found is None else _decoded(found[0], Closing)

    def _prepare(self) -> None:
        version = self._connection.pragma("user_version")
        if version == 0:
            with self._connection:
                self._connection.execute(_SCHEMA)
                self._connection.pragma("user_version", VERSION)
        elif version > VERSION:
            raise NewerFormat(f"the ledger in {self._path} was written by a newer LayrFS; nothing was touched")

    def _record(self, closing: Closing, changes: Mapping[bytes, Account | None], entries: Sequence[Entry]) -> None:
        self._put_accounts(changes)
        body = msgspec.msgpack.encode(closing)
        self._connection.execute("INSERT INTO closing VALUES(?, ?)", (closing.header.sequence, body))
        for entry in entries:
            row = (entry.token, entry.hash, entry.inner_hash, msgspec.msgpack.encode(entry))
            self._connection.execute("INSERT INTO entry VALUES(?, ?, ?, ?)", row)
            for number, accounts in enumerate(entry.participants):
                rows = [(account, entry.token + number) for account in (EVERYBODY, *accounts)]
                self._connection.executemany("INSERT INTO participant VALUES(?, ?)", rows)

    def _put_accounts(self, accounts: Mapping[bytes, Account | None]) -> None:
        for key, account in accounts.items():
            if account is None:
                self._connection.execute("DELETE FROM account WHERE key = ?", (key,))
            else:
                body = msgspec.msgpack.encode(account)
                self._connection.execute("INSERT OR REPLACE INTO account VALUES(?, ?)", (key, body))

    def _put(self, name: str, value: bytes) -> None:
        self._connection.execute("INSERT OR REPLACE INTO ledger_state VALUES(?, ?)", (name, value))

    def _get(self, name: str) -> bytes | None:
        found = self._connection.execute("SELECT value FROM ledger_state WHERE name = ?", (name,)).fetchone()
        return None if found is None else bytes(found[0])

    def _failed(self, error: apsw.Error) -> LocalError | CorruptFile:
        if isinstance(error, apsw.FullError):
            return NoSpace(f"no space left for the ledger in {os.path.dirname(self._path)}")
        if isinstance(error, apsw.NotADBError | apsw.CorruptError):
            return CorruptFile(f"{self._path} is no ledger, or a damaged one: {error}")
        return LocalError(f"the ledger in {self._path} cannot be used: {error}")


def _decoded(body: bytes, kind: type[_Kind]) -> _Kind:
    return msgspec.msgpack.decode(body, type=kind)
