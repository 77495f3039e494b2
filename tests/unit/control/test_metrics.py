"""The page for Prometheus."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from layrfs.control.metrics import exposition
from layrfs.model.health import HealthReport
from layrfs.model.status import HostStatus, MoneyStatus, NetworkStatus, VolumeStatus

_SAMPLE = re.compile(r'(layrfs_[a-z_]+)\{[a-z]+="(?:[^"\\\n]|\\[\\"n])*"(?:,[a-z]+="(?:[^"\\\n]|\\[\\"n])*")*\} -?\d+')


def test_shards_are_counted_once_and_hosts_by_name() -> None:
    hosts = (
        HostStatus("ab", "1.2.3.4:5", "online", 10, pieces=7),
        HostStatus("cd", "", "silent", 0, 2, "suspended, silent for 30 h"),
    )
    network = NetworkStatus("", embedded=True, known_hosts=5, reachable_hosts=4)
    page = exposition(
        VolumeStatus(
            "photos",
            "/m",
            shards=10,
            degraded_shards=3,
            lost_shards=1,
            health=HealthReport(degraded=1, at_risk=1, lost=1, waiting=2, eta_seconds=40),
            hosts=hosts,
            network=network,
        )
    )
    for line in (
        'layrfs_shards{volume="photos",health="good"} 7',
        'layrfs_shards{volume="photos",health="degraded"} 1',
        'layrfs_shards{volume="photos",health="at risk"} 1',
        'layrfs_patch_seconds{volume="photos"} 40',
        'layrfs_shards{volume="photos",health="lost"} 1',
        'layrfs_host_pieces{volume="photos",host="cd",state="silent",standing="suspended"} 2',
        'layrfs_reachable_hosts{volume="photos"} 4',
    ):
        assert line in page.splitlines()


@given(st.text(), st.integers(0, 1 << 60))
def test_every_line_is_one_that_prometheus_reads(volume: str, files: int) -> None:
    page = exposition(VolumeStatus(volume, "", files=files))
    assert page.endswith("\n")
    announced = ""
    for line in page[:-1].split("\n"):
        if line.startswith("# TYPE "):
            announced = line.split()[2]
        elif not line.startswith("# HELP "):
            sample = _SAMPLE.fullmatch(line)
            assert sample is not None, line
            assert sample[1] == announced


def test_money_is_there_where_hosts_are_paid() -> None:
    assert "stroops" not in exposition(VolumeStatus("photos", "/mnt"))
    money = MoneyStatus(
        max_price=3, budget=None, per_month=7, forecast=8, paid=5, in_contracts=6, wallet=9, runway_seconds=None,
        contracts=2, too_dear=1,
    )  # fmt: skip
    page = exposition(VolumeStatus("photos", "/mnt", money=money))
    assert 'layrfs_cost_stroops{volume="photos"} 7' in page
    assert 'layrfs_wallet_stroops{volume="photos"} 9' in page
    assert "budget" not in page
    assert "runway" not in page
