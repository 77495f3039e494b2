"""The development ledger as a process: `layrfs ledger run`, and `python -m layrfs.app.ledger DIRECTORY` for ourselves.

Owns its directory (`ledger.db`, `ledger.json`, `lock`), its port and its end. Must not know what is on the ledger.
Invariant: one process at a time serves a directory, and `ledger.json` tells where: written before "ready" is said.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from urllib.parse import urlsplit

import msgspec
import trio

from layrfs import logs
from layrfs.app.child import exit_code_of
from layrfs.app.state_directory import locked
from layrfs.config import parse_address
from layrfs.durable import make_directory
from layrfs.errors import LocalError, StateInUse, UsageError
from layrfs.ledger_config import LedgerConfig
from layrfs.network.addresses import format_address
from layrfs.network.listening import open_listener
from layrfs.payments.devledger.books import Books
from layrfs.payments.devledger.desk import Desk
from layrfs.payments.devledger.friendbot import root_keypair
from layrfs.payments.devledger.ledger import FORWARD_SECONDS, DevelopmentLedger, resumed
from layrfs.payments.devledger.service import LedgerService
from layrfs.payments.devledger.state import DEVELOPMENT_PREFIX, State, genesis
from layrfs.payments.devledger.web import Bounds, serve

_log = logging.getLogger("layrfs.app.ledger")  # not __name__: this runs as __main__ too

DEFAULT_LISTEN = ("127.0.0.1", 4748)
LOOPBACK = "127.0.0.1"
CLOSE_SECONDS = 1.0
_BACKLOG = 128
_RANDOM_BYTES = 16


class LedgerOptions(msgspec.Struct, frozen=True):
    """What the command line says; None: as last time, or else the default."""

    directory: str
    listen: tuple[str, int] | None = None
    close_seconds: float = CLOSE_SECONDS
    """Between ledgers; 0: they close only when somebody asks for it."""
    passphrase: str | None = None
    """Of a new ledger."""


async def run_ledger(options: LedgerOptions, say: Callable[[str], None]) -> None:
    """Be a ledger until cancelled. `say` takes lines for a person, the last of them "ready".

    Raises StateInUse, UsageError, LocalError, CorruptFile, NewerFormat, perhaps inside exception groups.
    """
    _make(options.directory)
    with locked(options.directory, "ledger"), contextlib.closing(_books(options.directory)) as books:
        known = books.state()
        state = _first_state(options) if known is None else resumed(known)
        ledger = DevelopmentLedger(state, books, _forward_seconds(options))
        if options.passphrase not in {None, ledger.passphrase}:
            raise UsageError(f"the ledger in {options.directory} has another passphrase; use another --dir")
        with _listener(options) as listener:
            place = LedgerConfig((f"http://{format_address(*listener.getsockname()[:2])}",), ledger.passphrase)
            await _serve(ledger, listener, place, options, say)


async def _serve(
    ledger: DevelopmentLedger,
    listener: socket.socket,
    place: LedgerConfig,
    options: LedgerOptions,
    say: Callable[[str], None],
) -> None:
    service = LedgerService(ledger, time.time, options.close_seconds)
    listener.listen(_BACKLOG)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.run)
        accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        await nursery.start(serve, accepting, Desk(service).answer, Bounds())
        place.save(_place_file(options.directory))
        for line in (f"ledger {place.horizon[0]}", f"passphrase {place.passphrase}", "ready"):
            say(line)


async def run_until_signal(options: LedgerOptions, say: Callable[[str], None]) -> None:
    """The same, until SIGTERM or SIGINT."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_at_signal, signals, nursery.cancel_scope)
            await run_ledger(options, say)
    say("stopped")


async def run_until_input_ends(directory: str) -> None:
    """For a process of ours that starts it: as long as that holds our standard input open."""
    first = None if LedgerConfig.load(_place_file(directory)) else (LOOPBACK, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_with_input, nursery.cancel_scope)
        await run_until_signal(LedgerOptions(directory, listen=first), _say)
        nursery.cancel_scope.cancel()


def _place_file(directory: str) -> str:
    return os.path.join(directory, "ledger.json")


def _make(directory: str) -> None:
    try:
        make_directory(directory)
    except OSError as error:
        raise LocalError(f"the directory {directory} cannot be used: {error.strerror}") from error


def _books(directory: str) -> Books:
    return Books(os.path.join(directory, "ledger.db"))


def _first_state(options: LedgerOptions) -> State:
    passphrase = options.passphrase or DEVELOPMENT_PREFIX + secrets.token_hex(_RANDOM_BYTES)
    return genesis(passphrase, root_keypair(passphrase).raw_public_key(), int(time.time()))


def _forward_seconds(options: LedgerOptions) -> int:
    """As Stellar's, two ledgers: contracts of tests have windows of seconds."""
    return math.ceil(2 * options.close_seconds) or FORWARD_SECONDS


def _listener(options: LedgerOptions) -> socket.socket:
    """Where it was said; else where it was last time, because others remember that, or on any port if that is taken."""
    if options.listen is not None:
        return open_listener(*options.listen)
    last = LedgerConfig.load(_place_file(options.directory))
    host, port = DEFAULT_LISTEN if last is None else parse_address(urlsplit(last.horizon[0]).netloc)
    try:
        return open_listener(host, port)
    except StateInUse:
        return open_listener(host, 0)


async def _end_at_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


async def _end_with_input(scope: trio.CancelScope) -> None:
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        while await stream.receive_some():
            pass
    scope.cancel()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """`python -m layrfs.app.ledger DIRECTORY`; its log is DIRECTORY/log, on failure a sentence goes to stderr too."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m layrfs.app.ledger DIRECTORY\n")
        return 2
    return exit_code_of(partial(_run_in, arguments[0]), _log)


def _run_in(directory: str) -> None:
    _make(directory)
    logs.configure(os.path.join(directory, "log"), verbose=False)
    trio.run(run_until_input_ends, directory)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
