"""``layrfs status [PATH]``: the drive, or one path of it, at a glance."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time

from layrfs.cli.arguments import add_json, add_volume
from layrfs.cli.locating import MountedPath, mounted_path, running_client
from layrfs.cli.rendering import (
    say,
    say_json,
    shown_bytes,
    shown_count,
    shown_path,
    shown_seconds,
    table,
)
from layrfs.control.client import ControlClient
from layrfs.control.commands import PATH_STATUS, STATUS, AtPath, Nothing
from layrfs.errors import UsageError
from layrfs.logs import printable
from layrfs.model.health import HEALTHY, HealthReport
from layrfs.model.lumens import shown_lumens
from layrfs.model.status import BlockRun, Following, HostStatus, MoneyStatus, NetworkStatus, PathStatus, VolumeStatus

_WATCH_SECONDS = 1.0
_HOME_AND_CLEAR = "\x1b[H\x1b[J"
_SHOWN_ID = 12


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument(
        "path", metavar="PATH", nargs="?", help="a file or directory below a mountpoint, block by block"
    )
    parser.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    add_volume(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises NotRunning when nothing is mounted."""
    if arguments.watch and arguments.json:
        raise UsageError("--watch and --json do not go together")
    if arguments.path is None:
        client, place = running_client(arguments.volume), None
    else:
        place = mounted_path(arguments.path)
        client = place.client
    if not arguments.watch:
        _show(client, place, as_json=arguments.json)
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        _watch(client, place)
    return 0


def _watch(client: ControlClient, place: MountedPath | None) -> None:
    while True:
        if sys.stdout.isatty():
            sys.stdout.write(_HOME_AND_CLEAR)
        _show(client, place, as_json=False)
        sys.stdout.flush()
        time.sleep(_WATCH_SECONDS)


def _show(client: ControlClient, place: MountedPath | None, *, as_json: bool) -> None:
    status = client.call(STATUS, Nothing()) if place is None else client.call(PATH_STATUS, AtPath(place.within))
    if as_json:
        say_json(status)
    elif isinstance(status, VolumeStatus):
        say(*volume_page(status))
    else:
        say(*path_page(status))


def volume_page(status: VolumeStatus) -> list[str]:
    """The lines of ``layrfs status``."""
    rows = [
        ("files", f"{shown_count(status.files, 'file')}, {shown_bytes(status.file_bytes)}"),
        (
            "cache",
            f"{shown_bytes(status.cached_bytes)} of {shown_bytes(status.cache_limit_bytes)} kept on this machine",
        ),
        *([("pinned", _pinned(status))] if status.pinned_bytes or status.unfetched_bytes else []),
        *([("follows", _following(status, status.follows))] if status.follows else [("upload", _upload(status))]),
        ("health", _health(status)),
        *([("patching", _patching(status.health))] if status.health.waiting or status.health.made_anew else []),
    ]
    if status.money is not None:
        rows.append(("money", money_line(status.money)))
    if status.network is not None:
        rows.append(("network", network_line(status.network)))
    return [
        _title(status),
        *table(rows, indent="  "),
        *host_lines(status.hosts),
        *_endangered(status.health),
        *(f"  ! {printable(problem)}" for problem in status.problems),
    ]


def path_page(status: PathStatus) -> list[str]:
    """The lines of ``layrfs status PATH``."""
    here = f"{shown_bytes(status.cached_bytes)} of it on this machine"
    if status.dirty_bytes:
        here += f", {shown_bytes(status.dirty_bytes)} not on the network yet"
    if status.kind == "directory":
        size = f"{shown_count(status.files, 'file')}, {shown_bytes(status.size)}; {here}"
    else:
        size = f"{shown_bytes(status.size)} in blocks of {shown_bytes(status.block_bytes)}; {here}"
    return [
        f"{shown_path(status.path)}  {status.state}{_health_word(status.health)}",
        *table([("size", size), ("redundancy", _redundancy(status))], indent="  "),
        *table([_run_row(run) for run in status.runs], indent="  "),
    ]


def _health_word(health: str) -> str:
    """Nothing where all is well."""
    return "" if health in {"", HEALTHY} else f", {health}"


def _redundancy(status: PathStatus) -> str:
    if not status.otherwise_bytes:
        return status.redundancy
    return (
        f"{status.redundancy}; {shown_bytes(status.otherwise_bytes)} on hosts in another, coded anew in the background"
    )


def host_lines(hosts: tuple[HostStatus, ...]) -> list[str]:
    """A table of hosts."""
    if not hosts:
        return []
    rows = [
        (
            host.node_id[:_SHOWN_ID],
            printable(host.address),
            host.state,
            shown_count(host.pieces, "piece"),
            f"{shown_bytes(host.free_bytes)} free",
            f"{shown_lumens(host.price)} XLM" if host.price else "",
            host.standing,
        )
        for host in hosts
    ]
    return ["  hosts", *table(rows, indent="    ")]


