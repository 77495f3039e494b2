"""Hosts that leave for good are done without: the long version is `python -m tests.reliability.churn`."""

import os
import random
from pathlib import Path

from tests.drive import Drive, HostNetwork
from tests.reliability.churn import Churned, Load, heal, hurried

HOSTS = 5


def test_two_hosts_at_a_time_are_replaced_by_empty_ones(tmp_path: Path) -> None:
    """Until one is left of those that were there first; nobody gives a command."""
    dice = random.Random(3)
    with (
        HostNetwork(str(tmp_path / "hosts"), HOSTS) as hosts,
        hurried(str(tmp_path / "drive"), hosts, hurry=1000, patch_after_seconds=1) as drive,
    ):
        loads = [loaded_directory(drive.path, redundancy, dice, drive) for redundancy in ("mirror:3", "rs:2/4")]
        leaving = iter(dice.sample(range(HOSTS), HOSTS))
        for pair in zip(leaving, leaving, strict=False):
            for load in loads * 4:
                load.step()
            drive.sync()
            for number in pair:
                hosts.kill(number)
            for number in pair:
                hosts.replace(number)
            for load in loads:
                heal(hosts, drive, load, Churned())
        drive.remount(emptied=True)
        for load in loads:
            load.check_all(load.root)
            assert load.wrong == []


def loaded_directory(mountpoint: str, redundancy: str, dice: random.Random, drive: Drive) -> Load:
    root = os.path.join(mountpoint, redundancy.replace("/", "-"))
    os.mkdir(root)
    os.setxattr(root, "user.layrfs.redundancy", redundancy.encode())
    return Load(drive, root, dice)
