"""`layrfs host run`: one host in the foreground, from its directory to its end.

Owns the choice of the network and what is said to the person who started it.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import trio

from layrfs.app.earning_plan import EarningPlan
from layrfs.app.serving import HostPlan, HostStarted, ServingHost
from layrfs.config import parse_address
from layrfs.errors import Unreachable, UsageError
from layrfs.host.directory import HostDirectory, HostSettings
from layrfs.ledger_config import LedgerConfig
from layrfs.model.lumens import shown_lumens
from layrfs.network.addresses import Address, canonical, format_address, is_literal, resolve
from layrfs.network.hello import learn_network_id
from layrfs.policy.leases import DAY_SECONDS, DEFAULT_GRACE_SECONDS
from layrfs.wire.messages import NETWORK_ID_BYTES

DEFAULT_LISTEN = ("0.0.0.0", 4747)  # noqa: S104 - a host is there to be reached
LEARN_SECONDS = 15.0
_PEERS_ASKED = 8
_REMEMBERED = ("price", "horizon", "passphrase", "collateral_stroops", "payout")


class HostOptions(msgspec.Struct, frozen=True):
    """What the command line says; None: as last time, or else the default."""

    directory: str
    space_bytes: int | None = None
    listen: tuple[str, int] | None = None
    announce: str | None = None
    seeds: tuple[tuple[str, int], ...] = ()
    network_id: bytes | None = None
    grace_days: int | None = None
    delegate: bool | None = None
    """Whether to look after the volumes of owners who ask for it."""
    price: int | None = None
    """Stroops for one TiB and 30 days."""
    ledger: LedgerConfig | None = None
    collateral_stroops: int | None = None
    payout: str | None = None


async def run_host(options: HostOptions, say: Callable[[str], None]) -> None:
    """Be a host until SIGTERM or SIGINT. `say` takes lines for a person, the last of them "ready".

    Raises StateInUse, LocalError, NewerFormat, CorruptFile, UsageError, Unreachable (no seed knows the network),
    perhaps inside exception groups.
    """
    directory = HostDirectory(options.directory)
    before = directory.settings()
    if not (options.space_bytes or before):
        raise UsageError("say how much space others may use: --space 100G")
    directory.lock()
    try:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_stop_at, signals, nursery.cancel_scope)
                plan = await _plan(options, before, directory.peers())
                host = await trio.to_thread.run_sync(ServingHost, directory, plan)
                started = await nursery.start(host.run)
                _save(directory, plan, started)
                _introduce(directory, plan, started, say)
                await host.left()
                say("left      nothing is due any more; with --price it takes contracts again")
                nursery.cancel_scope.cancel()
        say("stopped")
    finally:
        directory.unlock()


async def _stop_at(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


async def _plan(options: HostOptions, before: HostSettings | None, peers: Sequence[str]) -> HostPlan:
    listen, port = options.listen or ((before.listen, before.port) if before else DEFAULT_LISTEN)
    known = tuple(parse_address(peer) for peer in peers[:_PEERS_ASKED])
    return HostPlan(
        network_id=await _network_id(options, before),
        listen=await _literal(listen),
        port=port,
        space_bytes=options.space_bytes or (before.space_bytes if before else 0),
        seeds=tuple(dict.fromkeys(options.seeds + known)),
        announce=_announce(options, before),
        grace_seconds=_grace_days(options, before) * DAY_SECONDS,
        delegate=bool(before and before.delegate) if options.delegate is None else options.delegate,
        earning=_earning(options, before),
    )


def _earning(options: HostOptions, before: HostSettings | None) -> EarningPlan | None:
    """As asked, or as before; None: the host is free. Raises UsageError."""
    known = before if before is not None and before.price else None
    price = options.price or (known.price if known else 0)
    if not price:
        if options.ledger or options.payout or options.collateral_stroops:
            raise UsageError("say what a TiB costs for 30 days: --price XLM; without a price nobody pays")
        return None
    horizon, passphrase = (known.horizon, known.passphrase) if known else ((), "")
    if options.ledger is not None:
        if known and options.ledger.passphrase != passphrase:
            raise UsageError(f"{options.directory} is paid on another ledger; use another --dir for this one")
        horizon, passphrase = options.ledger.horizon, options.ledger.passphrase
    if not horizon:
        raise UsageError("say which ledger money is on: --ledger public, or test, or the address of a Horizon server")
    collateral = options.collateral_stroops
    return EarningPlan(
        price,
        horizon,
        passphrase,
        (known.collateral_stroops if known else 0) if collateral is None else collateral,
        (known.payout if known else "") if options.payout is None else options.payout,
        stays=options.price is not None,
    )


async def _network_id(options: HostOptions, before: HostSettings | None) -> bytes:
    """As asked, as before, as the seeds say; a host without seeds is the first of a new network."""
    stored = bytes.fromhex(before.network_id) if before else None
    if options.network_id is not None and stored not in {None, options.network_id}:
        raise UsageError(f"{options.directory} belongs to another network; use another --dir for this one")
    found = options.network_id or stored
    if found is None and options.seeds:
        return await _learn(options.seeds)
    return found or secrets.token_bytes(NETWORK_ID_BYTES)


async def _learn(seeds: Sequence[tuple[str, int]]) -> bytes:
    with trio.move_on_after(LEARN_SECONDS):
        return await learn_network_id(seeds)
    raise Unreachable(f"no seed answers: {', '.join(format_address(*seed) for seed in seeds)}")


async def _literal(host: str) -> str:
    """The IP address to listen on. Raises UsageError."""
    try:
        with trio.fail_after(LEARN_SECONDS):
            return (await resolve(Address(host, 0)))[0].host
    except (Unreachable, trio.TooSlowError):
        raise UsageError(f"cannot listen on {host}: it is neither an IP address nor a name that resolves") from None


def _grace_days(options: HostOptions, before: HostSettings | None) -> int:
    if options.grace_days is not None:
        return options.grace_days
    return before.grace_days if before else DEFAULT_GRACE_SECONDS // DAY_SECONDS


def _announce(options: HostOptions, before: HostSettings | None) -> str:
    address = options.announce if options.announce is not None else (before.announce if before else "")
    if address and not is_literal(address):
        raise UsageError(f"--announce takes an IP address, not {address!r}")
    return canonical(address) if address else ""


def _save(directory: HostDirectory, plan: HostPlan, started: HostStarted) -> None:
    directory.save_settings(
        HostSettings(
            network_id=plan.network_id.hex(),
            listen=plan.listen,
            port=started.port,
            space_bytes=plan.space_bytes,
            announce=plan.announce,
            grace_days=int(plan.grace_seconds // DAY_SECONDS),
            delegate=plan.delegate,
            **settings_of(plan.earning),
        )
    )


def settings_of(plan: EarningPlan | None) -> dict[str, Any]:
    """What of it is remembered in a host's settings."""
    return {} if plan is None else {name: getattr(plan, name) for name in _REMEMBERED}