def network_line(network: NetworkStatus) -> str:
    """Which network, and how many of its hosts answer."""
    name = (
        "embedded, five hosts on this machine"
        if network.embedded
        else f"{network.network_id[:_SHOWN_ID] or 'not found yet'}"
    )
    return f"{name}; {network.reachable_hosts} of {shown_count(network.known_hosts, 'known host')} answer"


def money_line(money: MoneyStatus) -> str:
    """What hosts cost, and how long what is there lasts."""
    parts = [f"{shown_lumens(money.per_month)} XLM a month"]
    if money.budget is not None:
        parts[0] += f" of {shown_lumens(money.budget)}"
    if money.forecast != money.per_month:
        parts.append(f"{shown_lumens(money.forecast)} when all is on hosts")
    parts.append(f"{shown_count(money.contracts, 'contract')} open with {shown_lumens(money.in_contracts)} XLM in them")
    parts.append("wallet not known" if money.wallet is None else f"{shown_lumens(money.wallet)} XLM in the wallet")
    if money.wallet is not None and money.max_price is not None:
        lasts = "for years" if money.runway_seconds is None else shown_seconds(money.runway_seconds)
        parts[-1] += f", lasts {lasts}"
    if money.too_dear:
        parts.append(f"{shown_count(money.too_dear, 'host')} too dear")
    return "; ".join(parts)


def _title(status: VolumeStatus) -> str:
    place = f"mounted at {printable(status.mountpoint)}" if status.mountpoint else "running without a mount"
    read_only = ", read only" if status.read_only else ""
    return f"volume {status.volume}, {place}{read_only}, for {shown_seconds(status.uptime_seconds)}"


def _following(status: VolumeStatus, follows: Following) -> str:
    ago = "not looked for yet"
    if follows.seen_seconds is not None:
        ago = f"the newest {shown_seconds(follows.seen_seconds)} ago"
    return f"{printable(follows.writer) or 'another machine'}, version {status.published_version}, {ago}"


def _pinned(status: VolumeStatus) -> str:
    here = f"{shown_bytes(status.pinned_bytes)} of it stay here"
    return f"{here}, {shown_bytes(status.unfetched_bytes)} on the way" if status.unfetched_bytes else here


def _upload(status: VolumeStatus) -> str:
    if not status.dirty_bytes:
        return "everything is on the network"
    line = f"{shown_bytes(status.dirty_bytes)} not on the network yet, {shown_bytes(status.upload_bytes_per_second)}/s"
    return line if status.eta_seconds is None else f"{line}, {shown_seconds(status.eta_seconds)} left"


def _health(status: VolumeStatus) -> str:
    health = status.health
    parts = [shown_count(status.shards, "shard")]
    if status.deleted_bytes:
        parts[0] += f" ({shown_bytes(status.deleted_bytes)} deleted, kept for snapshots or about to go)"
    if degraded := max(health.degraded, status.degraded_shards - health.at_risk - health.lost):
        parts.append(f"{degraded:,} with too few pieces")
    if health.at_risk:
        parts.append(f"{health.at_risk:,} AT RISK")
    if lost := max(health.lost, status.lost_shards):
        parts.append(f"{lost:,} LOST")
    if len(parts) == 1:
        parts.append("all with every piece")
    if away := sum(host.state == "silent" and host.pieces > 0 for host in status.hosts):
        parts.append(f"but {shown_count(away, 'host')} of theirs not seen now")
    return ", ".join(parts)


def _patching(health: HealthReport) -> str:
    done = f"{shown_count(health.made_anew, 'piece')} made anew since the start"
    if not health.waiting:
        return done
    left = "" if health.eta_seconds is None else f", {shown_seconds(health.eta_seconds)} of work"
    waiting = f"{shown_count(health.waiting, 'shard')} wait for new pieces{left}"
    return f"{waiting}; {done}" if health.made_anew else waiting


def _endangered(health: HealthReport) -> list[str]:
    return ["  most endangered", *(f"    {shown_path(path)}" for path in health.files)] if health.files else []


def _run_row(run: BlockRun) -> tuple[str, str, str]:
    last = run.first + run.count - 1
    numbers = f"block {run.first}" if run.count == 1 else f"blocks {run.first}-{last}"
    words = {
        "hole": "zeros, stored nowhere",
        "absent": "on hosts only",
        "clean": "here and on hosts",
        "dirty": "only here",
    }
    pieces = "" if run.local in {"hole", "dirty"} else f"{run.pieces} of {run.wanted} pieces"
    return numbers, words.get(run.local, run.local), pieces
