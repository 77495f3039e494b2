"""A drive's status as Prometheus reads it: the text exposition format, version 0.0.4.

Owns names, units and labels of what is measured; must not know how it is served. Names end in their unit, sizes are
bytes, times seconds, and nothing is a counter: all is of this moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from layrfs.model.status import HostStatus, MoneyStatus, VolumeStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metric(NamedTuple):
    """One gauge; ``samples`` are values by their labels."""

    name: str
    help: str
    samples: Sequence[tuple[dict[str, str], int]]


def exposition(status: VolumeStatus) -> str:
    """The whole page; every sample carries the volume's name."""
    return "".join(_lines(status.volume, metric) for metric in metrics(status))


def metrics(status: VolumeStatus) -> list[Metric]:
    """What there is to know about a drive."""
    network = status.network
    return [
        _one("files", "Files and directories in the volume.", status.files),
        _one("file_bytes", "Bytes of all files.", status.file_bytes),
        _one("cached_bytes", "Bytes of files kept on this machine.", status.cached_bytes),
        _one("cache_limit_bytes", "The most that is kept on this machine.", status.cache_limit_bytes),
        _one("dirty_bytes", "Bytes of files that are on no host yet.", status.dirty_bytes),
        _one("upload_bytes_per_second", "What reaches hosts at the moment.", status.upload_bytes_per_second),
        Metric("shards", "Shards by health, as the patcher sees it.", list(_shards(status))),
        _one("unreadable_shards", "Shards that no host delivered when last asked.", status.lost_shards),
        _one("patch_queue", "Shards that wait for new pieces.", status.health.waiting),
        _one("patch_seconds", "How long making them will take; 0 when unknown.", status.health.eta_seconds or 0),
        _one("published_version", "Version of the list of files that hosts have.", status.published_version),
        _one("unpublished", "1 while that is not the newest.", int(status.unpublished)),
        _one("problems", "Sentences that `layrfs status` shows with a mark.", len(status.problems)),
        _one("known_hosts", "Hosts this drive has heard of.", network.known_hosts if network else 0),
        _one("reachable_hosts", "Hosts that answer.", network.reachable_hosts if network else 0),
        Metric("host_pieces", "Pieces of this volume at each host.", list(_pieces(status.hosts))),
        *_money(status.money),
        _one("uptime_seconds", "For how long the drive runs.", status.uptime_seconds),
    ]


def _one(name: str, text: str, value: int) -> Metric:
    return Metric(name, text, [({}, value)])


def _money(money: MoneyStatus | None) -> list[Metric]:
    """Nothing where nobody is paid."""
    if money is None:
        return []
    known = {
        "wallet_stroops": ("What the wallet can spend.", money.wallet),
        "runway_seconds": (
            "Until a contract cannot be renewed; not there when that is years away.",
            money.runway_seconds,
        ),
        "budget_stroops": ("The most that hosts are paid in 30 days.", money.budget),
    }
    return [
        _one("cost_stroops", "What hosts are paid in 30 days for what they have.", money.per_month),
        _one("forecast_stroops", "The same when what waits on this machine is on hosts.", money.forecast),
        _one("paid_stroops", "Paid to hosts by contracts that are not over.", money.paid),
        _one("in_contracts_stroops", "In escrows.", money.in_contracts),
        _one("open_contracts", "Contracts with hosts.", money.contracts),
        _one("too_dear_hosts", "Hosts that ask for more than is paid.", money.too_dear),
        *(_one(name, text, value) for name, (text, value) in known.items() if value is not None),
    ]


def _shards(status: VolumeStatus) -> Iterator[tuple[dict[str, str], int]]:
    health = status.health
    bad = {
        "degraded": max(health.degraded, status.degraded_shards - health.at_risk - health.lost),
        "at risk": health.at_risk,
        "lost": health.lost,
    }
    for word, count in {"good": max(0, status.shards - sum(bad.values())), **bad}.items():
        yield {"health": word}, count


def _pieces(hosts: Sequence[HostStatus]) -> Iterator[tuple[dict[str, str], int]]:
    for host in hosts:
        yield {"host": host.node_id, "state": host.state, "standing": host.standing.partition(",")[0]}, host.pieces


def _lines(volume: str, metric: Metric) -> str:
    name = f"layrfs_{metric.name}"
    head = f"# HELP {name} {metric.help}\n# TYPE {name} gauge\n"
    return head + "".join(f"{name}{_labels(volume, labels)} {value}\n" for labels, value in metric.samples)


def _labels(volume: str, labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in {"volume": volume, **labels}.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