def _introduce(directory: HostDirectory, plan: HostPlan, started: HostStarted, say: Callable[[str], None]) -> None:
    announced = format_address(started.announced, started.port)
    gib = 1 << 30
    held, free = started.statistics.used_bytes / gib, started.statistics.free_bytes / gib
    say(f"host      {started.node_id.hex()}")
    say(f"network   {plan.network_id.hex()}")
    say(f"listening {format_address(plan.listen, started.port)} (TCP and UDP), others are told {announced}")
    say(f"pieces    {started.statistics.pieces:,} in {directory.path}, {held:.1f} GiB; room for {free:.1f} GiB more")
    if started.statistics.free_bytes < plan.space_bytes - started.statistics.used_bytes:
        say("warning   the disk has less free space than was set aside")
    if plan.delegate:
        say(f"delegate  of {started.delegations} volumes; owners ask for it with   layrfs delegate {announced}")
    if plan.earning is not None:
        say(f"price     {shown_lumens(plan.earning.price)} XLM for a TiB and 30 days")
        say(f"wallet    {started.wallet} (owners pay into it; it takes 2 XLM once to begin)")
    say(f"more hosts join with   layrfs host run --space 100G --seed {announced}")
    say(f"owners join with       layrfs net join {announced}")
    say("ready")
