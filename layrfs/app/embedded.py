"""`python -m layrfs.app.embedded DIRECTORY`: five real hosts on loopback, so that a drive works with no set-up.

Owns the process: one network, five directories, their ports, `seeds.json`; a ledger beside them if they are paid. The
mount that started it talks to it through its standard streams alone: `standby` or `ready` comes out, and standard input
ends when the mount does.
Invariant: one process at a time serves a directory; others stand by until its lock is free.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial

import msgspec
import trio

from layrfs import logs
from layrfs.app.child import exit_code_of
from layrfs.app.earning_plan import EarningPlan
from layrfs.app.embedded_money import Told, accounts_of, give, keep_ledger, ledger_file, paid_by
from layrfs.app.host import settings_of
from layrfs.app.serving import HostPlan, HostStarted, ServingHost
from layrfs.durable import make_directory, write_atomically
from layrfs.errors import StateInUse
from layrfs.host.directory import HostDirectory, HostSettings
from layrfs.network.addresses import format_address
from layrfs.network.piece_server import Limits
from layrfs.wire.messages import NETWORK_ID_BYTES

_log = logging.getLogger("layrfs.app.embedded")  # not __name__: this runs as __main__

NICENESS = 10
"""These hosts share the machine with their owner, whose programs go first."""

HOSTS = 5
LOOPBACK = "127.0.0.1"
STANDBY_SECONDS = 0.5
"""How often a standby looks whether the lock is free."""

LIMITS = Limits(
    connections_per_address=256, bodies=8, questions=120, questions_per_address=120, questions_per_tenant=1200
)
"""Everybody comes from loopback; five hosts share one machine's memory."""


async def serve(path: str, told: Told) -> None:
    """Stand by, then run the five hosts until standard input ends or SIGTERM comes."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_with_input, nursery.cancel_scope)
            nursery.start_soon(_end_at_signal, signals, nursery.cancel_scope)
            directory = HostDirectory(path)
            await _lock(directory)
            try:
                await _run_hosts(directory, told)
            finally:
                directory.unlock()


async def _lock(directory: HostDirectory) -> None:
    if directory.try_lock():
        return
    _say("standby")
    while not directory.try_lock():  # noqa: ASYNC110 - another process lets go of it
        await trio.sleep(STANDBY_SECONDS)


async def _run_hosts(directory: HostDirectory, told: Told) -> None:
    network_id = _network_id(directory.path)
    async with trio.open_nursery() as nursery:
        ledger = await nursery.start(keep_ledger, directory.path, told)
        homes = [HostDirectory(os.path.join(directory.path, f"host-{number}")) for number in range(HOSTS)]
        seeds: list[tuple[str, int]] = []
        files = (ledger_file(directory.path),)
        for home in homes:
            plan = paid_by(ledger, told, home.settings(), files)
            started = await _start(home, network_id, tuple(seeds), nursery, plan)
            seeds.append((LOOPBACK, started.port))
        if ledger is not None:
            owner = [] if told.owner is None else [told.owner]
            nursery.start_soon(give, ledger, files, [*owner, *accounts_of(homes)])
        _publish(directory.path, network_id, seeds)
        _log.info("five hosts are ready, network %s", network_id.hex())
        _say("ready")
        await trio.sleep_forever()


async def _start(
    home: HostDirectory,
    network_id: bytes,
    seeds: tuple[tuple[str, int], ...],
    nursery: trio.Nursery,
    earning: EarningPlan | None,
) -> HostStarted:
    """On the port of last time, because records and manifests elsewhere remember it; on another when that is taken."""
    home.lock()
    before = home.settings()
    space_bytes = _disk_bytes(home.path)
    plan = HostPlan(
        network_id=network_id,
        listen=LOOPBACK,
        port=before.port if before else 0,
        space_bytes=space_bytes,
        seeds=seeds,
        limits=LIMITS,
        free_share=1 / HOSTS,
        earning=earning,
    )
    host = await trio.to_thread.run_sync(ServingHost, home, plan)
    try:
        started: HostStarted = await nursery.start(host.run)
    except* StateInUse:
        host = await trio.to_thread.run_sync(ServingHost, home, msgspec.structs.replace(plan, port=0))
        started = await nursery.start(host.run)
    home.save_settings(
        HostSettings(
            network_id=network_id.hex(),
            listen=LOOPBACK,
            port=started.port,
            space_bytes=space_bytes,
            **settings_of(earning),
        )
    )
    return started


def _network_id(path: str) -> bytes:
    """The network's, made by its first start; each host keeps it, so one that is left is enough."""
    for number in range(HOSTS):
        settings = HostDirectory(os.path.join(path, f"host-{number}")).settings()
        if settings is not None:
            return bytes.fromhex(settings.network_id)
    return secrets.token_bytes(NETWORK_ID_BYTES)


def _publish(path: str, network_id: bytes, seeds: list[tuple[str, int]]) -> None:
    content = {"network_id": network_id.hex(), "seeds": [format_address(*seed) for seed in seeds]}
    write_atomically(os.path.join(path, "seeds.json"), json.dumps(content).encode())


def _disk_bytes(path: str) -> int:
    """Each host may use the whole disk; what it offers is its share of what is free."""
    disk = os.statvfs(path)
    return disk.f_blocks * disk.f_frsize


async def _end_with_input(scope: trio.CancelScope) -> None:
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        while await stream.receive_some():
            pass
    scope.cancel()


async def _end_at_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


def _say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def _parsed(arguments: list[str]) -> tuple[str, Told]:
    parser = argparse.ArgumentParser("python -m layrfs.app.embedded")
    parser.add_argument("directory")
    parser.add_argument("--host-price", metavar="XLM", help="what the hosts ask for a TiB and 30 days from now on")
    parser.add_argument("--owner", metavar="HEX", type=bytes.fromhex, help="an account that begins with a gift")
    found = parser.parse_args(arguments)
    return found.directory, Told(found.host_price, found.owner)


def main(arguments: list[str]) -> int:
    """The program. Its log is DIRECTORY/log; on failure one sentence goes to standard error too."""
    path, told = _parsed(arguments)
    os.nice(NICENESS)
    try:
        make_directory(path)
        logs.configure(os.path.join(path, "log"), verbose=False)
    except OSError as error:
        sys.stderr.write(f"the directory {path} cannot be used: {error.strerror}\n")
        return 1
    return exit_code_of(partial(trio.run, serve, path, told), _log)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
